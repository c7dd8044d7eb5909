//! `ravelin svid fetch | watch | validate`: what the Workload API gives to this very process.

use super::bundle::pem_block;
use super::svid_mint;
use crate::arguments::Shared;
use crate::config;
use crate::connection::{WorkloadApi, ask_workload_api, workload_api};
use crate::exit::{Exit, Failure, Outcome};
use crate::limits;
use crate::output::{Format, Rows, escape_text, now, print_one, span};
use clap::{Args, Subcommand, ValueEnum};
use ravelin_proto::jws::CompactJws;
use ravelin_proto::jwt_svid;
use ravelin_proto::pb::{
    JwtsvidRequest, ValidateJwtsvidRequest, X509svid, X509svidRequest, X509svidResponse,
};
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::x509_svid::{LeafSvid, split_der_chain};
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::durable;
use ravelin_runtime::tls::{self, Expect, Identity, X509Bundles};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tonic::Streaming;

/// The verbs of `ravelin svid`.
#[derive(Debug, Subcommand)]
pub(crate) enum SvidCommand {
    /// Fetch an SVID of this process
    #[command(subcommand)]
    Fetch(FetchCommand),
    /// Show each new SVID and bundle as it comes
    #[command(after_help = "Example:\n  ravelin svid watch")]
    Watch(SocketArguments),
    /// Validate a JWT-SVID against the bundles of the Workload API
    Validate(ValidateArguments),
    /// Have the CA issue an SVID directly, without an agent (administrators)
    #[command(subcommand)]
    Mint(svid_mint::MintCommand),
}

/// Which kind to fetch.
#[derive(Debug, Subcommand)]
pub(crate) enum FetchCommand {
    /// X509-SVIDs, with their keys and bundle
    X509(FetchX509Arguments),
    /// A JWT-SVID for an audience
    Jwt(FetchJwtArguments),
}

/// Which Workload API.
#[derive(Debug, Clone, Args)]
pub(crate) struct SocketArguments {
    /// The Workload API socket; default `.ravelin/agent.sock` if it is there
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "PATH")]
    socket: Option<String>,
}

impl SocketArguments {
    async fn connect(&self) -> Result<WorkloadApi, Failure> {
        workload_api(&config::agent_socket(self.socket.as_deref())).await
    }
}

/// Where to put an X509-SVID.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ravelin svid fetch x509\n  ravelin svid fetch x509 --write ./svid     svid.0.pem, svid.0.key, bundle.0.pem"
)]
pub(crate) struct FetchX509Arguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// Write certificate, key and bundle of each SVID as PEM files to this folder
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

/// For whom a JWT-SVID is.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ravelin svid fetch jwt --audience payments\n  curl -H \"Authorization: Bearer $(ravelin svid fetch jwt --audience payments --raw)\" .."
)]
pub(crate) struct FetchJwtArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// Who is to accept it; give it several times for several
    #[arg(long, required = true)]
    audience: Vec<String>,
    /// Which of this process's identities; the first otherwise
    #[arg(long)]
    spiffe_id: Option<SpiffeId>,
    /// Print the token alone
    #[arg(long)]
    raw: bool,
}

/// What to validate.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ravelin svid validate jwt --audience payments - < token     the token in no process list\n  ravelin svid validate x509 svid.pem"
)]
pub(crate) struct ValidateArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// Kind of SVID
    kind: SvidKind,
    /// The token, `-` for stdin; for x509 a PEM file with the chain, leaf first
    svid: String,
    /// The audience that has to be in a JWT-SVID
    #[arg(long, required_if_eq("kind", "jwt"))]
    audience: Option<String>,
}

/// Kind of SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SvidKind {
    /// A certificate
    X509,
    /// A token
    Jwt,
}

/// Runs a verb.
pub(crate) async fn run(command: SvidCommand, shared: Shared) -> Outcome {
    match command {
        SvidCommand::Fetch(FetchCommand::X509(fetch)) => fetch_x509(fetch, &shared).await,
        SvidCommand::Fetch(FetchCommand::Jwt(fetch)) => fetch_jwt(fetch, &shared).await,
        SvidCommand::Watch(socket) => watch(&socket, &shared).await,
        SvidCommand::Validate(validate) => match validate.kind {
            SvidKind::Jwt => validate_jwt(validate, &shared).await,
            SvidKind::X509 => validate_x509(validate, &shared).await,
        },
        SvidCommand::Mint(mint) => svid_mint::run(mint, shared).await,
    }
}

async fn open_x509(socket: &SocketArguments) -> Result<Streaming<X509svidResponse>, Failure> {
    let stream = socket
        .connect()
        .await?
        .fetch_x509svid(ask_workload_api(X509svidRequest {}))
        .await
        .map_err(|status| no_identity("fetch an X509-SVID", &status))?;
    Ok(stream.into_inner())
}

