//! Wycheproof's signature vectors through our key sets and our check of a signature, for every algorithm of a token.
//!
//! What is refused although the vectors call it valid stands in `refused_on_purpose`, with its reason; a vector there
//! that passes fails the test as well, so that the list stays true.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tables of a test"
)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_proto::jwks::{Jwk, JwkKey, JwkSet};
use ravelin_proto::jws::JwsAlgorithm as A;
use ravelin_runtime::crypto::verify_jws;
use serde_json::{Value, json};
use wycheproof::{ecdsa, eddsa, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

/// One file of vectors.
struct Vectors {
    name: String,
    data: Value,
    algorithm: fn(&Value) -> Option<A>,
}

fn vectors(name: &str, data: &str, algorithm: fn(&Value) -> Option<A>) -> Vectors {
    Vectors {
        name: name.to_owned(),
        data: serde_json::from_str(data).unwrap(),
        algorithm,
    }
}

fn by_hash(group: &Value, of: [A; 3]) -> Option<A> {
    match group["sha"].as_str()? {
        "SHA-256" => Some(of[0]),
        "SHA-384" => Some(of[1]),
        "SHA-512" => Some(of[2]),
        _ => None,
    }
}

fn all() -> Vec<Vectors> {
    use ecdsa::TestName as Ec;
    let mut all = Vec::new();
    for name in [
        Ec::EcdsaSecp256r1Sha256P1363,
        Ec::EcdsaSecp384r1Sha384P1363,
        Ec::EcdsaSecp521r1Sha512P1363,
    ] {
        all.push(vectors(&format!("{name:?}"), name.json_data(), |group| {
            by_hash(group, [A::Es256, A::Es384, A::Es512])
        }));
    }
    for name in pkcs1::TestName::all() {
        all.push(vectors(&format!("{name:?}"), name.json_data(), |group| {
            by_hash(group, [A::Rs256, A::Rs384, A::Rs512])
        }));
    }
    for name in pss::TestName::all() {
        all.push(vectors(&format!("{name:?}"), name.json_data(), |group| {
            by_hash(group, [A::Ps256, A::Ps384, A::Ps512])
        }));
    }
    let ed25519 = eddsa::TestName::Ed25519;
    all.push(vectors("Ed25519", ed25519.json_data(), |_| Some(A::EdDsa)));
    all
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The group's key: by its JWK, its SubjectPublicKeyInfo, or its parts. Where several are there they must agree.
fn key(group: &Value) -> Option<Jwk> {
    let read = |jwk: &Value| {
        let set = JwkSet::parse(&json!({ "keys": [jwk] }).to_string()).ok()?;
        set.keys.into_iter().next()
    };
    let of_jwk = ["publicKeyJwk", "keyJwk"]
        .into_iter()
        .filter_map(|name| group.get(name))
        .find(|jwk| jwk.is_object())
        .and_then(read);
    // Keys that are bound to RSASSA-PSS have an encoding of their own, which no JWK has.
    let of_spki = Jwk::from_spki(None, None, &hex(&group["publicKeyDer"])).ok();
    let of_parts = group["publicKey"].get("modulus").and_then(|modulus| {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(hex(value));
        let exponent = &group["publicKey"]["publicExponent"];
        read(&json!({"kty": "RSA", "n": encode(modulus), "e": encode(exponent)}))
    });
    let found: Vec<Jwk> = [of_jwk, of_spki, of_parts].into_iter().flatten().collect();
    let first = found.first()?;
    assert!(found.iter().all(|other| other.key == first.key));
    let again = read(&first.to_json()).unwrap();
    assert_eq!(again.key, first.key, "a key goes there and back");
    Some(again)
}

/// Why a valid vector is refused here, if it is.
fn refused_on_purpose(group: &Value, algorithm: A) -> Option<&'static str> {
    let key_bits = group["keySize"].as_u64().unwrap_or_default();
    let of_hash = [(A::Ps256, 32), (A::Ps384, 48), (A::Ps512, 64)]
        .iter()
        .find(|(pss, _)| *pss == algorithm)
        .map(|(_, bytes)| *bytes);
    let is_pss = of_hash.is_some();
    if is_pss && group["mgf"].as_str() != Some("MGF1") {
        Some("RFC 7518 3.5: the mask is made by MGF1")
    } else if is_pss && group["mgfSha"] != group["sha"] {
        Some("RFC 7518 3.5: the mask's hash is the message's")
    } else if is_pss && group["sLen"].as_u64() != of_hash {
        Some("RFC 7518 3.5: the salt is as long as the hash")
    } else if key_bits > 0 && key_bits < 2048 {
        Some("RFC 7518 3.3: an RSA key has 2048 bits or more")
    } else if cfg!(not(feature = "aws-lc")) && algorithm == A::Es512 {
        Some("ring does not know P-521")
    } else {
        None
    }
}

/// Vectors that are wrong for their group's odd parameters, and right for a token.
fn right_for_a_token(file: &str, test: &Value) -> Option<&'static str> {
    let comment = test["comment"].as_str()?;
    let has_salt_of_its_hash =
        file.contains("Sha256Mgf1SaltLen0") && comment == "s_len changed to 32";
    has_salt_of_its_hash.then_some("the salt is as long as the hash, which the group does not want")
}

