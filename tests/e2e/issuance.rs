//! Entries become SVIDs: what a process gets, when, and when no longer; and what a request cannot ask for.

use ravelin_proto::pb::spire::api::server::svid::v1::svid_client::SvidClient;
use ravelin_proto::pb::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, BatchNewX509svidResponse, NewX509svidParams,
};
use ravelin_proto::x509_svid::LeafSvid;
use ravelin_runtime::tls::Identity;
use ravelin_runtime::workload_client::{WorkloadClient, WorkloadError};
use ravelin_tests::attest::{Csr, attest, dial, trusted};
use ravelin_tests::node::{Ca, Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::uid;
use ravelin_tests::wait::{SOON, until_true, within};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose, SanType};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

/// Asks for one X509-SVID as an agent does.
pub(crate) async fn ask_for_svid(
    channel: Channel,
    entry_id: &str,
    csr: &[u8],
) -> Result<ravelin_proto::pb::spire::api::types::X509svid, String> {
    let request = BatchNewX509svidRequest {
        params: vec![NewX509svidParams {
            entry_id: entry_id.to_owned(),
            csr: csr.to_vec(),
        }],
    };
    let answer = SvidClient::new(channel).batch_new_x509svid(request).await;
    let BatchNewX509svidResponse { results } =
        answer.map_err(|status| status.to_string())?.into_inner();
    let result = results.into_iter().next().ok_or("no result")?;
    let status = result.status.unwrap_or_default();
    match result.svid {
        Some(svid) if status.code == 0 => Ok(svid),
        _ => Err(format!("{} {}", status.code, status.message)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_becomes_an_svid_within_its_open_stream_and_its_deletion_withdraws_it() {
    let node = Node::start(NodeOptions::default()).await;
    let client = WorkloadClient::connect(node.socket()).await.unwrap();
    let refused = within("an answer", SOON, client.x509_svids()).await;
    let first = match refused {
        Err(error) => Err(error),
        Ok(stream) => std::pin::pin!(stream).next().await.unwrap().map(|_| ()),
    };
    assert!(
        matches!(first, Err(WorkloadError::NoIdentity(_))),
        "a process without an entry: {first:?}"
    );

    let entry = node.create_own_entry("/ns/shop/sa/orders").await;
    let mut stream = std::pin::pin!(client.x509_svids().await.unwrap());
    let update = within("an SVID", SOON, stream.next()).await.unwrap();
    let update = update.unwrap();
    let id = &update.svids[0].identity.id;
    assert_eq!(
        id.as_str(),
        format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders")
    );
    node.admin().delete_entry(&entry).await;
    let ended = within("the stream ends", SOON, async {
        loop {
            if let Err(error) = stream.next().await.unwrap() {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(ended, WorkloadError::NoIdentity(_)), "{ended:?}");
    let tokens = client.jwt_svid(&["payments".to_owned()], None).await;
    assert!(matches!(tokens, Err(WorkloadError::NoIdentity(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_10_a_process_gets_no_svid_of_an_entry_that_it_does_not_match() {
    let node = Node::start(NodeOptions::default()).await;
    node.create_own_entry("/ns/shop/sa/mine").await;
    let others = [
        (format!("unix:uid:{}", uid() + 1), "another-user"),
        ("unix:path:/usr/bin/another".to_owned(), "another-program"),
        ("launch:name:orders".to_owned(), "another-name"),
    ];
    for (selector, name) in &others {
        let own = format!("unix:uid:{}", uid());
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}");
        let selectors = [own.as_str(), selector.as_str()];
        let parent = ravelin_tests::node::NODE_ID;
        node.admin().create_entry(&id, parent, &selectors).await;
    }
    // What was created last has arrived once this one has.
    node.create_own_entry("/ns/shop/sa/last").await;
    let mut served = node.served_ids().await;
    served.sort();
    let wanted = ["last", "mine"].map(|name| format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}"));
    assert_eq!(served, wanted);
    let client = WorkloadClient::connect(node.socket()).await.unwrap();
    for (_, name) in &others {
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}");
        let id = ravelin_proto::spiffe_id::SpiffeId::parse(&id).unwrap();
        let tokens = client.jwt_svid(&["payments".to_owned()], Some(&id)).await;
        assert!(
            matches!(tokens, Err(WorkloadError::NoIdentity(_))),
            "a token of `{name}`: {tokens:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_09_an_entry_without_a_selector_is_refused() {
    let ca = Ca::start(NodeOptions::default()).await;
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/everyone");
    let created = ca
        .admin()
        .try_create_entry(&id, ravelin_tests::node::NODE_ID, &[])
        .await;
    assert!(created.is_err(), "{created:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_22_the_ca_takes_nothing_but_the_public_key_from_a_request() {
    let ca = Ca::start(NodeOptions::default()).await;
    let (channel, entry) = agent_with_entry(&ca).await;
    let mut forged = CertificateParams::default();
    forged
        .distinguished_name
        .push(DnType::CommonName, "root of all");
    forged.subject_alt_names = vec![
        SanType::URI(
            format!("spiffe://{TRUST_DOMAIN}/spire/server")
                .try_into()
                .unwrap(),
        ),
        SanType::DnsName("ca.shop.example".try_into().unwrap()),
    ];
    forged.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    forged.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut requests = vec![Csr::new()];
    // WHY: rcgen refuses to write a request for a CA; what it writes must change nothing either.
    forged.is_ca = IsCa::NoCa;
    requests.push(Csr::of(forged));
    let mut seen = Vec::new();
    for request in &requests {
        let svid = ask_for_svid(channel.clone(), &entry, &request.csr)
            .await
            .unwrap();
        let leaf = LeafSvid::parse(&svid.cert_chain[0]).unwrap();
        let identity = Identity::from_der(&svid.cert_chain[0], &request.key).unwrap();
        assert_eq!(identity.id.path(), "/ns/shop/sa/orders");
        seen.push((
            leaf.id,
            leaf.dns_names,
            subject_and_extensions(&svid.cert_chain[0]),
        ));
    }
    assert_eq!(seen[0], seen[1], "a forged request changed the certificate");
}

/// Everything in a certificate that a request could have put there, in a form to compare.
fn subject_and_extensions(der: &[u8]) -> (String, Vec<(String, bool)>) {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    let extensions = certificate
        .extensions()
        .iter()
        .map(|extension| (extension.oid.to_id_string(), extension.critical))
        .collect();
    // The subject may carry something that is unique by design; its kinds of fields may not differ.
    let fields = certificate.subject().iter_attributes();
    let kinds: Vec<String> = fields
        .map(|field| field.attr_type().to_id_string())
        .collect();
    (kinds.join(","), extensions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_23_a_request_that_its_key_did_not_sign_is_refused() {
    let ca = Ca::start(NodeOptions::default()).await;
    let (channel, entry) = agent_with_entry(&ca).await;
    let good = Csr::new().csr;
    let mut changed = good.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let cut = &good[..good.len() / 2];
    for (name, request) in [
        ("changed", changed.as_slice()),
        ("cut", cut),
        ("empty", &[]),
    ] {
        let svid = ask_for_svid(channel.clone(), &entry, request).await;
        assert!(svid.is_err(), "a request that is {name} was signed");
    }
    assert!(ask_for_svid(channel, &entry, &good).await.is_ok());
}

/// The channel of an agent by hand, and an entry of its own.
async fn agent_with_entry(ca: &Ca) -> (Channel, String) {
    let node = format!("spiffe://{TRUST_DOMAIN}/node/hand");
    let bundles = trusted(&ca.admin().bundle().await);
    let token = ca.admin().join_token(&node).await;
    let without = dial(ca.tls_addr(), &bundles, None).await.unwrap();
    let identity = attest(without, &token).await.unwrap();
    let entry = ca
        .admin()
        .create_entry(
            &format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders"),
            &node,
            &["unix:uid:1"],
        )
        .await;
    let channel = dial(ca.tls_addr(), &bundles, Some(&identity))
        .await
        .unwrap();
    (channel, entry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_entries_reaches_an_open_stream_without_polling() {
    let node = Node::start(NodeOptions::default()).await;
    node.create_own_entry("/ns/shop/sa/first").await;
    let client = WorkloadClient::connect(node.socket()).await.unwrap();
    let mut stream = std::pin::pin!(client.x509_svids().await.unwrap());
    let first = within("an SVID", SOON, stream.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.svids.len(), 1);
    let creating = node.create_own_entry("/ns/shop/sa/second");
    let (second, _) = tokio::join!(within("a second SVID", SOON, stream.next()), creating);
    assert_eq!(second.unwrap().unwrap().svids.len(), 2);
    until_true("both are served", SOON, || async {
        node.served_ids().await.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_42_a_token_is_good_for_its_own_audience_alone() {
    let node = Node::start(NodeOptions::default()).await;
    node.create_own_entry("/ns/shop/sa/orders").await;
    let client = WorkloadClient::connect(node.socket()).await.unwrap();
    let audience = ["payments".to_owned()];
    let tokens = client.jwt_svid(&audience, None).await.unwrap();
    let token = tokens[0].token.as_str();
    let valid = client.validate_jwt("payments", token).await.unwrap();
    assert_eq!(valid.id.path(), "/ns/shop/sa/orders");
    for other in [
        "",
        "payment",
        "payments2",
        "Payments",
        "payments ",
        "[\"payments\"]",
        "orders",
    ] {
        let judged = client.validate_jwt(other, token).await;
        assert!(judged.is_err(), "`{other}` was accepted");
    }
    let none = client.jwt_svid(&[], None).await;
    assert!(none.is_err(), "a token for nobody was issued");
}
