//! `ravelin authority`: the states of the authorities, one step at a time. `ravelin rotate` does the whole cycle.

use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Rows, time_of_secs};
use clap::{Args, Subcommand, ValueEnum};
use ravelin_proto::pb::ravelin::v1::{AuthorityKind, ListAuthoritiesRequest};
use ravelin_proto::pb::spire::api::server::localauthority::v1 as local;
use serde_json::json;

/// The verbs of `ravelin authority`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// List the authorities and their states
    #[command(after_help = "Example:\n  ravelin authority list")]
    List,
    /// Make a new key and publish it; it does not sign yet
    #[command(after_help = "Example:\n  ravelin authority prepare x509")]
    Prepare {
        /// Kind of authority
        kind: Kind,
    },
    /// Let a prepared authority sign
    Activate(WhichArguments),
    /// Mark an old authority as not to be trusted; SVIDs of it are renewed at once
    Taint(WhichArguments),
    /// Remove a tainted authority from the bundle
    Revoke(WhichArguments),
}

/// Kind of authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The key that signs X509-SVIDs
    X509,
    /// The key that signs JWT-SVIDs
    Jwt,
}

impl Kind {
    /// As the rotation API carries it.
    pub(crate) fn message(self) -> AuthorityKind {
        match self {
            Self::X509 => AuthorityKind::X509,
            Self::Jwt => AuthorityKind::Jwt,
        }
    }
}

/// Which authority.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin authority activate x509 6f1c..\n`ravelin authority list` shows the ids"
)]
pub(crate) struct WhichArguments {
    /// Kind of authority
    kind: Kind,
    /// Its id: the subject key id, or the JWT key id
    authority_id: String,
}

/// Runs a verb.
pub(crate) async fn run(command: AuthorityCommand, shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    match command {
        AuthorityCommand::List => list(&ca, &shared).await,
        AuthorityCommand::Prepare { kind } => prepare(&ca, kind).await,
        AuthorityCommand::Activate(which) => activate(&ca, which).await,
        AuthorityCommand::Taint(which) => taint(&ca, which).await,
        AuthorityCommand::Revoke(which) => revoke(&ca, which).await,
    }
}

async fn list(ca: &Ca, shared: &Shared) -> Outcome {
    let authorities = ca
        .rotation()
        .list_authorities(ask(ListAuthoritiesRequest {}))
        .await
        .map_err(|status| Failure::status("list authorities", &status))?
        .into_inner()
        .authorities;
    let mut rows = Rows::new(&[
        "kind",
        "authority_id",
        "state",
        "tainted",
        "not_before",
        "expires_at",
        "svids",
    ]);
    for authority in authorities {
        rows.push(json!({
            "kind": kind_text(authority.kind()),
            "authority_id": authority.authority_id,
            "state": authority.state,
            "tainted": authority.is_tainted,
            "not_before": time_of_secs(authority.not_before),
            "expires_at": time_of_secs(authority.expires_at),
            "svids": authority.svids,
        }));
    }
    rows.print(shared.output)
}

/// The word for a kind of authority.
pub(crate) fn kind_text(kind: AuthorityKind) -> &'static str {
    match kind {
        AuthorityKind::X509 => "x509",
        AuthorityKind::Jwt => "jwt",
        AuthorityKind::Unspecified => "unknown",
    }
}

fn report(what: &str, authority: Option<local::AuthorityState>) -> Outcome {
    let id = authority
        .map(|authority| authority.authority_id)
        .unwrap_or_default();
    say!("{what} {}", crate::output::escape_text(&id))?;
    Ok(Exit::Yes)
}

async fn prepare(ca: &Ca, kind: Kind) -> Outcome {
    let failed = |status: tonic::Status| Failure::status("prepare an authority", &status);
    let prepared = match kind {
        Kind::X509 => {
            let request = ask(local::PrepareX509AuthorityRequest {});
            let answer = ca.authorities().prepare_x509_authority(request).await;
            answer.map_err(failed)?.into_inner().prepared_authority
        }
        Kind::Jwt => {
            let request = ask(local::PrepareJwtAuthorityRequest {});
            let answer = ca.authorities().prepare_jwt_authority(request).await;
            answer.map_err(failed)?.into_inner().prepared_authority
        }
    };
    report("prepared", prepared)
}

async fn activate(ca: &Ca, which: WhichArguments) -> Outcome {
    let authority_id = which.authority_id;
    let failed = |status: tonic::Status| Failure::status("activate the authority", &status);
    let activated = match which.kind {
        Kind::X509 => {
            let request = ask(local::ActivateX509AuthorityRequest { authority_id });
            let answer = ca.authorities().activate_x509_authority(request).await;
            answer.map_err(failed)?.into_inner().activated_authority
        }
        Kind::Jwt => {
            let request = ask(local::ActivateJwtAuthorityRequest { authority_id });
            let answer = ca.authorities().activate_jwt_authority(request).await;
            answer.map_err(failed)?.into_inner().activated_authority
        }
    };
    report("activated", activated)
}

async fn taint(ca: &Ca, which: WhichArguments) -> Outcome {
    let authority_id = which.authority_id;
    let failed = |status: tonic::Status| Failure::status("taint the authority", &status);
    let tainted = match which.kind {
        Kind::X509 => {
            let request = ask(local::TaintX509AuthorityRequest { authority_id });
            let answer = ca.authorities().taint_x509_authority(request).await;
            answer.map_err(failed)?.into_inner().tainted_authority
        }
        Kind::Jwt => {
            let request = ask(local::TaintJwtAuthorityRequest { authority_id });
            let answer = ca.authorities().taint_jwt_authority(request).await;
            answer.map_err(failed)?.into_inner().tainted_authority
        }
    };
    report("tainted", tainted)
}

async fn revoke(ca: &Ca, which: WhichArguments) -> Outcome {
    let authority_id = which.authority_id;
    let failed = |status: tonic::Status| Failure::status("revoke the authority", &status);
    let revoked = match which.kind {
        Kind::X509 => {
            let request = ask(local::RevokeX509AuthorityRequest { authority_id });
            let answer = ca.authorities().revoke_x509_authority(request).await;
            answer.map_err(failed)?.into_inner().revoked_authority
        }
        Kind::Jwt => {
            let request = ask(local::RevokeJwtAuthorityRequest { authority_id });
            let answer = ca.authorities().revoke_jwt_authority(request).await;
            answer.map_err(failed)?.into_inner().revoked_authority
        }
    };
    report("revoked", revoked)
}
