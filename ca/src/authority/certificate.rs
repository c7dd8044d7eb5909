//! Makes the key and the self-signed certificate of an authority (X509-SVID 4, rows; RFC 5280 4.2).

use std::time::Duration;

use ravelin_proto::bundle::x509_authority_id;
use ravelin_proto::secret::Secret;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::{Timestamp, Validity};
use ravelin_runtime::crypto;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType, SerialNumber,
};

use super::state::{Authority, Kind, State};
use crate::issuance::serial::Serial;
use crate::limits::NOT_BEFORE_BACKDATE;

/// A new authority with its private key, PKCS#8 DER.
#[derive(Debug)]
pub struct NewAuthority {
    /// Its public side, in state prepared.
    pub authority: Authority,
    /// Its key.
    pub key: Secret<Vec<u8>>,
}

/// The provider failed, or the trust domain cannot be written as a name.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityKeyError {
    /// Making the key or the certificate failed.
    #[error("the authority's certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// What was made cannot be read back.
    #[error("the authority's certificate has no subject key identifier")]
    Unreadable,
}

/// Makes a P-256 authority that is valid from now on.
pub fn generate(
    kind: Kind,
    trust_domain: &TrustDomain,
    life: Duration,
    now: Timestamp,
) -> Result<NewAuthority, AuthorityKeyError> {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    // Certificates carry whole seconds: what is stored must be what is signed.
    let now = Timestamp::from_unix_secs(now.unix_secs());
    let validity = Validity {
        not_before: now.minus(NOT_BEFORE_BACKDATE),
        not_after: now.plus(life),
    };
    let (id, public) = match kind {
        Kind::X509 => {
            let der = self_signed(&pair, trust_domain, validity)?;
            (
                x509_authority_id(&der).ok_or(AuthorityKeyError::Unreadable)?,
                der,
            )
        }
        Kind::Jwt => {
            let spki = pair.subject_public_key_info();
            let digest = crypto::digest_sha256(&spki);
            (hex::encode(digest.get(..16).unwrap_or(&digest)), spki)
        }
    };
    let authority = Authority {
        id,
        kind,
        state: State::Prepared,
        is_tainted: false,
        validity,
        public,
    };
    Ok(NewAuthority {
        authority,
        key: Secret::new(pair.serialize_der()),
    })
}

fn self_signed(
    pair: &KeyPair,
    trust_domain: &TrustDomain,
    validity: Validity,
) -> Result<Vec<u8>, AuthorityKeyError> {
    let serial = Serial::random();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.not_before = validity.not_before.to_offset();
    params.not_after = validity.not_after.to_offset();
    // WHY: authorities that share a subject make some verifiers try each of them for each chain.
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Ravelin");
    subject.push(DnType::CommonName, format!("authority {serial}"));
    params.distinguished_name = subject;
    let uri = trust_domain.id().to_string().try_into()?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    // SPEC: no path length and no name constraint: webpki refuses chains with a URI constraint.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params.self_signed(pair)?.der().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ravelin_proto::x509_svid::SigningCertificate;

    #[test]
    fn x_06_x_07_an_authority_may_sign_and_carries_its_trust_domain() {
        let trust_domain = TrustDomain::parse("shop.example").unwrap();
        let now = Timestamp::from_unix_secs(1_800_000_000);
        let life = Duration::from_hours(1);
        let made = generate(Kind::X509, &trust_domain, life, now).unwrap();
        let parsed = SigningCertificate::parse(&made.authority.public).unwrap();
        assert_eq!(parsed.id, Some(trust_domain.id()));
        assert_eq!(parsed.validity, made.authority.validity);
        assert_eq!(
            parsed.subject_key_id.as_deref(),
            Some(made.authority.id.as_str())
        );
        assert_eq!(made.authority.validity.not_after, now.plus(life));
        let other = generate(Kind::X509, &trust_domain, life, now).unwrap();
        assert_ne!(other.authority.id, made.authority.id);
        assert_ne!(made.key.as_slice(), other.key.as_slice());
    }

    #[test]
    fn threat_41_a_new_authority_does_not_show_its_key() {
        let trust_domain = TrustDomain::parse("shop.example").unwrap();
        let made = generate(
            Kind::Jwt,
            &trust_domain,
            Duration::from_mins(1),
            Timestamp::default(),
        );
        let shown = format!("{:?}", made.unwrap());
        assert!(shown.contains("key: <secret>"), "{shown}");
    }
}
