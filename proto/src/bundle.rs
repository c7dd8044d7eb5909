//! Trust bundles: a trust domain's public keys, and their JWKS form (rows, B-1 to B-5).

use serde_json::Value;

use crate::jwks::{Jwk, JwkSet, JwksError};
use crate::spiffe_id::TrustDomain;
use crate::time::Timestamp;
use crate::x509_svid::SigningCertificate;

const USE_X509: &str = "x509-svid";
const USE_JWT: &str = "jwt-svid";

/// An X.509 authority of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Authority {
    /// The certificate.
    pub der: Vec<u8>,
    /// Still trusted, but everything that it signed must be replaced.
    pub is_tainted: bool,
}

/// A JWT authority of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    /// `kid`.
    pub key_id: String,
    /// DER `SubjectPublicKeyInfo`.
    pub public_key_spki: Vec<u8>,
    /// When no token of it can be valid any more.
    pub expires_at: Timestamp,
    /// Still trusted, but everything that it signed must be replaced.
    pub is_tainted: bool,
}

/// A trust domain's public keys. Bundles of different domains are never merged (B-5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Whose keys these are; kept beside the keys, never inferred from them.
    pub trust_domain: TrustDomain,
    /// X.509 authorities.
    pub x509_authorities: Vec<X509Authority>,
    /// JWT authorities.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// Seconds between polls by foreign trust domains; 0 means unset.
    pub refresh_hint_secs: u32,
    /// Grows with each change of content (B-1).
    pub sequence: u64,
}

/// Which keys a JWKS document shall hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwksContent {
    /// Both kinds, for federation.
    All,
    /// `x509-svid` keys alone.
    X509Only,
    /// `jwt-svid` keys alone (Workload API, row A-11).
    JwtOnly,
}

impl Bundle {
    /// An empty bundle: everything of that trust domain is untrusted (B-3).
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            refresh_hint_secs: 0,
            sequence: 0,
        }
    }

    /// The JWT authorities as a key set for verification; keys of an unknown kind are left out.
    pub fn jwt_keys(&self) -> JwkSet {
        let key = |authority: &JwtAuthority| {
            Jwk::from_spki(
                Some(&authority.key_id),
                Some(USE_JWT),
                &authority.public_key_spki,
            )
            .ok()
        };
        JwkSet {
            keys: self.jwt_authorities.iter().filter_map(key).collect(),
            sequence: None,
            refresh_hint_secs: None,
        }
    }

    /// The SPIFFE bundle format (SPIFFE Trust Domain and Bundle, section 4).
    pub fn to_jwks(&self, content: JwksContent) -> String {
        self.to_jwk_set(content).to_json().to_string()
    }

    fn to_jwk_set(&self, content: JwksContent) -> JwkSet {
        let mut keys = Vec::new();
        if content != JwksContent::JwtOnly {
            for authority in &self.x509_authorities {
                let spki = SigningCertificate::parse(&authority.der).map(|parsed| parsed.spki);
                let key = spki
                    .ok()
                    .and_then(|spki| Jwk::from_spki(None, Some(USE_X509), &spki).ok());
                if let Some(mut key) = key {
                    key.x5c = vec![authority.der.clone()];
                    keys.push(key);
                }
            }
        }
        if content != JwksContent::X509Only {
            keys.extend(self.jwt_keys().keys);
        }
        let is_whole = content == JwksContent::All;
        JwkSet {
            keys,
            sequence: is_whole.then_some(self.sequence),
            refresh_hint_secs: (is_whole && self.refresh_hint_secs > 0)
                .then_some(u64::from(self.refresh_hint_secs)),
        }
    }

    /// Reads the SPIFFE bundle format. Keys without a known `use` are ignored (B-4); an
    /// `x509-svid` key counts by the first certificate of its `x5c` alone.
    pub fn from_jwks(trust_domain: TrustDomain, text: &str) -> Result<Self, JwksError> {
        let set = JwkSet::parse(text)?;
        let mut bundle = Self::new(trust_domain);
        bundle.sequence = set.sequence.unwrap_or(0);
        bundle.refresh_hint_secs = set
            .refresh_hint_secs
            .map_or(0, |hint| u32::try_from(hint).unwrap_or(u32::MAX));
        for (index, key) in set.keys.into_iter().enumerate() {
            match key.use_.as_deref() {
                Some(USE_X509) => {
                    let Some(der) = key.x5c.into_iter().next() else {
                        continue;
                    };
                    SigningCertificate::parse(&der).map_err(|_| JwksError::Key {
                        index,
                        reason: "its certificate is not a signing certificate",
                    })?;
                    bundle.x509_authorities.push(X509Authority {
                        der,
                        is_tainted: false,
                    });
                }
                Some(USE_JWT) => {
                    let Some(key_id) = key.kid.clone() else {
                        continue;
                    };
                    bundle.jwt_authorities.push(JwtAuthority {
                        key_id,
                        public_key_spki: spki_of(&key),
                        expires_at: Timestamp::from_unix_millis(i64::MAX),
                        is_tainted: false,
                    });
                }
                Some(_) | None => {}
            }
        }
        Ok(bundle)
    }
}

