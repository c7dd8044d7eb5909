//! What an SVID will say: key x grant x profile x active authority x now -> contents. Pure.
//!
//! Lives are clamped, never refused: to the limits of the program, and to the end of the authority.

use std::time::Duration;

use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::{Timestamp, Validity};

use super::authorize::Grant;
use super::csr::VerifiedCsr;
use super::serial::Serial;
use crate::limits::{NOT_BEFORE_BACKDATE, SVID_LIFE_MAX, SVID_LIFE_MIN};

/// Issuance limits and defaults of this CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Every SVID is of this domain.
    pub trust_domain: TrustDomain,
    /// Life of an X509-SVID where the grant names none.
    pub x509_life: Duration,
    /// Life of a JWT-SVID where the grant names none.
    pub jwt_life: Duration,
    /// `iss` of JWT-SVIDs.
    pub jwt_issuer: String,
}

/// Everything that a certificate will say; what is linted is what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The one URI name.
    pub id: SpiffeId,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// When it may be used, in whole seconds.
    pub validity: Validity,
    /// Its serial number.
    pub serial: Serial,
    /// Who signs.
    pub authority_id: String,
}

/// Everything that a token will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub id: SpiffeId,
    /// `aud`.
    pub audience: Vec<String>,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `jti`.
    pub jti: String,
    /// `kid`.
    pub key_id: String,
}

/// Fills the template of an X509-SVID.
pub fn x509(
    csr: &VerifiedCsr,
    grant: &Grant,
    profile: &Profile,
    authority: (&str, Validity),
    serial: Serial,
    now: Timestamp,
) -> Contents {
    let (authority_id, authority) = authority;
    let life = grant.x509_life().unwrap_or(profile.x509_life);
    let now = whole_seconds(now);
    Contents {
        id: grant.id().clone(),
        dns_names: grant.dns_names().to_vec(),
        spki: csr.spki().to_vec(),
        validity: Validity {
            not_before: now.minus(NOT_BEFORE_BACKDATE),
            not_after: end(now, life, authority),
        },
        serial,
        authority_id: authority_id.to_owned(),
    }
}

/// Fills the template of a JWT-SVID.
pub fn jwt(
    grant: &Grant,
    audience: Vec<String>,
    profile: &Profile,
    authority: (&str, Validity),
    jti: String,
    now: Timestamp,
) -> Claims {
    let (key_id, authority) = authority;
    let life = grant.jwt_life().unwrap_or(profile.jwt_life);
    let now = whole_seconds(now);
    Claims {
        issuer: profile.jwt_issuer.clone(),
        id: grant.id().clone(),
        audience,
        issued_at: now,
        expires_at: end(now, life, authority),
        jti,
        key_id: key_id.to_owned(),
    }
}

fn end(now: Timestamp, life: Duration, authority: Validity) -> Timestamp {
    let life = life.clamp(SVID_LIFE_MIN, SVID_LIFE_MAX);
    whole_seconds(now.plus(life).min(authority.not_after))
}

/// Certificates and tokens carry whole seconds.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_unix_secs(at.unix_secs())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn profile() -> Profile {
        Profile {
            trust_domain: TrustDomain::parse("td").unwrap(),
            x509_life: Duration::from_hours(1),
            jwt_life: Duration::from_mins(5),
            jwt_issuer: "spiffe://td".to_owned(),
        }
    }

    pub(crate) fn grant(life: Option<u64>) -> Grant {
        let td = TrustDomain::parse("td").unwrap();
        let id = SpiffeId::parse("spiffe://td/a").unwrap();
        Grant::to_administrator(
            &td,
            id,
            vec!["a.test".to_owned()],
            life.map(Duration::from_secs),
        )
        .unwrap()
    }

    #[test]
    fn threat_25_a_life_is_clamped_to_the_limits_and_to_the_authority() {
        let now = Timestamp::from_unix_millis(1_000_000_789);
        let secs = Timestamp::from_unix_secs(1_000_000);
        let authority = |left: u64| Validity {
            not_before: Timestamp::default(),
            not_after: secs.plus(Duration::from_secs(left)),
        };
        let rows = [
            ("the default", None, 10_000, 300),
            ("as wished", Some(60), 10_000, 60),
            ("zero", Some(0), 10_000, SVID_LIFE_MIN.as_secs()),
            (
                "overflow",
                Some(u64::MAX),
                u64::MAX,
                SVID_LIFE_MAX.as_secs(),
            ),
            ("beyond the authority", Some(20_000), 10_000, 10_000),
        ];
        for (name, life, left, want) in rows {
            let audience = vec!["x".to_owned()];
            let claims = jwt(
                &grant(life),
                audience,
                &profile(),
                ("kid", authority(left)),
                "j".into(),
                now,
            );
            assert_eq!(
                claims.expires_at.since(secs),
                Duration::from_secs(want),
                "{name}"
            );
            assert_eq!(claims.issued_at, secs, "{name}");
        }
    }
}
