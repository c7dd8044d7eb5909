//! What can be done to a good token, for each kind of key: parsed and checked as the proxies and the agent do it.
//! The forms are those that Wycheproof's JWS and JWK vectors try, made here with keys of our own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tables of a test"
)]

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ravelin_proto::jwks::{Jwk, JwkKey, JwkSet};
use ravelin_proto::jws::CompactJws;
use ravelin_runtime::crypto::{JwsSigner, digest_sha256, verify_jws};
use serde_json::{Value, json};

fn signer(kind: &'static rcgen::SignatureAlgorithm) -> JwsSigner {
    let pair = rcgen::KeyPair::generate_for(kind).unwrap();
    JwsSigner::from_pkcs8(pair.serialized_der()).unwrap()
}

fn signers() -> Vec<JwsSigner> {
    vec![
        signer(&rcgen::PKCS_ECDSA_P256_SHA256),
        signer(&rcgen::PKCS_ECDSA_P384_SHA384),
        signer(&rcgen::PKCS_ED25519),
        #[cfg(feature = "aws-lc")]
        signer(&rcgen::PKCS_RSA_SHA256),
    ]
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn sign(signer: &JwsSigner, header: &Value, payload: &str) -> String {
    let input = format!("{}.{}", part(&header.to_string()), part(payload));
    let signature = signer.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn key(signer: &JwsSigner) -> Jwk {
    let mut key = Jwk::from_spki(Some("k"), Some("sig"), signer.spki()).unwrap();
    key.alg = Some(signer.algorithm().name().to_owned());
    JwkSet::parse(&json!({ "keys": [key.to_json()] }).to_string())
        .unwrap()
        .keys
        .remove(0)
}

fn is_accepted(key: &Jwk, token: &str) -> bool {
    CompactJws::parse(token).is_ok_and(|jws| {
        let input = jws.signing_input.as_bytes();
        verify_jws(key, jws.algorithm, input, &jws.signature).is_ok() && jws.claims().is_ok()
    })
}

/// Another last character that stands for the same bytes in a lax decoder.
fn with_stray_bits(part: &str) -> Option<String> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = ALPHABET.find(part.chars().last()?)?;
    let other = ALPHABET.chars().nth(at + 1)?;
    (!part.len().is_multiple_of(4)).then(|| format!("{}{other}", &part[..part.len() - 1]))
}

#[test]
fn threat_44_every_change_of_a_good_token_is_refused() {
    for signer in signers() {
        let (key, name) = (key(&signer), signer.algorithm().name());
        let header = json!({"alg": name, "kid": "k"});
        let good = sign(&signer, &header, r#"{"sub":"alice"}"#);
        assert!(is_accepted(&key, &good), "{name}");
        let parts: Vec<&str> = good.split('.').collect();
        let (head, payload, signature) = (parts[0], parts[1], parts[2]);
        let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let signed = |bytes: &[u8]| format!("{head}.{payload}.{}", URL_SAFE_NO_PAD.encode(bytes));
        let flipped = |at: usize| {
            let mut bytes = raw.clone();
            bytes[at] ^= 1;
            signed(&bytes)
        };
        let headed = |name: &str, value: Value| {
            let mut header = header.clone();
            header[name] = value;
            part(&header.to_string())
        };
        let admin = part(r#"{"sub":"admin"}"#);
        let none = headed("alg", json!("none"));
        let other_none = headed("alg", json!("nOnE"));
        let renamed = headed("kid", json!("x"));
        let mut changed = vec![
            ("first byte of the signature", flipped(0)),
            ("last byte of the signature", flipped(raw.len() - 1)),
            ("longer signature", signed(&[raw.as_slice(), &[0]].concat())),
            ("shorter signature", signed(&raw[1..])),
            ("zeros", signed(&vec![0; raw.len()])),
            ("no signature", format!("{head}.{payload}.")),
            ("neither signature nor dot", format!("{head}.{payload}")),
            ("another payload", format!("{head}.{admin}.{signature}")),
            ("no payload", format!("{head}..{signature}")),
            ("neither payload nor dot", format!("{head}.{signature}")),
            ("another header", format!("{renamed}.{payload}.{signature}")),
            ("no header", format!(".{payload}.{signature}")),
            ("neither header nor dot", format!("{payload}.{signature}")),
            ("payload alone", format!(".{payload}.")),
            ("nothing", String::new()),
            ("dots", "..".to_owned()),
            ("empty fourth part", format!("{good}.")),
            ("fourth part", format!("{good}.e30")),
            ("none", format!("{none}.{payload}.")),
            ("none with it", format!("{other_none}.{payload}.{signature}")),
            ("padding", format!("{good}=")),
            ("a line end", format!("{good}\n")),
            ("a blank", format!("{head}.{payload}. {signature}")),
            ("reversed", format!("{signature}.{payload}.{head}")),
            ("a byte order mark", format!("\u{feff}{good}")),
            (
                "JSON form",
                json!({"protected": head, "payload": payload, "signature": signature}).to_string(),
            ),
            (
                "general JSON form",
                json!({"payload": payload, "signatures": [{"protected": head, "signature": signature}]})
                    .to_string(),
            ),
        ];
        let standard = STANDARD.encode(&raw).trim_end_matches('=').to_owned();
        if standard != signature {
            changed.push(("other alphabet", format!("{head}.{payload}.{standard}")));
        }
        if let Some(stray) = with_stray_bits(signature) {
            changed.push(("stray bits", format!("{head}.{payload}.{stray}")));
        }
        for (what, token) in changed {
            assert!(!is_accepted(&key, &token), "{name}: {what}");
        }
    }
}

#[test]
fn threat_44_a_key_that_the_token_brings_along_is_never_used() {
    let [ours, theirs] = [(); 2].map(|()| signer(&rcgen::PKCS_ECDSA_P256_SHA256));
    for (name, value) in [
        ("jwk", key(&theirs).to_json()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!([STANDARD.encode(theirs.spki())])),
        ("kid", json!("../../dev/null")),
        ("kid", json!("k' OR '1'='1")),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "k"});
        header[name] = value;
        let token = sign(&theirs, &header, "{}");
        assert!(is_accepted(&key(&theirs), &token), "well formed: {header}");
        assert!(!is_accepted(&key(&ours), &token), "{header}");
    }
}

#[test]
fn threat_44_a_public_key_is_no_shared_secret() {
    for signer in signers() {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let header = json!({"alg": algorithm, "kid": "k"});
            let input = format!("{}.{}", part(&header.to_string()), part("{}"));
            let mac = URL_SAFE_NO_PAD.encode(digest_sha256(signer.spki()));
            let token = format!("{input}.{mac}");
            assert!(CompactJws::parse(&token).is_err(), "{algorithm}");
            assert!(!is_accepted(&key(&signer), &token));
        }
    }
}

