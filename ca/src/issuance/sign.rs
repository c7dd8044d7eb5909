//! Signs linted contents against a ticket, reads the bytes back and compares them with what was linted.

use ravelin_proto::time::Validity;
use ravelin_proto::x509_svid::LeafSvid;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::lint::Linted;
use super::template::Contents;
use crate::audit::Leaf;
use crate::authority::state::Authority;

/// Why no certificate came out.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The provider or the encoder failed.
    #[error("the certificate could not be signed")]
    Encode(#[from] rcgen::Error),
    /// The private key is not of its authority, or of no known kind.
    #[error("the key of authority `{0}` cannot sign")]
    Key(String),
    /// What was signed is not what was linted. It is thrown away.
    #[error("what was signed is not what was linted: {0}")]
    Differs(&'static str),
    /// A signer broke off.
    #[error("signing broke off")]
    Broken,
    /// The ticket is for something else.
    #[error("the audit ticket is not for these contents")]
    Ticket,
}

/// Proof that the intent to sign one thing is durable in the audit log. Used up by signing.
#[derive(Debug)]
pub struct Ticket {
    subject: String,
    leaf: Leaf,
}

impl Ticket {
    /// For the serial (X.509) or `jti` (JWT) that the leaf names; only after the leaf is durable.
    pub(super) fn new(subject: String, leaf: Leaf) -> Self {
        Self { subject, leaf }
    }

    /// Uses the ticket up.
    pub(super) fn redeem(self, subject: &str) -> Result<Leaf, SignError> {
        if self.subject == subject {
            Ok(self.leaf)
        } else {
            Err(SignError::Ticket)
        }
    }
}

/// An X.509 authority with its key.
pub struct X509Signer {
    authority: Authority,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for X509Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509Signer")
            .field("authority", &self.authority.id)
            .finish_non_exhaustive()
    }
}

impl X509Signer {
    /// Joins an authority and its key, PKCS#8 DER.
    pub fn new(authority: Authority, pkcs8: &[u8]) -> Result<Self, SignError> {
        let refuse = || SignError::Key(authority.id.clone());
        let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8)).map_err(|_| refuse())?;
        let (_, certificate) =
            X509Certificate::from_der(&authority.public).map_err(|_| refuse())?;
        if certificate.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&pair) {
            return Err(refuse());
        }
        let der = CertificateDer::from(authority.public.as_slice());
        let issuer = Issuer::from_ca_cert_der(&der, pair)?;
        Ok(Self { authority, issuer })
    }

    /// The authority's id.
    pub fn id(&self) -> &str {
        &self.authority.id
    }

    /// When it may sign.
    pub fn validity(&self) -> Validity {
        self.authority.validity
    }

    /// Signs, reads back, compares.
    pub fn sign(&self, linted: &Linted<Contents>, ticket: Ticket) -> Result<Vec<u8>, SignError> {
        let contents = linted.contents();
        ticket.redeem(&contents.serial.to_string())?;
        let key = SubjectPublicKeyInfo::from_der(&contents.spki)?;
        let der = params(contents)?
            .signed_by(&key, &self.issuer)?
            .der()
            .to_vec();
        compare(&der, contents)?;
        Ok(der)
    }
}

