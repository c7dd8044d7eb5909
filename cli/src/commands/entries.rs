//! `ravelin entry`: registration entries, which give a SPIFFE ID to the processes that have its selectors.

use super::agents::selectors_text;
use super::token::{spiffe_id_message, spiffe_id_text};
use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::limits;
use crate::output::{Rows, print_one, time_of_secs};
use clap::{Args, Subcommand};
use ravelin_proto::pb::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, GetEntryRequest,
    ListEntriesRequest, list_entries_request,
};
use ravelin_proto::pb::spire::api::types::{Entry, EntryMask, Selector, Status};
use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::{Value, json};
use std::time::Duration;

/// The verbs of `ravelin entry`.
#[derive(Debug, Subcommand)]
pub(crate) enum EntryCommand {
    /// List entries
    List(ListArguments),
    /// Show one entry
    Show(IdArguments),
    /// Create an entry
    Create(CreateArguments),
    /// Change fields of an entry
    Update(UpdateArguments),
    /// Delete an entry
    Delete(IdArguments),
}

/// Which entries.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin entry list --spiffe-id spiffe://shop.example/ns/shop/sa/orders"
)]
pub(crate) struct ListArguments {
    /// Only entries for this SPIFFE ID
    #[arg(long)]
    spiffe_id: Option<SpiffeId>,
    /// Only entries below this parent
    #[arg(long)]
    parent_id: Option<SpiffeId>,
}

/// Which entry.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ravelin entry show mesh:shop/orders")]
pub(crate) struct IdArguments {
    /// Its id, as `ravelin entry list` shows it
    id: String,
}

/// The new entry.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin entry create --spiffe-id spiffe://shop.example/batch \\\n    \
    --parent-id spiffe://shop.example/node/local --selector unix:uid:1001 --x509-svid-ttl 30m"
)]
pub(crate) struct CreateArguments {
    /// Id to give it; the CA makes one up otherwise
    #[arg(long)]
    id: Option<String>,
    /// The SPIFFE ID that the workload gets
    #[arg(long)]
    spiffe_id: SpiffeId,
    /// The agent, or the node alias, that may hand it out
    #[arg(long)]
    parent_id: SpiffeId,
    #[command(flatten)]
    fields: Fields,
}

/// The entry and its changes.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ravelin entry update 01890a5d-.. --x509-svid-ttl 10m")]
pub(crate) struct UpdateArguments {
    /// Its id, as `ravelin entry list` shows it
    id: String,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Debug, Args)]
struct Fields {
    /// A selector `type:value` that a workload must have; give it several times for several
    #[arg(long = "selector", value_name = "TYPE:VALUE")]
    selectors: Vec<String>,
    /// Life of its X509-SVIDs
    #[arg(long, value_parser = humantime::parse_duration)]
    x509_svid_ttl: Option<Duration>,
    /// Life of its JWT-SVIDs
    #[arg(long, value_parser = humantime::parse_duration)]
    jwt_svid_ttl: Option<Duration>,
    /// A DNS name for its X509-SVIDs
    #[arg(long = "dns-name")]
    dns_names: Vec<String>,
    /// A word that tells a workload which of its identities this is
    #[arg(long)]
    hint: Option<String>,
    /// May administer the CA over the network
    #[arg(long)]
    admin: Option<bool>,
}

/// Runs a verb.
pub(crate) async fn run(command: EntryCommand, shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    match command {
        EntryCommand::List(of) => list(&ca, &of, &shared).await,
        EntryCommand::Show(of) => {
            let request = GetEntryRequest {
                id: of.id,
                output_mask: None,
            };
            let entry = ca
                .entries()
                .get_entry(ask(request))
                .await
                .map_err(|status| Failure::status("show the entry", &status))?
                .into_inner();
            print_one(row(&entry), shared.output)
        }
        EntryCommand::Create(create) => create_entry(&ca, create, &shared).await,
        EntryCommand::Update(update) => update_entry(&ca, update, &shared).await,
        EntryCommand::Delete(of) => delete_entry(&ca, of.id).await,
    }
}

async fn list(ca: &Ca, of: &ListArguments, shared: &Shared) -> Outcome {
    let mut rows = Rows::new(&[
        "id",
        "spiffe_id",
        "parent_id",
        "selectors",
        "x509_svid_ttl_secs",
    ]);
    let mut page_token = String::new();
    loop {
        let filter = list_entries_request::Filter {
            by_spiffe_id: of.spiffe_id.as_ref().map(spiffe_id_message),
            by_parent_id: of.parent_id.as_ref().map(spiffe_id_message),
            ..list_entries_request::Filter::default()
        };
        let request = ListEntriesRequest {
            filter: Some(filter),
            page_size: limits::PAGE_ROWS,
            page_token,
            ..ListEntriesRequest::default()
        };
        let page = ca
            .entries()
            .list_entries(ask(request))
            .await
            .map_err(|status| Failure::status("list entries", &status))?
            .into_inner();
        for entry in &page.entries {
            rows.push(row(entry));
        }
        if page.next_page_token.is_empty() {
            return rows.print(shared.output);
        }
        page_token = page.next_page_token;
    }
}

