//! `kill -9` of each part in turn: calls go on, nothing needs a hand, the log verifies.

use std::time::Duration;

use ravelin_runtime::workload_client::WorkloadClient;
use ravelin_tests::admin::agent_status;
use ravelin_tests::http_call::call_once;
use ravelin_tests::load::{LoadPlan, LoadReport};
use ravelin_tests::site::Site;
use ravelin_tests::wait::{CYCLE, SOON, until_true};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A light load that runs until it is stopped.
struct Background {
    stop: CancellationToken,
    load: JoinHandle<LoadReport>,
}

impl Background {
    fn start(site: &Site) -> Self {
        let plan = LoadPlan {
            address: site.orders.outbound,
            call: Site::lookup(),
            calls_per_sec: 50,
            connections: 2,
            time: CYCLE,
        };
        let stop = CancellationToken::new();
        let load = tokio::spawn(plan.run(stop.clone()));
        Self { stop, load }
    }

    async fn end(self) -> LoadReport {
        self.stop.cancel();
        self.load.await.unwrap()
    }
}

/// Identities that the agent holds an SVID for.
async fn held(site: &Site) -> usize {
    let status = agent_status(&site.agent_admin_socket()).await;
    status.map_or(0, |status| status.identities.len())
}

fn assert_log_verifies(site: &Site) {
    let output = site.command(&["audit", "verify"]);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_may_be_killed_in_turn_and_calls_go_on_without_a_hand() {
    let mut site = Site::start().await;
    until_true("both SVIDs are there", SOON, || async {
        held(&site).await >= 2
    })
    .await;

    // The CA goes, then the agent too: proxies need neither for a call.
    let load = Background::start(&site);
    site.kill_ca();
    until_calls(&site, 5).await;
    site.kill_agent();
    until_calls(&site, 5).await;

    // The agent comes back first, and serves from its disk: its launchers register their processes again.
    site.start_agent();
    until_true("SVIDs are served from disk", SOON, || async {
        held(&site).await >= 2
    })
    .await;
    until_true("both proxies are attested again", SOON, || async {
        let status = agent_status(&site.agent_admin_socket()).await;
        status.is_some_and(|status| status.proxies.len() == 2)
    })
    .await;
    let status = agent_status(&site.agent_admin_socket()).await.unwrap();
    assert!(!status.is_synced, "the CA is not there");
    assert!(WorkloadClient::connect(site.agent_socket()).await.is_ok());

    // The CA comes back, and everyone finds it.
    site.start_ca().await;
    site.until_synced().await;
    let report = load.end().await;
    assert_eq!(report.failed(), 0, "{:?}", report.failures);
    assert_log_verifies(&site);
    rotate(&site);

    // A proxy on either side.
    for name in ["inventory", "orders"] {
        site.kill_proxy(name).await;
        assert!(!site.is_proxy_ready(name).await);
        site.start_proxy(name);
        site.until_calls_pass().await;
    }
    assert_log_verifies(&site);
}

/// Some calls more, one after the other, that all have to pass.
async fn until_calls(site: &Site, count: usize) {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..count {
        pace.tick().await;
        let answer = call_once(site.orders.outbound, &Site::lookup()).await;
        assert_eq!(answer.map(|answer| answer.status), Ok(200));
    }
}

/// The whole cycle through the command line: everything acknowledges, so everything is connected again.
fn rotate(site: &Site) {
    let output = site.command(&["rotate", "x509", "--wait", "--revoke-old"]);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_is_killed_while_it_issues_keeps_a_log_that_verifies() {
    let mut site = Site::start().await;
    for round in 0..3 {
        let admin = site.ca_admin().await;
        let creating = tokio::spawn(async move {
            for number in 0..200 {
                let id = format!("spiffe://shop.example/ns/shop/sa/r{round}-{number}");
                let parent = ravelin_tests::node::NODE_ID;
                // WHY: the CA dies in the middle of it.
                let created = admin
                    .try_create_entry(&id, parent, &["launch:name:orders"])
                    .await;
                if created.is_err() {
                    return number;
                }
            }
            200
        });
        until_true("the log grows", SOON, || async {
            let admin = ravelin_tests::admin::CaAdmin::connect(&site.ca_socket()).await;
            match admin {
                Some(admin) => admin
                    .admin()
                    .get_health(ravelin_proto::pb::ravelin::v1::HealthRequest {})
                    .await
                    .is_ok_and(|health| health.get_ref().entries > 10 * (round + 1)),
                None => false,
            }
        })
        .await;
        site.kill_ca();
        creating.await.unwrap();
        site.start_ca().await;
        assert_log_verifies(&site);
    }
    site.until_synced().await;
    site.until_calls_pass().await;
}
