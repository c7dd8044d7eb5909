//! Acknowledged rotation, the deny-list and bad starts against a running CA.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test may fail loudly, and tells one story"
)]

mod world;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use ravelin_ca::CaError;
use ravelin_ca::store::StoreError;
use ravelin_proto::bundle::x509_authority_id;
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::revoke_request::Subject;
use ravelin_proto::pb::ravelin::v1::rotation_progress::Step;
use ravelin_proto::pb::spire::api::server::agent::v1::GetAgentRequest;
use ravelin_proto::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use ravelin_proto::pb::spire::api::server::localauthority::v1 as la;
use ravelin_proto::pb::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use ravelin_proto::spiffe_id::TrustDomain;
use tokio::time::timeout;
use tonic::{Code, Streaming};
use world::{PATIENCE, SyncAgent, World, entry_of, id, issue, noon, renew};

async fn rotate(
    world: &World,
    kind: pb::AuthorityKind,
    revoke_old: bool,
) -> Streaming<pb::RotationProgress> {
    let mut client = World::rotation_api(world.admin().await);
    let request = pb::RotateRequest {
        kind: kind.into(),
        revoke_old,
    };
    client.rotate(request).await.unwrap().into_inner()
}

/// Progress until this step shows.
async fn until(progress: &mut Streaming<pb::RotationProgress>, step: Step) -> pb::RotationProgress {
    loop {
        let shown = timeout(PATIENCE, progress.message())
            .await
            .unwrap()
            .unwrap();
        let shown = shown.unwrap_or_else(|| panic!("ended before {step:?}"));
        assert_ne!(shown.step(), Step::Failed, "{}", shown.message);
        if shown.step() == step {
            return shown;
        }
    }
}

