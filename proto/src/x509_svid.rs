//! X.509-SVID rules on a single certificate (X509-SVID sections 2 to 5; rows ).
//!
//! Path validation and signatures are somebody else's: `runtime::tls` does both.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::spiffe_id::{SpiffeId, SpiffeIdError};
use crate::time::{Timestamp, Validity};

/// Largest certificate in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// Why a certificate is not what it should be: one variant a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509SvidError {
    /// Not DER of one certificate, or past [`CERTIFICATE_BYTES_MAX`].
    #[error("the certificate is not valid DER")]
    Malformed,
    /// No URI SAN.
    #[error("the certificate has no URI name")]
    UriMissing,
    /// Several URI SANs.
    #[error("the certificate has more than one URI name")]
    UriMultiple,
    /// The URI is not a SPIFFE ID.
    #[error("the certificate's URI name is not a SPIFFE ID: {0}")]
    Uri(SpiffeIdError),
    /// The trust domain's own ID on a leaf.
    #[error("the certificate names a trust domain, not a workload")]
    RootId,
    /// `cA` is set on a leaf.
    #[error("a signing certificate cannot authenticate anyone")]
    IsAuthority,
    /// `keyCertSign` or `cRLSign` on a leaf.
    #[error("the certificate may sign certificates or revocation lists")]
    SigningUsage,
    /// Key usage is missing, not critical or without `digitalSignature`.
    #[error("the certificate's key usage is not a critical `digitalSignature`")]
    KeyUsage,
    /// Extended key usage without `serverAuth` or `clientAuth`.
    #[error("the certificate's extended key usage lacks `serverAuth` or `clientAuth`")]
    ExtendedKeyUsage,
    /// A signing certificate without `cA` or `keyCertSign`.
    #[error("the certificate may not sign certificates")]
    NotAuthority,
    /// A signing certificate whose ID has a path.
    #[error("a signing certificate's ID has no path")]
    AuthorityPath,
}

/// A leaf certificate that meets every rule which can be seen on it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafSvid {
    /// The one URI name.
    pub id: SpiffeId,
    /// Serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// When it may be used.
    pub validity: Validity,
    /// Authority key identifier, lower-case hex.
    pub authority_id: Option<String>,
    /// DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// DNS names, in order.
    pub dns_names: Vec<String>,
}

/// A certificate that may sign for a trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningCertificate {
    /// Its trust domain's ID, where it carries one (X-7; the trailing slash of the standard's
    /// own example is forgiven, ID-10).
    pub id: Option<SpiffeId>,
    /// Serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// When it may be used.
    pub validity: Validity,
    /// Subject key identifier, lower-case hex.
    pub subject_key_id: Option<String>,
    /// DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
}

impl LeafSvid {
    /// Parses DER and checks the leaf's rules.
    pub fn parse(der: &[u8]) -> Result<Self, X509SvidError> {
        let certificate = parse_der(der)?;
        let names = Names::of(&certificate)?;
        let uri = match names.uris.as_slice() {
            [] => return Err(X509SvidError::UriMissing),
            [uri] => uri,
            _ => return Err(X509SvidError::UriMultiple),
        };
        let id = SpiffeId::parse(uri).map_err(X509SvidError::Uri)?;
        if id.is_root() {
            return Err(X509SvidError::RootId);
        }
        check_leaf_extensions(&certificate)?;
        Ok(Self {
            id,
            serial: serial_of(&certificate),
            validity: validity_of(&certificate),
            authority_id: authority_key_id(&certificate),
            spki: certificate.public_key().raw.to_vec(),
            dns_names: names.dns,
        })
    }
}

