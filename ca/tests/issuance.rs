//! Attestation and issuance against a running CA.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may fail loudly, and tells one story"
)]

mod world;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use ravelin_proto::jws::CompactJws;
use ravelin_proto::jwt_svid::read_claims;
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::audit_client::AuditClient;
use ravelin_proto::pb::spire::api::server::agent::v1 as agent_pb;
use ravelin_proto::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use ravelin_proto::pb::spire::api::server::entry::v1 as entry_pb;
use ravelin_proto::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use ravelin_proto::pb::spire::api::server::svid::v1 as svid_pb;
use ravelin_proto::pb::spire::api::server::svid::v1::svid_client::SvidClient;
use ravelin_runtime::clock::Clock as _;
use ravelin_runtime::tls::verify_chain;
use tonic::Code;
use world::{World, attest, entry_of, id, issue, noon, renew, request};

async fn audit(world: &World, kind: &str) -> Vec<String> {
    let query = pb::AuditQuery {
        kind: kind.into(),
        log: "audit".into(),
        ..Default::default()
    };
    let mut client = AuditClient::new(world.admin().await);
    let mut records = client.query(query).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(record) = records.message().await.unwrap() {
        found.push(record.json);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_attests_and_gets_svids_that_verify_for_its_entries_in_the_order_of_its_requests()
{
    let mut world = World::start().await;
    let agent = world.agent("/node/local").await;
    assert!(agent.id.path().starts_with("/spire/agent/join_token/"));
    let mut entries = Vec::new();
    for name in ["orders", "payments", "inventory"] {
        let path = format!("/ns/shop/sa/{name}");
        entries.push((
            path.clone(),
            world.entry(entry_of(&path, "/node/local")).await,
        ));
    }
    let channel = world.tls(Some(&agent)).await;
    let ids: Vec<&str> = entries.iter().map(|(_, entry)| entry.as_str()).collect();
    let issued = issue(channel.clone(), &ids).await.unwrap();
    let bundles = world::bundles(&world.bundle().await);
    let mut serials = BTreeSet::new();
    for ((path, _), identity) in entries.iter().zip(issued) {
        let identity = identity.unwrap();
        assert_eq!(identity.id, id(path));
        assert_eq!(identity.leaf().dns_names, ["orders.test"]);
        verify_chain(&bundles, &identity.chain, world.clock.now()).unwrap();
        serials.insert(identity.leaf().serial.clone());
    }
    assert_eq!(serials.len(), 3);
    let intended = audit(&world, "svid.intended").await;
    for serial in &serials {
        assert!(
            intended.iter().any(|json| json.contains(serial)),
            "no audit, no SVID: {serial}"
        );
    }
    let jwt = svid_pb::NewJwtsvidRequest {
        entry_id: entries[0].1.clone(),
        audience: vec!["a".into()],
    };
    let answer = SvidClient::new(channel)
        .new_jwtsvid(jwt)
        .await
        .unwrap()
        .into_inner();
    let token = answer.svid.unwrap().token;
    let claims = read_claims(&CompactJws::parse(&token).unwrap()).unwrap();
    assert_eq!(claims.id, id("/ns/shop/sa/orders"));
    assert_eq!(claims.audience, ["a"]);
    assert_eq!(claims.claims["iss"], "spiffe://shop.example");
    assert!(
        world
            .bundle()
            .await
            .jwt_authorities
            .iter()
            .any(|key| Some(&key.key_id) == claims.key_id.as_ref())
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_14_of_many_callers_with_one_join_token_exactly_one_wins() {
    let mut world = World::start().await;
    let token = world.token(None).await;
    let channel = world.tls(None).await;
    let attempts: Vec<_> = (0..100)
        .map(|_| {
            let (channel, token) = (channel.clone(), token.clone());
            tokio::spawn(async move { attest(channel, &token).await })
        })
        .collect();
    let mut won = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) => won += 1,
            Err(status) => assert!(
                matches!(
                    status.code(),
                    Code::InvalidArgument | Code::ResourceExhausted
                ),
                "{status}"
            ),
        }
    }
    assert_eq!(won, 1);
    world.restart().await;
    let again = world.attest(&token).await.unwrap_err();
    assert_eq!(
        again.code(),
        Code::InvalidArgument,
        "used tokens stay used after a restart"
    );
    assert_eq!(audit(&world, "agent.attested").await.len(), 1);
    for json in audit(&world, "*").await {
        assert!(!json.contains(&token), "threat_41: the token is in the log");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_15_a_join_token_expires_and_a_bad_csr_does_not_use_it_up() {
    let clock = noon();
    let mut world = World::at(&clock).await;
    let token = world.token(None).await;
    let params = agent_pb::attest_agent_request::Params {
        data: Some(ravelin_proto::pb::spire::api::types::AttestationData {
            r#type: "join_token".into(),
            payload: token.clone().into_bytes(),
        }),
        params: Some(agent_pb::AgentX509svidParams {
            csr: b"no csr".to_vec(),
        }),
    };
    let step = Some(agent_pb::attest_agent_request::Step::Params(params));
    let bad = agent_pb::AttestAgentRequest { step };
    let refused = AgentClient::new(world.tls(None).await)
        .attest_agent(tokio_stream::iter([bad]))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let late = world.token(None).await;
    assert!(world.attest(&token).await.is_ok());
    clock.advance(Duration::from_secs(61));
    let refused = world.attest(&late).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "the join token is not valid")
    );
    let unknown = world.attest("0123456789012345678901").await.unwrap_err();
    assert_eq!(
        unknown.message(),
        refused.message(),
        "unknown and expired look alike"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_18_an_agent_gets_its_own_entries_and_no_others() {
    let mut world = World::start().await;
    let mut cells = Vec::new();
    for node in ["a", "b", "c"] {
        let alias = format!("/node/{node}");
        let agent = world.agent(&alias).await;
        let entry = world.entry(entry_of(&format!("/on/{node}"), &alias)).await;
        cells.push((agent, entry));
    }
    let mut ids: Vec<&str> = cells.iter().map(|(_, entry)| entry.as_str()).collect();
    ids.push("no-such-entry");
    for (row, (agent, _)) in cells.iter().enumerate() {
        let results = issue(world.tls(Some(agent)).await, &ids).await.unwrap();
        for (column, result) in results.into_iter().enumerate() {
            let want = if row == column {
                None
            } else {
                Some(i32::from(Code::NotFound))
            };
            assert_eq!(result.err(), want, "agent {row}, entry {column}");
        }
        let jwt = svid_pb::NewJwtsvidRequest {
            entry_id: ids[(row + 1) % 3].to_owned(),
            audience: vec!["a".into()],
        };
        let refused = SvidClient::new(world.tls(Some(agent)).await)
            .new_jwtsvid(jwt)
            .await;
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(audit(&world, "svid.refused").await.len(), 12);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_21_a_banned_agent_gets_nothing_on_its_open_connection_and_stays_banned() {
    let mut world = World::start().await;
    let agent = world.agent("/node/local").await;
    let entry = world.entry(entry_of("/a", "/node/local")).await;
    let channel = world.tls(Some(&agent)).await;
    assert!(issue(channel.clone(), &[&entry]).await.unwrap()[0].is_ok());
    let mut admin = AgentClient::new(world.admin().await);
    let ban = agent_pb::BanAgentRequest {
        id: Some(ravelin_proto::convert::id_to_pb(&agent.id)),
    };
    admin.ban_agent(ban).await.unwrap();
    let refused = issue(channel.clone(), &[&entry]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        !refused.details().is_empty(),
        "SPIRE's agents read the reason from the details"
    );
    assert_eq!(
        renew(channel).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    world.restart().await;
    let refused = issue(world.tls(Some(&agent)).await, &[&entry])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_and_its_old_svid_is_good_until_the_new_one_was_seen() {
    let mut world = World::start().await;
    let first = world.agent("/node/local").await;
    let entry = world.entry(entry_of("/a", "/node/local")).await;
    let old_channel = world.tls(Some(&first)).await;
    let second = renew(old_channel.clone()).await.unwrap();
    assert_eq!(second.id, first.id);
    assert_ne!(second.leaf().serial, first.leaf().serial);
    assert!(
        issue(old_channel.clone(), &[&entry]).await.is_ok(),
        "the answer may have been lost"
    );
    world.restart().await;
    let old_channel = world.tls(Some(&first)).await;
    assert!(
        issue(old_channel.clone(), &[&entry]).await.is_ok(),
        "after a restart as well"
    );
    assert!(
        issue(world.tls(Some(&second)).await, &[&entry])
            .await
            .is_ok()
    );
    let refused = issue(old_channel, &[&entry]).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::PermissionDenied,
        "the new one was seen"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_29_a_clock_that_jumps_back_stops_issuance_by_name_and_going_on_needs_no_restart() {
    let clock = noon();
    let mut world = World::at(&clock).await;
    let agent = world.agent("/node/local").await;
    let entry = world.entry(entry_of("/a", "/node/local")).await;
    clock.advance(Duration::from_mins(10));
    let channel = world.tls(Some(&agent)).await;
    assert!(issue(channel.clone(), &[&entry]).await.unwrap()[0].is_ok());
    let then = clock.now();
    clock.set(then.minus(Duration::from_secs(61)));
    let refused = issue(channel.clone(), &[&entry]).await.unwrap();
    assert_eq!(
        refused[0].as_ref().err(),
        Some(&i32::from(Code::Unavailable))
    );
    clock.set(then);
    assert!(issue(channel.clone(), &[&entry]).await.unwrap()[0].is_ok());
    clock.advance(Duration::from_mins(5));
    renew(world.tls(Some(&agent)).await).await.unwrap();
    clock.set(then);
    let refused = issue(channel, &[&entry]).await.unwrap();
    assert_eq!(
        refused[0].as_ref().err(),
        Some(&i32::from(Code::Unavailable)),
        "an agent's own SVID counts as well"
    );
    assert!(audit(&world, "svid.refused").await[0].contains("clock_moved_back"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_mint_svids_but_never_those_of_agents_or_servers() {
    let mut world = World::start().await;
    let mint = |uri: &str| {
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["x.test".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(rcgen::SanType::URI(uri.try_into().unwrap()));
        let csr = params.serialize_request(&pair).unwrap().der().to_vec();
        (
            svid_pb::MintX509svidRequest { csr, ttl: 60 },
            pair.serialize_der(),
        )
    };
    let mut client = SvidClient::new(world.admin().await);
    let (wanted, key) = mint("spiffe://shop.example/tool");
    let svid = client
        .mint_x509svid(wanted)
        .await
        .unwrap()
        .into_inner()
        .svid
        .unwrap();
    let identity = world::identity(svid, &key);
    assert_eq!(
        (identity.id.as_str(), &identity.leaf().dns_names[0][..]),
        ("spiffe://shop.example/tool", "x.test")
    );
    for uri in [
        "spiffe://shop.example/spire/server",
        "spiffe://shop.example/spire/agent/x",
        "spiffe://other/x",
        "spiffe://shop.example",
    ] {
        let refused = client.mint_x509svid(mint(uri).0).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{uri}");
    }
    let jwt = |path: &str| svid_pb::MintJwtsvidRequest {
        id: Some(ravelin_proto::convert::id_to_pb(&id(path))),
        audience: vec!["a".into()],
        ttl: 60,
    };
    assert!(client.mint_jwtsvid(jwt("/tool")).await.is_ok());
    assert!(client.mint_jwtsvid(jwt("/spire/server")).await.is_err());
    let wit = client
        .mint_witsvid(svid_pb::MintWitsvidRequest::default())
        .await
        .unwrap_err();
    assert_eq!(wit.code(), Code::Unimplemented);
    assert!(
        wit.message()
            .contains("spire.api.server.svid.v1.SVID/MintWITSVID"),
        "{wit}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_19_threat_65_roles_hold_on_the_wire() {
    let mut world = World::start().await;
    let agent = world.agent("/node/local").await;
    let entry = world.entry(entry_of("/a", "/node/local")).await;
    let admin_entry = ravelin_proto::pb::spire::api::types::Entry {
        admin: true,
        ..entry_of("/root", "/node/local")
    };
    let admin_entry = world.entry(admin_entry).await;
    let issued = issue(world.tls(Some(&agent)).await, &[&entry, &admin_entry])
        .await
        .unwrap();
    let mut issued = issued.into_iter().map(Result::unwrap);
    let (workload, admin) = (issued.next().unwrap(), issued.next().unwrap());
    let rows = [
        (
            "anonymous",
            world.tls(None).await,
            Some(Code::Unauthenticated),
            Some(Code::Unauthenticated),
        ),
        (
            "workload",
            world.tls(Some(&workload)).await,
            Some(Code::PermissionDenied),
            Some(Code::PermissionDenied),
        ),
        (
            "agent",
            world.tls(Some(&agent)).await,
            Some(Code::PermissionDenied),
            None,
        ),
        (
            "admin",
            world.tls(Some(&admin)).await,
            None,
            Some(Code::PermissionDenied),
        ),
        (
            "local",
            world.admin().await,
            None,
            Some(Code::PermissionDenied),
        ),
    ];
    for (name, channel, want_admin, want_agent) in rows {
        let listed = AgentClient::new(channel.clone())
            .list_agents(agent_pb::ListAgentsRequest::default())
            .await;
        assert_eq!(
            listed.err().map(|status| status.code()),
            want_admin,
            "{name} lists agents"
        );
        let posted = AgentClient::new(channel)
            .post_status(agent_pb::PostStatusRequest::default())
            .await;
        assert_eq!(
            posted.err().map(|status| status.code()),
            want_agent,
            "{name} posts its status"
        );
    }
    let mode = std::fs::metadata(world.config.admin_socket())
        .unwrap()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_accepts_an_svid_by_the_strict_rules() {
    let mut world = World::start().await;
    let agent = world.agent("/node/local").await;
    let entry = world.entry(entry_of("/a", "/node/local")).await;
    let issued = issue(world.tls(Some(&agent)).await, &[&entry])
        .await
        .unwrap()
        .pop()
        .unwrap()
        .unwrap();
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: `openssl` is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pem = |name: &str, der: &[u8]| {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let path = folder.path().join(name);
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let text = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let root = pem("root.pem", &world.bundle().await.x509_authorities[0].der);
    let leaf = pem("leaf.pem", &issued.chain[0]);
    let run = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (root, leaf) = (root.to_str().unwrap(), leaf.to_str().unwrap());
    for purpose in ["sslserver", "sslclient"] {
        let (is_ok, text) = run(&[
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            root,
            leaf,
        ]);
        assert!(is_ok, "{text}");
    }
    let (_, text) = run(&["x509", "-noout", "-text", "-in", leaf]);
    for want in [
        "X509v3 Subject Alternative Name: critical",
        "URI:spiffe://shop.example/a",
        "DNS:orders.test",
        "X509v3 Key Usage: critical",
        "Digital Signature",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Basic Constraints: critical",
        "CA:FALSE",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(text.contains(want), "`{want}` is missing:\n{text}");
    }
    let (_, text) = run(&["x509", "-noout", "-text", "-in", root]);
    for want in ["CA:TRUE", "Certificate Sign", "URI:spiffe://shop.example"] {
        assert!(text.contains(want), "`{want}` is missing:\n{text}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_26_a_batch_has_a_limit_and_no_serial_twice() {
    let mut world = World::start().await;
    let agent = world.agent("/node/local").await;
    let entry = world.entry(entry_of("/a", "/node/local")).await;
    let channel = world.tls(Some(&agent)).await;
    let params = (0..501)
        .map(|_| svid_pb::NewX509svidParams {
            entry_id: entry.clone(),
            csr: request().0,
        })
        .collect();
    let refused = SvidClient::new(channel.clone())
        .batch_new_x509svid(svid_pb::BatchNewX509svidRequest { params })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let many: Vec<&str> = std::iter::repeat_n(entry.as_str(), 100).collect();
    let issued = issue(channel, &many).await.unwrap();
    let serials: BTreeSet<String> = issued
        .into_iter()
        .map(|identity| identity.unwrap().leaf().serial.clone())
        .collect();
    assert_eq!(serials.len(), 100);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_21_threat_65_a_stream_that_is_open_is_cut_with_the_right_to_it() {
    let mut world = World::start().await;
    let agent = world.agent("/node/local").await;
    let admin_entry = ravelin_proto::pb::spire::api::types::Entry {
        admin: true,
        ..entry_of("/root", "/node/local")
    };
    let admin_entry = world.entry(admin_entry).await;
    let issued = issue(world.tls(Some(&agent)).await, &[&admin_entry]).await;
    let admin = issued.unwrap().remove(0).unwrap();

    let query = pb::AuditQuery {
        follow: true,
        ..pb::AuditQuery::default()
    };
    let mut audit = AuditClient::new(world.tls(Some(&admin)).await);
    let mut records = audit.query(query).await.unwrap().into_inner();
    assert!(records.message().await.unwrap().is_some());
    let delete = entry_pb::BatchDeleteEntryRequest {
        ids: vec![admin_entry],
    };
    let mut entries = EntryClient::new(world.admin().await);
    entries.batch_delete_entry(delete).await.unwrap();
    let end = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        loop {
            match records.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status.code()),
            }
        }
    });
    assert_eq!(end.await.unwrap(), Some(Code::PermissionDenied));

    let mut stream = world::SyncAgent::open(world.tls(Some(&agent)).await).await;
    stream.take().await;
    let revoke = pb::RevokeRequest {
        subject: Some(pb::revoke_request::Subject::Serial(
            agent.leaf().serial.clone(),
        )),
        reason: "lost".to_owned(),
    };
    let mut api = World::admin_api(world.admin().await);
    api.revoke(revoke).await.unwrap();
    let end = stream.ended().await.map(|status| status.code());
    assert_eq!(end, Some(Code::PermissionDenied));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_15_requests_without_a_token_to_guess_are_slowed_down_as_well() {
    let mut world = World::start().await;
    let mut client = AgentClient::new(world.tls(None).await);
    let mut codes = Vec::new();
    for _ in 0..20 {
        let step = Some(agent_pb::attest_agent_request::Step::Params(
            agent_pb::attest_agent_request::Params {
                data: Some(ravelin_proto::pb::spire::api::types::AttestationData {
                    r#type: "join_token".to_owned(),
                    payload: b"0123456789012345678901".to_vec(),
                }),
                params: Some(agent_pb::AgentX509svidParams { csr: vec![1] }),
            },
        ));
        let request = agent_pb::AttestAgentRequest { step };
        let refused = client.attest_agent(tokio_stream::iter([request])).await;
        codes.push(refused.unwrap_err().code());
    }
    assert_eq!(codes.first(), Some(&Code::InvalidArgument));
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    world.stop().await;
}
