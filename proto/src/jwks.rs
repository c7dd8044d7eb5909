//! JSON Web Keys and key sets, public keys alone (RFC 7517, RFC 7518 section 6, RFC 8037).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::jws::{JwsAlgorithm, parse_object};

/// Longest key set in bytes.
pub const JWKS_BYTES_MAX: usize = 1024 * 1024;
/// Most keys of a set.
pub const JWKS_KEYS_MAX: usize = 1000;
/// Largest RSA modulus in bytes (8192 bits).
pub const RSA_MODULUS_BYTES_MAX: usize = 1024;
/// Smallest RSA modulus in bytes (2048 bits; RFC 7518 3.3).
pub const RSA_MODULUS_BYTES_MIN: usize = 256;

/// Why a key or a key set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Past [`JWKS_BYTES_MAX`] or [`JWKS_KEYS_MAX`].
    #[error("the key set is too large")]
    TooLarge,
    /// Not a JSON object with an array `keys` (B-3).
    #[error("a key set is a JSON object with an array `keys`")]
    NotKeySet,
    /// A key that is recognised but broken.
    #[error("key {index} of the set is malformed: {reason}")]
    Key {
        /// Position, from 0.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The set carries a private key: somebody published a secret (threat 48).
    #[error("key {0} of the set has private parts")]
    PrivateKey(usize),
    /// The encoded public key has a kind that is not known here.
    #[error("the public key is of an unknown kind")]
    UnknownKind,
}

/// An elliptic curve of RFC 7518 6.2.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl Curve {
    /// Bytes of one coordinate.
    pub fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// `crv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521]
            .into_iter()
            .find(|curve| curve.name() == name)
    }
}

/// The public key itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JwkKey {
    /// A point on a curve; both coordinates in full length.
    Ec {
        /// The curve.
        curve: Curve,
        /// Big-endian x coordinate.
        x: Vec<u8>,
        /// Big-endian y coordinate.
        y: Vec<u8>,
    },
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// An Ed25519 public key.
    Ed25519 {
        /// 32 bytes.
        x: Vec<u8>,
    },
}

/// One public key with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    /// The key.
    pub key: JwkKey,
    /// `kid`.
    pub kid: Option<String>,
    /// `use`.
    pub use_: Option<String>,
    /// `alg`.
    pub alg: Option<String>,
    /// `x5c`, decoded from base64 to DER.
    pub x5c: Vec<Vec<u8>>,
}

/// An ordered set of public keys. Keys of an unknown kind are left out on parsing (B-4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JwkSet {
    /// The usable keys.
    pub keys: Vec<Jwk>,
    /// `spiffe_sequence` (B-1).
    pub sequence: Option<u64>,
    /// `spiffe_refresh_hint` in seconds (B-2).
    pub refresh_hint_secs: Option<u64>,
}

/// What became of one key of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadKey {
    /// A public key.
    Usable(Jwk),
    /// A key that stood there with its private half, which is not kept; its public half, if it is of a known kind
    /// (threat 48).
    Private(Option<Jwk>),
    /// A shared secret (`kty: oct`), which never checks a signature here (threat 44).
    Symmetric,
    /// Of a type or curve that is not known here, or not for checking signatures (B-4).
    Unknown,
    /// Recognised, and broken.
    Broken(&'static str),
}

impl ReadKey {
    fn of(key: &Value) -> Self {
        let Some(key) = key.as_object() else {
            return Self::Broken("it is not an object");
        };
        let has = |names: &[&str]| names.iter().any(|name| key.contains_key(*name));
        if has(&["k"]) || key.get("kty").and_then(Value::as_str) == Some("oct") {
            return Self::Symmetric;
        }
        let is_private = has(&["d", "p", "q", "dp", "dq", "qi", "oth"]);
        match Jwk::from_members(key) {
            Ok(key) if is_private => Self::Private(key),
            Ok(Some(key)) => Self::Usable(key),
            Ok(None) => Self::Unknown,
            Err(reason) => Self::Broken(reason),
        }
    }
}

fn members(object: &Map<String, Value>) -> Result<&Vec<Value>, JwksError> {
    let keys = object
        .get("keys")
        .and_then(Value::as_array)
        .ok_or(JwksError::NotKeySet)?;
    if keys.len() > JWKS_KEYS_MAX {
        return Err(JwksError::TooLarge);
    }
    Ok(keys)
}

