//! The `ravelin` command: everything that a person types.
//!
//! `arguments` names the grammar, one file below `commands/` holds a command group, `up/` starts a whole mesh on one
//! machine, `tour/` makes its calls. Exit codes: 0 yes or done, 1 a considered no, 2 wrong usage or bad input, 3 the
//! other side cannot be reached.

/// A line to stdout, as `println!` writes it; `put` says what becomes of errors.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::put(&format!("{}\n", format_args!($($text)*)))
    };
}

mod arguments;
mod commands;
mod config;
mod connection;
mod decision_log;
mod demo;
mod exit;
mod git_folder;
mod http_call;
mod launch;
mod limits;
mod mesh_folder;
mod output;
mod tour;
mod up;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    ravelin_runtime::crypto::install();
    match commands::dispatch(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit().into()
        }
    }
}
