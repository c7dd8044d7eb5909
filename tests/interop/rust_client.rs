//! The crate `spiffe`: its `X509Source` and `JwtSource` on our agent, through a rotation.

use std::collections::BTreeMap;
use std::time::Duration;

use ravelin_proto::bundle::x509_authority_id;
use ravelin_proto::jwks::JwkSet;
use ravelin_proto::pb::ravelin::v1::AuthorityKind;
use ravelin_proto::spiffe_id::TrustDomain as OwnTrustDomain;
use ravelin_proto::x509_svid::LeafSvid;
use ravelin_runtime::clock::{Clock as _, SystemClock};
use ravelin_runtime::jwt::validate_jwt_svid;
use ravelin_tests::node::{Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::wait::{CYCLE, within};
use spiffe::{BundleSource as _, JwtSource, TrustDomain, WorkloadApiClient, X509Source};

/// The authority that signed the leaf, and those in the bundle.
fn authorities(source: &X509Source) -> (String, Vec<String>) {
    let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let svid = source.svid().unwrap();
    let leaf = LeafSvid::parse(svid.leaf().as_bytes()).unwrap();
    let bundle = source.bundle_for_trust_domain(&domain).unwrap().unwrap();
    let known = bundle.authorities().iter();
    let known = known.map(|authority| x509_authority_id(authority.as_bytes()).unwrap());
    (leaf.authority_id.unwrap(), known.collect())
}

fn key_ids(source: &JwtSource) -> Vec<String> {
    let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let bundle = source.bundle_for_trust_domain(&domain).unwrap().unwrap();
    let authorities = bundle.jwt_authorities();
    authorities
        .map(|authority| authority.key_id().to_owned())
        .collect()
}

/// Checks a token with the keys that the source holds: claims and signature.
fn validates(source: &JwtSource, token: &str, audience: &str) -> Result<String, String> {
    let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let bundle = source.bundle_for_trust_domain(&domain).unwrap().unwrap();
    let keys: Vec<serde_json::Value> = bundle
        .jwt_authorities()
        .map(|authority| serde_json::from_slice(authority.jwk_json()).unwrap())
        .collect();
    let set = JwkSet::parse(&serde_json::json!({ "keys": keys }).to_string()).unwrap();
    let bundles = BTreeMap::from([(OwnTrustDomain::parse(TRUST_DOMAIN).unwrap(), set)]);
    let now = SystemClock.now();
    validate_jwt_svid(token, &bundles, audience, now, Duration::ZERO)
        .map(|svid| svid.id.to_string())
        .map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_x509_source_of_the_rust_client_follows_a_rotation() {
    let node = Node::start(NodeOptions::default()).await;
    node.create_own_entry("/ns/shop/sa/rust").await;
    let source = X509Source::builder()
        .endpoint(node.endpoint())
        .build()
        .await
        .unwrap();
    let mut updates = source.updated();
    let svid = source.svid().unwrap();
    assert_eq!(
        svid.spiffe_id().to_string(),
        format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/rust")
    );
    let (old_authority, known) = authorities(&source);
    assert_eq!(known, std::slice::from_ref(&old_authority));

    node.admin().rotate(AuthorityKind::X509, true).await;
    let following = async {
        loop {
            let (signed_by, known) = authorities(&source);
            if signed_by != old_authority && known == [signed_by] {
                return;
            }
            updates.changed().await.unwrap();
        }
    };
    within("the source has the new authority alone", CYCLE, following).await;
    assert!(source.is_healthy());
    source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jwt_source_of_the_rust_client_fetches_validates_and_follows_a_rotation() {
    let node = Node::start(NodeOptions::with_jwt_life(Duration::from_secs(15))).await;
    node.create_own_entry("/ns/shop/sa/rust").await;
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/rust");
    let source = JwtSource::builder()
        .endpoint(node.endpoint())
        .build()
        .await
        .unwrap();
    let mut updates = source.updated();
    let old_keys = key_ids(&source);
    assert_eq!(old_keys.len(), 1);

    let svid = source.fetch_jwt_svid(["payments"]).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), id);
    assert_eq!(svid.audience(), ["payments"]);
    assert_eq!(svid.key_id(), old_keys[0]);
    assert_eq!(validates(&source, svid.token(), "payments"), Ok(id.clone()));
    assert!(validates(&source, svid.token(), "another").is_err());
    let client = WorkloadApiClient::connect_to(node.endpoint())
        .await
        .unwrap();
    let validated = client.validate_jwt_token("payments", svid.token()).await;
    assert_eq!(validated.unwrap().spiffe_id().to_string(), id);
    let another = client.validate_jwt_token("another", svid.token()).await;
    assert!(another.is_err(), "another audience is accepted");

    node.admin().rotate(AuthorityKind::Jwt, true).await;
    let following = async {
        while key_ids(&source).iter().any(|key| old_keys.contains(key)) {
            updates.changed().await.unwrap();
        }
    };
    within("the source has the new key alone", CYCLE, following).await;
    let later = source.fetch_jwt_svid(["payments"]).await.unwrap();
    assert_eq!(validates(&source, later.token(), "payments"), Ok(id));
    assert!(validates(&source, svid.token(), "payments").is_err());
    source.shutdown().await;
}