impl JwkSet {
    /// Parses a key set. A key of an unknown type or curve is left out; a broken or private one
    /// refuses the whole set.
    pub fn parse(text: &str) -> Result<Self, JwksError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLarge);
        }
        let object = parse_object(text.as_bytes()).ok_or(JwksError::NotKeySet)?;
        let mut set = Self {
            keys: Vec::new(),
            sequence: object.get("spiffe_sequence").and_then(Value::as_u64),
            refresh_hint_secs: object.get("spiffe_refresh_hint").and_then(Value::as_u64),
        };
        for (index, key) in members(&object)?.iter().enumerate() {
            match ReadKey::of(key) {
                ReadKey::Usable(key) => set.keys.push(key),
                ReadKey::Unknown => {}
                ReadKey::Private(_) | ReadKey::Symmetric => {
                    return Err(JwksError::PrivateKey(index));
                }
                ReadKey::Broken(reason) => return Err(JwksError::Key { index, reason }),
            }
        }
        Ok(set)
    }

    /// Parses a key set of somebody else key by key, for those who take what is good of it and report the rest.
    pub fn parse_each(text: &str) -> Result<Vec<ReadKey>, JwksError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLarge);
        }
        let object = parse_object(text.as_bytes()).ok_or(JwksError::NotKeySet)?;
        Ok(members(&object)?.iter().map(ReadKey::of).collect())
    }

    /// The keys that carry this `kid`.
    pub fn by_id<'a>(&'a self, kid: &'a str) -> impl Iterator<Item = &'a Jwk> {
        self.keys
            .iter()
            .filter(move |key| key.kid.as_deref() == Some(kid))
    }

    /// As JSON, with the SPIFFE parameters where they are set.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("keys".into(), self.keys.iter().map(Jwk::to_json).collect());
        if let Some(sequence) = self.sequence {
            object.insert("spiffe_sequence".into(), sequence.into());
        }
        if let Some(hint) = self.refresh_hint_secs {
            object.insert("spiffe_refresh_hint".into(), hint.into());
        }
        Value::Object(object)
    }
}

impl Jwk {
    /// Builds a key from a DER `SubjectPublicKeyInfo` (RFC 5280 4.1).
    pub fn from_spki(
        kid: Option<&str>,
        use_: Option<&str>,
        spki: &[u8],
    ) -> Result<Self, JwksError> {
        Ok(Self {
            key: key_of_spki(spki).ok_or(JwksError::UnknownKind)?,
            kid: kid.map(str::to_owned),
            use_: use_.map(str::to_owned),
            alg: None,
            x5c: Vec::new(),
        })
    }