impl SigningCertificate {
    /// Parses DER and checks a signing certificate's rules.
    pub fn parse(der: &[u8]) -> Result<Self, X509SvidError> {
        let certificate = parse_der(der)?;
        let is_ca = certificate
            .basic_constraints()
            .map_err(|_| X509SvidError::Malformed)?
            .is_some_and(|constraints| constraints.value.ca);
        let may_sign = certificate
            .key_usage()
            .map_err(|_| X509SvidError::Malformed)?
            .is_some_and(|usage| usage.value.key_cert_sign());
        if !is_ca || !may_sign {
            return Err(X509SvidError::NotAuthority);
        }
        let names = Names::of(&certificate)?;
        let id = match names.uris.as_slice() {
            [] => None,
            [uri] => {
                let uri = uri.strip_suffix('/').unwrap_or(uri);
                let id = SpiffeId::parse(uri).map_err(X509SvidError::Uri)?;
                if !id.is_root() {
                    return Err(X509SvidError::AuthorityPath);
                }
                Some(id)
            }
            _ => return Err(X509SvidError::UriMultiple),
        };
        Ok(Self {
            id,
            serial: serial_of(&certificate),
            validity: validity_of(&certificate),
            subject_key_id: subject_key_id(&certificate),
            spki: certificate.public_key().raw.to_vec(),
        })
    }
}

/// Cuts concatenated DER into certificates; `None` when a byte is left over or the last is cut off.
pub fn split_der_chain(concatenated: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = concatenated;
    let mut chain = Vec::new();
    while !rest.is_empty() {
        let (left, _) = X509Certificate::from_der(rest).ok()?;
        let (one, _) = rest.split_at_checked(rest.len() - left.len())?;
        chain.push(one);
        rest = left;
    }
    Some(chain)
}

fn parse_der(der: &[u8]) -> Result<X509Certificate<'_>, X509SvidError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(X509SvidError::Malformed);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(X509SvidError::Malformed),
    }
}

fn check_leaf_extensions(certificate: &X509Certificate<'_>) -> Result<(), X509SvidError> {
    let malformed = |_| X509SvidError::Malformed;
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(X509SvidError::IsAuthority);
    }
    let usage = certificate
        .key_usage()
        .map_err(malformed)?
        .ok_or(X509SvidError::KeyUsage)?;
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(X509SvidError::SigningUsage);
    }
    if !usage.critical || !usage.value.digital_signature() {
        return Err(X509SvidError::KeyUsage);
    }
    let extended = certificate.extended_key_usage().map_err(malformed)?;
    if extended.is_some_and(|usage| !(usage.value.server_auth && usage.value.client_auth)) {
        return Err(X509SvidError::ExtendedKeyUsage);
    }
    Ok(())
}

struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, X509SvidError> {
        let mut names = Self {
            uris: Vec::new(),
            dns: Vec::new(),
        };
        let alternative = certificate
            .subject_alternative_name()
            .map_err(|_| X509SvidError::Malformed)?;
        for name in alternative.iter().flat_map(|san| &san.value.general_names) {
            if let GeneralName::URI(uri) = name {
                names.uris.push((*uri).to_owned());
            } else if let GeneralName::DNSName(dns) = name {
                names.dns.push((*dns).to_owned());
            } else if let GeneralName::Invalid(..) = name {
                return Err(X509SvidError::Malformed);
            }
        }
        Ok(names)
    }
}

fn serial_of(certificate: &X509Certificate<'_>) -> String {
    let text = hex::encode(certificate.raw_serial());
    let trimmed = text.trim_start_matches('0');
    if trimmed.is_empty() {
        "0".to_owned()
    } else {
        trimmed.to_owned()
    }
}

fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity {
        not_before: Timestamp::from_unix_secs(validity.not_before.timestamp()),
        not_after: Timestamp::from_unix_secs(validity.not_after.timestamp()),
    }
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.extensions().iter().find_map(|extension| {
        if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            Some(hex::encode(id.0))
        } else {
            None
        }
    })
}

fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.extensions().iter().find_map(|extension| {
        if let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() {
            id.key_identifier.as_ref().map(|key| hex::encode(key.0))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests;
