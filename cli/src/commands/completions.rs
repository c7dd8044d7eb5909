//! `ravelin completions` and `ravelin man`.

use crate::arguments::Arguments;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::put;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Which shell to write a completion script for.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ravelin completions bash > /etc/bash_completion.d/ravelin")]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script.
pub(crate) fn run(arguments: &CompletionsArguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "ravelin",
        &mut script,
    );
    put(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Yes)
}

/// Prints the manual page of `ravelin` and of every command below it.
pub(crate) fn man() -> Outcome {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    render(&command, &mut page)
        .map_err(|error| Failure::usage(format!("cannot write the manual page: {error}")))?;
    put(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Yes)
}

fn render(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        render(below, page)?;
    }
    Ok(())
}
