//! Judges contents before anything is signed: every rule of the standards that can be seen on the values. Pure.
//!
//! Only `Linted` contents can be signed; the signed bytes are read back and compared with them.

use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::{Timestamp, Validity};

use super::template::{Claims, Contents};
use crate::limits::{AUDIENCE_BYTES_MAX, AUDIENCES_MAX, NOT_BEFORE_BACKDATE, SVID_LIFE_MAX};

/// A rule that the contents break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LintError {
    /// Another trust domain than the authority's.
    #[error("the ID is not of the authority's trust domain")]
    TrustDomain,
    /// A leaf with the ID of a trust domain.
    #[error("an SVID's ID has a path")]
    RootId,
    /// Past the authority's end, or the authority has expired.
    #[error("the SVID would outlive its authority")]
    Authority,
    /// Not after its beginning, too long, or begun too long ago.
    #[error("the SVID's validity is not sound")]
    Validity,
    /// The key of an authority (threat 24).
    #[error("the key belongs to an authority")]
    AuthorityKey,
    /// More audiences than allowed, none, or an odd one (J-5).
    #[error("a JWT-SVID has 1 to {AUDIENCES_MAX} audiences of 1 to {AUDIENCE_BYTES_MAX} bytes")]
    Audience,
    /// Times that are not whole seconds would not be what is signed.
    #[error("a time has a fraction of a second")]
    Fraction,
}

impl LintError {
    /// Stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::TrustDomain => "lint_trust_domain",
            Self::RootId => "lint_root_id",
            Self::Authority => "lint_authority",
            Self::Validity => "lint_validity",
            Self::AuthorityKey => "lint_authority_key",
            Self::Audience => "lint_audience",
            Self::Fraction => "lint_fraction",
        }
    }
}

/// What the rules are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The domain of this CA.
    pub trust_domain: &'a TrustDomain,
    /// The signing authority's validity.
    pub authority: Validity,
    /// Public keys of every authority in the bundle.
    pub authority_keys: &'a [Vec<u8>],
    /// Now.
    pub now: Timestamp,
}

/// Contents that break no rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linted<T>(T);

impl<T> Linted<T> {
    /// The contents.
    pub fn contents(&self) -> &T {
        &self.0
    }
}

/// Judges a certificate's contents.
pub fn x509(contents: Contents, ground: &Ground<'_>) -> Result<Linted<Contents>, LintError> {
    if !contents.id.is_member_of(ground.trust_domain) {
        return Err(LintError::TrustDomain);
    }
    if contents.id.is_root() {
        return Err(LintError::RootId);
    }
    check_validity(contents.validity, ground)?;
    if ground.authority_keys.contains(&contents.spki) {
        return Err(LintError::AuthorityKey);
    }
    Ok(Linted(contents))
}

/// Judges a token's claims.
pub fn jwt(claims: Claims, ground: &Ground<'_>) -> Result<Linted<Claims>, LintError> {
    if !claims.id.is_member_of(ground.trust_domain) {
        return Err(LintError::TrustDomain);
    }
    if claims.id.is_root() {
        return Err(LintError::RootId);
    }
    check_validity(
        Validity {
            not_before: claims.issued_at,
            not_after: claims.expires_at,
        },
        ground,
    )?;
    let is_audience = |audience: &String| {
        (1..=AUDIENCE_BYTES_MAX).contains(&audience.len())
            && !audience.chars().any(char::is_control)
    };
    let count = claims.audience.len();
    if !(1..=AUDIENCES_MAX).contains(&count) || !claims.audience.iter().all(is_audience) {
        return Err(LintError::Audience);
    }
    Ok(Linted(claims))
}

