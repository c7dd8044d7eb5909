//! What the deny-list names, of the SVIDs that the agent holds. Pure.

use ravelin_proto::pb::ravelin::v1::{Denylist, denylist_entry::Subject};
use ravelin_proto::spiffe_id::SpiffeId;

use super::{JwtToken, X509Svid};

/// True when the deny-list names this SVID by serial, or by its identity and time of issue.
pub(crate) fn is_denied(denylist: &Denylist, svid: &X509Svid) -> bool {
    denylist.entries.iter().any(|entry| match &entry.subject {
        Some(Subject::Serial(serial)) => *serial == svid.serial,
        Some(Subject::SpiffeId(id)) => {
            is_id(id, &svid.spiffe_id)
                && (entry.issued_until == 0 || svid.issued_at.unix_secs() <= entry.issued_until)
        }
        Some(Subject::AgentId(_)) => entry.serials.contains(&svid.serial),
        Some(Subject::Jti(_)) | None => false,
    })
}

/// True when the deny-list names this token by its `jti`, or by its identity and time of issue.
pub(crate) fn is_token_denied(denylist: &Denylist, token: &JwtToken) -> bool {
    denylist.entries.iter().any(|entry| match &entry.subject {
        Some(Subject::Jti(jti)) => token.jti.as_ref() == Some(jti),
        Some(Subject::SpiffeId(id)) => {
            is_id(id, &token.spiffe_id)
                && (entry.issued_until == 0 || token.issued_at.unix_secs() <= entry.issued_until)
        }
        Some(Subject::Serial(_) | Subject::AgentId(_)) | None => false,
    })
}

fn is_id(text: &str, id: &SpiffeId) -> bool {
    text == id.as_str()
}