    /// The algorithms that fit this key: the list belongs to the key, never to a token (threat 44).
    pub fn algorithms(&self) -> &'static [JwsAlgorithm] {
        use JwsAlgorithm as A;
        match &self.key {
            JwkKey::Ec {
                curve: Curve::P256, ..
            } => &[A::Es256],
            JwkKey::Ec {
                curve: Curve::P384, ..
            } => &[A::Es384],
            JwkKey::Ec {
                curve: Curve::P521, ..
            } => &[A::Es512],
            JwkKey::Rsa { .. } => &[A::Rs256, A::Rs384, A::Rs512, A::Ps256, A::Ps384, A::Ps512],
            JwkKey::Ed25519 { .. } => &[A::EdDsa],
        }
    }

    /// True when a token of this algorithm may be checked with this key.
    pub fn accepts(&self, algorithm: JwsAlgorithm) -> bool {
        self.algorithms().contains(&algorithm)
            && self
                .alg
                .as_deref()
                .is_none_or(|alg| JwsAlgorithm::from_name(alg) == Some(algorithm))
    }

    /// As JSON, with `x5c` in standard base64 (RFC 7517 4.7).
    pub fn to_json(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut object = match &self.key {
            JwkKey::Ec { curve, x, y } => {
                json!({"kty": "EC", "crv": curve.name(), "x": encode(x), "y": encode(y)})
            }
            JwkKey::Rsa { n, e } => json!({"kty": "RSA", "n": encode(n), "e": encode(e)}),
            JwkKey::Ed25519 { x } => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(x)}),
        };
        if let Some(object) = object.as_object_mut() {
            for (name, value) in [("kid", &self.kid), ("use", &self.use_), ("alg", &self.alg)] {
                if let Some(value) = value {
                    object.insert(name.into(), value.clone().into());
                }
            }
            if !self.x5c.is_empty() {
                let chain: Vec<String> = self.x5c.iter().map(|der| STANDARD.encode(der)).collect();
                object.insert("x5c".into(), chain.into());
            }
        }
        object
    }

    fn from_members(object: &Map<String, Value>) -> Result<Option<Self>, &'static str> {
        let member = |name: &str| object.get(name).and_then(Value::as_str);
        for name in ["kty", "kid", "use", "alg", "crv"] {
            if object.get(name).is_some_and(|value| !value.is_string()) {
                return Err("a parameter that is text has another type");
            }
        }
        // SPEC: RFC 7517 4.3: a key that lists its operations is used for no other.
        if let Some(operations) = object.get("key_ops") {
            let operations = operations.as_array().ok_or("`key_ops` is not an array")?;
            if !operations.iter().any(|operation| operation == "verify") {
                return Ok(None);
            }
        }
        let bytes = |name: &str| {
            member(name)
                .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
                .ok_or("a parameter is missing or not base64url")
        };
        let key = match member("kty") {
            Some("EC") => {
                let Some(curve) = member("crv").and_then(Curve::from_name) else {
                    return Ok(None);
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != curve.coordinate_bytes() || y.len() != curve.coordinate_bytes() {
                    return Err("a coordinate does not have its curve's length");
                }
                JwkKey::Ec { curve, x, y }
            }
            Some("RSA") => {
                let (n, e) = (trimmed(bytes("n")?), trimmed(bytes("e")?));
                check_rsa(&n, &e)?;
                JwkKey::Rsa { n, e }
            }
            Some("OKP") if member("crv") == Some("Ed25519") => {
                let x = bytes("x")?;
                if x.len() != 32 {
                    return Err("an Ed25519 key has 32 bytes");
                }
                JwkKey::Ed25519 { x }
            }
            Some(_) | None => return Ok(None),
        };
        let x5c = match object.get("x5c") {
            None => Vec::new(),
            Some(chain) => chain
                .as_array()
                .ok_or("`x5c` is not an array")?
                .iter()
                .map(|der| der.as_str().and_then(|text| STANDARD.decode(text).ok()))
                .collect::<Option<_>>()
                .ok_or("`x5c` is not base64")?,
        };
        Ok(Some(Self {
            key,
            kid: member("kid").map(str::to_owned),
            use_: member("use").map(str::to_owned),
            alg: member("alg").map(str::to_owned),
            x5c,
        }))
    }
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), &'static str> {
    if !(RSA_MODULUS_BYTES_MIN..=RSA_MODULUS_BYTES_MAX).contains(&n.len()) {
        return Err("an RSA modulus has 2048 to 8192 bits");
    }
    let is_odd = e.last().is_some_and(|last| last % 2 == 1);
    if !is_odd || e == [1] || e.len() > 4 {
        return Err("the RSA exponent is not an odd number from 3 to 2^32");
    }
    Ok(())
}

fn trimmed(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.into_iter().skip(zeros).collect()
}

