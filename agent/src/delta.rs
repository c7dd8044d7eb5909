//! Messages of the sync stream into what the cache takes, and the cache back into a snapshot for
//! the disk: a restart runs the same code as a message of the CA. Pure.

use ravelin_proto::convert::{self, ConvertError};
use ravelin_proto::pb::ravelin::v1::{AuthorityState, MeshRevision, SyncResponse};

use crate::cache::{AuthorityChange, Cache, Delta};

/// Puts a message that came in parts together again: every part but the last has revision 0 and
/// nothing but entries. Applied one by one, the first part of a snapshot would take the identities
/// of the later parts away for a moment.
#[derive(Debug, Default)]
pub(crate) struct Parts(Option<SyncResponse>);

impl Parts {
    /// Takes a message; returns the whole once its last part has come.
    pub(crate) fn take(&mut self, mut message: SyncResponse) -> Option<SyncResponse> {
        let is_part = message.revision == 0
            && !message.upserted_entries.is_empty()
            && message.bundle.is_none()
            && message.authorities.is_none();
        if let Some(mut held) = self.0.take() {
            held.upserted_entries.append(&mut message.upserted_entries);
            held.removed_entry_ids
                .append(&mut message.removed_entry_ids);
            message.upserted_entries = held.upserted_entries;
            message.removed_entry_ids = held.removed_entry_ids;
            message.is_snapshot |= held.is_snapshot;
        }
        let is_too_long = message.upserted_entries.len() > crate::limits::ENTRIES_MAX;
        if is_part && !is_too_long {
            self.0 = Some(message);
            return None;
        }
        Some(message)
    }
}

/// Splits a message into the part for the cache and the mesh revision.
///
/// An entry that cannot be read is left out (and named), so that one bad entry does not cut all
/// others off; a bundle that cannot be read refuses the message.
pub(crate) fn from_pb(
    response: SyncResponse,
) -> Result<(Delta, Option<MeshRevision>), ConvertError> {
    let mut delta = Delta {
        revision: response.revision,
        is_snapshot: response.is_snapshot,
        removed: response.removed_entry_ids,
        denylist: response.denylist,
        authorities: response.authorities.map(|state| AuthorityChange {
            active_x509: state.active_x509_authority_id,
            active_jwt: state.active_jwt_authority_id,
            is_reissue: state.reissue,
            reissue_per_sec_max: state.reissue_per_sec_max,
        }),
        ..Delta::default()
    };
    for entry in response.upserted_entries {
        let id = entry.id.clone();
        match convert::entry_from_pb(entry) {
            Ok(entry) => delta.upserted.push(entry),
            Err(error) => {
                tracing::warn!(entry = ?id, %error, "leaving out an entry that cannot be read");
                delta.removed.push(id);
            }
        }
    }
    delta.bundle = response.bundle.map(convert::bundle_from_pb).transpose()?;
    delta.federated = response
        .federated_bundles
        .into_iter()
        .map(convert::bundle_from_pb)
        .collect::<Result<_, _>>()?;
    Ok((delta, response.mesh))
}

/// The whole state as one snapshot.
pub(crate) fn snapshot(cache: &Cache, mesh: Option<MeshRevision>) -> SyncResponse {
    let authorities = cache.authorities();
    SyncResponse {
        revision: cache.revision(),
        is_snapshot: true,
        upserted_entries: cache
            .entries()
            .map(|entry| convert::entry_to_pb(entry))
            .collect(),
        removed_entry_ids: Vec::new(),
        bundle: cache.bundle().as_deref().map(convert::bundle_to_pb),
        federated_bundles: cache
            .federated()
            .values()
            .map(|bundle| convert::bundle_to_pb(bundle))
            .collect(),
        mesh,
        denylist: Some(cache.denylist().as_ref().clone()),
        authorities: Some(AuthorityState {
            active_x509_authority_id: authorities.active_x509.clone(),
            active_jwt_authority_id: authorities.active_jwt.clone(),
            reissue: authorities.is_reissue,
            reissue_per_sec_max: authorities.reissue_per_sec_max,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ravelin_proto::bundle::Bundle;
    use ravelin_proto::entry::RegistrationEntry;
    use ravelin_proto::pb::ravelin::v1::Denylist;
    use ravelin_proto::selector::Selector;
    use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
    use ravelin_proto::time::Timestamp;

    #[test]
    fn a_snapshot_for_the_disk_reads_back_as_the_same_cache() {
        let td = TrustDomain::parse("td").unwrap();
        let id = |text| SpiffeId::parse(text).unwrap();
        let mut cache = Cache::new(td.clone());
        let delta = Delta {
            revision: 7,
            upserted: vec![RegistrationEntry::new(
                "mesh:default/a",
                id("spiffe://td/a"),
                id("spiffe://td/node/local"),
                vec![Selector::parse("unix:uid:1").unwrap()],
            )],
            bundle: Some(Bundle {
                sequence: 3,
                ..Bundle::new(td.clone())
            }),
            denylist: Some(Denylist {
                number: 2,
                ..Denylist::default()
            }),
            authorities: Some(AuthorityChange {
                active_x509: "k".into(),
                ..AuthorityChange::default()
            }),
            ..Delta::default()
        };
        cache.apply(delta, Timestamp::default()).unwrap();
        let kept = snapshot(&cache, None);
        let (delta, mesh) = from_pb(kept.clone()).unwrap();
        let mut restarted = Cache::new(td);
        restarted.apply(delta, Timestamp::default()).unwrap();
        assert_eq!(snapshot(&restarted, mesh), kept);
        assert_eq!(restarted.bundle_sequence(), 3);
    }

    #[test]
    fn a_snapshot_in_parts_is_one_snapshot() {
        let entries = |ids: &[&str]| -> Vec<_> {
            ids.iter()
                .map(|id| ravelin_proto::pb::spire::api::types::Entry {
                    id: (*id).into(),
                    ..Default::default()
                })
                .collect()
        };
        let part = |revision, is_snapshot, ids: &[&str]| SyncResponse {
            revision,
            is_snapshot,
            upserted_entries: entries(ids),
            ..SyncResponse::default()
        };
        let mut parts = Parts::default();
        assert_eq!(parts.take(part(0, true, &["a", "b"])), None);
        assert_eq!(parts.take(part(0, false, &["c"])), None);
        let whole = parts.take(part(9, false, &["d"])).unwrap();
        assert_eq!(whole, part(9, true, &["a", "b", "c", "d"]));
        let next = part(10, false, &["e"]);
        assert_eq!(parts.take(next.clone()), Some(next), "nothing is left over");
    }

    #[test]
    fn one_unreadable_entry_does_not_cut_off_the_others() {
        let entry = |id: &str, path: &str| ravelin_proto::pb::spire::api::types::Entry {
            id: id.into(),
            spiffe_id: Some(ravelin_proto::pb::spire::api::types::Spiffeid {
                trust_domain: "td".into(),
                path: path.into(),
            }),
            parent_id: Some(ravelin_proto::pb::spire::api::types::Spiffeid {
                trust_domain: "td".into(),
                path: "/node".into(),
            }),
            selectors: vec![ravelin_proto::pb::spire::api::types::Selector {
                r#type: "unix".into(),
                value: "uid:1".into(),
            }],
            ..Default::default()
        };
        let response = SyncResponse {
            upserted_entries: vec![entry("good", "/a"), entry("bad", "/a//b")],
            ..SyncResponse::default()
        };
        let (delta, _) = from_pb(response).unwrap();
        assert_eq!(delta.upserted.len(), 1);
        assert_eq!(delta.removed, ["bad"]);
    }
}