async fn first_x509(socket: &SocketArguments) -> Result<X509svidResponse, Failure> {
    let mut stream = open_x509(socket).await?;
    let first = tokio::time::timeout(limits::CALL_DEADLINE, stream.message())
        .await
        .map_err(|_| Failure::unreachable("the Workload API gave no X509-SVID in time"))?;
    first
        .map_err(|status| no_identity("fetch an X509-SVID", &status))?
        .ok_or_else(|| Failure::unreachable("the Workload API ended the stream"))
}

fn no_identity(what: &str, status: &tonic::Status) -> Failure {
    let failure = Failure::status(what, status);
    if status.code() == tonic::Code::PermissionDenied {
        return failure.with_help("no entry fits this process: `ravelin explain --pid $$` says which selectors are missing");
    }
    failure
}

async fn fetch_x509(fetch: FetchX509Arguments, shared: &Shared) -> Outcome {
    let response = first_x509(&fetch.socket).await?;
    let mut rows = Rows::new(&[
        "spiffe_id",
        "serial",
        "authority",
        "expires_at",
        "left",
        "hint",
    ]);
    for (number, svid) in response.svids.iter().enumerate() {
        rows.push(row(svid)?);
        if let Some(folder) = &fetch.write {
            write(folder, number, svid)?;
        }
    }
    rows.print(shared.output)
}

fn row(svid: &X509svid) -> Result<Value, Failure> {
    let chain = split_der_chain(&svid.x509_svid).unwrap_or_default();
    let leaf = chain.first().copied().unwrap_or_default();
    let leaf = LeafSvid::parse(leaf)
        .map_err(|error| Failure::no(format!("the X509-SVID is malformed: {error}")))?;
    Ok(json!({
        "spiffe_id": leaf.id,
        "serial": leaf.serial,
        "authority": leaf.authority_id,
        "expires_at": leaf.validity.not_after,
        "left": span(leaf.validity.remaining(now())),
        "dns_names": leaf.dns_names,
        "hint": svid.hint,
    }))
}

fn write(folder: &Path, number: usize, svid: &X509svid) -> Result<(), Failure> {
    durable::create_private_dir(folder).map_err(|error| Failure::file("create", folder, error))?;
    let certificates = |der: &[u8]| -> String {
        let all = split_der_chain(der).unwrap_or_default();
        all.iter()
            .map(|one| pem_block("CERTIFICATE", one))
            .collect()
    };
    let files = [
        (
            format!("svid.{number}.pem"),
            certificates(&svid.x509_svid),
            0o644,
        ),
        (
            format!("svid.{number}.key"),
            pem_block("PRIVATE KEY", &svid.x509_svid_key),
            0o600,
        ),
        (
            format!("bundle.{number}.pem"),
            certificates(&svid.bundle),
            0o644,
        ),
    ];
    for (name, text, mode) in files {
        let path = folder.join(name);
        durable::write_atomically(&path, text.as_bytes(), mode)
            .map_err(|error| Failure::file("write", &path, error))?;
    }
    Ok(())
}

async fn fetch_jwt(fetch: FetchJwtArguments, shared: &Shared) -> Outcome {
    let request = JwtsvidRequest {
        audience: fetch.audience,
        spiffe_id: fetch.spiffe_id.map(|id| id.to_string()).unwrap_or_default(),
    };
    let mut request = ask_workload_api(request);
    request.set_timeout(limits::CALL_DEADLINE);
    let svids = fetch
        .socket
        .connect()
        .await?
        .fetch_jwtsvid(request)
        .await
        .map_err(|status| no_identity("fetch a JWT-SVID", &status))?
        .into_inner()
        .svids;
    if fetch.raw {
        let svid = svids
            .first()
            .ok_or_else(|| Failure::no("the Workload API gave no JWT-SVID"))?;
        say!("{}", svid.svid)?;
        return Ok(Exit::Yes);
    }
    let mut rows = Rows::new(&["spiffe_id", "audience", "expires_at", "left", "key_id"]);
    for svid in &svids {
        let token = CompactJws::parse(&svid.svid)
            .map_err(|error| Failure::no(format!("the JWT-SVID is malformed: {error}")))?;
        let claims = jwt_svid::read_claims(&token)
            .map_err(|error| Failure::no(format!("the JWT-SVID is malformed: {error}")))?;
        rows.push(json!({
            "spiffe_id": claims.id,
            "audience": claims.audience,
            "expires_at": claims.expires_at,
            "left": span(claims.expires_at.since(now())),
            "key_id": claims.key_id,
            "claims": claims.claims,
            "token": svid.svid,
        }));
    }
    rows.print(shared.output)?;
    if shared.output == Format::Table {
        for svid in &svids {
            say!("\n{}", escape_text(&svid.svid))?;
        }
    }
    Ok(Exit::Yes)
}