fn params(contents: &Contents) -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(contents.serial.as_bytes()));
    params.not_before = contents.validity.not_before.to_offset();
    params.not_after = contents.validity.not_after.to_offset();
    // SPEC: X509-SVID 2: an empty subject makes the alternative name critical.
    params.distinguished_name = DistinguishedName::new();
    let mut names = vec![SanType::URI(contents.id.as_str().try_into()?)];
    for name in &contents.dns_names {
        names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Everything that the certificate says must be what was linted, and nothing more.
fn compare(der: &[u8], contents: &Contents) -> Result<(), SignError> {
    let leaf = LeafSvid::parse(der).map_err(|_| SignError::Differs("it is no X509-SVID"))?;
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| SignError::Differs("it is not DER"))?;
    let constraints = certificate.basic_constraints().ok().flatten();
    let usage = certificate.key_usage().ok().flatten();
    let extended = certificate.extended_key_usage().ok().flatten();
    let names = certificate.subject_alternative_name().ok().flatten();
    let rows = [
        ("trailing bytes", rest.is_empty()),
        ("id", leaf.id == contents.id),
        ("serial", leaf.serial == contents.serial.to_string()),
        ("validity", leaf.validity == contents.validity),
        ("key", leaf.spki == contents.spki),
        ("DNS names", leaf.dns_names == contents.dns_names),
        (
            "authority",
            leaf.authority_id.as_deref() == Some(contents.authority_id.as_str()),
        ),
        ("subject", certificate.subject().iter().next().is_none()),
        ("version", certificate.version().0 == 2),
        ("extensions", certificate.extensions().len() == 6),
        (
            "basic constraints",
            constraints.is_some_and(|it| it.critical && !it.value.ca),
        ),
        (
            "key usage",
            usage.is_some_and(|it| it.critical && it.value.flags == 1),
        ),
        (
            "extended key usage",
            extended
                .is_some_and(|it| it.value.server_auth && it.value.client_auth && !it.value.any),
        ),
        (
            "alternative names",
            names.is_some_and(|it| {
                it.critical && it.value.general_names.len() == contents.dns_names.len() + 1
            }),
        ),
    ];
    match rows.into_iter().find(|(_, is_same)| !is_same) {
        None => Ok(()),
        Some((what, _)) => Err(SignError::Differs(what)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::csr::VerifiedCsr;
    use super::super::lint::{self, Ground};
    use super::super::serial::Serial;
    use super::super::template::{self, tests as rows};
    use super::*;
    use crate::authority::certificate;
    use crate::authority::state::Kind;
    use ravelin_proto::time::Timestamp;

    fn signer(now: Timestamp) -> X509Signer {
        let domain = rows::profile().trust_domain;
        let made =
            certificate::generate(Kind::X509, &domain, Duration::from_hours(2), now).unwrap();
        X509Signer::new(made.authority, &made.key).unwrap()
    }

    fn linted(signer: &X509Signer, csr: &[u8], now: Timestamp) -> Linted<Contents> {
        let csr = VerifiedCsr::parse(csr).unwrap();
        let authority = (signer.id(), signer.validity());
        let contents = template::x509(
            &csr,
            &rows::grant(None),
            &rows::profile(),
            authority,
            Serial::random(),
            now,
        );
        let domain = rows::profile().trust_domain;
        let authority = signer.validity();
        let ground = Ground {
            trust_domain: &domain,
            authority,
            authority_keys: &[],
            now,
        };
        lint::x509(contents, &ground).unwrap()
    }

    fn ticket(subject: &str) -> Ticket {
        Ticket::new(
            subject.to_owned(),
            Leaf {
                index: 0,
                hash: [0; 32],
            },
        )
    }

    #[test]
    fn threat_22_what_is_signed_is_what_was_linted_whatever_the_csr_asks_for() {
        let now = Timestamp::from_unix_secs(1_800_000_000);
        let signer = signer(now);
        let mut algorithms = vec![
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        if cfg!(feature = "aws-lc") {
            algorithms.push(&rcgen::PKCS_RSA_SHA256);
        }
        for algorithm in algorithms {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            let mut forged = CertificateParams::new(vec!["evil.test".to_owned()]).unwrap();
            forged.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            forged.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let csr = forged.serialize_request(&pair).unwrap();
            let linted = linted(&signer, csr.der(), now);
            let serial = linted.contents().serial.to_string();
            let der = signer.sign(&linted, ticket(&serial)).unwrap();
            let leaf = LeafSvid::parse(&der).unwrap();
            assert_eq!(leaf.dns_names, ["a.test"]);
            assert_eq!(leaf.id.as_str(), "spiffe://td/a");
        }
    }

    #[test]
    fn a_ticket_for_something_else_signs_nothing() {
        let now = Timestamp::from_unix_secs(1_800_000_000);
        let signer = signer(now);
        let pair = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&pair)
            .unwrap();
        let linted = linted(&signer, csr.der(), now);
        assert!(matches!(
            signer.sign(&linted, ticket("00")),
            Err(SignError::Ticket)
        ));
    }

    #[test]
    fn bytes_that_say_something_else_are_thrown_away() {
        let now = Timestamp::from_unix_secs(1_800_000_000);
        let signer = signer(now);
        let pair = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&pair)
            .unwrap();
        let linted = linted(&signer, csr.der(), now);
        let contents = linted.contents();
        let key = SubjectPublicKeyInfo::from_der(&contents.spki).unwrap();
        let sign = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = params(contents).unwrap();
            change(&mut params);
            params
                .signed_by(&key, &signer.issuer)
                .unwrap()
                .der()
                .to_vec()
        };
        assert!(compare(&sign(&|_| {}), contents).is_ok());
        let changes: [&dyn Fn(&mut CertificateParams); 6] = [
            &|params| params.is_ca = IsCa::NoCa,
            &|params| params.key_usages.push(KeyUsagePurpose::KeyAgreement),
            &|params| {
                params
                    .subject_alt_names
                    .push(SanType::DnsName("b.test".try_into().unwrap()));
            },
            &|params| {
                params
                    .distinguished_name
                    .push(rcgen::DnType::CommonName, "x");
            },
            &|params| params.not_after += Duration::from_secs(1),
            &|params| params.extended_key_usages.clear(),
        ];
        for (row, change) in changes.into_iter().enumerate() {
            assert!(
                matches!(compare(&sign(change), contents), Err(SignError::Differs(_))),
                "{row}"
            );
        }
    }

    #[test]
    fn an_authority_and_a_key_that_is_not_its_own_are_refused() {
        let now = Timestamp::from_unix_secs(1_800_000_000);
        let domain = rows::profile().trust_domain;
        let make =
            || certificate::generate(Kind::X509, &domain, Duration::from_mins(1), now).unwrap();
        let (one, other) = (make(), make());
        assert!(matches!(
            X509Signer::new(one.authority, &other.key),
            Err(SignError::Key(_))
        ));
    }
}
