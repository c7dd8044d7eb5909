//! Takes a certificate signing request apart: size, key, proof of possession. Pure.
//!
//! Only the public key goes on. Everything else that a CSR asks for (names, CA flag, key usage, extensions) is left
//! behind here; `NamedCsr` is for administrators alone, who may choose a name (MintX509SVID).

use ravelin_proto::spiffe_id::{SpiffeId, SpiffeIdError};
use ravelin_runtime::crypto;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::limits::{CSR_BYTES_MAX, RSA_BITS_MAX, RSA_BITS_MIN};

/// Why a CSR is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefusal {
    /// Longer than `CSR_BYTES_MAX`.
    #[error("the CSR has more than {CSR_BYTES_MAX} bytes")]
    TooLong,
    /// Not DER of PKCS#10, or something after it.
    #[error("the CSR is not a PKCS#10 request in DER")]
    Malformed,
    /// A kind or curve that is not accepted, or parameters in an odd form.
    #[error("the CSR's key is not one of P-256, P-384, Ed25519, RSA")]
    KeyKind,
    /// RSA outside of the accepted sizes.
    #[error("an RSA key has {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")]
    RsaSize,
    /// A public exponent that is weak or odd in form.
    #[error("an RSA key's public exponent is an odd number from 65537 to 2^32 - 1")]
    RsaExponent,
    /// A modulus with a small factor, or with the fingerprint of keys that can be factored (CVE-2017-15361).
    #[error("the RSA key's modulus is weak")]
    RsaWeak,
    /// The signature is not by the CSR's own key: no proof of possession.
    #[error("the CSR is not signed by its own key")]
    Signature,
    /// The CSR does not name one SPIFFE ID.
    #[error("the CSR names no single URI")]
    NoName,
    /// The name is no SPIFFE ID.
    #[error("the CSR's URI is not a SPIFFE ID: {0}")]
    Name(#[from] SpiffeIdError),
}

impl CsrRefusal {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "csr_too_long",
            Self::Malformed => "csr_malformed",
            Self::KeyKind => "csr_key_kind",
            Self::RsaSize => "csr_rsa_size",
            Self::RsaExponent => "csr_rsa_exponent",
            Self::RsaWeak => "csr_rsa_weak",
            Self::Signature => "csr_signature",
            Self::NoName | Self::Name(_) => "csr_name",
        }
    }
}

/// A public key whose private key the requester has shown to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCsr {
    spki: Vec<u8>,
}

/// A CSR with the names that it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCsr {
    /// The key.
    pub csr: VerifiedCsr,
    /// Its one URI.
    pub id: SpiffeId,
    /// Its DNS names, unchecked.
    pub dns_names: Vec<String>,
}

impl VerifiedCsr {
    /// Judges a CSR.
    pub fn parse(der: &[u8]) -> Result<Self, CsrRefusal> {
        Self::of(&parse_der(der)?, der)
    }

    fn of(csr: &X509CertificationRequest<'_>, der: &[u8]) -> Result<Self, CsrRefusal> {
        let spki = &csr.certification_request_info.subject_pki;
        check_key(spki)?;
        check_possession(csr, der)?;
        Ok(Self {
            spki: spki.raw.to_vec(),
        })
    }

    /// DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl NamedCsr {
    /// Judges a CSR and reads its names.
    pub fn parse(der: &[u8]) -> Result<Self, CsrRefusal> {
        let parsed = parse_der(der)?;
        let csr = VerifiedCsr::of(&parsed, der)?;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else {
                continue;
            };
            for name in &names.general_names {
                if let GeneralName::URI(uri) = name {
                    uris.push(*uri);
                } else if let GeneralName::DNSName(dns) = name {
                    dns_names.push((*dns).to_owned());
                }
            }
        }
        let [uri] = uris.as_slice() else {
            return Err(CsrRefusal::NoName);
        };
        Ok(Self {
            csr,
            id: SpiffeId::parse(uri)?,
            dns_names,
        })
    }
}

fn parse_der(der: &[u8]) -> Result<X509CertificationRequest<'_>, CsrRefusal> {
    if der.len() > CSR_BYTES_MAX {
        return Err(CsrRefusal::TooLong);
    }
    match X509CertificationRequest::from_der(der) {
        Ok(([], csr)) => Ok(csr),
        Ok(_) | Err(_) => Err(CsrRefusal::Malformed),
    }
}

