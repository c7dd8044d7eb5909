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
                    keep_longest(&mut denylist.serials, serial, cut.expires_at)
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
