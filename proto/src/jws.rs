//! JSON Web Signatures in compact form, taken apart and bounded; the signature is checked elsewhere.
//!
//! RFC 7515 section 3.1. JSON serialization and unprotected headers do not exist here (J-1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest compact token in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest decoded header in bytes.
pub const HEADER_BYTES_MAX: usize = 2 * 1024;
/// Deepest nesting of header and payload.
pub const JSON_DEPTH_MAX: usize = 16;

/// Why a token is not a usable JWS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Past [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three non-empty base64url parts (RFC 7515 3.1).
    #[error("the token is not three base64url parts joined by `.`")]
    NotCompact,
    /// The header is not a JSON object within the limits.
    #[error("the token's header is not a JSON object")]
    Header,
    /// `alg` is missing, `none`, symmetric or unknown (J-2).
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// A `crit` header lists something that is not understood (RFC 7515 4.1.11).
    #[error("the token has a critical header that is not understood")]
    Critical,
    /// The payload is not a JSON object within the limits.
    #[error("the token's payload is not a JSON object")]
    Payload,
}

/// A signature algorithm that may be accepted: asymmetric ones alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// Ed25519 (RFC 8037): never for a JWT-SVID.
    EdDsa,
}

impl JwsAlgorithm {
    const NAMES: [(&'static str, Self); 10] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("EdDSA", Self::EdDsa),
    ];

    /// By its registered name, case-sensitive (RFC 7518 3.1). `none` and HMAC have none. `Ed25519` is the newer
    /// name of what `EdDSA` means here (RFC 9864).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDsa);
        }
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, algorithm)| *algorithm)
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, algorithm)| *algorithm == self)
            .map_or("", |(name, _)| name)
    }

    /// True for the nine that a JWT-SVID or WIT-SVID may use (JWT-SVID 2.1, J-2).
    pub fn is_svid_algorithm(self) -> bool {
        self != Self::EdDsa
    }
}

/// A compact JWS whose form has been checked. Its signature has not.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactJws<'a> {
    /// The algorithm that the header claims; a verifier compares it with its key's list.
    pub algorithm: JwsAlgorithm,
    /// `kid`.
    pub key_id: Option<String>,
    /// `typ`.
    pub typ: Option<String>,
    /// The whole header.
    pub header: Map<String, Value>,
    /// The decoded payload.
    pub payload: Vec<u8>,
    /// What was signed: header and payload with their dot.
    pub signing_input: &'a str,
    /// The decoded signature.
    pub signature: Vec<u8>,
}

impl<'a> CompactJws<'a> {
    /// Takes a token apart. The algorithm is checked before anything else is decoded (J-2).
    pub fn parse(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwsError::TooLong);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(JwsError::NotCompact)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwsError::NotCompact)?;
        if payload.contains('.')
            || [header, payload, signature]
                .iter()
                .any(|part| part.is_empty())
        {
            return Err(JwsError::NotCompact);
        }
        let header = decode(header)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(JwsError::Header);
        }
        let header = parse_object(&header).ok_or(JwsError::Header)?;
        let algorithm = text(&header, "alg")
            .and_then(|name| JwsAlgorithm::from_name(&name))
            .ok_or(JwsError::Algorithm)?;
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(JwsError::Critical);
        }
        for (name, value) in &header {
            if matches!(name.as_str(), "kid" | "typ") && !value.is_string() {
                return Err(JwsError::Header);
            }
        }
        Ok(Self {
            algorithm,
            key_id: text(&header, "kid"),
            typ: text(&header, "typ"),
            header,
            payload: decode(payload)?,
            signing_input,
            signature: decode(signature)?,
        })
    }

    /// The payload as a JSON object without duplicate keys, within [`JSON_DEPTH_MAX`].
    pub fn claims(&self) -> Result<Map<String, Value>, JwsError> {
        parse_object(&self.payload).ok_or(JwsError::Payload)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwsError::NotCompact)
}

fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    object.get(name)?.as_str().map(str::to_owned)
}

/// Parses a JSON object; `None` when it is something else, has a duplicate key or is too deep.
pub(crate) fn parse_object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let unique: unique::Object = serde_json::from_slice(bytes).ok()?;
    let object = unique.0;
    object
        .values()
        .all(|value| is_shallow(value, JSON_DEPTH_MAX - 1))
        .then_some(object)
}

