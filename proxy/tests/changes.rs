//! Changes while calls are in flight: SVIDs, bundles, policies and deny-list, and the drain.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::authority::Authority;
use harness::client::{Client, call, get, request};
use harness::{DENY_ALL, Mesh, POLICIES, TRUST_DOMAIN, id};
use ravelin_proto::pb::ravelin::v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Calls in a loop until told to stop; returns how many calls were made and every failure.
struct Load {
    is_over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(mesh: &Mesh, clients: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(AtomicU64::new(0));
        let address = mesh.outbound();
        let tasks = (0..clients)
            .map(|_| {
                let (is_over, calls) = (Arc::clone(&is_over), Arc::clone(&calls));
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    let mut client = Client::connect(address).await;
                    while !is_over.load(Ordering::Relaxed) {
                        match client.send(get("inventory.shop", "/items")).await {
                            Ok(answer) if answer.status == 200 => {}
                            Ok(answer) => failures.push(format!(
                                "{} {} {}",
                                answer.status,
                                answer.code(),
                                answer.body
                            )),
                            Err(error) => {
                                failures.push(error);
                                client = Client::connect(address).await;
                            }
                        }
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                    failures
                })
            })
            .collect();
        Self {
            is_over,
            calls,
            tasks,
        }
    }

    /// Waits until `more` further calls were made.
    async fn go_on(&self, more: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + more;
        let reached = timeout(Duration::from_secs(30), async {
            while self.calls.load(Ordering::Relaxed) < goal {
                tokio::task::yield_now().await;
            }
        });
        reached.await.expect("the load goes on");
    }

    async fn stop(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        failures
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_64_a_rotation_of_the_authority_under_load_fails_no_call() {
    let mesh = Mesh::start().await;
    let load = Load::start(&mesh, 16);
    load.go_on(200).await;
    let mut authority = Authority::new(TRUST_DOMAIN);
    let mut old = mesh.authority.der();
    let mut sequence = 1;
    for _ in 0..3 {
        // Prepared: both authorities are trusted.
        sequence += 1;
        let both = [old.clone(), authority.der()].concat();
        for name in ["orders", "inventory"] {
            mesh.agent.change(name, |snapshot| {
                snapshot
                    .x509_bundles
                    .insert(TRUST_DOMAIN.into(), both.clone());
                snapshot.bundle_sequence = sequence;
            });
        }
        for name in ["orders", "inventory"] {
            mesh.agent
                .acked(name, |ack| ack.bundle_sequence == sequence)
                .await;
        }
        load.go_on(100).await;
        // Active: SVIDs of the new one.
        for name in ["inventory", "orders"] {
            mesh.agent.forget_acks();
            mesh.agent.change(name, |snapshot| {
                snapshot.svid = Some(authority.svid(&format!("/ns/shop/sa/{name}")))
            });
            mesh.agent.acked(name, |ack| ack.refusal.is_empty()).await;
            load.go_on(100).await;
        }
        // Revoked: the old one is gone.
        sequence += 1;
        for name in ["orders", "inventory"] {
            mesh.agent.change(name, |snapshot| {
                snapshot
                    .x509_bundles
                    .insert(TRUST_DOMAIN.into(), authority.der());
                snapshot.bundle_sequence = sequence;
            });
        }
        for name in ["orders", "inventory"] {
            mesh.agent
                .acked(name, |ack| ack.bundle_sequence == sequence)
                .await;
        }
        load.go_on(200).await;
        old = authority.der();
        authority = Authority::new(TRUST_DOMAIN);
    }
    let failures = load.stop().await;
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(mesh.agent.lost(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_64_many_svid_changes_under_load_fail_no_call() {
    let mesh = Mesh::start().await;
    let load = Load::start(&mesh, 16);
    for round in 0..20 {
        let name = if round % 2 == 0 {
            "inventory"
        } else {
            "orders"
        };
        mesh.agent.forget_acks();
        mesh.agent.change(name, |snapshot| {
            snapshot.svid = Some(mesh.authority.svid(&format!("/ns/shop/sa/{name}")))
        });
        mesh.agent.acked(name, |ack| ack.refusal.is_empty()).await;
        load.go_on(50).await;
    }
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_a_policy_change_is_enforced_on_open_connections() {
    let mesh = Mesh::start().await;
    let mut client = Client::connect(mesh.outbound()).await;
    assert_eq!(
        client
            .send(get("inventory.shop", "/items"))
            .await
            .unwrap()
            .status,
        200
    );
    let mut stream = TcpStream::connect(mesh.orders.tcp_outbound[0])
        .await
        .unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();

    mesh.publish(2, DENY_ALL).await;

    let answer = client.send(get("inventory.shop", "/items")).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "no_allow_matched")
    );
    let end = timeout(Duration::from_secs(10), stream.read(&mut echoed))
        .await
        .expect("the TCP connection is cut");
    assert!(matches!(end, Ok(0) | Err(_)));
    let cut = mesh
        .agent
        .decided(|decision| decision.protocol == "tcp" && decision.reason.starts_with("cut"))
        .await;
    assert_eq!(cut.peer, id("orders"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_peer_is_cut_off_on_open_connections_and_stays_out() {
    let mesh = Mesh::start().await;
    let mut client = Client::connect(mesh.outbound()).await;
    assert_eq!(
        client
            .send(get("inventory.shop", "/items"))
            .await
            .unwrap()
            .status,
        200
    );
    let mut stream = TcpStream::connect(mesh.orders.tcp_outbound[0])
        .await
        .unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    let denylist = pb::Denylist {
        number: 1,
        entries: vec![pb::DenylistEntry {
            subject: Some(pb::denylist_entry::Subject::SpiffeId(id("orders"))),
            ..pb::DenylistEntry::default()
        }],
    };
    mesh.agent
        .change("inventory", |snapshot| snapshot.denylist = Some(denylist));
    mesh.agent
        .acked("inventory", |ack| ack.denylist_number == 1)
        .await;
    let answer = client.send(get("inventory.shop", "/items")).await.unwrap();
    assert_ne!(answer.status, 200);
    let end = timeout(Duration::from_secs(10), stream.read(&mut echoed))
        .await
        .expect("the TCP connection is cut");
    assert!(matches!(end, Ok(0) | Err(_)));
    let again = call(mesh.outbound(), get("inventory.shop", "/items")).await;
    assert_ne!(again.status, 200);
    mesh.agent
        .decided(|decision| decision.code == "peer_denied")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_56_57_a_bad_or_older_configuration_is_refused_and_the_last_good_one_stays() {
    let mesh = Mesh::start().await;
    mesh.publish(5, POLICIES).await;
    let rows = [
        ("older", mesh.revision(4, DENY_ALL), "older"),
        ("broken", mesh.revision(6, "kind: Nothing"), "errors"),
        (
            "digest",
            pb::MeshRevision {
                digest: "00".into(),
                ..mesh.revision(7, DENY_ALL)
            },
            "digest",
        ),
        (
            "other files under the same number",
            mesh.revision(5, DENY_ALL),
            "other files",
        ),
    ];
    for (name, revision, word) in rows {
        mesh.agent.forget_acks();
        mesh.agent
            .change("inventory", |snapshot| snapshot.mesh = Some(revision));
        let ack = mesh.agent.acked("inventory", |_| true).await;
        assert!(ack.refusal.contains(word), "{name}: {}", ack.refusal);
        assert_eq!(ack.mesh_revision, 5, "{name}");
        assert_eq!(
            call(mesh.outbound(), get("inventory.shop", "/items"))
                .await
                .status,
            200,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_57_59_an_svid_that_is_refused_keeps_out_no_other_change() {
    let mesh = Mesh::start().await;
    let path = "/ns/shop/sa/inventory";
    let foreign = Authority::new("other.org").svid(path);
    let other_key = pb::ProxySvid {
        x509_svid_key: mesh.authority.svid(path).x509_svid_key,
        ..mesh.authority.svid(path)
    };
    let rows = [
        ("key of another", other_key, ""),
        ("foreign identity", foreign, "other.org"),
    ];
    for (number, (name, svid, word)) in (1_u64..).zip(rows) {
        let revision = number + 1;
        mesh.agent.forget_acks();
        mesh.agent
            .change("inventory", |snapshot| snapshot.svid = Some(svid));
        let ack = mesh.agent.acked("inventory", |_| true).await;
        assert!(!ack.refusal.is_empty(), "{name}");
        assert!(ack.refusal.contains(word), "{name}: {}", ack.refusal);
        mesh.agent.forget_acks();
        mesh.agent.change("inventory", |snapshot| {
            snapshot.mesh = Some(mesh.revision(revision, POLICIES));
            snapshot.denylist = Some(pb::Denylist {
                number,
                entries: vec![],
            });
        });
        let ack = mesh.agent.acked("inventory", |_| true).await;
        assert_eq!(
            (ack.denylist_number, ack.mesh_revision, ack.spiffe_id),
            (number, revision, id("inventory")),
            "{name}"
        );
        assert!(ack.refusal.contains(word), "{name}: {}", ack.refusal);
        assert!(!ack.refusal.is_empty(), "{name}");
        assert_eq!(
            call(mesh.outbound(), get("inventory.shop", "/items"))
                .await
                .status,
            200,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_57_a_bundle_that_is_refused_in_part_is_not_acknowledged() {
    let mesh = Mesh::start().await;
    let good = mesh.snapshot("inventory", 1, POLICIES, &mesh.authority);
    let broken = || [(TRUST_DOMAIN.to_owned(), b"broken".to_vec())].into();
    let mut x509 = good.clone();
    x509.x509_bundles = broken();
    let mut jwt = good.clone();
    jwt.jwt_bundles = broken();
    let rows = [
        ("certificates", x509, true, 1),
        ("token keys", jwt, true, 1),
        ("all good", good, false, 2),
    ];
    for (name, snapshot, is_refused, sequence) in rows {
        mesh.agent.forget_acks();
        mesh.agent.set(
            "inventory",
            pb::ProxySnapshot {
                bundle_sequence: 2,
                ..snapshot
            },
        );
        let ack = mesh.agent.acked("inventory", |_| true).await;
        assert_eq!(
            !ack.refusal.is_empty(),
            is_refused,
            "{name}: {}",
            ack.refusal
        );
        assert_eq!(ack.bundle_sequence, sequence, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_svid_fails_closed() {
    let mesh = Mesh::start().await;
    let mut snapshot = mesh.snapshot("orders", 1, POLICIES, &mesh.authority);
    snapshot.svid = Some(
        mesh.authority
            .svid_for("/ns/shop/sa/orders", Duration::from_secs(0)),
    );
    snapshot.bundle_sequence = 2;
    mesh.agent.set("orders", snapshot);
    mesh.agent
        .acked("orders", |ack| ack.bundle_sequence == 2)
        .await;
    let refused = timeout(Duration::from_secs(10), async {
        loop {
            let answer = call(mesh.outbound(), get("inventory.shop", "/items")).await;
            if answer.status == 503 {
                return answer.code().to_owned();
            }
        }
    });
    assert_eq!(refused.await.unwrap(), "svid_expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_calls_writes_their_records_and_ends() {
    let mut mesh = Mesh::start().await;
    let mut client = Client::connect(mesh.outbound()).await;
    assert_eq!(
        client
            .send(get("inventory.shop", "/items/last"))
            .await
            .unwrap()
            .status,
        200
    );
    let (orders, inventory) = (mesh.orders.drain.clone(), mesh.inventory.drain.clone());
    let ended = tokio::task::spawn_blocking(move || {
        orders.start();
        mesh.orders.stop();
        inventory.start();
        mesh.inventory.stop();
        mesh
    });
    let mesh = timeout(Duration::from_secs(30), ended)
        .await
        .expect("the drain ends")
        .unwrap();
    mesh.agent
        .decided(|decision| decision.path == "/items/last" && decision.outcome == "completed")
        .await;
    assert!(TcpStream::connect(mesh.outbound()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_a_call_in_flight_is_cut_when_policy_no_longer_allows_it() {
    let mesh = Mesh::start().await;
    let address = mesh.outbound();
    let call = tokio::spawn(async move {
        Client::connect(address)
            .await
            .send(get("inventory.shop", "/slow"))
            .await
    });
    let arrived = timeout(Duration::from_secs(10), async {
        while mesh.app.calls.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    });
    arrived.await.expect("the call arrives");
    mesh.publish(2, DENY_ALL).await;
    let ended = timeout(Duration::from_secs(10), call)
        .await
        .expect("the call is cut")
        .unwrap();
    assert!(ended.is_err() || ended.is_ok_and(|answer| answer.status == 403));
    let cut = mesh
        .agent
        .decided(|decision| decision.reason.starts_with("cut"))
        .await;
    assert_eq!(
        (cut.path.as_str(), cut.outcome.as_str()),
        ("/slow", "cancelled")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_a_call_in_flight_is_cut_when_its_token_is_revoked() {
    let mesh = Mesh::start().await;
    let address = mesh.outbound();
    let slow = |jti: &str| {
        let token = mesh.jwt.token(&id("orders"), "inventory", 600, jti);
        tokio::spawn(async move {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            Client::connect(address)
                .await
                .send(request("GET", "inventory.shop", "/slow", "", &headers))
                .await
        })
    };
    let (revoked, other) = (slow("revoked"), slow("other"));
    let arrived = timeout(Duration::from_secs(10), async {
        while mesh.app.calls.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    });
    arrived.await.expect("the calls arrive");
    let denylist = pb::Denylist {
        number: 1,
        entries: vec![pb::DenylistEntry {
            subject: Some(pb::denylist_entry::Subject::Jti("revoked".into())),
            ..pb::DenylistEntry::default()
        }],
    };
    mesh.agent
        .change("inventory", |snapshot| snapshot.denylist = Some(denylist));
    let ended = timeout(Duration::from_secs(10), revoked)
        .await
        .expect("the call is cut")
        .unwrap();
    assert!(ended.is_err() || ended.is_ok_and(|answer| answer.status == 403));
    let cut = mesh
        .agent
        .decided(|decision| decision.reason == "cut: token_denied")
        .await;
    assert_eq!(cut.path, "/slow");
    assert!(!other.is_finished(), "a call with another token goes on");
    other.abort();
}
