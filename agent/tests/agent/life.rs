//! Attestation, renewal, rotation, outages, and starts that are refused.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use ravelin_agent::{AgentConfig, AgentError};
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::drain::Drain;

use crate::fake_ca::{FakeCa, JwtKey, Shared, SigningAuthority};
use crate::node::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_attests_serves_both_profiles_and_outlives_its_ca() {
    let shared = Shared::new("td.test");
    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    let config = node.config(&ca, Some("token-1"));
    node.start(config.clone()).await;
    acked(&shared, |ack| ack.revision == 2).await;

    let first = until(&mut node.svids().await, |_| true).await;
    assert_eq!(id_of(&first), "spiffe://td.test/orders");
    let workload = node.workload().await;
    let audience = vec!["payments".to_owned()];
    let token = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    let again = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    assert_eq!(*token, *again, "from the cache");
    let valid = workload.validate_jwt("payments", &token).await.unwrap();
    assert_eq!(valid.id.as_str(), "spiffe://td.test/orders");
    assert_eq!(valid.claims["role"], "clerk");
    assert!(workload.validate_jwt("other", &token).await.is_err());
    let bundles = soon(Box::pin(workload.jwt_bundles().await.unwrap()).next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bundles[&shared.td].keys[0].kid.as_deref(), Some("jwt-1"));
    let bundles = soon(Box::pin(workload.x509_bundles().await.unwrap()).next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bundles.authorities(&shared.td).count(), 1);
    node.stop().await;

    // The CA is gone; a restarted agent serves the same SVID from disk, and its token is spent.
    let addr = ca.addr;
    ca.stop().await;
    node.start(config).await;
    let kept = until(&mut node.svids().await, |_| true).await;
    assert_eq!(kept.svids[0].identity.chain, first.svids[0].identity.chain);
    assert!(!node.status().await.is_synced);

    // The CA is back: the agent finds it by itself.
    shared.change(|world| world.entries.push(by_uid(&shared, "payments")));
    let _ca = FakeCa::start(&shared, Some(addr)).await;
    until(&mut node.svids().await, |update| update.svids.len() == 2).await;
    assert!(node.status().await.is_synced);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_reissues_every_svid_and_old_keys_go_at_once() {
    let shared = Shared::new("td.test");
    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let mut updates = node.svids().await;
    let old = authority_of(&until(&mut updates, |_| true).await);
    let workload = node.workload().await;
    let audience = vec!["a".to_owned()];
    let before = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    acked(&shared, |ack| {
        ack.x509_svids_by_authority.get(&old) == Some(&2)
            && ack.jwt_svids_by_authority.get("jwt-1") == Some(&1)
    })
    .await;

    // Prepared: the bundle grows, nothing is reissued. Active: everything is.
    let next = SigningAuthority::generate(&shared.td);
    let new = next.id.clone();
    shared.change(|world| world.authorities.push(next));
    acked(&shared, |ack| ack.revision == 3).await;
    shared.change(|world| {
        world.active = 1;
        world.is_reissue = true;
        world.jwt_keys.push(JwtKey::generate("jwt-2"));
    });
    until(&mut updates, |update| authority_of(update) == new).await;
    let ack = acked(&shared, |ack| {
        ack.x509_svids_by_authority.get(&new) == Some(&2)
    })
    .await;
    assert_eq!(
        ack.x509_svids_by_authority.get(&old),
        None,
        "the agent's own one too"
    );
    assert!(ack.jwt_svids_by_authority.is_empty());
    let after = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    assert_ne!(*before, *after);

    // Revoked: gone from the bundle that workloads see.
    shared.change(|world| {
        world.is_reissue = false;
        world.authorities.remove(0);
        world.active = 0;
    });
    let last = until(&mut updates, |update| {
        update.bundles.authorities(&shared.td).count() == 1
    })
    .await;
    assert_eq!(authority_of(&last), new);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cas_name_and_authority_are_verified_before_the_token_is_sent() {
    let real = Shared::new("td.test");
    let forged = Shared::new("td.test");
    let ca = FakeCa::start(&forged, None).await;
    let mut node = Node::new();
    let mut config = node.config(&ca, Some("token-1"));
    config.trust_bundle = Some(real.write_bundle(node.folder.path()));
    node.start(config).await;
    soon(async {
        while node.status().await.last_error.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        forged.world.lock().unwrap().tokens.len(),
        1,
        "the token was not spent"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_by_name_before_anything_is_served() {
    let shared = Shared::new("td.test");
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    let config = node.config(&ca, Some("token-1"));
    node.start(config.clone()).await;
    acked(&shared, |ack| ack.revision == 1).await;
    let start = |config| ravelin_agent::start(config, SystemClock::shared(), Drain::new());
    let error = start(config.clone()).await.unwrap_err();
    assert!(matches!(error, AgentError::Storage(_)), "{error}");
    node.stop().await;

    let mut other = config.clone();
    other.trust_domain = TrustDomain::parse("other.test").unwrap();
    let error = start(other).await.unwrap_err();
    assert!(
        matches!(error, AgentError::OtherTrustDomain { .. }),
        "{error}"
    );
    let mut bad = config.clone();
    bad.server = "nowhere".into();
    assert!(matches!(
        start(bad).await.unwrap_err(),
        AgentError::Address(_)
    ));
    let text = "trust_domain = \"td\"\nunknown = 1\n";
    std::fs::write(node.path("bad.toml"), text).unwrap();
    let error = AgentConfig::load(Path::new(&node.path("bad.toml"))).unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_life_is_renewed_at_its_half() {
    let shared = Shared::new("td.test");
    shared.change(|world| {
        world.entries = vec![by_uid(&shared, "orders")];
        world.svid_lifetime_secs = 3;
    });
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let mut updates = node.svids().await;
    let first = until(&mut updates, |_| true).await.svids[0]
        .identity
        .leaf()
        .serial
        .clone();
    until(&mut updates, |update| {
        update.svids[0].identity.leaf().serial != first
    })
    .await;
    assert!(Arc::clone(&shared).world.lock().unwrap().x509_calls >= 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_missed_a_whole_rotation_attests_again_with_a_new_token() {
    let shared = Shared::new("td.test");
    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    until(&mut node.svids().await, |_| true).await;
    node.stop().await;
    let addr = ca.addr;
    ca.stop().await;

    // Nothing that the agent keeps is trusted by the CA any more, nor the other way round.
    let next = SigningAuthority::generate(&shared.td);
    let new = next.id.clone();
    shared.change(|world| {
        world.authorities = vec![next];
        world.tokens.push("token-2".into());
    });
    let ca = FakeCa::start(&shared, Some(addr)).await;
    let config = node.config(&ca, Some("token-2"));
    node.start(config).await;
    acked(&shared, |ack| ack.revision == 3).await;
    until(&mut node.svids().await, |update| {
        authority_of(update) == new
    })
    .await;
    node.stop().await;
}
