//! Authorities and SVIDs for the tests of this crate.

use std::sync::Arc;

use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Eku, IsCa, Issuer,
    KeyPair, KeyUsagePurpose as Ku, SanType,
};
use rustls_pki_types::CertificateDer;

use super::{Identity, X509Bundles};
use crate::clock::TestClock;

/// The moment of all tests; certificates are valid for an hour around it.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

pub(crate) fn clock() -> TestClock {
    TestClock::new(NOW)
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ascii"))
}

pub(crate) fn set_validity(params: &mut CertificateParams, from_secs: i64, to_secs: i64) {
    let at =
        |secs| time::OffsetDateTime::from_unix_timestamp(NOW.unix_secs() + secs).expect("time");
    params.not_before = at(from_secs);
    params.not_after = at(to_secs);
}

/// An authority of a trust domain: self-signed, or below another.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn authority_params(domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("authority of {domain}"));
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Ku::KeyCertSign, Ku::CrlSign];
    set_validity(&mut params, -3600, 3600);
    params
}

pub(crate) fn svid_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Ku::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, -60, 600);
    params
}

impl Authority {
    pub(crate) fn new(domain: &str) -> Self {
        Self::with(authority_params(domain))
    }

    pub(crate) fn with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("key");
        let der = params.self_signed(&key).expect("signed").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    pub(crate) fn below(&self, mut params: CertificateParams) -> Self {
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "below");
        let key = KeyPair::generate().expect("key");
        let der = params
            .signed_by(&key, &self.issuer)
            .expect("signed")
            .der()
            .clone();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("key");
        params
            .signed_by(&key, &self.issuer)
            .expect("signed")
            .der()
            .clone()
    }

    pub(crate) fn identity(&self, id: &str) -> Identity {
        self.identity_of(&svid_params(id))
    }

    pub(crate) fn identity_of(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("key");
        let der = params
            .signed_by(&key, &self.issuer)
            .expect("signed")
            .der()
            .clone();
        Identity::new(vec![der], key.serialized_der()).expect("identity")
    }
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).expect("trust domain")
}

pub(crate) fn bundles(entries: &[(&str, &[&Authority])]) -> Arc<X509Bundles> {
    let mut bundles = X509Bundles::new();
    for (name, authorities) in entries {
        let ders: Vec<_> = authorities
            .iter()
            .map(|authority| authority.der.clone())
            .collect();
        bundles.insert(domain(name), &ders);
    }
    Arc::new(bundles)
}
