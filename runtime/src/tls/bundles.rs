//! Whom we trust: X.509 authorities by trust domain, read once when a bundle arrives.

use std::collections::BTreeMap;

use ravelin_proto::bundle::Bundle;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Validity;
use ravelin_proto::x509_svid::SigningCertificate;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::limits::BUNDLE_AUTHORITIES_MAX;

#[derive(Debug, Clone)]
pub(super) struct Authority {
    pub(super) der: CertificateDer<'static>,
    pub(super) anchor: TrustAnchor<'static>,
    pub(super) validity: Validity,
}

/// X.509 authorities by trust domain. They are never pooled (B-5, X-9).
#[derive(Debug, Clone, Default)]
pub struct X509Bundles(BTreeMap<TrustDomain, Vec<Authority>>);

impl X509Bundles {
    /// Trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the authorities of one trust domain, in place of earlier ones. Certificates that are no signing
    /// certificates of this trust domain are left out; the return value says how many were kept.
    pub fn insert(&mut self, domain: TrustDomain, authorities: &[CertificateDer<'_>]) -> usize {
        let kept: Vec<Authority> = authorities
            .iter()
            .filter_map(|der| read_authority(&domain, der))
            .take(BUNDLE_AUTHORITIES_MAX)
            .collect();
        let count = kept.len();
        self.0.insert(domain, kept);
        count
    }

    /// Sets the authorities of one trust domain from its bundle. Tainted ones count as well: they are trusted until they are
    /// revoked.
    pub fn insert_bundle(&mut self, bundle: &Bundle) -> usize {
        let authorities: Vec<CertificateDer<'_>> = bundle
            .x509_authorities
            .iter()
            .map(|authority| authority.der.as_slice().into())
            .collect();
        self.insert(bundle.trust_domain.clone(), &authorities)
    }

    /// Forgets a trust domain.
    pub fn remove(&mut self, domain: &TrustDomain) {
        self.0.remove(domain);
    }

    /// The authorities of a trust domain.
    pub fn authorities(
        &self,
        domain: &TrustDomain,
    ) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0
            .get(domain)
            .into_iter()
            .flatten()
            .map(|authority| &authority.der)
    }

    pub(super) fn of(&self, domain: &TrustDomain) -> &[Authority] {
        self.0.get(domain).map(Vec::as_slice).unwrap_or_default()
    }

    /// The trust domains, in order.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.0.keys()
    }

    /// Whether nobody at all is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }
}

fn read_authority(domain: &TrustDomain, der: &CertificateDer<'_>) -> Option<Authority> {
    let signing = SigningCertificate::parse(der).ok()?;
    if signing
        .id
        .as_ref()
        .is_some_and(|id| !id.is_member_of(domain))
    {
        return None;
    }
    let der = der.clone().into_owned();
    let anchor = webpki::anchor_from_trusted_cert(&der).ok()?.to_owned();
    Some(Authority {
        der,
        anchor,
        validity: signing.validity,
    })
}
