//! Identities that are cut off before they expire, indexed for the question of one connection or call.
//!
//! Pure. A list with a lower number than the one in use is refused by the caller (`policy_store`).

use std::collections::HashMap;

use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::time::Timestamp;

/// The deny-list in use.
#[derive(Debug, Default)]
pub struct Denylist {
    number: u64,
    serials: HashMap<String, i64>,
    identities: HashMap<String, Cut>,
    jtis: HashMap<String, i64>,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    expires_at: i64,
    issued_until: i64,
}

impl Denylist {
    /// Reads the message. An entry without subject is refused by code, because its meaning is unknown.
    pub fn from_pb(list: &pb::Denylist) -> Result<Self, &'static str> {
        use pb::denylist_entry::Subject;
        let mut denylist = Self {
            number: list.number,
            ..Self::default()
        };
        for entry in &list.entries {
            let cut = Cut {
                expires_at: entry.expires_at,
                issued_until: entry.issued_until,
            };
            match &entry.subject {
                Some(Subject::SpiffeId(id)) => {
                    denylist
                        .identities
                        .entry(id.clone())
                        .and_modify(|known| known.widen(cut))
                        .or_insert(cut);
                }
                Some(Subject::AgentId(id)) => {
                    let whole = Cut {
                        issued_until: 0,
                        ..cut
                    };
                    denylist
                        .identities
                        .entry(id.clone())
                        .and_modify(|known| known.widen(whole))
                        .or_insert(whole);
                }
                Some(Subject::Serial(serial)) => {
                    keep_longest(&mut denylist.serials, serial, cut.expires_at);
                }
                Some(Subject::Jti(jti)) => keep_longest(&mut denylist.jtis, jti, cut.expires_at),
                None => return Err("denylist_entry_unknown"),
            }
            for serial in &entry.serials {
                keep_longest(&mut denylist.serials, serial, cut.expires_at);
            }
        }
        Ok(denylist)
    }

    /// Number of the list; only grows.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True for a peer that is cut off. `issued_at` is the start of its SVID's validity.
    pub fn is_peer_denied(
        &self,
        id: &str,
        serial: &str,
        issued_at: Timestamp,
        now: Timestamp,
    ) -> bool {
        if self.identities.is_empty() && self.serials.is_empty() {
            return false;
        }
        let is_live = |expires_at: i64| expires_at == 0 || now.unix_secs() < expires_at;
        self.serials
            .get(serial)
            .is_some_and(|expires_at| is_live(*expires_at))
            || self.identities.get(id).is_some_and(|cut| {
                is_live(cut.expires_at)
                    && (cut.issued_until == 0 || issued_at.unix_secs() <= cut.issued_until)
            })
    }

    /// True for a token that is cut off.
    pub fn is_token_denied(
        &self,
        jti: Option<&str>,
        subject: Option<&str>,
        issued_at: Option<i64>,
        now: Timestamp,
    ) -> bool {
        let is_live = |expires_at: i64| expires_at == 0 || now.unix_secs() < expires_at;
        jti.and_then(|jti| self.jtis.get(jti))
            .is_some_and(|expires_at| is_live(*expires_at))
            || subject
                .and_then(|subject| self.identities.get(subject))
                .is_some_and(|cut| {
                    is_live(cut.expires_at)
                        && (cut.issued_until == 0
                            || issued_at.is_none_or(|issued_at| issued_at <= cut.issued_until))
                })
    }
}

impl Cut {
    /// INVARIANT: two entries for one identity cut off at least what each cuts off.
    fn widen(&mut self, other: Self) {
        self.expires_at = later(self.expires_at, other.expires_at);
        self.issued_until = later(self.issued_until, other.issued_until);
    }
}

fn later(left: i64, right: i64) -> i64 {
    if left == 0 || right == 0 {
        0
    } else {
        left.max(right)
    }
}