fn key_of_spki(spki: &[u8]) -> Option<JwkKey> {
    const EC: &str = "1.2.840.10045.2.1";
    const RSA: &str = "1.2.840.113549.1.1.1";
    const ED25519: &str = "1.3.101.112";
    let (rest, info) = SubjectPublicKeyInfo::from_der(spki).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let key = info.subject_public_key.data.as_ref();
    match info.algorithm.algorithm.to_id_string().as_str() {
        EC => {
            let curve = match info
                .algorithm
                .parameters
                .as_ref()?
                .as_oid()
                .ok()?
                .to_id_string()
                .as_str()
            {
                "1.2.840.10045.3.1.7" => Curve::P256,
                "1.3.132.0.34" => Curve::P384,
                "1.3.132.0.35" => Curve::P521,
                _ => return None,
            };
            let point = key.strip_prefix(&[4])?;
            if point.len() != 2 * curve.coordinate_bytes() {
                return None;
            }
            let (x, y) = point.split_at(curve.coordinate_bytes());
            Some(JwkKey::Ec {
                curve,
                x: x.to_vec(),
                y: y.to_vec(),
            })
        }
        RSA => {
            let PublicKey::RSA(rsa) = info.parsed().ok()? else {
                return None;
            };
            let (n, e) = (
                trimmed(rsa.modulus.to_vec()),
                trimmed(rsa.exponent.to_vec()),
            );
            check_rsa(&n, &e).ok()?;
            Some(JwkKey::Rsa { n, e })
        }
        ED25519 if key.len() == 32 => Some(JwkKey::Ed25519 { x: key.to_vec() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","y":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","kid":"k1","use":"jwt-svid"}"#;

    fn set(keys: &str) -> Result<JwkSet, JwksError> {
        JwkSet::parse(&format!(r#"{{"keys":[{keys}]}}"#))
    }

    #[test]
    fn threat_48_key_sets_are_taken_left_out_or_refused() {
        assert_eq!(set(P256).unwrap().keys.len(), 1);
        assert_eq!(set("").unwrap().keys.len(), 0, "B-3: may be empty");
        assert_eq!(
            set(r#"{"kty":"XX"}"#).unwrap().keys.len(),
            0,
            "B-4: unknown kty is ignored"
        );
        assert_eq!(
            set(r#"{"kty":"EC","crv":"secp256k1"}"#).unwrap().keys.len(),
            0
        );
        let with_secret = P256.replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"");
        assert_eq!(set(&with_secret), Err(JwksError::PrivateKey(0)));
        assert_eq!(
            set(r#"{"kty":"oct","k":"AAAA"}"#),
            Err(JwksError::PrivateKey(0))
        );
        assert!(matches!(
            set(r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#),
            Err(JwksError::Key { .. })
        ));
        assert!(
            matches!(
                set(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#),
                Err(JwksError::Key { .. })
            ),
            "threat 24: short RSA"
        );
        assert_eq!(JwkSet::parse("[]"), Err(JwksError::NotKeySet));
        assert_eq!(JwkSet::parse(r#"{"keys":{}}"#), Err(JwksError::NotKeySet));
        assert_eq!(
            JwkSet::parse(&" ".repeat(JWKS_BYTES_MAX + 1)),
            Err(JwksError::TooLarge)
        );
    }

    #[test]
    fn threat_48_keys_of_somebody_else_are_read_one_by_one_and_secrets_are_never_kept() {
        let private = P256.replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"");
        let encrypting = P256.replace("\"kid\"", "\"key_ops\":[\"deriveKey\"],\"kid\"");
        let keys = [
            P256,
            &private,
            r#"{"kty":"EC","crv":"secp256k1","d":"AAAA"}"#,
            r#"{"kty":"oct","k":"AAAA"}"#,
            r#"{"kty":"oct"}"#,
            r#"{"kty":"XX"}"#,
            &encrypting,
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
            r#"{"kty":"EC","crv":"P-256","kid":7}"#,
            "7",
        ];
        let read = JwkSet::parse_each(&format!("{{\"keys\":[{}]}}", keys.join(","))).unwrap();
        let public = set(P256).unwrap().keys[0].clone();
        assert_eq!(
            read,
            [
                ReadKey::Usable(public.clone()),
                ReadKey::Private(Some(public)),
                ReadKey::Private(None),
                ReadKey::Symmetric,
                ReadKey::Symmetric,
                ReadKey::Unknown,
                ReadKey::Unknown,
                ReadKey::Broken("a coordinate does not have its curve's length"),
                ReadKey::Broken("a parameter that is text has another type"),
                ReadKey::Broken("it is not an object"),
            ]
        );
        assert!(JwkSet::parse_each("{}").is_err());
        let many = vec![r#"{"kty":"XX"}"#; JWKS_KEYS_MAX + 1].join(",");
        assert_eq!(
            JwkSet::parse_each(&format!("{{\"keys\":[{many}]}}")),
            Err(JwksError::TooLarge)
        );
    }

    #[test]
    fn threat_44_a_key_says_which_algorithms_it_takes() {
        let key = &set(P256).unwrap().keys[0];
        assert!(key.accepts(JwsAlgorithm::Es256));
        for other in [
            JwsAlgorithm::Rs256,
            JwsAlgorithm::Es384,
            JwsAlgorithm::EdDsa,
        ] {
            assert!(!key.accepts(other));
        }
        let rsa = set(&format!(
            r#"{{"kty":"RSA","n":"{}","e":"AQAB","alg":"PS256"}}"#,
            URL_SAFE_NO_PAD.encode([0x81; 256])
        ))
        .unwrap();
        assert!(rsa.keys[0].accepts(JwsAlgorithm::Ps256));
        assert!(
            !rsa.keys[0].accepts(JwsAlgorithm::Rs256),
            "its alg narrows the list"
        );
    }

    #[test]
    fn json_goes_there_and_back() {
        let parsed = JwkSet::parse(&format!(r#"{{"keys":[{P256}],"spiffe_sequence":18446744073709551615,"spiffe_refresh_hint":300}}"#)).unwrap();
        assert_eq!(parsed.sequence, Some(u64::MAX), "B-1: 64 bits");
        assert_eq!(
            JwkSet::parse(&parsed.to_json().to_string()).unwrap(),
            parsed
        );
        assert_eq!(parsed.by_id("k1").count(), 1);
        assert_eq!(parsed.by_id("k2").count(), 0);
    }
}
