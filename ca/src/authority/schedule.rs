//! When an authority is followed by the next one. Pure.
//!
//! With L the authority's life: prepare once less than min(L/2, 30 d) is left; activate once less than min(L/6, 7 d)
//! is left and everyone has acknowledged the new key; at half of that the last safe moment forces it.

use std::time::Duration;

use ravelin_proto::time::Timestamp;

use super::state::{Authority, AuthoritySet};

const DAY: Duration = Duration::from_hours(24);

/// What is due now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Make the next authority and publish it.
    Prepare,
    /// Let this prepared one sign.
    Activate {
        /// Which.
        id: String,
        /// True when not everybody has acknowledged it and waiting would be worse.
        is_forced: bool,
    },
}

/// What is left of an authority's life when its successor is prepared.
pub fn prepare_before_end(authority: &Authority) -> Duration {
    (authority.validity.lifetime() / 2).min(30 * DAY)
}

/// What is left of an authority's life when its successor is activated.
pub fn activate_before_end(authority: &Authority) -> Duration {
    (authority.validity.lifetime() / 6).min(7 * DAY)
}

/// What is left when activation no longer waits for acknowledgement.
pub fn force_before_end(authority: &Authority) -> Duration {
    activate_before_end(authority) / 2
}

/// Decides. `is_acknowledged` says whether every live agent holds the prepared authority.
pub fn due(set: &AuthoritySet, is_acknowledged: bool, now: Timestamp) -> Due {
    let Some(active) = set.active() else {
        return match set.prepared() {
            Some(prepared) => Due::Activate {
                id: prepared.id.clone(),
                is_forced: !is_acknowledged,
            },
            None => Due::Prepare,
        };
    };
    let left = active.validity.remaining(now);
    let Some(prepared) = set.prepared() else {
        return if left <= prepare_before_end(active) {
            Due::Prepare
        } else {
            Due::Nothing
        };
    };
    let is_last_moment = left <= force_before_end(active);
    if left <= activate_before_end(active) && (is_acknowledged || is_last_moment) {
        return Due::Activate {
            id: prepared.id.clone(),
            is_forced: !is_acknowledged,
        };
    }
    Due::Nothing
}

#[cfg(test)]
mod tests {
    use super::super::state::{Kind, State};
    use super::*;
    use ravelin_proto::time::Validity;

    fn authority(id: &str, state: State, from_hour: u64) -> Authority {
        let at = |hour: u64| Timestamp::default().plus(Duration::from_secs(hour * 3600));
        Authority {
            id: id.to_owned(),
            kind: Kind::X509,
            state,
            is_tainted: false,
            validity: Validity {
                not_before: at(from_hour),
                not_after: at(from_hour + 24),
            },
            public: Vec::new(),
        }
    }

    #[test]
    fn an_authority_of_24_hours_is_prepared_at_12_and_activated_at_20_once_acknowledged() {
        let activate = |is_forced| Due::Activate {
            id: "b".into(),
            is_forced,
        };
        let rows = [
            (11, false, false, Due::Nothing),
            (12, false, false, Due::Prepare),
            (19, true, true, Due::Nothing),
            (20, true, true, activate(false)),
            (20, true, false, Due::Nothing),
            (21, true, false, Due::Nothing),
            (22, true, false, activate(true)),
            (25, true, false, activate(true)),
            (25, false, false, Due::Prepare),
        ];
        for (hour, has_prepared, is_acknowledged, want) in rows {
            let mut all = vec![authority("a", State::Active, 0)];
            if has_prepared {
                all.push(authority("b", State::Prepared, 12));
            }
            let set = AuthoritySet::new(Kind::X509, all);
            let now = Timestamp::default().plus(Duration::from_secs(hour * 3600));
            assert_eq!(due(&set, is_acknowledged, now), want, "hour {hour}");
        }
    }

    #[test]
    fn the_first_start_prepares_and_activates() {
        let empty = AuthoritySet::new(Kind::X509, Vec::new());
        assert_eq!(due(&empty, true, Timestamp::default()), Due::Prepare);
        let prepared = empty.prepare(authority("a", State::Prepared, 0)).unwrap();
        let want = Due::Activate {
            id: "a".into(),
            is_forced: false,
        };
        assert_eq!(due(&prepared, true, Timestamp::default()), want);
    }

    #[test]
    fn threat_28_three_lives_pass_without_a_gap() {
        let mut set = AuthoritySet::new(Kind::X509, Vec::new());
        for hour in 0..72 {
            let now = Timestamp::default().plus(Duration::from_secs(hour * 3600));
            loop {
                set = match due(&set, true, now) {
                    Due::Nothing => break,
                    Due::Prepare => {
                        let next = authority(&hour.to_string(), State::Prepared, hour);
                        set.prepare(next).unwrap()
                    }
                    Due::Activate { id, is_forced } => {
                        assert!(!is_forced);
                        set.activate(&id, now).unwrap()
                    }
                };
            }
            let active = set.active().unwrap();
            assert!(active.validity.contains(now), "hour {hour}");
            assert!(
                active.validity.remaining(now) >= Duration::from_hours(4) - Duration::from_hours(1)
            );
        }
    }
}