/// The id of an X.509 authority: its subject key identifier in lower-case hex.
pub fn x509_authority_id(der: &[u8]) -> Option<String> {
    SigningCertificate::parse(der).ok()?.subject_key_id
}

/// True when the text is a JSON object with an array `keys`: the least that a bundle is (B-3).
pub fn is_bundle_document(text: &str) -> bool {
    serde_json::from_str::<Value>(text)
        .is_ok_and(|value| value.get("keys").is_some_and(Value::is_array))
}

fn spki_of(key: &Jwk) -> Vec<u8> {
    use crate::jwks::{Curve, JwkKey};
    let (algorithm, bits): (&[u8], Vec<u8>) = match &key.key {
        JwkKey::Ec { curve, x, y } => {
            let oid: &[u8] = match curve {
                Curve::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
                Curve::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
                Curve::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
            };
            let ec: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
            return der_spki(&[ec, oid].concat(), &[&[4][..], x, y].concat());
        }
        JwkKey::Rsa { n, e } => {
            let rsa: &[u8] = &[
                0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
            ];
            (rsa, der(0x30, &[der_integer(n), der_integer(e)].concat()))
        }
        JwkKey::Ed25519 { x } => (&[0x06, 0x03, 0x2b, 0x65, 0x70], x.clone()),
    };
    der_spki(algorithm, &bits)
}

fn der_spki(algorithm: &[u8], bits: &[u8]) -> Vec<u8> {
    let bit_string = der(0x03, &[&[0][..], bits].concat());
    der(0x30, &[der(0x30, algorithm), bit_string].concat())
}

fn der_integer(magnitude: &[u8]) -> Vec<u8> {
    let needs_zero = magnitude.first().is_none_or(|first| first & 0x80 != 0);
    let zero: &[u8] = if needs_zero { &[0] } else { &[] };
    der(0x02, &[zero, magnitude].concat())
}

/// One DER element (X.690 8.1.3): the length in its shortest form.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if let Ok(short @ 0..0x80) = u8::try_from(content.len()) {
        out.push(short);
    } else {
        let bytes = content.len().to_be_bytes();
        let length: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | u8::try_from(length.len()).unwrap_or(8));
        out.extend(length);
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    };

    fn bundle() -> Bundle {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let mut bundle = Bundle::new(TrustDomain::parse("td").unwrap());
        bundle.x509_authorities.push(X509Authority {
            der: params.self_signed(&key).unwrap().der().to_vec(),
            is_tainted: false,
        });
        for (kid, algorithm) in [
            ("ec", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("ec3", &rcgen::PKCS_ECDSA_P384_SHA384),
            ("ed", &rcgen::PKCS_ED25519),
        ] {
            bundle.jwt_authorities.push(JwtAuthority {
                key_id: kid.into(),
                public_key_spki: KeyPair::generate_for(algorithm)
                    .unwrap()
                    .subject_public_key_info(),
                expires_at: Timestamp::from_unix_millis(i64::MAX),
                is_tainted: false,
            });
        }
        bundle.sequence = 7;
        bundle.refresh_hint_secs = 300;
        bundle
    }

    #[test]
    fn x_11_b_01_02_the_jwks_form_goes_there_and_back() {
        let bundle = bundle();
        let text = bundle.to_jwks(JwksContent::All);
        assert_eq!(
            Bundle::from_jwks(bundle.trust_domain.clone(), &text).unwrap(),
            bundle
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["spiffe_sequence"], 7);
        assert_eq!(value["keys"][0]["use"], "x509-svid");
        assert!(value["keys"][0].get("kid").is_none(), "X-11: no kid");
        assert_eq!(value["keys"][0]["x5c"].as_array().unwrap().len(), 1);
        assert_eq!(value["keys"][1]["kid"], "ec", "J-8");
    }

    #[test]
    fn a_11_a_jwt_bundle_has_no_keys_of_other_uses() {
        let text = bundle().to_jwks(JwksContent::JwtOnly);
        assert!(text.contains("jwt-svid") && !text.contains("x509-svid"));
        let text = bundle().to_jwks(JwksContent::X509Only);
        assert!(!text.contains("jwt-svid") && text.contains("x509-svid"));
    }

    #[test]
    fn x_12_b_04_entries_that_say_nothing_are_ignored() {
        let bundle = bundle();
        let mut value: Value = serde_json::from_str(&bundle.to_jwks(JwksContent::All)).unwrap();
        value["keys"][0].as_object_mut().unwrap().remove("x5c");
        value["keys"][1]["use"] = "JWT-SVID".into();
        value["keys"][2].as_object_mut().unwrap().remove("use");
        let read = Bundle::from_jwks(bundle.trust_domain.clone(), &value.to_string()).unwrap();
        assert!(read.x509_authorities.is_empty());
        assert_eq!(read.jwt_authorities.len(), 1);
    }

    #[test]
    fn rsa_keys_keep_their_encoding() {
        let n = vec![0x81; 256];
        let key = Jwk {
            key: crate::jwks::JwkKey::Rsa {
                n,
                e: vec![1, 0, 1],
            },
            kid: None,
            use_: None,
            alg: None,
            x5c: vec![],
        };
        let spki = spki_of(&key);
        assert_eq!(Jwk::from_spki(None, None, &spki).unwrap(), key);
    }
}