fn check_validity(validity: Validity, ground: &Ground<'_>) -> Result<(), LintError> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    let is_whole = |at: Timestamp| at.unix_millis().rem_euclid(1000) == 0;
    if !is_whole(not_before) || !is_whole(not_after) {
        return Err(LintError::Fraction);
    }
    if !ground.authority.contains(ground.now) || not_after > ground.authority.not_after {
        return Err(LintError::Authority);
    }
    let backdate_max = NOT_BEFORE_BACKDATE + std::time::Duration::from_secs(1);
    let is_sound = not_before <= ground.now
        && not_after > ground.now
        && ground.now.since(not_before) <= backdate_max
        && validity.lifetime() <= SVID_LIFE_MAX + backdate_max;
    if is_sound {
        Ok(())
    } else {
        Err(LintError::Validity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuance::serial::Serial;
    use ravelin_proto::spiffe_id::SpiffeId;
    use std::time::Duration;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_secs(secs)
    }

    fn good() -> Contents {
        Contents {
            id: SpiffeId::parse("spiffe://td/a").unwrap(),
            dns_names: Vec::new(),
            spki: vec![1],
            validity: Validity {
                not_before: at(940),
                not_after: at(2000),
            },
            serial: Serial::random(),
            authority_id: "a".to_owned(),
        }
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "one table")]
    fn a_certificate_that_breaks_a_rule_is_never_signed() {
        let td = TrustDomain::parse("td").unwrap();
        let keys = [vec![9]];
        let ground = Ground {
            trust_domain: &td,
            authority: Validity {
                not_before: at(0),
                not_after: at(5000),
            },
            authority_keys: &keys,
            now: at(1000),
        };
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let validity = |not_before, not_after| Validity {
            not_before,
            not_after,
        };
        let rows = [
            ("good", good(), Ok(())),
            (
                "foreign",
                Contents {
                    id: id("spiffe://x/a"),
                    ..good()
                },
                Err(LintError::TrustDomain),
            ),
            (
                "root",
                Contents {
                    id: id("spiffe://td"),
                    ..good()
                },
                Err(LintError::RootId),
            ),
            (
                "authority's key",
                Contents {
                    spki: vec![9],
                    ..good()
                },
                Err(LintError::AuthorityKey),
            ),
            (
                "outlives",
                Contents {
                    validity: validity(at(940), at(5001)),
                    ..good()
                },
                Err(LintError::Authority),
            ),
            (
                "begins later",
                Contents {
                    validity: validity(at(1001), at(2000)),
                    ..good()
                },
                Err(LintError::Validity),
            ),
            (
                "has ended",
                Contents {
                    validity: validity(at(940), at(1000)),
                    ..good()
                },
                Err(LintError::Validity),
            ),
            (
                "threat_29: backdated too far",
                Contents {
                    validity: validity(at(900), at(2000)),
                    ..good()
                },
                Err(LintError::Validity),
            ),
            (
                "a fraction",
                Contents {
                    validity: validity(at(940), at(2000).plus(Duration::from_millis(1))),
                    ..good()
                },
                Err(LintError::Fraction),
            ),
        ];
        for (name, contents, want) in rows {
            assert_eq!(x509(contents, &ground).map(|_| ()), want, "{name}");
        }
        let expired = Ground {
            now: at(5001),
            ..ground
        };
        assert_eq!(
            x509(good(), &expired),
            Err(LintError::Authority),
            "threat_29: expired authority"
        );
    }

    #[test]
    fn a_token_has_audiences_within_limits() {
        let td = TrustDomain::parse("td").unwrap();
        let ground = Ground {
            trust_domain: &td,
            authority: Validity {
                not_before: at(0),
                not_after: at(5000),
            },
            authority_keys: &[],
            now: at(1000),
        };
        let claims = |audience: Vec<String>| Claims {
            issuer: "spiffe://td".into(),
            id: SpiffeId::parse("spiffe://td/a").unwrap(),
            audience,
            issued_at: at(1000),
            expires_at: at(1300),
            jti: "j".into(),
            key_id: "k".into(),
        };
        let rows = [
            (vec!["a".to_owned()], Ok(())),
            (vec![], Err(LintError::Audience)),
            (vec![String::new()], Err(LintError::Audience)),
            (vec!["a\n".to_owned()], Err(LintError::Audience)),
            (
                vec!["a".repeat(AUDIENCE_BYTES_MAX + 1)],
                Err(LintError::Audience),
            ),
            (
                vec!["a".to_owned(); AUDIENCES_MAX + 1],
                Err(LintError::Audience),
            ),
        ];
        for (audience, want) in rows {
            assert_eq!(jwt(claims(audience), &ground).map(|_| ()), want);
        }
    }
}
