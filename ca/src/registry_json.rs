//! Registration entries as canonical JSON: what the store keeps and the audit log digests.

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audit::canonical::to_canonical;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryRow {
    id: String,
    spiffe_id: SpiffeId,
    parent_id: SpiffeId,
    selectors: Vec<Selector>,
    x509_svid_ttl_secs: u32,
    jwt_svid_ttl_secs: u32,
    federates_with: Vec<TrustDomain>,
    is_admin: bool,
    is_downstream: bool,
    expires_ms: Option<i64>,
    dns_names: Vec<String>,
    hint: String,
    store_svid: bool,
    revision: u64,
    created_ms: i64,
    disable_x509_svid_prefetch: bool,
    jwt_svid_include_jti: bool,
}

/// The canonical JSON of an entry.
pub fn entry_to_json(entry: &RegistrationEntry) -> String {
    let row = EntryRow {
        id: entry.id.clone(),
        spiffe_id: entry.spiffe_id.clone(),
        parent_id: entry.parent_id.clone(),
        selectors: entry.selectors.clone(),
        x509_svid_ttl_secs: entry.x509_svid_ttl_secs,
        jwt_svid_ttl_secs: entry.jwt_svid_ttl_secs,
        federates_with: entry.federates_with.clone(),
        is_admin: entry.is_admin,
        is_downstream: entry.is_downstream,
        expires_ms: entry.expires_at.map(Timestamp::unix_millis),
        dns_names: entry.dns_names.clone(),
        hint: entry.hint.clone(),
        store_svid: entry.store_svid,
        revision: entry.revision,
        created_ms: entry.created_at.unix_millis(),
        disable_x509_svid_prefetch: entry.disable_x509_svid_prefetch,
        jwt_svid_include_jti: entry.jwt_svid_include_jti,
    };
    // INVARIANT: strings, numbers, lists and booleans always serialize.
    to_canonical(&serde_json::to_value(row).unwrap_or_default())
}

/// Reads what [`entry_to_json`] wrote.
pub fn entry_from_json(json: &str) -> Result<RegistrationEntry, String> {
    let row: EntryRow = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let mut entry = RegistrationEntry::new(&row.id, row.spiffe_id, row.parent_id, row.selectors);
    entry.x509_svid_ttl_secs = row.x509_svid_ttl_secs;
    entry.jwt_svid_ttl_secs = row.jwt_svid_ttl_secs;
    entry.federates_with = row.federates_with;
    entry.is_admin = row.is_admin;
    entry.is_downstream = row.is_downstream;
    entry.expires_at = row.expires_ms.map(Timestamp::from_unix_millis);
    entry.dns_names = row.dns_names;
    entry.hint = row.hint;
    entry.store_svid = row.store_svid;
    entry.revision = row.revision;
    entry.created_at = Timestamp::from_unix_millis(row.created_ms);
    entry.disable_x509_svid_prefetch = row.disable_x509_svid_prefetch;
    entry.jwt_svid_include_jti = row.jwt_svid_include_jti;
    Ok(entry)
}

/// SHA-256 over the canonical JSON, lower-case hex: what the audit log says of an entry.
pub fn digest_of(json: &str) -> String {
    hex::encode(Sha256::digest(json.as_bytes()))
}