#[test]
fn threat_44_an_elliptic_signature_has_one_form_and_its_point_is_on_the_curve() {
    let signer = signer(&rcgen::PKCS_ECDSA_P256_SHA256);
    let token = sign(&signer, &json!({"alg": "ES256"}), "{}");
    let (input, signature) = token.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = raw.split_at(32);
    let integer = |number: &[u8]| [&[2, 33, 0], number].concat();
    let der = [vec![0x30, 70], integer(r), integer(s)].concat();
    let der = format!("{input}.{}", URL_SAFE_NO_PAD.encode(der));
    let good = key(&signer);
    assert!(
        !is_accepted(&good, &der),
        "RFC 7518 3.4: side by side, not DER"
    );
    let JwkKey::Ec { curve, x, y } = good.key.clone() else {
        panic!("a point")
    };
    let mut off = y.clone();
    off[31] ^= 1;
    for (name, x, y) in [
        ("off the curve", x.clone(), off),
        ("swapped", y, x),
        ("the origin", vec![0; 32], vec![0; 32]),
        ("past the field", vec![0xff; 32], vec![0xff; 32]),
    ] {
        let bad = Jwk {
            key: JwkKey::Ec { curve, x, y },
            ..good.clone()
        };
        assert!(!is_accepted(&bad, &token), "{name}");
    }
}

#[test]
fn threat_48_keys_of_a_set_that_are_not_for_this_are_left_out_or_refused() {
    let signer = signer(&rcgen::PKCS_ECDSA_P256_SHA256);
    let good = key(&signer).to_json();
    let with = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        let set = JwkSet::parse(&json!({ "keys": [key] }).to_string());
        set.ok().map(|set| set.keys.len())
    };
    for (name, value, want) in [
        ("key_ops", json!(["verify"]), Some(1)),
        ("key_ops", json!(["sign", "verify"]), Some(1)),
        ("key_ops", json!(["encrypt"]), Some(0)),
        ("key_ops", json!([]), Some(0)),
        ("key_ops", json!("verify"), None),
        ("kty", json!("oct"), None),
        ("kty", json!("ec"), Some(0)),
        ("crv", json!("P-384"), None),
        ("crv", json!("secp256k1"), Some(0)),
        ("y", Value::Null, None),
        ("x", json!(1), None),
        (
            "x",
            json!("+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/8="),
            None,
        ),
        ("d", json!("AAAA"), None),
        ("kid", json!(1), None),
    ] {
        let what = format!("{name}: {value}");
        assert_eq!(with(name, value), want, "{what}");
    }
}
