//! One row for each rule, on certificates made for it.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair,
    KeyUsagePurpose as Ku, SanType,
};

use super::*;

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        uri("spiffe://td/a"),
        SanType::DnsName("a.td".try_into().unwrap()),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Ku::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params
}

fn der(params: CertificateParams) -> Vec<u8> {
    params
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .to_vec()
}

#[test]
fn x_01_02_04_05_08_10_each_leaf_rule_refuses_by_name() {
    use X509SvidError as E;
    type Row = (
        &'static str,
        fn(&mut CertificateParams),
        Option<fn(&E) -> bool>,
    );
    let rows: [Row; 11] = [
        ("good", |_| {}, None),
        (
            "X-5: no EKU is tolerated",
            |p| p.extended_key_usages.clear(),
            None,
        ),
        (
            "X-1 none",
            |p| p.subject_alt_names.clear(),
            Some(|e| *e == E::UriMissing),
        ),
        (
            "X-1 two",
            |p| p.subject_alt_names.push(uri("spiffe://td/b")),
            Some(|e| *e == E::UriMultiple),
        ),
        (
            "X-10 scheme",
            |p| p.subject_alt_names = vec![uri("https://td/a")],
            Some(|e| matches!(e, E::Uri(_))),
        ),
        (
            "X-2 root",
            |p| p.subject_alt_names = vec![uri("spiffe://td")],
            Some(|e| *e == E::RootId),
        ),
        (
            "X-2 cA",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Some(|e| *e == E::IsAuthority),
        ),
        (
            "X-4 keyCertSign",
            |p| p.key_usages.push(Ku::KeyCertSign),
            Some(|e| *e == E::SigningUsage),
        ),
        (
            "X-10 cRLSign",
            |p| p.key_usages.push(Ku::CrlSign),
            Some(|e| *e == E::SigningUsage),
        ),
        (
            "X-4 no digitalSignature",
            |p| p.key_usages = vec![Ku::KeyAgreement],
            Some(|e| *e == E::KeyUsage),
        ),
        (
            "X-5 serverAuth alone",
            |p| p.extended_key_usages = vec![Eku::ServerAuth],
            Some(|e| *e == E::ExtendedKeyUsage),
        ),
    ];
    for (name, spoil, want) in rows {
        let mut params = leaf_params();
        spoil(&mut params);
        let got = LeafSvid::parse(&der(params));
        match want {
            None => assert!(got.is_ok(), "{name}: {got:?}"),
            Some(is_wanted) => assert!(is_wanted(&got.unwrap_err()), "{name}"),
        }
    }
    let mut params = leaf_params();
    params.key_usages.clear();
    assert_eq!(
        LeafSvid::parse(&der(params)),
        Err(E::KeyUsage),
        "X-4: key usage must be there"
    );
}

#[test]
fn x_06_07_signing_certificates_have_their_own_rules() {
    let authority = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Ku::KeyCertSign, Ku::CrlSign];
        params
    };
    let parsed = SigningCertificate::parse(&der(authority(vec![uri("spiffe://td")]))).unwrap();
    assert_eq!(parsed.id.unwrap().as_str(), "spiffe://td");
    assert!(parsed.subject_key_id.is_some());
    assert!(
        SigningCertificate::parse(&der(authority(vec![])))
            .unwrap()
            .id
            .is_none()
    );
    let tolerated = SigningCertificate::parse(&der(authority(vec![uri("spiffe://td/")]))).unwrap();
    assert!(tolerated.id.unwrap().is_root(), "ID-10");
    assert_eq!(
        SigningCertificate::parse(&der(authority(vec![uri("spiffe://td/a")]))),
        Err(X509SvidError::AuthorityPath)
    );
    assert_eq!(
        SigningCertificate::parse(&der(leaf_params())),
        Err(X509SvidError::NotAuthority)
    );
}

#[test]
fn chains_are_cut_at_certificate_ends() {
    let (one, two) = (der(leaf_params()), der(leaf_params()));
    let both = [one.clone(), two.clone()].concat();
    assert_eq!(
        split_der_chain(&both).unwrap(),
        vec![one.as_slice(), two.as_slice()]
    );
    assert_eq!(split_der_chain(&[]).unwrap().len(), 0);
    assert!(split_der_chain(&both[..both.len() - 1]).is_none());
    assert!(split_der_chain(&[both.as_slice(), b"x"].concat()).is_none());
    assert_eq!(
        LeafSvid::parse(&both),
        Err(X509SvidError::Malformed),
        "one certificate, nothing behind it"
    );
}

#[test]
fn every_cut_and_flipped_byte_is_refused_or_parsed_without_panic() {
    let good = der(leaf_params());
    for end in 0..good.len() {
        assert!(LeafSvid::parse(&good[..end]).is_err());
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let _ = LeafSvid::parse(&bad);
    }
}
