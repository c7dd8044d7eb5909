//! `ravelin revoke` and `ravelin denylist`: identities that are cut off before they expire.

use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Rows, escape_text, print_one, time_of_secs};
use clap::{Args, Subcommand};
use ravelin_proto::pb::ravelin::v1::{
    DenylistEntry, ListDenylistRequest, RemoveDenylistEntryRequest, RevokeRequest, denylist_entry,
    revoke_request,
};
use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::{Value, json};

/// What is cut off.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin revoke --spiffe-id spiffe://shop.example/ns/shop/sa/orders --reason \"key copied\"
  ravelin revoke --serial 3fa9..          one X509-SVID
  ravelin revoke --agent spiffe://..      an agent and all that it handed out
Proxies enforce it on new and on open connections within seconds.")]
pub(crate) struct RevokeArguments {
    #[command(flatten)]
    subject: Subject,
    /// Why; it is kept in the audit log
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// Every SVID of this SPIFFE ID that has been issued so far
    #[arg(long)]
    spiffe_id: Option<SpiffeId>,
    /// The X509-SVID with this serial number (hexadecimal)
    #[arg(long)]
    serial: Option<String>,
    /// This agent, and every X509-SVID issued through it
    #[arg(long)]
    agent: Option<SpiffeId>,
    /// The JWT-SVID with this `jti`
    #[arg(long)]
    jti: Option<String>,
}

/// The verbs of `ravelin denylist`.
#[derive(Debug, Subcommand)]
pub(crate) enum DenylistCommand {
    /// List what is cut off
    #[command(after_help = "Example:\n  ravelin denylist list")]
    List,
    /// Take an entry off the list
    #[command(after_help = "Example:\n  ravelin denylist remove 01890a5d-..")]
    Remove {
        /// Its id, as `ravelin denylist list` shows it
        id: String,
    },
}

/// Adds an entry to the deny-list.
pub(crate) async fn revoke(arguments: RevokeArguments, shared: Shared) -> Outcome {
    let subject = arguments.subject;
    let subject = if let Some(id) = subject.spiffe_id {
        revoke_request::Subject::SpiffeId(id.to_string())
    } else if let Some(serial) = subject.serial {
        revoke_request::Subject::Serial(canonical_serial(&serial)?)
    } else if let Some(agent) = subject.agent {
        revoke_request::Subject::AgentId(agent.to_string())
    } else {
        revoke_request::Subject::Jti(subject.jti.unwrap_or_default())
    };
    let ca = Ca::connect(&shared).await?;
    let request = RevokeRequest {
        subject: Some(subject),
        reason: arguments.reason,
    };
    let entry = ca
        .admin()
        .revoke(ask(request))
        .await
        .map_err(|status| Failure::status("revoke", &status))?
        .into_inner();
    print_one(row(&entry), shared.output)
}

/// Runs a verb.
pub(crate) async fn run(command: DenylistCommand, shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    match command {
        DenylistCommand::List => {
            let list = ca
                .admin()
                .list_denylist(ask(ListDenylistRequest {}))
                .await
                .map_err(|status| Failure::status("list the deny-list", &status))?
                .into_inner();
            let mut rows = Rows::new(&[
                "id",
                "subject",
                "value",
                "reason",
                "created_at",
                "expires_at",
                "created_by",
            ]);
            for entry in &list.entries {
                rows.push(row(entry));
            }
            rows.print(shared.output)
        }
        DenylistCommand::Remove { id } => {
            let entry = ca
                .admin()
                .remove_denylist_entry(ask(RemoveDenylistEntryRequest { id }))
                .await
                .map_err(|status| Failure::status("remove the entry", &status))?
                .into_inner();
            say!("removed {}", escape_text(&entry.id))?;
            Ok(Exit::Yes)
        }
    }
}

fn row(entry: &DenylistEntry) -> Value {
    let (subject, value) = match &entry.subject {
        Some(denylist_entry::Subject::SpiffeId(value)) => ("spiffe_id", value.as_str()),
        Some(denylist_entry::Subject::Serial(value)) => ("serial", value.as_str()),
        Some(denylist_entry::Subject::AgentId(value)) => ("agent_id", value.as_str()),
        Some(denylist_entry::Subject::Jti(value)) => ("jti", value.as_str()),
        None => ("unknown", ""),
    };
    json!({
        "id": entry.id,
        "subject": subject,
        "value": value,
        "reason": entry.reason,
        "created_at": time_of_secs(entry.created_at),
        "expires_at": time_of_secs(entry.expires_at),
        "created_by": entry.created_by,
    })
}

/// A serial as it stands in certificates' text forms (colons, upper case, zeros in front) in the form of the deny-list.
fn canonical_serial(text: &str) -> Result<String, Failure> {
    let hex: String = text.chars().filter(|character| *character != ':').collect();
    let hex = hex.to_ascii_lowercase();
    let hex = hex.strip_prefix("0x").unwrap_or(&hex);
    let hex = hex.trim_start_matches('0');
    if hex.is_empty() || !hex.chars().all(|character| character.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!(
            "`{}` is not a serial number in hexadecimal",
            escape_text(text)
        )));
    }
    Ok(hex.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_read_in_the_forms_in_which_tools_print_it() {
        let table = [
            ("3fa9", Some("3fa9")),
            ("3F:A9", Some("3fa9")),
            ("0x003fa9", Some("3fa9")),
            ("00:3f:a9", Some("3fa9")),
            ("", None),
            ("xyz", None),
        ];
        for (text, want) in table {
            assert_eq!(canonical_serial(text).ok().as_deref(), want, "{text}");
        }
    }
}
