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

use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::authority::Authority;
use harness::client::{Client, call, get, request};
use harness::load::{Calling, Load};
use harness::{DENY_ALL, Mesh, POLICIES, TRUST_DOMAIN, id};
use ravelin_proto::pb::ravelin::v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_64_a_rotation_of_the_authority_under_load_fails_no_call() {
    let mesh = Mesh::start().await;
    let load = Load::default().with(Calling::Kept, mesh.outbound(), 16);
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
    let load = Load::default().with(Calling::Kept, mesh.outbound(), 16);
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
    // Where its response had begun the stream is reset, which may overtake the head.
    assert!(ended.is_err() || ended.is_ok_and(|answer| answer.status != 200));
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
    // Where its response had begun the stream is reset, which may overtake the head.
    assert!(ended.is_err() || ended.is_ok_and(|answer| answer.status != 200));
    let cut = mesh
        .agent
        .decided(|decision| decision.reason == "cut: token_denied")
        .await;
    assert_eq!(cut.path, "/slow");
    assert!(!other.is_finished(), "a call with another token goes on");
    other.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_a_call_in_flight_is_cut_when_the_key_of_its_token_or_its_rule_is_gone() {
    for (is_key, code) in [(true, "cut: token_"), (false, "cut: token_issuer")] {
        let mesh = Mesh::start().await;
        let pay = POLICIES.replace("\"/pay\"", "\"/slow\"");
        let pay = pay.replace("\"/items/*\", \"/slow\"", "\"/items/*\"");
        mesh.publish(2, &pay).await;
        let address = mesh.outbound();
        let token = mesh.jwt.token(&id("orders"), "inventory", 600, "one");
        let slow = tokio::spawn(async move {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            Client::connect(address)
                .await
                .send(request("GET", "inventory.shop", "/slow", "", &headers))
                .await
        });
        let arrived = timeout(Duration::from_secs(10), async {
            while mesh.app.calls.load(Ordering::Relaxed) < 1 {
                tokio::task::yield_now().await;
            }
        });
        arrived.await.expect("the call arrives");
        let more = harness::JwtAuthority::new()
            .jwks()
            .replace("key-1", "key-2");
        let both = format!(
            "{},{}",
            mesh.jwt.jwks().trim_end_matches("]}"),
            more.trim_start_matches("{\"keys\":[")
        );
        mesh.agent.forget_acks();
        mesh.agent.change("inventory", |snapshot| {
            snapshot
                .jwt_bundles
                .insert(TRUST_DOMAIN.into(), both.into_bytes());
        });
        mesh.agent
            .acked("inventory", |ack| ack.refusal.is_empty())
            .await;
        assert!(!slow.is_finished(), "a key more ends no call");
        if is_key {
            mesh.agent.change("inventory", |snapshot| {
                snapshot
                    .jwt_bundles
                    .insert(TRUST_DOMAIN.into(), more.into_bytes());
            });
        } else {
            mesh.agent.change("inventory", |snapshot| {
                snapshot.mesh = Some(mesh.revision(
                    3,
                    &pay.replace("example.org\n      jwks", "other.org\n      jwks"),
                ));
            });
        }
        let ended = timeout(Duration::from_secs(10), slow)
            .await
            .expect("the call is cut")
            .unwrap();
        // Where its response had begun the stream is reset, which may overtake the head.
        assert!(ended.is_err() || ended.is_ok_and(|answer| answer.status != 200));
        let cut = mesh
            .agent
            .decided(|decision| decision.reason.starts_with("cut: "))
            .await;
        assert!(cut.reason.starts_with(code), "{}", cut.reason);
        assert_eq!(cut.path, "/slow");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_the_application_under_load_fail_only_what_was_sent_and_may_not_be_repeated() {
    let mut mesh = Mesh::start().await;
    let reads = Load::default().with(Calling::Kept, mesh.outbound(), 8);
    let writes = Load::default().with(Calling::Post, mesh.outbound(), 4);
    for away in [0, 30, 120, 400] {
        reads.go_on(100).await;
        mesh.app.restart(Duration::from_millis(away)).await;
    }
    reads.go_on(100).await;
    let sent = writes.calls();
    assert_eq!(reads.stop().await, Vec::<String>::new());
    let failures = writes.stop().await;
    println!("{} of about {sent} writes failed", failures.len());
    assert!(
        failures
            .iter()
            .all(|failure| failure.contains("upstream_failed")),
        "{failures:?}"
    );
    // At most those that were on their way at each of the restarts.
    assert!(failures.len() <= 4 * 4, "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_the_peers_proxy_under_load_fail_no_call() {
    let mut mesh = Mesh::start().await;
    let config = format!(
        "name = \"inventory\"\nagent_socket = \"{}\"\nworkers = 2\ndrain = \"200ms\"\n[[inbound]]\nlisten = \"{}\"\nforward = \"{}\"\n",
        mesh.agent.socket.display(),
        mesh.inventory.inbound[0],
        mesh.app.address,
    );
    let load = Load::default()
        .with(Calling::Kept, mesh.outbound(), 6)
        .with(Calling::Fresh, mesh.outbound(), 4);
    for _ in 0..3 {
        load.go_on(100).await;
        let mut old = mesh.inventory;
        let inbound = old.inbound.clone();
        mesh.inventory = tokio::task::spawn_blocking({
            let config = config.clone();
            move || {
                old.stop();
                harness::RunningProxy::start(&config)
            }
        })
        .await
        .unwrap();
        assert_eq!(mesh.inventory.inbound, inbound[..1]);
    }
    load.go_on(100).await;
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_64_policies_that_change_again_and_again_under_load_fail_no_call_that_all_of_them_allow()
 {
    let mesh = Mesh::start().await;
    let load = Load::default()
        .with(Calling::Kept, mesh.outbound(), 8)
        .with(Calling::Post, mesh.outbound(), 4)
        .with(Calling::Tcp, mesh.orders.tcp_outbound[0], 2);
    for revision in 2..32 {
        let policies = match revision % 2 {
            0 => POLICIES.replace("\"/slow\"", "\"/other\""),
            _ => POLICIES.to_owned(),
        };
        mesh.publish(revision, &policies).await;
        load.go_on(20).await;
    }
    assert_eq!(load.stop().await, Vec::<String>::new());
}