async fn create_entry(ca: &Ca, create: CreateArguments, shared: &Shared) -> Outcome {
    let mut entry = Entry {
        id: create.id.unwrap_or_default(),
        spiffe_id: Some(spiffe_id_message(&create.spiffe_id)),
        parent_id: Some(spiffe_id_message(&create.parent_id)),
        ..Entry::default()
    };
    let _ = put_fields(&mut entry, create.fields)?;
    if entry.selectors.is_empty() {
        return Err(Failure::usage("an entry needs at least one --selector")
            .with_help("for example --selector unix:uid:1001; `ravelin explain --pid PID` shows what a process has"));
    }
    let results = ca
        .entries()
        .batch_create_entry(ask(BatchCreateEntryRequest {
            entries: vec![entry],
            output_mask: None,
        }))
        .await
        .map_err(|status| Failure::status("create the entry", &status))?
        .into_inner()
        .results;
    let result = results
        .into_iter()
        .next()
        .ok_or_else(|| Failure::no("the CA gave no result for the entry"))?;
    check("create the entry", result.status.as_ref())?;
    print_one(row(&result.entry.unwrap_or_default()), shared.output)
}

async fn update_entry(ca: &Ca, update: UpdateArguments, shared: &Shared) -> Outcome {
    let mut entry = Entry {
        id: update.id,
        ..Entry::default()
    };
    let mask = put_fields(&mut entry, update.fields)?;
    if mask == EntryMask::default() {
        return Err(Failure::usage("nothing to change was named")
            .with_help("see `ravelin entry update --help`"));
    }
    let results = ca
        .entries()
        .batch_update_entry(ask(BatchUpdateEntryRequest {
            entries: vec![entry],
            input_mask: Some(mask),
            output_mask: None,
        }))
        .await
        .map_err(|status| Failure::status("update the entry", &status))?
        .into_inner()
        .results;
    let result = results
        .into_iter()
        .next()
        .ok_or_else(|| Failure::no("the CA gave no result for the entry"))?;
    check("update the entry", result.status.as_ref())?;
    print_one(row(&result.entry.unwrap_or_default()), shared.output)
}

async fn delete_entry(ca: &Ca, id: String) -> Outcome {
    let results = ca
        .entries()
        .batch_delete_entry(ask(BatchDeleteEntryRequest { ids: vec![id] }))
        .await
        .map_err(|status| Failure::status("delete the entry", &status))?
        .into_inner()
        .results;
    for result in results {
        check("delete the entry", result.status.as_ref())?;
        say!("deleted {}", crate::output::escape_text(&result.id))?;
    }
    Ok(Exit::Yes)
}

fn put_fields(entry: &mut Entry, fields: Fields) -> Result<EntryMask, Failure> {
    let mut mask = EntryMask::default();
    for text in &fields.selectors {
        let selector = ravelin_proto::selector::Selector::parse(text)
            .map_err(|error| Failure::usage(format!("`{text}` is not a selector: {error}")))?;
        entry.selectors.push(Selector {
            r#type: selector.kind().to_owned(),
            value: selector.value().to_owned(),
        });
        mask.selectors = true;
    }
    if let Some(ttl) = fields.x509_svid_ttl {
        entry.x509_svid_ttl = seconds(ttl)?;
        mask.x509_svid_ttl = true;
    }
    if let Some(ttl) = fields.jwt_svid_ttl {
        entry.jwt_svid_ttl = seconds(ttl)?;
        mask.jwt_svid_ttl = true;
    }
    if !fields.dns_names.is_empty() {
        entry.dns_names = fields.dns_names;
        mask.dns_names = true;
    }
    if let Some(hint) = fields.hint {
        entry.hint = hint;
        mask.hint = true;
    }
    if let Some(admin) = fields.admin {
        entry.admin = admin;
        mask.admin = true;
    }
    Ok(mask)
}

fn seconds(ttl: Duration) -> Result<i32, Failure> {
    i32::try_from(ttl.as_secs())
        .map_err(|_| Failure::usage("a life is longer than an SVID can live"))
}

/// The status of one result of a batch.
pub(crate) fn check(what: &str, status: Option<&Status>) -> Result<(), Failure> {
    match status {
        None | Some(Status { code: 0, .. }) => Ok(()),
        Some(status) => Err(Failure::status(
            what,
            &tonic::Status::new(tonic::Code::from_i32(status.code), status.message.clone()),
        )),
    }
}

fn row(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "spiffe_id": spiffe_id_text(entry.spiffe_id.as_ref()),
        "parent_id": spiffe_id_text(entry.parent_id.as_ref()),
        "selectors": selectors_text(&entry.selectors),
        "x509_svid_ttl_secs": entry.x509_svid_ttl,
        "jwt_svid_ttl_secs": entry.jwt_svid_ttl,
        "dns_names": entry.dns_names,
        "hint": entry.hint,
        "admin": entry.admin,
        "revision": entry.revision_number,
        "created_at": time_of_secs(entry.created_at),
        "expires_at": time_of_secs(entry.expires_at),
    })
}