fn is_shallow(value: &Value, left: usize) -> bool {
    match value {
        Value::Array(items) => left > 0 && items.iter().all(|item| is_shallow(item, left - 1)),
        Value::Object(object) => left > 0 && object.values().all(|item| is_shallow(item, left - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// A JSON object that refuses a duplicate key on its top level (RFC 7515 section 4, RFC 7519 section 4).
mod unique {
    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
    use serde_json::{Map, Value};

    pub(super) struct Object(pub(super) Map<String, Value>);

    impl<'de> Deserialize<'de> for Object {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Members;
            impl<'de> Visitor<'de> for Members {
                type Value = Object;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a JSON object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                    let mut object = Map::new();
                    while let Some((name, value)) = map.next_entry::<String, Value>()? {
                        if object.insert(name, value).is_some() {
                            return Err(A::Error::custom("duplicate key"));
                        }
                    }
                    Ok(Object(object))
                }
            }
            deserializer.deserialize_map(Members)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(payload), part("sig"))
    }

    #[test]
    fn j_01_j_02_threat_44_only_compact_tokens_with_listed_algorithms_pass() {
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        let rows: Vec<(&str, String, Option<JwsError>)> = vec![
            ("plain", token(r#"{"alg":"ES256"}"#, "{}"), None),
            (
                "none",
                token(r#"{"alg":"none"}"#, "{}"),
                Some(JwsError::Algorithm),
            ),
            (
                "None",
                token(r#"{"alg":"None"}"#, "{}"),
                Some(JwsError::Algorithm),
            ),
            (
                "HMAC",
                token(r#"{"alg":"HS256"}"#, "{}"),
                Some(JwsError::Algorithm),
            ),
            ("no alg", token("{}", "{}"), Some(JwsError::Algorithm)),
            (
                "alg number",
                token(r#"{"alg":1}"#, "{}"),
                Some(JwsError::Algorithm),
            ),
            (
                "alg twice",
                token(r#"{"alg":"ES256","alg":"none"}"#, "{}"),
                Some(JwsError::Header),
            ),
            (
                "crit",
                token(r#"{"alg":"ES256","crit":["x"]}"#, "{}"),
                Some(JwsError::Critical),
            ),
            (
                "b64",
                token(r#"{"alg":"ES256","b64":false}"#, "{}"),
                Some(JwsError::Critical),
            ),
            (
                "kid number",
                token(r#"{"alg":"ES256","kid":1}"#, "{}"),
                Some(JwsError::Header),
            ),
            ("array", token("[]", "{}"), Some(JwsError::Header)),
            (
                "JSON form",
                r#"{"payload":"e30"}"#.into(),
                Some(JwsError::NotCompact),
            ),
            ("two parts", "a.b".into(), Some(JwsError::NotCompact)),
            ("five parts", "a.b.c.d.e".into(), Some(JwsError::NotCompact)),
            (
                "no signature",
                format!(
                    "{}.",
                    token(r#"{"alg":"ES256"}"#, "{}")
                        .rsplit_once('.')
                        .unwrap()
                        .0
                ),
                Some(JwsError::NotCompact),
            ),
            ("padding", "e30=.e30.e30".into(), Some(JwsError::NotCompact)),
            ("long", long, Some(JwsError::TooLong)),
        ];
        for (name, token, want) in rows {
            assert_eq!(CompactJws::parse(&token).err(), want, "{name}");
        }
    }

    #[test]
    fn payloads_are_bounded_objects_without_duplicate_keys() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(16), "]".repeat(16));
        for (payload, want) in [
            (r#"{"a":1}"#, true),
            ("[]", false),
            (r#"{"a":1,"a":2}"#, false),
            (&deep, false),
            ("{} {}", false),
        ] {
            let token = token(r#"{"alg":"ES256"}"#, payload);
            assert_eq!(
                CompactJws::parse(&token).unwrap().claims().is_ok(),
                want,
                "{payload}"
            );
        }
    }

    #[test]
    fn algorithm_names_go_there_and_back() {
        for (name, algorithm) in JwsAlgorithm::NAMES {
            assert_eq!(JwsAlgorithm::from_name(name), Some(algorithm));
            assert_eq!(algorithm.name(), name);
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[A-Za-z0-9_.\\-=]{0,200}") {
            let _ = CompactJws::parse(&text);
        }
    }
}
