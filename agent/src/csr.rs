//! Key pairs made on this node, and the requests that carry only their public half.

use ravelin_proto::secret::Secret;
use ravelin_proto::x509_svid::LeafSvid;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};

/// A key pair could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a key pair")]
pub(crate) struct KeyError(#[from] rcgen::Error);

/// A fresh ECDSA P-256 key pair and its certificate request.
#[derive(Debug)]
pub(crate) struct NewKey {
    /// PKCS#8 DER.
    pub key: Secret<Vec<u8>>,
    /// PKCS#10 DER; the CA takes nothing but the public key from it.
    pub csr: Vec<u8>,
    spki: Vec<u8>,
}

impl NewKey {
    /// Makes one.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&pair)?;
        Ok(Self {
            csr: csr.der().to_vec(),
            spki: pair.subject_public_key_info(),
            key: Secret::new(pair.serialize_der()),
        })
    }

    /// True when this certificate is for this key.
    pub(crate) fn is_key_of(&self, leaf_der: &[u8]) -> bool {
        LeafSvid::parse(leaf_der).is_ok_and(|leaf| leaf.spki == self.spki)
    }
}
