//! `ravelin policy schema`: the JSON Schema of the mesh folder's kinds, for an editor.

use crate::exit::{Exit, Failure, Outcome};
use crate::output::put;
use clap::Args;
use ravelin_policies::{schema_kinds, schema_of_all, schema_of_kind};

/// Which kind.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ravelin policy schema > ravelin.schema.json\n  ravelin policy schema AuthorizationPolicy\n\nAn editor with yaml-language-server takes it by the first line of a file:\n  # yaml-language-server: $schema=../ravelin.schema.json"
)]
pub(crate) struct SchemaArguments {
    /// One kind; default: a schema for documents of every kind
    kind: Option<String>,
}

/// Prints the schema, as JSON in any output format.
pub(crate) fn run(arguments: &SchemaArguments) -> Outcome {
    let schema = match arguments.kind.as_deref() {
        None => schema_of_all(),
        Some(kind) => schema_of_kind(kind).ok_or_else(|| {
            Failure::usage(format!("there is no kind `{}`", kind.escape_default()))
                .with_help(format!("the kinds are {}", schema_kinds().join(", ")))
        })?,
    };
    put(&format!("{schema:#}\n"))?;
    Ok(Exit::Yes)
}
