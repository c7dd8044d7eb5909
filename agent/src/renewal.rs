//! When an X509-SVID is renewed: a pure function of its life and of what the CA said.
//!
//! Half of the life, moved by a jitter of ten percent so that a thousand SVIDs of one moment do
//! not come back in one moment. Sooner when its authority is being replaced or is not trusted
//! any more. Used for the agent's own SVID and for those of the workloads.

use std::time::Duration;

use ravelin_proto::time::{Timestamp, Validity};

/// What the plan needs to know of one SVID.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tracked<'a> {
    /// Its period.
    pub validity: Validity,
    /// Subject key id of the authority that signed it, lower-case hex.
    pub authority_id: &'a str,
    /// Drawn once per SVID, 0 to 1.
    pub jitter: f64,
}

/// What is known of the authorities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Authorities {
    /// Signs X509-SVIDs now; empty when not known.
    pub active_x509: String,
    /// Signs JWT-SVIDs now; empty when not known.
    pub active_jwt: String,
    /// SVIDs of any other authority are to be replaced.
    pub is_reissue: bool,
    /// SVIDs per second; 0 means no bound.
    pub reissue_per_sec_max: u32,
    /// X.509 authorities in the bundle that are not tainted.
    pub trusted_x509: std::collections::BTreeSet<String>,
}

/// Why an SVID is renewed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Nothing to hand out: there is none, or it has expired.
    Missing,
    /// Its authority is tainted, or gone from the bundle.
    AuthorityDistrusted,
    /// The entry changed since it was signed.
    EntryChanged,
    /// Half of its life has passed.
    HalfLife,
    /// The CA asks for SVIDs of the active authority.
    Reissue,
}

/// The plan for one SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// Renew without delay.
    Now(Reason),
    /// Look again at this time.
    At(Timestamp),
}

/// Half of the life, less or more by up to a twentieth of the life.
pub(crate) fn renew_at(validity: Validity, jitter: f64) -> Timestamp {
    let lifetime = validity.lifetime();
    let share = 0.45 + 0.1 * jitter.clamp(0.0, 1.0);
    validity.not_before.plus(lifetime.mul_f64(share))
}

/// What to do with an SVID at `now`.
pub(crate) fn plan(svid: &Tracked<'_>, authorities: &Authorities, now: Timestamp) -> Renewal {
    if svid.validity.not_after <= now {
        return Renewal::Now(Reason::Missing);
    }
    let trusted = &authorities.trusted_x509;
    if !trusted.is_empty() && !trusted.contains(svid.authority_id) {
        return Renewal::Now(Reason::AuthorityDistrusted);
    }
    let at = renew_at(svid.validity, svid.jitter);
    if at <= now {
        return Renewal::Now(Reason::HalfLife);
    }
    if authorities.is_reissue
        && !authorities.active_x509.is_empty()
        && authorities.active_x509 != svid.authority_id
    {
        return Renewal::Now(Reason::Reissue);
    }
    Renewal::At(at)
}

/// Time to sleep until `at`, never longer than `longest`: a clock that jumps is noticed.
pub(crate) fn pause_until(at: Option<Timestamp>, now: Timestamp, longest: Duration) -> Duration {
    at.map_or(longest, |at| at.since(now).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validity(from: i64, to: i64) -> Validity {
        Validity {
            not_before: Timestamp::from_unix_secs(from),
            not_after: Timestamp::from_unix_secs(to),
        }
    }

    fn authorities(active: &str, is_reissue: bool, trusted: &[&str]) -> Authorities {
        Authorities {
            active_x509: active.into(),
            is_reissue,
            trusted_x509: trusted.iter().map(ToString::to_string).collect(),
            ..Authorities::default()
        }
    }

    #[test]
    fn an_svid_is_renewed_at_half_of_its_life_or_when_its_authority_goes() {
        let at = Timestamp::from_unix_secs;
        let rows = [
            (
                "young",
                100,
                authorities("a", false, &["a"]),
                Renewal::At(at(500)),
            ),
            (
                "half",
                500,
                authorities("a", false, &["a"]),
                Renewal::Now(Reason::HalfLife),
            ),
            (
                "expired",
                1000,
                authorities("a", false, &["a"]),
                Renewal::Now(Reason::Missing),
            ),
            (
                "reissue",
                100,
                authorities("b", true, &["a", "b"]),
                Renewal::Now(Reason::Reissue),
            ),
            (
                "already on the active one",
                100,
                authorities("a", true, &["a", "b"]),
                Renewal::At(at(500)),
            ),
            (
                "not asked to",
                100,
                authorities("b", false, &["a", "b"]),
                Renewal::At(at(500)),
            ),
            (
                "tainted or removed",
                100,
                authorities("b", false, &["b"]),
                Renewal::Now(Reason::AuthorityDistrusted),
            ),
            (
                "nothing known",
                100,
                authorities("", true, &[]),
                Renewal::At(at(500)),
            ),
        ];
        for (name, now, authorities, want) in rows {
            let svid = Tracked {
                validity: validity(0, 1000),
                authority_id: "a",
                jitter: 0.5,
            };
            assert_eq!(plan(&svid, &authorities, at(now)), want, "{name}");
        }
    }

    #[test]
    fn jitter_moves_the_renewal_by_at_most_a_tenth_of_the_life() {
        for (jitter, want) in [(-1.0, 450), (0.0, 450), (0.5, 500), (1.0, 550), (7.0, 550)] {
            let got = renew_at(validity(0, 1000), jitter);
            assert_eq!(got.unix_secs(), want, "{jitter}");
        }
    }

    #[test]
    fn a_pause_is_bounded_so_that_a_jumped_clock_is_noticed() {
        let at = Timestamp::from_unix_secs;
        let longest = Duration::from_secs(5);
        assert_eq!(pause_until(None, at(0), longest), longest);
        assert_eq!(
            pause_until(Some(at(2)), at(0), longest),
            Duration::from_secs(2)
        );
        assert_eq!(pause_until(Some(at(99)), at(0), longest), longest);
        assert_eq!(pause_until(Some(at(1)), at(9), longest), Duration::ZERO);
    }
}
