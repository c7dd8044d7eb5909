//! The matrix of callers and methods.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use ravelin_proto::pb::DESCRIPTORS;
use ravelin_proto::spiffe_id::SpiffeId;

use super::*;
use crate::registry::RegisteredAgent;

/// Every method that this server has, as a path.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut paths = Vec::new();
    for file in set.file {
        let package = file.package().to_owned();
        for service in &file.service {
            let name = format!("{package}.{}", service.name());
            if TABLE.iter().any(|(known, _, _)| *known == name) {
                paths.extend(
                    service
                        .method
                        .iter()
                        .map(|it| format!("/{name}/{}", it.name())),
                );
            }
        }
    }
    paths
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td{path}")).unwrap()
}

fn callers() -> [(&'static str, Caller); 6] {
    let agent = RegisteredAgent {
        id: id("/spire/agent/join_token/a"),
        is_banned: false,
        selectors: BTreeSet::new(),
        serial: "1".into(),
        serial_before: String::new(),
        expires_at: Timestamp::default(),
        attestation_type: "join_token".into(),
        can_reattest: false,
        version: String::new(),
    };
    [
        ("local", Caller::Local { uid: 1000 }),
        ("agent", Caller::Agent(Arc::new(agent))),
        (
            "banned",
            Caller::FormerAgent {
                id: id("/spire/agent/x"),
                is_banned: true,
            },
        ),
        (
            "workload",
            Caller::Workload {
                id: id("/a"),
                is_admin: false,
            },
        ),
        (
            "admin",
            Caller::Workload {
                id: id("/root"),
                is_admin: true,
            },
        ),
        ("anonymous", Caller::Anonymous),
    ]
}

#[test]
fn threat_65_every_method_of_every_service_is_in_the_table() {
    let methods = methods();
    assert!(methods.len() > 70, "{} methods", methods.len());
    for path in &methods {
        assert!(who_may(path).is_some(), "{path}");
    }
    for (service, method, _) in TABLE {
        if *method != "*" {
            let path = format!("/{service}/{method}");
            assert!(methods.contains(&path), "{path} is no method");
        }
    }
    for path in [
        "",
        "/",
        "/x.Y/Z",
        "/ravelin.v1.Sync/Other",
        "ravelin.v1.Sync/Stream",
    ] {
        assert_eq!(who_may(path), None, "{path}");
    }
}

#[test]
fn threat_19_roles_and_methods_meet_in_exactly_the_cells_of_the_design() {
    let everybody = [
        "/spire.api.server.agent.v1.Agent/AttestAgent",
        "/spire.api.server.bundle.v1.Bundle/GetBundle",
    ];
    let agents = [
        "/spire.api.server.agent.v1.Agent/RenewAgent",
        "/spire.api.server.agent.v1.Agent/PostStatus",
        "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries",
        "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries",
        "/spire.api.server.svid.v1.SVID/BatchNewX509SVID",
        "/spire.api.server.svid.v1.SVID/NewJWTSVID",
        "/spire.api.server.svid.v1.SVID/BatchNewWITSVID",
        "/ravelin.v1.Audit/AppendDecisions",
        "/ravelin.v1.Sync/Stream",
    ];
    let both = ["/spire.api.server.bundle.v1.Bundle/GetFederatedBundle"];
    let nobody = [
        "/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority",
        "/spire.api.server.bundle.v1.Bundle/PublishWITAuthority",
        "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA",
    ];
    let is_local_only = |path: &str| path.contains(".logger.") || path.contains(".debug.");
    for path in methods() {
        let path = path.as_str();
        let is_agents = agents.contains(&path);
        for (name, caller) in callers() {
            let want = everybody.contains(&path)
                || match name {
                    "local" => !is_agents && !nobody.contains(&path),
                    "admin" => !is_agents && !nobody.contains(&path) && !is_local_only(path),
                    "agent" => is_agents || both.contains(&path),
                    _ => false,
                };
            assert_eq!(judge(&caller, path).is_ok(), want, "{name} {path}");
        }
    }
}