#[test]
fn threat_44_the_vectors_of_wycheproof_come_out_as_they_should() {
    let (mut valid, mut invalid, mut refused) = (0_usize, 0_usize, 0_usize);
    let mut wrong = Vec::new();
    for file in all() {
        for group in file.data["testGroups"].as_array().unwrap() {
            let Some(algorithm) = (file.algorithm)(group) else {
                continue;
            };
            let key = key(group);
            let reason = refused_on_purpose(group, algorithm);
            for test in group["tests"].as_array().unwrap() {
                let (text, signature) = (hex(&test["msg"]), hex(&test["sig"]));
                let is_accepted = key
                    .as_ref()
                    .is_some_and(|key| verify_jws(key, algorithm, &text, &signature).is_ok());
                let odd = right_for_a_token(&file.name, test).and(reason);
                let want = match (test["result"].as_str().unwrap(), reason) {
                    ("invalid", Some(_)) if odd.is_some() => true,
                    ("valid", None) => true,
                    ("valid", Some(_)) | ("invalid", _) => false,
                    // The vectors leave these open; nothing that a token's signer makes is among them.
                    _ => is_accepted,
                };
                match (want, reason) {
                    (true, _) => valid += 1,
                    (false, Some(_)) => refused += 1,
                    (false, None) => invalid += 1,
                }
                if is_accepted != want {
                    let (id, comment) = (&test["tcId"], &test["comment"]);
                    wrong.push(format!("{} {id} {comment} {reason:?}", file.name));
                }
            }
        }
    }
    println!("{valid} accepted, {invalid} refused, {refused} refused on purpose");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(valid > 500 && invalid > 500, "the vectors are there");
}

#[test]
fn threat_44_a_key_with_a_small_or_odd_exponent_or_modulus_is_no_key() {
    let name = pss::TestName::RsaPss2048Sha256Mgf1SaltLen32;
    let file = vectors("", name.json_data(), |_| None);
    let good = key(&file.data["testGroups"][0]).unwrap();
    let JwkKey::Rsa { n, e } = &good.key else {
        panic!("an RSA key")
    };
    let with = |n: &[u8], e: &[u8]| {
        let key = Jwk {
            key: JwkKey::Rsa {
                n: n.to_vec(),
                e: e.to_vec(),
            },
            ..good.clone()
        };
        JwkSet::parse(&json!({ "keys": [key.to_json()] }).to_string()).is_ok()
    };
    for (name, is_taken, want) in [
        ("as it is", with(n, e), true),
        ("exponent 1", with(n, &[1]), false),
        ("even exponent", with(n, &[1, 0, 0]), false),
        ("no exponent", with(n, &[]), false),
        ("long exponent", with(n, &[1, 0, 0, 0, 1]), false),
        ("1024 bits", with(&n[..128], e), false),
        ("no modulus", with(&[], e), false),
        ("16384 bits", with(&n.repeat(8), e), false),
    ] {
        assert_eq!(is_taken, want, "{name}");
    }
}
