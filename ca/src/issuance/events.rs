//! What issuance puts on record: the events of the audit log and the rows of issued SVIDs.

use super::authorize::Grant;
use super::issuer::IssueRefusal;
use super::template::{Claims, Contents};
use crate::audit::Event;
use crate::authority::state::Kind;
use crate::store::IssuedSvid;

fn agent_text(grant: &Grant) -> String {
    grant
        .agent_id()
        .map(ToString::to_string)
        .unwrap_or_default()
}

pub(super) fn x509_row(contents: &Contents, grant: &Grant) -> IssuedSvid {
    IssuedSvid {
        serial: contents.serial.to_string(),
        kind: Kind::X509,
        spiffe_id: contents.id.clone(),
        agent_id: agent_text(grant),
        authority_id: contents.authority_id.clone(),
        entry_id: grant.entry_id().to_owned(),
        not_after: contents.validity.not_after,
    }
}

pub(super) fn x509_event(
    kind: &'static str,
    actor: &str,
    contents: &Contents,
    grant: &Grant,
) -> Event {
    Event::new(kind, actor)
        .with("svid_kind", "x509")
        .with("spiffe_id", contents.id.as_str())
        .with("serial", contents.serial.to_string())
        .with("agent_id", agent_text(grant))
        .with("entry_id", grant.entry_id())
        .with("authority_id", contents.authority_id.as_str())
        .with("not_after", contents.validity.not_after.rfc3339())
}

pub(super) fn jwt_row(claims: &Claims, grant: &Grant) -> IssuedSvid {
    IssuedSvid {
        serial: claims.jti.clone(),
        kind: Kind::Jwt,
        spiffe_id: claims.id.clone(),
        agent_id: agent_text(grant),
        authority_id: claims.key_id.clone(),
        entry_id: grant.entry_id().to_owned(),
        not_after: claims.expires_at,
    }
}

pub(super) fn jwt_event(kind: &'static str, actor: &str, claims: &Claims, grant: &Grant) -> Event {
    Event::new(kind, actor)
        .with("svid_kind", "jwt")
        .with("spiffe_id", claims.id.as_str())
        .with("jti", claims.jti.as_str())
        .with("audience", claims.audience.clone())
        .with("agent_id", agent_text(grant))
        .with("entry_id", grant.entry_id())
        .with("authority_id", claims.key_id.as_str())
        .with("not_after", claims.expires_at.rfc3339())
}

pub(super) fn refused(svid_kind: &str, actor: &str, refusal: &IssueRefusal) -> Event {
    Event::new("svid.refused", actor)
        .with("svid_kind", svid_kind)
        .with("code", refusal.code())
        .with("reason", refusal.to_string())
}
