//! The one mapping from the CA's refusals and failures to gRPC status codes.
//!
//! What a caller may not have and what does not exist look alike outside; the log and the audit log tell them apart.

use prost::Message as _;
use ravelin_proto::convert::ConvertError;
use ravelin_proto::pb::spire::api::types::{self as pb, permission_denied_details::Reason};
use tonic::{Code, Status};

use super::access::AccessRefusal;
use super::store_status;
use crate::attest::join_token::{AttestError, AttestRefusal, TokenError};
use crate::authority::custody::CustodyError;
use crate::authority::state::VerbRefusal;
use crate::issuance::authorize::GrantRefusal;
use crate::issuance::issuer::{IssueError, IssueRefusal};
use crate::server_identity::ServerIdentityError;

/// The answer of a method that this server does not have.
pub fn unimplemented(path: &str) -> Status {
    let shown: String = path
        .chars()
        .filter(char::is_ascii_graphic)
        .take(200)
        .collect();
    Status::unimplemented(format!(
        "`{}` is not implemented",
        shown.trim_start_matches('/')
    ))
}

/// A refusal of the gate. Agents learn in SPIRE's own words what to do about it.
pub fn of_access(refusal: AccessRefusal, path: &str) -> Status {
    let text = refusal.to_string();
    match refusal {
        AccessRefusal::Unknown => unimplemented(path),
        AccessRefusal::Anonymous => Status::unauthenticated(text),
        AccessRefusal::Banned => agent_refusal(text, Reason::AgentBanned),
        AccessRefusal::FormerAgent => agent_refusal(text, Reason::AgentNotActive),
        AccessRefusal::Expired => agent_refusal(text, Reason::AgentExpired),
        AccessRefusal::Role | AccessRefusal::Authority | AccessRefusal::Denied => {
            Status::permission_denied(text)
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

fn agent_refusal(message: String, reason: Reason) -> Status {
    let details = pb::PermissionDeniedDetails {
        reason: reason.into(),
    };
    let status = RpcStatus {
        code: Code::PermissionDenied.into(),
        message: message.clone(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".to_owned(),
            value: details.encode_to_vec(),
        }],
    };
    Status::with_details(
        Code::PermissionDenied,
        message,
        status.encode_to_vec().into(),
    )
}

/// A message with a field that is missing or malformed.
pub fn of_convert(error: &ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A refused SVID.
pub fn of_issue_refusal(refusal: &IssueRefusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        // One answer for an entry that is not there and one that belongs to another agent.
        IssueRefusal::Grant(GrantRefusal::Entry(_)) => Status::not_found(text),
        IssueRefusal::Grant(GrantRefusal::Agent) => Status::permission_denied(text),
        IssueRefusal::Csr(_) | IssueRefusal::Grant(_) | IssueRefusal::Lint(_) => {
            Status::invalid_argument(text)
        }
        IssueRefusal::Clock(_) | IssueRefusal::NoAuthority(_) => Status::unavailable(text),
    }
}

/// An SVID that did not come out.
pub fn of_issue(error: &IssueError) -> Status {
    match error {
        IssueError::Refused(refusal) => of_issue_refusal(refusal),
        IssueError::Store(error) => store_status(error),
        IssueError::Sign(error) => internal("signing failed", error),
        IssueError::Jwt(error) => internal("signing failed", error),
    }
}

/// An attestation that did not happen.
pub fn of_attest(error: &AttestError) -> Status {
    match error {
        AttestError::Refused(refusal) => match refusal {
            AttestRefusal::Token(_) => Status::invalid_argument(refusal.to_string()),
            AttestRefusal::Exists(_) => Status::permission_denied(refusal.to_string()),
            AttestRefusal::Throttled => Status::resource_exhausted(refusal.to_string()),
        },
        AttestError::Issue(error) => of_issue(error),
        AttestError::Id(_) | AttestError::Selector(_) => internal("attestation failed", error),
    }
}

/// A token that was not made.
pub fn of_token(error: &TokenError) -> Status {
    let text = error.to_string();
    match error {
        TokenError::Form | TokenError::Life | TokenError::Alias(_) => {
            Status::invalid_argument(text)
        }
        TokenError::Exists => Status::already_exists(text),
        TokenError::Store(error) => store_status(error),
        TokenError::Agent(error) => of_attest(error),
    }
}

/// A verb that did not happen.
pub fn of_custody(error: &CustodyError) -> Status {
    match error {
        CustodyError::Refused(refusal) => match refusal {
            VerbRefusal::Unknown { .. } => Status::not_found(refusal.to_string()),
            VerbRefusal::PreparedAlready(_)
            | VerbRefusal::TooMany(_)
            | VerbRefusal::WrongState { .. }
            | VerbRefusal::Expired(_) => Status::failed_precondition(refusal.to_string()),
        },
        CustodyError::Store(error) => store_status(error),
        CustodyError::NoneActive(_) => Status::unavailable(error.to_string()),
        CustodyError::Keys(_) | CustodyError::Make(_) | CustodyError::Sign(_) => {
            internal("the authority's key could not be used", error)
        }
    }
}

/// The server has no SVID of its own.
pub fn of_server(error: &ServerIdentityError) -> Status {
    internal("the server's own SVID could not be issued", error)
}

fn internal(outside: &'static str, error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, source = ?error.source(), "{outside}");
    Status::internal(outside)
}
