//! One table a rule, on chains made for it.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Eku, IsCa,
    KeyUsagePurpose as Ku,
};

use super::super::fixture::{
    Authority, NOW, authority_params, bundles, domain, set_validity, svid_params, uri,
};
use super::*;
use crate::limits::VERIFIED_CHAINS_MAX;

type Change = fn(&mut CertificateParams);

const ORDERS: &str = "spiffe://one.test/orders";

fn code(result: Result<PeerIdentity, PeerError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn x_01_x_02_x_04_x_05_x_10_a_leaf_that_breaks_its_own_rules_is_no_peer() {
    let authority = Authority::new("one.test");
    let trusted = bundles(&[("one.test", &[&authority])]);
    let rows: [(&str, Change, &str); 11] = [
        ("x_01 one URI name", |_| {}, "accepted"),
        (
            "x_01 no URI name",
            |p| p.subject_alt_names.clear(),
            "peer_not_an_svid",
        ),
        (
            "x_01 two URI names",
            |p| p.subject_alt_names.push(uri("spiffe://one.test/payments")),
            "peer_not_an_svid",
        ),
        (
            "x_02 root ID",
            |p| p.subject_alt_names = vec![uri("spiffe://one.test")],
            "peer_not_an_svid",
        ),
        (
            "x_04 keyCertSign",
            |p| p.key_usages.push(Ku::KeyCertSign),
            "peer_not_an_svid",
        ),
        (
            "x_04 cRLSign",
            |p| p.key_usages.push(Ku::CrlSign),
            "peer_not_an_svid",
        ),
        (
            "x_04 no key usage",
            |p| p.key_usages.clear(),
            "peer_not_an_svid",
        ),
        (
            "x_05 no EKU at all",
            |p| p.extended_key_usages.clear(),
            "accepted",
        ),
        (
            "x_05 one EKU",
            |p| p.extended_key_usages = vec![Eku::ClientAuth],
            "peer_not_an_svid",
        ),
        (
            "x_10 another scheme",
            |p| p.subject_alt_names = vec![uri("https://one.test/orders")],
            "peer_not_an_svid",
        ),
        (
            "x_10 upper case",
            |p| p.subject_alt_names = vec![uri("spiffe://ONE.test/orders")],
            "peer_not_an_svid",
        ),
    ];
    for (name, change, want) in rows {
        let mut params = svid_params(ORDERS);
        change(&mut params);
        let leaf = authority.sign(&params);
        assert_eq!(code(verify_chain(&trusted, &[leaf], NOW)), want, "{name}");
    }
}

#[test]
fn x_08_a_signing_certificate_is_never_a_peer() {
    let authority = Authority::new("one.test");
    let trusted = bundles(&[("one.test", &[&authority])]);
    let mut with_path = authority_params("one.test");
    with_path.subject_alt_names = vec![uri(ORDERS)];
    let mut without_usage = svid_params(ORDERS);
    without_usage.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (name, leaf) in [
        ("the authority itself", authority.der.clone()),
        (
            "an authority below it",
            authority.below(authority_params("one.test")).der,
        ),
        (
            "an authority with a workload's ID",
            authority.sign(&with_path),
        ),
        ("cA with a leaf's key usage", authority.sign(&without_usage)),
    ] {
        let got = code(verify_chain(&trusted, &[leaf], NOW));
        assert_eq!(got, "peer_not_an_svid", "{name}");
    }
}

#[test]
fn x_09_a_leaf_is_judged_by_the_bundle_of_its_own_trust_domain_alone() {
    let (one, two, stranger) = (
        Authority::new("one.test"),
        Authority::new("two.test"),
        Authority::new("one.test"),
    );
    let leaf = |authority: &Authority, id| authority.sign(&svid_params(id));
    let both = bundles(&[("one.test", &[&one]), ("two.test", &[&two])]);
    let rotating = bundles(&[("one.test", &[&stranger, &one])]);
    let emptied = bundles(&[("one.test", &[]), ("two.test", &[&two])]);
    let swapped = bundles(&[("one.test", &[&two]), ("two.test", &[&one])]);
    for (name, trusted, leaf, want) in [
        ("own bundle", &both, leaf(&one, ORDERS), "accepted"),
        (
            "another federated domain",
            &both,
            leaf(&two, "spiffe://two.test/a"),
            "accepted",
        ),
        (
            "signed by another domain's authority",
            &both,
            leaf(&two, ORDERS),
            "peer_untrusted",
        ),
        (
            "an authority of the same name",
            &both,
            leaf(&stranger, ORDERS),
            "peer_untrusted",
        ),
        (
            "any authority of the bundle",
            &rotating,
            leaf(&one, ORDERS),
            "accepted",
        ),
        (
            "unknown domain",
            &both,
            leaf(&one, "spiffe://three.test/a"),
            "peer_trust_domain",
        ),
        (
            "b_03 emptied bundle",
            &emptied,
            leaf(&one, ORDERS),
            "peer_trust_domain",
        ),
        (
            "x_07 authority of another domain in the bundle",
            &swapped,
            leaf(&two, ORDERS),
            "peer_trust_domain",
        ),
    ] {
        assert_eq!(code(verify_chain(trusted, &[leaf], NOW)), want, "{name}");
    }
}

#[test]
fn x_09_paths_lead_over_intermediates_that_may_sign_for_the_domain() {
    let root = Authority::new("one.test");
    let trusted = bundles(&[("one.test", &[&root])]);
    let rows: [(&str, Change, &str); 6] = [
        ("x_06 cA and keyCertSign", |_| {}, "accepted"),
        ("x_07 no ID", |p| p.subject_alt_names.clear(), "accepted"),
        (
            "x_06 no keyCertSign",
            |p| p.key_usages = vec![Ku::CrlSign],
            "peer_untrusted",
        ),
        (
            "x_06 no cA",
            |p| p.is_ca = IsCa::ExplicitNoCa,
            "peer_untrusted",
        ),
        (
            "x_07 ID of another domain",
            |p| p.subject_alt_names = vec![uri("spiffe://two.test")],
            "peer_untrusted",
        ),
        ("expired", |p| set_validity(p, -3600, -1), "peer_untrusted"),
    ];
    for (name, change, want) in rows {
        let mut params = authority_params("one.test");
        change(&mut params);
        let below = root.below(params);
        let leaf = below.sign(&svid_params(ORDERS));
        let got = verify_chain(&trusted, &[leaf.clone(), below.der.clone()], NOW);
        assert_eq!(code(got), want, "{name}");
        assert_eq!(
            code(verify_chain(&trusted, &[leaf], NOW)),
            "peer_untrusted",
            "{name}: missing"
        );
    }
}

#[test]
fn x_09_a_leaf_never_signs_for_another() {
    let authority = Authority::new("one.test");
    let trusted = bundles(&[("one.test", &[&authority])]);
    let workload = authority.below(svid_params("spiffe://one.test/compromised"));
    let forged = workload.sign(&svid_params("spiffe://one.test/payments"));
    let got = verify_chain(&trusted, &[forged, workload.der.clone()], NOW);
    assert_eq!(code(got), "peer_untrusted");
}

#[test]
fn x_09_dates_are_kept_to_the_second_by_leaf_and_authority() {
    let mut short = authority_params("one.test");
    set_validity(&mut short, -3600, 100);
    let authority = Authority::with(short);
    let trusted = bundles(&[("one.test", &[&authority])]);
    let mut params = svid_params(ORDERS);
    set_validity(&mut params, -60, 600);
    let leaf = authority.sign(&params);
    for (secs, want) in [
        (-61, "peer_not_yet_valid"),
        (-60, "accepted"),
        (0, "accepted"),
        (100, "accepted"),
        (101, "peer_untrusted"),
        (600, "peer_untrusted"),
        (601, "peer_expired"),
        (i64::from(u32::MAX), "peer_expired"),
    ] {
        let now = Timestamp::from_unix_secs(NOW.unix_secs() + secs);
        assert_eq!(
            code(verify_chain(&trusted, std::slice::from_ref(&leaf), now)),
            want,
            "at {secs} s"
        );
    }
}

#[test]
fn chains_have_limits() {
    let authority = Authority::new("one.test");
    let trusted = bundles(&[("one.test", &[&authority])]);
    let leaf = authority.sign(&svid_params(ORDERS));
    let huge = CertificateDer::from(vec![0x30; CERTIFICATE_BYTES_MAX + 1]);
    let with = |count| {
        let mut chain = vec![leaf.clone()];
        chain.extend(std::iter::repeat_n(authority.der.clone(), count));
        chain
    };
    for (name, chain, want) in [
        ("empty", vec![], "peer_no_certificate"),
        ("with its authority", with(1), "accepted"),
        ("at the limit", with(CHAIN_CERTIFICATES_MAX - 1), "accepted"),
        (
            "past the limit",
            with(CHAIN_CERTIFICATES_MAX),
            "peer_chain_too_long",
        ),
        ("a huge leaf", vec![huge.clone()], "peer_chain_too_long"),
        (
            "a huge intermediate",
            vec![leaf.clone(), huge],
            "peer_chain_too_long",
        ),
        (
            "bytes that are no certificate",
            vec![CertificateDer::from(vec![1, 2, 3])],
            "peer_not_an_svid",
        ),
    ] {
        assert_eq!(code(verify_chain(&trusted, &chain, NOW)), want, "{name}");
    }
}

#[test]
fn a_verified_peer_is_named_in_full() {
    let authority = Authority::new("one.test");
    let trusted = bundles(&[("one.test", &[&authority])]);
    let mut params = svid_params(ORDERS);
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x0a, 0xbc]));
    let leaf = authority.sign(&params);
    let peer = verify_chain(&trusted, std::slice::from_ref(&leaf), NOW).expect("accepted");
    assert_eq!(peer.id.as_str(), ORDERS);
    assert_eq!(peer.serial, "abc");
    assert_eq!(peer.not_after.unix_secs(), NOW.unix_secs() + 600);
    assert_eq!(peer.chain, [leaf]);
    assert_eq!(
        peer.authority_id,
        ravelin_proto::bundle::x509_authority_id(&authority.der)
    );
    assert!(peer.authority_id.is_some());
}