/// The key's kind by the exact bytes of its algorithm: no explicit curve, no odd parameters.
fn check_key(spki: &SubjectPublicKeyInfo<'_>) -> Result<(), CsrRefusal> {
    if rcgen::SubjectPublicKeyInfo::from_der(spki.raw).is_err() {
        return Err(CsrRefusal::KeyKind);
    }
    match spki.parsed().map_err(|_| CsrRefusal::KeyKind)? {
        PublicKey::RSA(key) => check_rsa(key.modulus, key.exponent),
        PublicKey::EC(point) => {
            let data = point.data();
            // SPEC: RFC 5480 2.2: an uncompressed point; possession proves that it lies on the curve.
            let is_uncompressed = data.first() == Some(&4) && matches!(data.len(), 65 | 97);
            if is_uncompressed {
                Ok(())
            } else {
                Err(CsrRefusal::KeyKind)
            }
        }
        PublicKey::Unknown(bytes) if bytes.len() == 32 => Ok(()),
        PublicKey::Unknown(_)
        | PublicKey::DSA(_)
        | PublicKey::GostR3410(_)
        | PublicKey::GostR3410_2012(_) => Err(CsrRefusal::KeyKind),
    }
}

fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), CsrRefusal> {
    let modulus = trim_zeros(modulus);
    let first = modulus.first().copied().unwrap_or(0);
    let bytes = u32::try_from(modulus.len()).unwrap_or(u32::MAX);
    let bits = bytes
        .saturating_mul(8)
        .saturating_sub(first.leading_zeros());
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(CsrRefusal::RsaSize);
    }
    let exponent = trim_zeros(exponent);
    if exponent.len() > 4 {
        return Err(CsrRefusal::RsaExponent);
    }
    let exponent = exponent
        .iter()
        .fold(0_u64, |sum, byte| sum * 256 + u64::from(*byte));
    if exponent < 65_537 || exponent % 2 == 0 {
        return Err(CsrRefusal::RsaExponent);
    }
    if has_small_factor(modulus) || has_roca_fingerprint(modulus) {
        return Err(CsrRefusal::RsaWeak);
    }
    Ok(())
}

fn trim_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn remainder(modulus: &[u8], divisor: u64) -> u64 {
    modulus
        .iter()
        .fold(0, |rest, byte| (rest * 256 + u64::from(*byte)) % divisor)
}

fn has_small_factor(modulus: &[u8]) -> bool {
    (2..=752_u64).any(|divisor| remainder(modulus, divisor) == 0)
}

/// CVE-2017-15361: moduli of that library are powers of 65537 modulo each of these primes.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    const PRIMES: [u64; 17] = [
        11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
    ];
    PRIMES.iter().all(|prime| {
        let wanted = remainder(modulus, *prime);
        let mut power = 1;
        (0..*prime).any(|_| {
            power = power * 65_537 % prime;
            power == wanted
        })
    })
}

/// The CSR's signature must be by its own key (threat 23).
fn check_possession(csr: &X509CertificationRequest<'_>, der: &[u8]) -> Result<(), CsrRefusal> {
    let info = &csr.certification_request_info;
    // An algorithm identifier without its outer SEQUENCE is how the provider names algorithms.
    let key_algorithm = element(info.subject_pki.raw, 0).ok_or(CsrRefusal::Malformed)?;
    let signature_algorithm = element(der, 1).ok_or(CsrRefusal::Malformed)?;
    let key = &info.subject_pki.subject_public_key;
    if csr.signature_value.unused_bits != 0 || key.unused_bits != 0 {
        return Err(CsrRefusal::Malformed);
    }
    let is_verified = crypto::provider()
        .signature_verification_algorithms
        .all
        .iter()
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key_algorithm)
        .filter(|algorithm| algorithm.signature_alg_id().as_ref() == signature_algorithm)
        .any(|algorithm| {
            let signature = csr.signature_value.data.as_ref();
            algorithm
                .verify_signature(key.data.as_ref(), info.raw, signature)
                .is_ok()
        });
    if is_verified {
        Ok(())
    } else {
        Err(CsrRefusal::Signature)
    }
}

/// The content of the nth element of a DER SEQUENCE.
fn element(sequence: &[u8], index: usize) -> Option<&[u8]> {
    use x509_parser::der_parser::asn1_rs::{Any, FromDer as _};
    let (_, outer) = Any::from_der(sequence).ok()?;
    let mut rest = outer.data;
    for _ in 0..index {
        rest = Any::from_der(rest).ok()?.0;
    }
    Some(Any::from_der(rest).ok()?.1.data)
}

#[cfg(test)]
mod tests;
