//! Node attestation by join token: single use under a race, unknown and expired tokens, and what an agent may ask.

use std::collections::BTreeSet;
use std::time::Duration;

use ravelin_proto::pb::spire::api::server::entry::v1::GetAuthorizedEntriesRequest;
use ravelin_proto::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::TestClock;
use ravelin_runtime::tls::Identity;
use ravelin_tests::attest::{Csr, attest, dial, trusted};
use ravelin_tests::node::{Ca, NodeOptions, TRUST_DOMAIN};
use tokio::task::JoinSet;

use crate::issuance::ask_for_svid;

/// An agent by hand for `/node/NAME`.
pub(crate) async fn agent(ca: &Ca, name: &str) -> Identity {
    let bundles = trusted(&ca.admin().bundle().await);
    let node = format!("spiffe://{TRUST_DOMAIN}/node/{name}");
    let token = ca.admin().join_token(&node).await;
    let channel = dial(ca.tls_addr(), &bundles, None).await.unwrap();
    attest(channel, &token).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_14_of_a_hundred_concurrent_uses_of_a_join_token_exactly_one_wins() {
    let ca = Ca::start(NodeOptions::default()).await;
    let bundles = trusted(&ca.admin().bundle().await);
    let token = ca
        .admin()
        .join_token(&format!("spiffe://{TRUST_DOMAIN}/node/raced"))
        .await;
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(dial(ca.tls_addr(), &bundles, None).await.unwrap());
    }
    let mut attempts = JoinSet::new();
    for channel in channels.iter().cycle().take(100) {
        let (channel, token) = (channel.clone(), token.clone());
        attempts.spawn(async move { attest(channel, &token).await });
    }
    let mut winners = Vec::new();
    let mut refusals = BTreeSet::new();
    while let Some(attempt) = attempts.join_next().await {
        match attempt.unwrap() {
            Ok(identity) => winners.push(identity.id),
            Err(status) => {
                refusals.insert(format!("{:?}", status.code()));
            }
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}; refusals: {refusals:?}");
    let replay = attest(channels[0].clone(), &token).await;
    assert!(replay.is_err(), "a used token was accepted again");
    assert!(
        !winners[0].as_str().contains(&token),
        "the token stands in the agent's ID"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_15_a_token_is_refused_once_it_has_expired_and_an_unknown_one_always() {
    let clock = TestClock::new(Timestamp::from_unix_secs(
        ravelin_runtime::clock::Clock::now(&ravelin_runtime::clock::SystemClock).unix_secs(),
    ));
    let options = NodeOptions {
        clock: clock.shared(),
        ..NodeOptions::default()
    };
    let ca = Ca::start(options).await;
    let bundles = trusted(&ca.admin().bundle().await);
    let token = ca
        .admin()
        .join_token(&format!("spiffe://{TRUST_DOMAIN}/node/late"))
        .await;
    assert!(token.len() >= 32, "a token of {} characters", token.len());
    let channel = dial(ca.tls_addr(), &bundles, None).await.unwrap();
    let unknown = [
        "",
        "no-such-token",
        "../../etc/passwd",
        &"x".repeat(100_000),
    ];
    for text in unknown {
        let attempt = attest(channel.clone(), text).await;
        assert!(attempt.is_err(), "an unknown token was accepted");
    }
    clock.advance(Duration::from_secs(601));
    let late = attest(channel, &token).await;
    assert!(late.is_err(), "an expired token was accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_18_of_agents_times_entries_only_the_authorised_cells_get_an_svid() {
    let ca = Ca::start(NodeOptions::default()).await;
    let names = ["a", "b", "c"];
    let mut agents = Vec::new();
    for name in names {
        agents.push((name, agent(&ca, name).await));
    }
    let mut entries = Vec::new();
    for owner in names {
        for number in 0..2 {
            let id = format!("spiffe://{TRUST_DOMAIN}/ns/{owner}/sa/{number}");
            let parent = format!("spiffe://{TRUST_DOMAIN}/node/{owner}");
            let selectors = ["unix:uid:1"];
            let entry = ca.admin().create_entry(&id, &parent, &selectors).await;
            entries.push((owner, entry));
        }
    }
    let bundles = trusted(&ca.admin().bundle().await);
    for (name, identity) in &agents {
        let channel = dial(ca.tls_addr(), &bundles, Some(identity)).await.unwrap();
        for (owner, entry) in &entries {
            let svid = ask_for_svid(channel.clone(), entry, &Csr::new().csr).await;
            assert_eq!(
                svid.is_ok(),
                name == owner,
                "agent `{name}`, an entry of `{owner}`: {svid:?}"
            );
        }
        let request = GetAuthorizedEntriesRequest { output_mask: None };
        let answer = EntryClient::new(channel)
            .get_authorized_entries(request)
            .await;
        let listed: BTreeSet<String> = answer
            .unwrap()
            .into_inner()
            .entries
            .into_iter()
            .map(|entry| entry.id)
            .collect();
        for (owner, entry) in &entries {
            assert_eq!(
                listed.contains(entry),
                name == owner,
                "agent `{name}` sees an entry of `{owner}`"
            );
        }
    }
}
