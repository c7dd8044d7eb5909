//! An X.509-SVID with its private key: what we show to a peer.

use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_proto::x509_svid::{LeafSvid, X509SvidError};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::FromDer as _;

use crate::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};

/// Why a chain and a key are not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There is no certificate.
    #[error("the chain is empty")]
    ChainEmpty,
    /// More than `CHAIN_CERTIFICATES_MAX`.
    #[error("the chain has more than {CHAIN_CERTIFICATES_MAX} certificates")]
    ChainTooLong,
    /// Bytes that are no DER certificate.
    #[error("the chain is not a sequence of DER certificates")]
    ChainMalformed,
    /// One certificate is larger than `CERTIFICATE_BYTES_MAX`.
    #[error("a certificate has more than {CERTIFICATE_BYTES_MAX} bytes")]
    CertificateTooLong,
    /// The first certificate breaks a rule for leaves.
    #[error("the first certificate is not an X.509-SVID: {0}")]
    Leaf(#[from] X509SvidError),
}

/// A chain, leaf first, and the private key of its leaf.
#[derive(Clone)]
pub struct Identity {
    /// The leaf's SPIFFE ID.
    pub id: SpiffeId,
    /// Leaf first; the authority itself is not part of it.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8; wiped by rustls's type when it is dropped.
    pub key: Arc<PrivateKeyDer<'static>>,
    leaf: Arc<LeafSvid>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id.as_str())
            .field("serial", &self.leaf.serial)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// From concatenated DER certificates, leaf first, and a PKCS#8 key: the form of the Workload API.
    pub fn from_der(chain: &[u8], pkcs8: &[u8]) -> Result<Self, IdentityError> {
        Self::new(split_certificates(chain)?, pkcs8)
    }

    /// From a chain that is already taken apart.
    pub fn new(chain: Vec<CertificateDer<'static>>, pkcs8: &[u8]) -> Result<Self, IdentityError> {
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(IdentityError::ChainTooLong);
        }
        let leaf = chain.first().ok_or(IdentityError::ChainEmpty)?;
        let leaf = Arc::new(LeafSvid::parse(leaf)?);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        Ok(Self {
            id: leaf.id.clone(),
            chain,
            key: Arc::new(key),
            leaf,
        })
    }

    /// What the leaf says.
    pub fn leaf(&self) -> &LeafSvid {
        &self.leaf
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> Timestamp {
        self.leaf.validity.not_after
    }

    /// The chain as the Workload API carries it.
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain
            .iter()
            .flat_map(|certificate| certificate.iter().copied())
            .collect()
    }

    /// The private key, PKCS#8 DER.
    pub fn key_der(&self) -> &[u8] {
        self.key.secret_der()
    }
}

/// Takes concatenated DER certificates apart.
pub(crate) fn split_certificates(
    mut der: &[u8],
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let mut certificates = Vec::new();
    while !der.is_empty() {
        let (rest, _) = x509_parser::certificate::X509Certificate::from_der(der)
            .map_err(|_| IdentityError::ChainMalformed)?;
        let (certificate, _) = der
            .split_at_checked(der.len() - rest.len())
            .ok_or(IdentityError::ChainMalformed)?;
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(IdentityError::CertificateTooLong);
        }
        certificates.push(CertificateDer::from(certificate.to_vec()));
        der = rest;
    }
    Ok(certificates)
}