#[test]
fn expectations_name_a_domain_or_some_ids_and_an_empty_list_nobody() {
    let id = SpiffeId::parse(ORDERS).expect("id");
    let other = SpiffeId::parse("spiffe://one.test/payments").expect("id");
    for (expect, want) in [
        (Expect::AnyMember, true),
        (Expect::TrustDomain(domain("one.test")), true),
        (Expect::TrustDomain(domain("two.test")), false),
        (Expect::OneOf(vec![other.clone(), id.clone()]), true),
        (Expect::OneOf(vec![other]), false),
        (Expect::OneOf(vec![]), false),
    ] {
        assert_eq!(expect.accepts(&id), want, "{expect:?}");
    }
}

/// A chain that was verified once is remembered, but never beyond what its path rests on.
#[test]
fn threat_59_a_remembered_chain_ends_with_the_first_thing_that_it_rests_on() {
    let with_life = |from: i64, to: i64| {
        let mut params = authority_params("one.test");
        set_validity(&mut params, from, to);
        params
    };
    // Seconds from now at which the leaf, an intermediate and the authority end, and the last second of the peer.
    let rows = [
        ("the leaf ends first", 100, 200, 300, 100),
        ("the intermediate ends first", 300, 100, 200, 100),
        ("the authority ends first", 300, 200, 100, 100),
    ];
    for (name, leaf_end, intermediate_end, authority_end, last) in rows {
        let authority = Authority::with(with_life(-3600, authority_end));
        let intermediate = authority.below(with_life(-3600, intermediate_end));
        let mut params = svid_params(ORDERS);
        set_validity(&mut params, -60, leaf_end);
        let leaf = intermediate.sign(&params);
        let chain = [intermediate.der.clone()];
        let trusted = bundles(&[("one.test", &[&authority])]);
        let verifier = SpiffeVerifier::new(trusted, Expect::AnyMember, true);
        let judge = |secs: i64| {
            let now = Timestamp::from_unix_secs(NOW.unix_secs() + secs);
            let now = to_unix_time(now).expect("time");
            verifier.judge(&leaf, &chain, now, Side::Client).is_ok()
        };
        assert!(judge(0), "{name}: verified");
        assert_eq!(verifier.verified.len(), 1, "{name}: remembered");
        assert!(judge(last), "{name}: the last second");
        assert!(!judge(last + 1), "{name}: one second later");
        assert!(!judge(-61), "{name}: before the leaf begins");
        assert!(judge(0), "{name}: at first again");
    }
}