async fn watch(socket: &SocketArguments, shared: &Shared) -> Outcome {
    let mut stream = open_x509(socket).await?;
    loop {
        let next = tokio::select! {
            next = stream.message() => next,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Yes),
        };
        let response = next
            .map_err(|status| no_identity("watch the X509-SVID", &status))?
            .ok_or_else(|| Failure::unreachable("the Workload API ended the stream"))?;
        let mut rows = Rows::new(&["spiffe_id", "serial", "authority", "expires_at", "left"]);
        for svid in &response.svids {
            rows.push(row(svid)?);
        }
        let format = if shared.output == Format::Json {
            Format::Jsonl
        } else {
            shared.output
        };
        rows.print(format)?;
    }
}

async fn validate_jwt(validate: ValidateArguments, shared: &Shared) -> Outcome {
    let token = if validate.svid == "-" {
        read_stdin()?
    } else {
        validate.svid.clone()
    };
    let request = ValidateJwtsvidRequest {
        audience: validate.audience.unwrap_or_default(),
        svid: token.trim().to_owned(),
    };
    let mut request = ask_workload_api(request);
    request.set_timeout(limits::CALL_DEADLINE);
    let answer = validate
        .socket
        .connect()
        .await?
        .validate_jwtsvid(request)
        .await;
    match answer {
        Ok(answer) => print_one(
            json!({"valid": true, "spiffe_id": answer.get_ref().spiffe_id}),
            shared.output,
        ),
        Err(status) if status.code() == tonic::Code::InvalidArgument => Err(Failure::no(format!(
            "not a valid JWT-SVID: {}",
            escape_text(status.message())
        ))),
        Err(status) => Err(no_identity("validate the JWT-SVID", &status)),
    }
}

fn read_stdin() -> Result<String, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    std::io::stdin()
        .take(limits::INPUT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("cannot read stdin: {error}")))?;
    Ok(text)
}

async fn validate_x509(validate: ValidateArguments, shared: &Shared) -> Outcome {
    use rustls_pki_types::pem::PemObject as _;
    let path = PathBuf::from(&validate.svid);
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_file_iter(&path)
        .map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", path.display())))?
        .collect();
    let chain = chain
        .map_err(|error| Failure::usage(format!("`{}` is not PEM: {error}", path.display())))?;
    let response = first_x509(&validate.socket).await?;
    let bundles = bundles(&response)?;
    match tls::verify_chain(&bundles, &chain, now()) {
        Ok(peer) => print_one(
            json!({"valid": true, "spiffe_id": peer.id, "serial": peer.serial, "expires_at": peer.not_after}),
            shared.output,
        ),
        Err(error) => Err(Failure::no(format!("not a valid X509-SVID: {error}"))),
    }
}

fn bundles(response: &X509svidResponse) -> Result<X509Bundles, Failure> {
    let mut bundles = X509Bundles::new();
    let own = response.svids.iter().map(|svid| {
        let domain = SpiffeId::parse(&svid.spiffe_id).map(|id| id.trust_domain());
        (domain.map_err(|error| error.to_string()), &svid.bundle)
    });
    let federated = response.federated_bundles.iter().map(|(domain, der)| {
        (
            TrustDomain::parse(domain).map_err(|error| error.to_string()),
            der,
        )
    });
    for (domain, der) in own.chain(federated) {
        let domain = domain.map_err(|error| {
            Failure::no(format!("the Workload API gave a malformed name: {error}"))
        })?;
        let authorities = split_der_chain(der).unwrap_or_default();
        let authorities: Vec<CertificateDer<'_>> =
            authorities.into_iter().map(CertificateDer::from).collect();
        bundles.insert(domain, &authorities);
    }
    Ok(bundles)
}

/// What an administrator shows to a CA over the network: the first identity of this process. The entry of that identity has to
/// say `admin`.
pub(crate) async fn admin_tls() -> Result<Arc<ClientConfig>, Failure> {
    let response = first_x509(&SocketArguments { socket: None }).await?;
    let svid = response
        .svids
        .first()
        .ok_or_else(|| Failure::no("the Workload API gave no X509-SVID to show to the CA"))?;
    let identity = Identity::from_der(&svid.x509_svid, &svid.x509_svid_key).map_err(|error| {
        Failure::no(format!(
            "the X509-SVID of this process cannot be used: {error}"
        ))
    })?;
    let domain = identity.id.trust_domain();
    let server =
        SpiffeId::new(&domain, "/spire/server").map_err(|error| Failure::no(error.to_string()))?;
    tls::client_config(
        Some(&identity),
        Arc::new(bundles(&response)?),
        Expect::OneOf(vec![server]),
        &[b"h2"],
        SystemClock::shared(),
    )
    .map_err(|error| {
        Failure::no(format!(
            "the X509-SVID of this process cannot be used: {error}"
        ))
    })
}
