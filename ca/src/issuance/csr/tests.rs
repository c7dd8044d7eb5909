//! Rows of weak, odd and forged requests.

use rcgen::{CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};

use super::*;

fn request(pair: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(pair).unwrap().der().to_vec()
}

fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

#[test]
fn the_accepted_kinds_of_key_pass_and_give_their_public_key() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let pair = pair(algorithm);
        let csr = VerifiedCsr::parse(&request(&pair, |_| {})).unwrap();
        assert_eq!(
            csr.spki(),
            rcgen::PublicKeyData::subject_public_key_info(&pair)
        );
    }
}

#[cfg(feature = "aws-lc")]
#[test]
fn an_rsa_key_of_2048_bits_passes() {
    let pair = pair(&rcgen::PKCS_RSA_SHA256);
    assert!(VerifiedCsr::parse(&request(&pair, |_| {})).is_ok());
}

#[test]
fn threat_22_whatever_else_a_csr_asks_for_stays_behind() {
    let pair = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let plain = VerifiedCsr::parse(&request(&pair, |_| {})).unwrap();
    let forged = request(&pair, |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://other/root".try_into().unwrap())];
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "administrator");
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    });
    assert_eq!(VerifiedCsr::parse(&forged), Ok(plain));
}

#[test]
fn threat_23_a_signature_by_another_key_is_no_proof_of_possession() {
    let pair = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let good = request(&pair, |_| {});
    let mut changed = good.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    assert_eq!(VerifiedCsr::parse(&changed), Err(CsrRefusal::Signature));
    let victim = rcgen::PublicKeyData::subject_public_key_info(
        &KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
    );
    let own = rcgen::PublicKeyData::subject_public_key_info(&pair);
    let at = good
        .windows(own.len())
        .position(|window| window == own)
        .unwrap();
    let mut swapped = good;
    swapped[at..at + own.len()].copy_from_slice(&victim);
    assert_eq!(VerifiedCsr::parse(&swapped), Err(CsrRefusal::Signature));
}

#[test]
fn threat_24_bytes_that_are_no_request_are_refused() {
    let pair = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let good = request(&pair, |_| {});
    let trailing = [&good[..], &[0]].concat();
    let rows = [
        ("empty", Vec::new(), CsrRefusal::Malformed),
        (
            "text",
            b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(),
            CsrRefusal::Malformed,
        ),
        ("trailing byte", trailing, CsrRefusal::Malformed),
        (
            "cut",
            good[..good.len() - 1].to_vec(),
            CsrRefusal::Malformed,
        ),
        ("huge", vec![0x30; CSR_BYTES_MAX + 1], CsrRefusal::TooLong),
    ];
    for (name, der, want) in rows {
        assert_eq!(VerifiedCsr::parse(&der), Err(want), "{name}");
    }
}

#[test]
fn threat_24_every_changed_byte_of_a_request_is_refused() {
    let pair = pair(&rcgen::PKCS_ED25519);
    let good = request(&pair, |_| {});
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 0x01;
        assert!(VerifiedCsr::parse(&changed).is_err(), "byte {index}");
    }
}

#[test]
fn threat_24_p521_is_refused_and_so_is_a_curve_by_its_parameters() {
    let pair = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let mut other_curve = request(&pair, |_| {});
    // prime256v1 ends in .7; .1 is prime192v1.
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = other_curve
        .windows(oid.len())
        .position(|window| window == oid)
        .unwrap();
    other_curve[at + 7] = 0x01;
    assert_eq!(VerifiedCsr::parse(&other_curve), Err(CsrRefusal::KeyKind));
    #[cfg(feature = "aws-lc")]
    {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        assert_eq!(
            VerifiedCsr::parse(&request(&pair, |_| {})),
            Err(CsrRefusal::KeyKind)
        );
    }
}

#[test]
fn threat_24_weak_rsa_keys_are_refused() {
    let odd = |bits: usize| {
        // 2^bits - 1 has small factors only where its exponent has; -57 is odd and has none below 752 here.
        let mut modulus = vec![0xff; bits / 8];
        let last = modulus.len() - 1;
        modulus[last] = 0xc7;
        modulus
    };
    let strong = (1..=255_u8)
        .step_by(2)
        .map(|last| {
            let mut modulus = odd(2048);
            modulus[255] = last;
            modulus
        })
        .find(|modulus| check_rsa(modulus, &[1, 0, 1]).is_ok())
        .unwrap();
    let even = [&strong[..255], &[2]].concat();
    let rows: [(&str, &[u8], &[u8], CsrRefusal); 7] = [
        ("1024 bits", &odd(1024), &[1, 0, 1], CsrRefusal::RsaSize),
        ("8192 bits", &odd(8192), &[1, 0, 1], CsrRefusal::RsaSize),
        ("e = 1", &strong, &[1], CsrRefusal::RsaExponent),
        ("e = 3", &strong, &[3], CsrRefusal::RsaExponent),
        ("even e", &strong, &[1, 0, 2], CsrRefusal::RsaExponent),
        ("huge e", &strong, &[1, 0, 0, 0, 1], CsrRefusal::RsaExponent),
        ("even modulus", &even, &[1, 0, 1], CsrRefusal::RsaWeak),
    ];
    for (name, modulus, exponent, want) in rows {
        assert_eq!(check_rsa(modulus, exponent), Err(want), "{name}");
    }
}

#[test]
fn an_administrator_names_one_spiffe_id() {
    let pair = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let named = |uris: &[&str]| {
        NamedCsr::parse(&request(&pair, |params| {
            params.subject_alt_names = uris
                .iter()
                .map(|uri| SanType::URI((*uri).try_into().unwrap()))
                .chain([SanType::DnsName("a.test".try_into().unwrap())])
                .collect();
        }))
    };
    let one = named(&["spiffe://td/a"]).unwrap();
    assert_eq!(
        (one.id.as_str(), one.dns_names),
        ("spiffe://td/a", vec!["a.test".to_owned()])
    );
    assert_eq!(named(&[]), Err(CsrRefusal::NoName));
    assert_eq!(
        named(&["spiffe://td/a", "spiffe://td/b"]),
        Err(CsrRefusal::NoName)
    );
    assert!(matches!(named(&["https://td/a"]), Err(CsrRefusal::Name(_))));
}