#[test]
fn x_09_only_the_very_same_chain_is_remembered_and_only_for_its_own_use() {
    let (authority, other) = (Authority::new("one.test"), Authority::new("one.test"));
    let params = svid_params(ORDERS);
    let known = authority.sign(&params);
    let forged = other.sign(&params);
    let trusted = bundles(&[("one.test", &[&authority])]);
    let verifier = SpiffeVerifier::new(trusted, Expect::AnyMember, true);
    let now = to_unix_time(NOW).expect("time");
    let judge = |leaf: &CertificateDer<'_>, side| verifier.judge(leaf, &[], now, side).is_ok();
    assert!(judge(&known, Side::Client));
    let mut changed = known.to_vec();
    let last = changed.last_mut().expect("bytes");
    *last ^= 1;
    let rows = [
        ("the same", &known, true),
        ("another authority's", &forged, false),
        (
            "one bit of the signature",
            &CertificateDer::from(changed),
            false,
        ),
    ];
    for (name, leaf, want) in rows {
        assert_eq!(judge(leaf, Side::Client), want, "{name}");
    }
    assert_eq!(verifier.verified.len(), 1);
    assert!(judge(&known, Side::Server));
    assert_eq!(verifier.verified.len(), 2, "a server's is found anew");
}

#[test]
fn a_verifier_remembers_a_bounded_number_of_chains() {
    let verified = VerifiedChains::default();
    let leaf = |index: usize| CertificateDer::from(index.to_be_bytes().to_vec());
    for index in 0..=VERIFIED_CHAINS_MAX {
        verified.note(ChainDigest::new(&leaf(index), &[], true), NOW, NOW);
        assert!(verified.len() <= VERIFIED_CHAINS_MAX);
    }
    assert!(verified.holds(
        &ChainDigest::new(&leaf(VERIFIED_CHAINS_MAX), &[], true),
        NOW
    ));
}
