//! `ravelin proxy capture`: the packet filter's rules that lead an application's connections to its proxy.
//!
//! The rules themselves are made in `ravelin_proxy::capture::rules`; here they are shown, or given to `nft`.

use crate::exit::{Exit, Failure, Outcome};
use crate::output::{escape_text, put};
use clap::Args;
use ipnet::IpNet;
use ravelin_proxy::ProxyConfig;
use ravelin_proxy::capture::rules::{self, Choices, Rules, RulesError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where `nft` is when the search path of the caller does not name it, as that of users other than root.
const NFT: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];
/// Where users are named.
const USERS: &str = "/etc/passwd";

/// What to do with which rules.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin proxy capture --print --config /etc/ravelin/proxy.toml --user ravelin-proxy
  ravelin proxy capture --apply --config /etc/ravelin/proxy.toml --user ravelin-proxy --exclude-port 8081
  ravelin proxy capture --undo --config /etc/ravelin/proxy.toml

What is captured stands below `[capture]` in the configuration of the proxy; docs/capture.md tells the whole.
The rules are a table of their own, `inet ravelin_NAME`: applying them again replaces it, undoing removes nothing else.")]
pub(crate) struct CaptureArguments {
    #[command(flatten)]
    action: Action,
    /// The configuration of the proxy (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A user, by name or number, whose connections are not redirected: first of all the one that the proxy runs as
    #[arg(long = "user", value_name = "USER")]
    users: Vec<String>,
    /// A port that is dialled directly, such as that of the CA
    #[arg(long = "exclude-port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    exclude_ports: Vec<u16>,
    /// A network that is dialled directly
    #[arg(long = "exclude-network", value_name = "CIDR")]
    exclude_networks: Vec<IpNet>,
    /// The program that loads the rules
    #[arg(long, value_name = "FILE")]
    nft: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Action {
    /// Show the rules and change nothing
    #[arg(long)]
    print: bool,
    /// Put the rules in place, instead of those that this proxy has
    #[arg(long)]
    apply: bool,
    /// Remove the rules of this proxy
    #[arg(long)]
    undo: bool,
}

/// Shows, applies or removes the rules.
pub(crate) fn run(arguments: &CaptureArguments) -> Outcome {
    let config =
        ProxyConfig::load(&arguments.config).map_err(|error| Failure::usage(error.to_string()))?;
    let nft = arguments.nft.as_deref();
    let table = rules::table(&config.name).map_err(|error| refused(&error))?;
    if arguments.action.undo {
        load(
            nft,
            &rules::undo(&config.name).map_err(|error| refused(&error))?,
        )?;
        say!("the table `{table}` is gone; connections that are open stay as they are")?;
        return Ok(Exit::Yes);
    }
    let rules = Rules::new(&config, arguments.choices()?).map_err(|error| refused(&error))?;
    let text = rules.apply().map_err(|error| refused(&error))?;
    if arguments.action.print {
        return put(&text).map(|()| Exit::Yes);
    }
    load(nft, &text)?;
    say!("the table `{table}` is in place; connections that are open stay as they are")?;
    Ok(Exit::Yes)
}

impl CaptureArguments {
    fn choices(&self) -> Result<Choices, Failure> {
        let users = self.users.iter().map(|user| user_number(user));
        Ok(Choices {
            users: users.collect::<Result<_, _>>()?,
            exclude_ports: self.exclude_ports.iter().copied().collect(),
            exclude_networks: self.exclude_networks.iter().copied().collect(),
        })
    }
}

fn refused(error: &RulesError) -> Failure {
    let failure = Failure::usage(error.to_string());
    match error {
        RulesError::NoUser => failure.with_help(
            "name it with `--user`; without that the proxy's own connections are redirected to it",
        ),
        RulesError::Root => failure.with_help("let the proxy run as a user of its own"),
        RulesError::Nothing => failure.with_help("docs/capture.md shows the keys"),
        RulesError::Name(_) | RulesError::NoPort(_) => failure,
    }
}

/// A number, or the number of a name.
fn user_number(user: &str) -> Result<u32, Failure> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    let users = std::fs::read_to_string(USERS)
        .map_err(|error| Failure::file("read", Path::new(USERS), error))?;
    named(&users, user).ok_or_else(|| {
        Failure::usage(format!("`{}` is not a user of {USERS}", escape_text(user))).with_help(
            "users that another service knows are named by their number, as `id -u` tells it",
        )
    })
}

/// The number of a user in the text of passwd(5).
fn named(users: &str, name: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_named = fields.next() == Some(name);
        fields.nth(1).filter(|_| is_named)?.parse().ok()
    })
}

/// Gives rules to `nft`, which takes all of them or none.
fn load(nft: Option<&Path>, text: &str) -> Result<(), Failure> {
    let output = match nft {
        Some(program) => feed(program, text),
        None => NFT
            .iter()
            .map(|program| feed(Path::new(program), text))
            .find(|fed| !is_missing(fed))
            .unwrap_or_else(|| Err(ErrorKind::NotFound.into())),
    };
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(
                Failure::unreachable("there is no program `nft` to load the rules with").with_help(
                    "install the package `nftables`; `--print` shows the rules without it",
                ),
            );
        }
        Err(error) => return Err(Failure::unreachable(format!("cannot run `nft`: {error}"))),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = escape_text(said.lines().next().unwrap_or_default());
    if said.contains("Operation not permitted") || said.contains("must be root") {
        return Err(Failure::no(format!(
            "the kernel lets nobody else change its rules: {first}"
        ))
        .with_help("run it as root, or with the capability CAP_NET_ADMIN"));
    }
    Err(
        Failure::usage(format!("`nft` does not take the rules: {first}")).with_help(
            "`--print` shows them; the kernel needs nf_tables with `nat`, `redir` and `fib`",
        ),
    )
}

fn is_missing(fed: &std::io::Result<Output>) -> bool {
    fed.as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn feed(program: &Path, text: &str) -> std::io::Result<Output> {
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let written = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    // WHY: a program that ends early says more by its exit than by the pipe that it closed.
    match written {
        Some(Err(error)) if output.status.success() => Err(error),
        Some(_) | None => Ok(output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nravelin-proxy:x:990:990::/:/bin/false\nbroken\nodd:x:no:1::/:\n";
        for (name, want) in [
            ("ravelin-proxy", Some(990)),
            ("root", Some(0)),
            ("ravelin", None),
            ("broken", None),
            ("odd", None),
            ("", None),
        ] {
            assert_eq!(named(users, name), want, "{name}");
        }
        assert_eq!(user_number("990"), Ok(990));
    }
}