fn keep_longest(map: &mut HashMap<String, i64>, key: &str, expires_at: i64) {
    map.entry(key.to_owned())
        .and_modify(|known| *known = later(*known, expires_at))
        .or_insert(expires_at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::denylist_entry::Subject;

    const NOW: i64 = 1_000;

    fn entry(
        subject: Subject,
        expires_at: i64,
        issued_until: i64,
        serials: &[&str],
    ) -> pb::DenylistEntry {
        pb::DenylistEntry {
            subject: Some(subject),
            expires_at,
            issued_until,
            serials: serials.iter().map(|serial| (*serial).to_owned()).collect(),
            ..pb::DenylistEntry::default()
        }
    }

    fn denylist(entries: Vec<pb::DenylistEntry>) -> Denylist {
        Denylist::from_pb(&pb::Denylist { number: 7, entries }).unwrap()
    }

    #[test]
    fn a_peer_is_denied_by_identity_serial_or_agent_while_the_entry_lives() {
        let id = || Subject::SpiffeId("spiffe://td/a".into());
        let rows = [
            ("identity", entry(id(), 2_000, 0, &[]), true),
            ("without end", entry(id(), 0, 0, &[]), true),
            ("over", entry(id(), 1_000, 0, &[]), false),
            ("issued before", entry(id(), 2_000, 500, &[]), true),
            ("issued after", entry(id(), 2_000, 400, &[]), false),
            (
                "another",
                entry(Subject::SpiffeId("spiffe://td/b".into()), 2_000, 0, &[]),
                false,
            ),
            (
                "serial",
                entry(Subject::Serial("ab".into()), 2_000, 0, &[]),
                true,
            ),
            (
                "of an agent",
                entry(
                    Subject::AgentId("spiffe://td/agent".into()),
                    2_000,
                    0,
                    &["cd", "ab"],
                ),
                true,
            ),
            (
                "token",
                entry(Subject::Jti("spiffe://td/a".into()), 2_000, 0, &[]),
                false,
            ),
        ];
        for (name, entry, want) in rows {
            let list = denylist(vec![entry]);
            let is_denied = list.is_peer_denied(
                "spiffe://td/a",
                "ab",
                Timestamp::from_unix_secs(500),
                Timestamp::from_unix_secs(NOW),
            );
            assert_eq!(is_denied, want, "{name}");
        }
    }

    #[test]
    fn two_entries_for_one_identity_deny_what_each_denies() {
        let id = || Subject::SpiffeId("spiffe://td/a".into());
        let list = denylist(vec![entry(id(), 900, 0, &[]), entry(id(), 2_000, 500, &[])]);
        let now = Timestamp::from_unix_secs(NOW);
        assert!(list.is_peer_denied("spiffe://td/a", "", Timestamp::from_unix_secs(400), now));
    }

    #[test]
    fn a_token_is_denied_by_its_id_or_its_subject() {
        let list = denylist(vec![
            entry(Subject::Jti("j".into()), 2_000, 0, &[]),
            entry(Subject::SpiffeId("spiffe://td/a".into()), 2_000, 500, &[]),
        ]);
        let now = Timestamp::from_unix_secs(NOW);
        let rows = [
            (Some("j"), None, None, true),
            (Some("k"), None, None, false),
            (None, Some("spiffe://td/a"), Some(400), true),
            (None, Some("spiffe://td/a"), Some(600), false),
            (None, Some("spiffe://td/a"), None, true),
        ];
        for (jti, subject, issued_at, want) in rows {
            assert_eq!(
                list.is_token_denied(jti, subject, issued_at, now),
                want,
                "{jti:?} {subject:?} {issued_at:?}"
            );
        }
    }

    #[test]
    fn an_entry_of_an_unknown_sort_is_refused() {
        let list = pb::Denylist {
            number: 1,
            entries: vec![pb::DenylistEntry::default()],
        };
        assert!(Denylist::from_pb(&list).is_err());
    }
}
