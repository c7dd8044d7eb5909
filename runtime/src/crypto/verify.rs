//! Checks a JWS signature. The list of algorithms belongs to the key, never to the token (RFC 8725 3.1).

use ravelin_proto::jwks::{Curve, Jwk, JwkKey};
use ravelin_proto::jws::JwsAlgorithm;

use super::backend::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

/// Why a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The algorithm does not fit the key's kind, or the key's `alg` names another.
    #[error("the algorithm does not fit the key")]
    AlgorithmMismatch,
    /// This build's provider does not know the key's curve (P-521 with ring).
    #[error("this build's crypto provider does not support the key's curve")]
    Unsupported,
    /// The signature is not one of this key over this text.
    #[error("the signature does not verify")]
    Invalid,
}

/// Checks `signature` over `signing_input`. The algorithm has to fit the key's kind and the key's own `alg`.
pub fn verify_jws(
    key: &Jwk,
    algorithm: JwsAlgorithm,
    signing_input: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    if !key.accepts(algorithm) {
        return Err(SignatureError::AlgorithmMismatch);
    }
    match &key.key {
        JwkKey::Ec { curve, x, y } => {
            let mut point = Vec::with_capacity(1 + x.len() + y.len());
            point.push(4);
            point.extend_from_slice(x);
            point.extend_from_slice(y);
            verify_with(ecdsa(*curve)?, &point, signing_input, signature)
        }
        JwkKey::Rsa { n, e } => RsaPublicKeyComponents { n, e }
            .verify(rsa(algorithm)?, signing_input, signature)
            .map_err(|_| SignatureError::Invalid),
        JwkKey::Ed25519 { x } => verify_with(&ED25519, x, signing_input, signature),
    }
}

fn verify_with(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    signing_input: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    UnparsedPublicKey::new(algorithm, key)
        .verify(signing_input, signature)
        .map_err(|_| SignatureError::Invalid)
}

#[cfg_attr(
    feature = "aws-lc",
    allow(clippy::unnecessary_wraps, reason = "ring does not know P-521")
)]
fn ecdsa(curve: Curve) -> Result<&'static dyn VerificationAlgorithm, SignatureError> {
    match curve {
        Curve::P256 => Ok(&ECDSA_P256_SHA256_FIXED),
        Curve::P384 => Ok(&ECDSA_P384_SHA384_FIXED),
        #[cfg(feature = "aws-lc")]
        Curve::P521 => Ok(&super::backend::signature::ECDSA_P521_SHA512_FIXED),
        #[cfg(not(feature = "aws-lc"))]
        Curve::P521 => Err(SignatureError::Unsupported),
    }
}

fn rsa(algorithm: JwsAlgorithm) -> Result<&'static RsaParameters, SignatureError> {
    match algorithm {
        JwsAlgorithm::Rs256 => Ok(&RSA_PKCS1_2048_8192_SHA256),
        JwsAlgorithm::Rs384 => Ok(&RSA_PKCS1_2048_8192_SHA384),
        JwsAlgorithm::Rs512 => Ok(&RSA_PKCS1_2048_8192_SHA512),
        JwsAlgorithm::Ps256 => Ok(&RSA_PSS_2048_8192_SHA256),
        JwsAlgorithm::Ps384 => Ok(&RSA_PSS_2048_8192_SHA384),
        JwsAlgorithm::Ps512 => Ok(&RSA_PSS_2048_8192_SHA512),
        JwsAlgorithm::Es256 | JwsAlgorithm::Es384 | JwsAlgorithm::Es512 | JwsAlgorithm::EdDsa => {
            Err(SignatureError::AlgorithmMismatch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::JwsSigner;
    use super::*;

    fn signer(algorithm: &'static rcgen::SignatureAlgorithm) -> JwsSigner {
        let pair = rcgen::KeyPair::generate_for(algorithm).expect("key");
        JwsSigner::from_pkcs8(pair.serialized_der()).expect("signer")
    }

    #[test]
    fn what_a_key_signs_verifies_under_it_and_under_no_other() {
        for (algorithm, want) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, JwsAlgorithm::Es256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, JwsAlgorithm::Es384),
            (&rcgen::PKCS_ED25519, JwsAlgorithm::EdDsa),
        ] {
            let (one, other) = (signer(algorithm), signer(algorithm));
            assert_eq!(one.algorithm(), want);
            let signature = one.sign(b"header.payload").expect("signature");
            let key = Jwk::from_spki(None, None, one.spki()).expect("jwk");
            let other = Jwk::from_spki(None, None, other.spki()).expect("jwk");
            assert_eq!(
                verify_jws(&key, want, b"header.payload", &signature),
                Ok(())
            );
            for (key, text, signature) in [
                (&other, &b"header.payload"[..], signature.clone()),
                (&key, b"header.payloae", signature.clone()),
                (&key, b"header.payload", signature[1..].to_vec()),
                (&key, b"header.payload", Vec::new()),
            ] {
                assert_eq!(
                    verify_jws(key, want, text, &signature),
                    Err(SignatureError::Invalid)
                );
            }
        }
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn an_rsa_key_signs_rs256_and_each_padding_is_told_from_the_other() {
        let rsa = signer(&rcgen::PKCS_RSA_SHA256);
        assert_eq!(rsa.algorithm(), JwsAlgorithm::Rs256);
        let signature = rsa.sign(b"text").expect("signature");
        let key = Jwk::from_spki(None, None, rsa.spki()).expect("jwk");
        for (algorithm, want) in [
            (JwsAlgorithm::Rs256, Ok(())),
            (JwsAlgorithm::Rs512, Err(SignatureError::Invalid)),
            (JwsAlgorithm::Ps256, Err(SignatureError::Invalid)),
        ] {
            assert_eq!(verify_jws(&key, algorithm, b"text", &signature), want);
        }
    }

    #[test]
    fn what_is_no_private_key_does_not_sign() {
        for bytes in [&b""[..], b"not a key", &[0x30, 0x03, 0x02, 0x01, 0x00]] {
            assert!(JwsSigner::from_pkcs8(bytes).is_err());
        }
    }

    #[test]
    fn threat_44_the_algorithm_has_to_fit_the_key() {
        let p256 = signer(&rcgen::PKCS_ECDSA_P256_SHA256);
        let signature = p256.sign(b"text").expect("signature");
        let mut key = Jwk::from_spki(None, None, p256.spki()).expect("jwk");
        for algorithm in [
            JwsAlgorithm::Es384,
            JwsAlgorithm::Rs256,
            JwsAlgorithm::Ps512,
            JwsAlgorithm::EdDsa,
        ] {
            assert_eq!(
                verify_jws(&key, algorithm, b"text", &signature),
                Err(SignatureError::AlgorithmMismatch)
            );
        }
        key.alg = Some("ES384".to_owned());
        assert_eq!(
            verify_jws(&key, JwsAlgorithm::Es256, b"text", &signature),
            Err(SignatureError::AlgorithmMismatch)
        );
    }
}