async fn active(world: &World, kind: pb::AuthorityKind) -> String {
    let mut client = World::rotation_api(world.admin().await);
    let listed = client
        .list_authorities(pb::ListAuthoritiesRequest {})
        .await
        .unwrap()
        .into_inner();
    let is_active = |one: &pb::Authority| one.kind() == kind && one.state == "active";
    listed
        .authorities
        .into_iter()
        .find(is_active)
        .unwrap()
        .authority_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_every_acknowledgement_and_revokes_only_what_nobody_uses() {
    let mut world = World::start().await;
    let first = world.agent("/node/local").await;
    let old = active(&world, pb::AuthorityKind::X509).await;
    let channel = world.tls(Some(&first)).await;
    let mut agent = SyncAgent::open(channel.clone()).await;
    agent.take().await;
    agent.holds(&first);
    agent.acknowledge().await;

    let mut progress = rotate(&world, pb::AuthorityKind::X509, true).await;
    let waiting = until(&mut progress, Step::AwaitPrepared).await;
    assert_eq!(waiting.old_authority_id, old);
    while agent.take().await.bundle.is_none() {}
    assert_eq!(
        active(&world, pb::AuthorityKind::X509).await,
        old,
        "not acknowledged yet"
    );
    assert_eq!(world.bundle().await.x509_authorities.len(), 2);

    agent.acknowledge().await;
    // The progress is a state, not a log: what is passed over quickly may not show.
    let waiting = loop {
        let shown = until(&mut progress, Step::Reissue).await;
        if shown.old_svids > 0 {
            break shown;
        }
    };
    while !agent.is_reissuing {
        agent.take().await;
    }
    let new = active(&world, pb::AuthorityKind::X509).await;
    assert_ne!(new, old);
    assert_eq!(agent.active, new);
    assert_eq!(waiting.missing, [first.id.to_string()]);
    assert!(
        world
            .bundle()
            .await
            .x509_authorities
            .iter()
            .all(|one| !one.is_tainted)
    );

    let second = renew(channel.clone()).await.unwrap();
    assert_eq!(second.leaf().authority_id.as_deref(), Some(new.as_str()));
    agent.holds(&second);
    agent.acknowledge().await;
    until(&mut progress, Step::Taint).await;
    let is_tainted = |answer: &ravelin_proto::pb::ravelin::v1::SyncResponse| {
        answer
            .bundle
            .as_ref()
            .is_some_and(|it| it.x509_authorities.iter().any(|one| one.tainted))
    };
    while !is_tainted(&agent.take().await) {}
    assert_eq!(
        world.bundle().await.x509_authorities.len(),
        2,
        "tainted, not yet revoked"
    );
    agent.acknowledge().await;
    until(&mut progress, Step::AwaitRevoked).await;
    while agent
        .take()
        .await
        .bundle
        .is_none_or(|it| it.x509_authorities.len() > 1)
    {}
    agent.acknowledge().await;
    until(&mut progress, Step::Done).await;
    let bundle = world.bundle().await;
    let ids: Vec<_> = bundle
        .x509_authorities
        .iter()
        .filter_map(|one| x509_authority_id(&one.der))
        .collect();
    assert_eq!(ids, [new]);

    let refused = renew(world.tls(Some(&first)).await).await;
    assert!(
        refused.is_err(),
        "an SVID of a revoked authority opens nothing"
    );
    assert!(renew(world.tls(Some(&second)).await).await.is_ok());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_goes_on_after_a_restart_and_waits_for_agents_that_are_not_back_yet() {
    let mut world = World::start().await;
    let identity = world.agent("/node/local").await;
    let old = active(&world, pb::AuthorityKind::X509).await;
    let mut agent = SyncAgent::open(world.tls(Some(&identity)).await).await;
    agent.take().await;
    let mut progress = rotate(&world, pb::AuthorityKind::X509, false).await;
    until(&mut progress, Step::AwaitPrepared).await;
    drop((agent, progress));
    world.restart().await;

    let mut progress = rotate(&world, pb::AuthorityKind::X509, false).await;
    let waiting = loop {
        let shown = until(&mut progress, Step::AwaitPrepared).await;
        if shown.total > 0 {
            break shown;
        }
    };
    assert_eq!(
        waiting.missing,
        [identity.id.to_string()],
        "the agent is not back yet"
    );
    assert_eq!(active(&world, pb::AuthorityKind::X509).await, old);
    assert_eq!(
        world.bundle().await.x509_authorities.len(),
        2,
        "nothing is prepared twice"
    );

    let channel = world.tls(Some(&identity)).await;
    let mut agent = SyncAgent::open(channel.clone()).await;
    while agent.take().await.bundle.is_none() {}
    agent.holds(&identity);
    agent.acknowledge().await;
    until(&mut progress, Step::Reissue).await;
    let renewed = renew(channel).await.unwrap();
    agent.holds(&renewed);
    agent.acknowledge().await;
    until(&mut progress, Step::Done).await;
    assert_eq!(
        world.bundle().await.x509_authorities.len(),
        2,
        "the old one stays without --revoke-old"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_rotation_waits_until_the_last_token_of_the_old_key_has_ended() {
    use ravelin_proto::pb::spire::api::server::svid::v1 as svid_pb;
    use ravelin_proto::pb::spire::api::server::svid::v1::svid_client::SvidClient;
    let clock = noon();
    let mut world = World::at(&clock).await;
    let mint = svid_pb::MintJwtsvidRequest {
        id: Some(ravelin_proto::convert::id_to_pb(&id("/tool"))),
        audience: vec!["a".into()],
        ttl: 60,
    };
    SvidClient::new(world.admin().await)
        .mint_jwtsvid(mint)
        .await
        .unwrap();
    let old = active(&world, pb::AuthorityKind::Jwt).await;
    let mut progress = rotate(&world, pb::AuthorityKind::Jwt, true).await;
    let waiting = loop {
        let shown = until(&mut progress, Step::Reissue).await;
        if shown.old_svids > 0 {
            break shown;
        }
    };
    assert_eq!(waiting.old_svids, 1);
    assert_ne!(active(&world, pb::AuthorityKind::Jwt).await, old);
    clock.advance(Duration::from_secs(62));
    until(&mut progress, Step::Done).await;
    let bundle = world.bundle().await;
    assert!(bundle.jwt_authorities.iter().all(|key| key.key_id != old));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_orders_are_refused_unless_forced_by_name() {
    let mut world = World::start().await;
    let identity = world.agent("/node/local").await;
    let mut agent = SyncAgent::open(world.tls(Some(&identity)).await).await;
    agent.take().await;
    agent.holds(&identity);
    agent.acknowledge().await;
    let mut client = LocalAuthorityClient::new(world.admin().await);
    let state = client
        .get_x509_authority_state(la::GetX509AuthorityStateRequest {})
        .await
        .unwrap()
        .into_inner();
    let old = state.active.unwrap().authority_id;
    let revoke = |authority_id: &str| la::RevokeX509AuthorityRequest {
        authority_id: authority_id.into(),
    };
    let refused = client
        .revoke_x509_authority(revoke(&old))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "the active one");
    let prepared = client
        .prepare_x509_authority(la::PrepareX509AuthorityRequest {})
        .await
        .unwrap()
        .into_inner();
    let new = prepared.prepared_authority.unwrap().authority_id;
    let activate = || la::ActivateX509AuthorityRequest {
        authority_id: new.clone(),
    };
    let refused = client
        .activate_x509_authority(activate())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains(identity.id.as_str()),
        "{refused}"
    );
    let mut forced = tonic::Request::new(activate());
    forced
        .metadata_mut()
        .insert("ravelin-danger-force", new.parse().unwrap());
    client.activate_x509_authority(forced).await.unwrap();
    let refused = client
        .revoke_x509_authority(revoke(&old))
        .await
        .unwrap_err();
    assert_eq!(
        refused.code(),
        Code::FailedPrecondition,
        "live SVIDs hang on it"
    );
    let refused = client
        .revoke_x509_authority(revoke("00"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_identity_is_on_the_deny_list_until_its_last_svid_has_ended() {
    let mut world = World::start().await;
    let agent = world.agent("/node/local").await;
    let admin = ravelin_proto::pb::spire::api::types::Entry {
        admin: true,
        ..entry_of("/root", "/node/local")
    };
    let entry = world.entry(admin).await;
    let channel = world.tls(Some(&agent)).await;
    let issued = issue(channel.clone(), &[&entry])
        .await
        .unwrap()
        .pop()
        .unwrap()
        .unwrap();
    let as_admin = world.tls(Some(&issued)).await;
    let mut client = World::admin_api(as_admin.clone());
    assert!(
        client
            .get_health(pb::HealthRequest {})
            .await
            .unwrap()
            .into_inner()
            .is_ready
    );

    let mut local = World::admin_api(world.admin().await);
    let revoke = |subject| pb::RevokeRequest {
        subject: Some(subject),
        reason: "stolen".into(),
    };
    let denied = local
        .revoke(revoke(Subject::Serial(issued.leaf().serial.clone())))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(denied.expires_at, issued.not_after().unix_secs());
    let refused = client.get_health(pb::HealthRequest {}).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::PermissionDenied,
        "on the open connection as well"
    );
    local
        .remove_denylist_entry(pb::RemoveDenylistEntryRequest { id: denied.id })
        .await
        .unwrap();
    assert!(client.get_health(pb::HealthRequest {}).await.is_ok());

    let by_id = local
        .revoke(revoke(Subject::SpiffeId(id("/root").to_string())))
        .await
        .unwrap()
        .into_inner();
    assert!(by_id.issued_until > 0);
    assert!(client.get_health(pb::HealthRequest {}).await.is_err());
    let by_agent = local
        .revoke(revoke(Subject::AgentId(agent.id.to_string())))
        .await
        .unwrap()
        .into_inner();
    assert!(by_agent.serials.contains(&issued.leaf().serial));
    assert!(by_agent.serials.contains(&agent.leaf().serial));
    assert!(
        issue(channel, &[&entry]).await.is_err(),
        "the agent is banned with it"
    );
    for subject in [
        Subject::Serial("00ff".into()),
        Subject::Jti("x".into()),
        Subject::SpiffeId(id("/nobody").to_string()),
    ] {
        assert_eq!(
            local.revoke(revoke(subject)).await.unwrap_err().code(),
            Code::NotFound
        );
    }
    assert_eq!(
        local
            .list_denylist(pb::ListDenylistRequest {})
            .await
            .unwrap()
            .into_inner()
            .entries
            .len(),
        2
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_65_an_agent_without_a_live_svid_is_banned_and_the_answer_says_so() {
    let clock = noon();
    let mut world = World::with(|_| {}, clock.shared()).await;
    let agent = world.agent("/node/local").await;
    clock.advance(Duration::from_hours(2));
    let mut local = World::admin_api(world.admin().await);
    let mut revoke = async |id: String| {
        let request = pb::RevokeRequest {
            subject: Some(Subject::AgentId(id)),
            reason: "lost".into(),
        };
        local.revoke(request).await.map(tonic::Response::into_inner)
    };
    let denied = revoke(agent.id.to_string()).await.unwrap();
    assert_eq!(
        denied.expires_at - denied.created_at,
        3600,
        "an agent SVID's life"
    );
    assert!(denied.serials.is_empty());
    let unknown = revoke(id("/spire/agent/join_token/x").to_string()).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let get = GetAgentRequest {
        id: Some(ravelin_proto::convert::id_to_pb(&agent.id)),
        output_mask: None,
    };
    let mut agents = AgentClient::new(world.admin().await);
    assert!(agents.get_agent(get).await.unwrap().into_inner().banned);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_28_authorities_follow_each_other_by_schedule_and_the_ca_shows_the_newest() {
    let clock = noon();
    let hour = |hours: u64| Duration::from_secs(hours * 3600);
    let mut world = World::with(
        |config| config.ttl.authority = hour(24),
        std::sync::Arc::new(clock.clone()),
    )
    .await;
    let mut seen = vec![active(&world, pb::AuthorityKind::X509).await];
    for _ in 0..12 {
        clock.advance(hour(4));
        timeout(PATIENCE, trusted(&world))
            .await
            .expect("a server SVID that is valid now");
        let now = active(&world, pb::AuthorityKind::X509).await;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    assert!(seen.len() >= 3, "{} authorities in two days", seen.len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_28_a_ca_that_was_down_for_longer_than_its_authorities_live_comes_back_by_itself() {
    let clock = noon();
    let mut world = World::at(&clock).await;
    let before = active(&world, pb::AuthorityKind::X509).await;
    world.stop().await;
    clock.advance(Duration::from_hours(24 * 60));
    world.try_start().await.unwrap();
    assert_ne!(active(&world, pb::AuthorityKind::X509).await, before);
    let agent = world.agent("/node/local").await;
    let entry = world.entry(entry_of("/a", "/node/local")).await;
    let channel = world.tls(Some(&agent)).await;
    assert!(issue(channel, &[&entry]).await.unwrap()[0].is_ok());
    world.stop().await;
}

/// Until a client that starts anew trusts the server.
async fn trusted(world: &World) {
    let mut again = tokio::time::interval(Duration::from_millis(50));
    loop {
        again.tick().await;
        if world.try_tls(None).await.is_ok() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_starts_give_one_clear_reason_and_leave_the_folder_as_it_was() {
    let mut world = World::start().await;
    let second = ravelin_ca::start(
        world.config.clone(),
        std::sync::Arc::clone(&world.clock),
        ravelin_runtime::drain::Drain::new(),
    )
    .await;
    assert!(matches!(
        second.unwrap_err(),
        CaError::Store(StoreError::Locked { .. })
    ));
    let taken = world.ca.as_ref().unwrap().tls_addr();
    world.stop().await;

    let blocker = std::net::TcpListener::bind(taken).unwrap();
    world.config.listen = taken;
    assert!(matches!(
        world.try_start().await,
        Err(CaError::Listen { .. })
    ));
    drop(blocker);

    let data_dir = world.config.data_dir.clone();
    let kek = data_dir.join("kek");
    let kept = std::fs::read(&kek).unwrap();
    std::fs::remove_file(&kek).unwrap();
    let missing = world.try_start().await.unwrap_err();
    assert!(
        missing.to_string().contains("key-encryption key"),
        "{missing}"
    );
    assert!(!kek.exists(), "a key-encryption key is never made anew");
    std::fs::write(&kek, vec![7; 32]).unwrap();
    std::fs::set_permissions(&kek, std::fs::Permissions::from_mode(0o600)).unwrap();
    let other = world.try_start().await.unwrap_err();
    assert!(other.to_string().contains("cannot be decrypted"), "{other}");
    std::fs::write(&kek, kept).unwrap();

    world.config.trust_domain = TrustDomain::parse("other.example").unwrap();
    let foreign = world.try_start().await.unwrap_err();
    assert!(matches!(
        foreign,
        CaError::Store(StoreError::ForeignTrustDomain { .. })
    ));
    world.config.trust_domain = world::trust_domain();
    world.try_start().await.unwrap();
    world.stop().await;

    let database = std::fs::read(data_dir.join("ca.db")).unwrap();
    let wal = std::fs::read(data_dir.join("ca.db-wal")).unwrap_or_default();
    let stored = [database, wal].concat();
    // PKCS#8 of a P-256 key begins so; threat_27: no key lies open in the store.
    let pkcs8 = [
        0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30,
    ];
    assert!(!stored.windows(pkcs8.len()).any(|window| window == pkcs8));

    std::fs::write(
        data_dir.join("ca.db"),
        b"SQLite format 3\0 and then nonsense",
    )
    .unwrap();
    let corrupt = world.try_start().await.unwrap_err();
    assert!(
        matches!(
            corrupt,
            CaError::Store(StoreError::Corrupt { .. } | StoreError::ForeignDatabase { .. })
        ),
        "{corrupt}"
    );
}
