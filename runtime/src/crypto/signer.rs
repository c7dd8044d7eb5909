//! Signs compact JWS and checkpoints with a private key in PKCS#8. The algorithm follows from the key alone.

use std::fmt;

use ravelin_proto::jws::JwsAlgorithm;
use rcgen::PublicKeyData as _;

use super::backend::rand::SystemRandom;
use super::backend::rsa::KeyPair as RsaKeyPair;
use super::backend::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256,
};

/// Why a key cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Not a PKCS#8 private key of a kind that we sign with: P-256, P-384, RSA from 2048 bits, Ed25519.
    #[error("not a PKCS#8 private key of a supported kind (P-256, P-384, RSA, Ed25519)")]
    Key,
    /// The provider refused to sign.
    #[error("the crypto provider refused to sign")]
    Signing,
}

enum Key {
    Ecdsa(EcdsaKeyPair, JwsAlgorithm),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key that signs JWS. It never shows the key.
pub struct JwsSigner {
    key: Key,
    spki: Vec<u8>,
}

impl fmt::Debug for JwsSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwsSigner")
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

impl JwsSigner {
    /// Takes a private key in PKCS#8 DER. P-256 signs ES256, P-384 ES384, RSA RS256, Ed25519 EdDSA.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SignerError> {
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from(pkcs8);
        let pair = rcgen::KeyPair::try_from(&der).map_err(|_| SignerError::Key)?;
        let spki = pair.subject_public_key_info();
        let algorithm = pair.algorithm();
        let key = if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
            Key::Ecdsa(
                ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)?,
                JwsAlgorithm::Es256,
            )
        } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
            Key::Ecdsa(
                ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8)?,
                JwsAlgorithm::Es384,
            )
        } else if algorithm == &rcgen::PKCS_ED25519 {
            Key::Ed25519(
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| SignerError::Key)?,
            )
        } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
            Key::Rsa(RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| SignerError::Key)?)
        } else {
            return Err(SignerError::Key);
        };
        Ok(Self { key, spki })
    }

    /// What this key signs with.
    pub fn algorithm(&self) -> JwsAlgorithm {
        match &self.key {
            Key::Ecdsa(_, algorithm) => *algorithm,
            Key::Rsa(_) => JwsAlgorithm::Rs256,
            Key::Ed25519(_) => JwsAlgorithm::EdDsa,
        }
    }

    /// The signature over `message`, in the form that JWS wants (RFC 7518: r and s side by side for ECDSA).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ecdsa(pair, _) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignerError::Signing),
            Key::Rsa(pair) => {
                let mut signature = vec![0; rsa_modulus_bytes(pair)];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| SignerError::Signing)?;
                Ok(signature)
            }
            Key::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// The public key as SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

#[cfg(feature = "aws-lc")]
fn ecdsa(
    algorithm: &'static EcdsaSigningAlgorithm,
    pkcs8: &[u8],
) -> Result<EcdsaKeyPair, SignerError> {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).map_err(|_| SignerError::Key)
}

#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
fn ecdsa(
    algorithm: &'static EcdsaSigningAlgorithm,
    pkcs8: &[u8],
) -> Result<EcdsaKeyPair, SignerError> {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new()).map_err(|_| SignerError::Key)
}

#[cfg(feature = "aws-lc")]
fn rsa_modulus_bytes(pair: &RsaKeyPair) -> usize {
    pair.public_modulus_len()
}

#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
fn rsa_modulus_bytes(pair: &RsaKeyPair) -> usize {
    pair.public().modulus_len()
}
