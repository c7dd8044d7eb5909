//! Who may call what on the CA's TCP listener: nobody, an agent, a workload; and a banned agent.

use ravelin_proto::pb::ravelin::v1::admin_client::AdminClient;
use ravelin_proto::pb::ravelin::v1::mesh_client::MeshClient;
use ravelin_proto::pb::ravelin::v1::rotation_client::RotationClient;
use ravelin_proto::pb::ravelin::v1::{
    ApplyRequest, AuthorityKind, ListDenylistRequest, RotateRequest,
};
use ravelin_proto::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use ravelin_proto::pb::spire::api::server::agent::v1::{
    BanAgentRequest, CreateJoinTokenRequest, ListAgentsRequest,
};
use ravelin_proto::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use ravelin_proto::pb::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, GetAuthorizedEntriesRequest, ListEntriesRequest,
};
use ravelin_runtime::tls::Identity;
use ravelin_tests::admin::id_message;
use ravelin_tests::attest::{Csr, dial, identity, trusted};
use ravelin_tests::node::{Ca, NodeOptions, TRUST_DOMAIN};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::attestation::agent;
use crate::issuance::ask_for_svid;

fn code<T>(answer: Result<Response<T>, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// Calls that change or show what only an administrator may see.
async fn administrative(channel: Channel) -> Vec<(&'static str, Code)> {
    let mut agents = AgentClient::new(channel.clone());
    let mut entries = EntryClient::new(channel.clone());
    let rotate = RotateRequest {
        kind: AuthorityKind::X509.into(),
        revoke_old: true,
    };
    vec![
        (
            "CreateJoinToken",
            code(
                agents
                    .create_join_token(CreateJoinTokenRequest::default())
                    .await,
            ),
        ),
        (
            "ListAgents",
            code(agents.list_agents(ListAgentsRequest::default()).await),
        ),
        (
            "BatchCreateEntry",
            code(
                entries
                    .batch_create_entry(BatchCreateEntryRequest::default())
                    .await,
            ),
        ),
        (
            "ListEntries",
            code(entries.list_entries(ListEntriesRequest::default()).await),
        ),
        (
            "ListDenylist",
            code(
                AdminClient::new(channel.clone())
                    .list_denylist(ListDenylistRequest {})
                    .await,
            ),
        ),
        (
            "Apply",
            code(
                MeshClient::new(channel.clone())
                    .apply(ApplyRequest::default())
                    .await,
            ),
        ),
        (
            "Rotate",
            code(RotationClient::new(channel).rotate(rotate).await),
        ),
    ]
}

fn assert_all_refused(who: &str, answers: &[(&'static str, Code)]) {
    for (method, code) in answers {
        assert!(
            matches!(code, Code::PermissionDenied | Code::Unauthenticated),
            "`{method}` by {who}: {code:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_19_neither_an_agent_nor_a_workload_nor_nobody_may_do_what_administrators_do() {
    let ca = Ca::start(NodeOptions::default()).await;
    let bundles = trusted(&ca.admin().bundle().await);
    let agent = agent(&ca, "a").await;
    let of_agent = dial(ca.tls_addr(), &bundles, Some(&agent)).await.unwrap();
    assert_all_refused("an agent", &administrative(of_agent.clone()).await);
    let nobody = dial(ca.tls_addr(), &bundles, None).await.unwrap();
    assert_all_refused("nobody", &administrative(nobody.clone()).await);

    let entry = ca
        .admin()
        .create_entry(
            &format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders"),
            &format!("spiffe://{TRUST_DOMAIN}/node/a"),
            &["unix:uid:1"],
        )
        .await;
    let csr = Csr::new();
    let svid = ask_for_svid(of_agent, &entry, &csr.csr).await.unwrap();
    let workload: Identity = identity(&svid, &csr.key);
    let of_workload = dial(ca.tls_addr(), &bundles, Some(&workload)).await;
    let of_workload = of_workload.unwrap();
    assert_all_refused("a workload", &administrative(of_workload.clone()).await);
    for (who, channel) in [("a workload", of_workload), ("nobody", nobody)] {
        let svid = ask_for_svid(channel.clone(), &entry, &Csr::new().csr).await;
        assert!(svid.is_err(), "{who} got an SVID as agents do");
        let request = GetAuthorizedEntriesRequest { output_mask: None };
        let answer = EntryClient::new(channel)
            .get_authorized_entries(request)
            .await;
        assert!(answer.is_err(), "{who} sees entries as agents do");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_20_a_banned_agent_gets_nothing_more_on_its_open_connection_nor_on_a_new_one() {
    let ca = Ca::start(NodeOptions::default()).await;
    let bundles = trusted(&ca.admin().bundle().await);
    let agent = agent(&ca, "a").await;
    let entry = ca
        .admin()
        .create_entry(
            &format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders"),
            &format!("spiffe://{TRUST_DOMAIN}/node/a"),
            &["unix:uid:1"],
        )
        .await;
    let open = dial(ca.tls_addr(), &bundles, Some(&agent)).await.unwrap();
    assert!(
        ask_for_svid(open.clone(), &entry, &Csr::new().csr)
            .await
            .is_ok()
    );
    let ban = BanAgentRequest {
        id: Some(id_message(agent.id.as_str())),
    };
    ca.admin().agents().ban_agent(ban).await.unwrap();
    let later = ask_for_svid(open, &entry, &Csr::new().csr).await;
    assert!(later.is_err(), "an SVID over the open connection");
    // A new connection may fail in the handshake or at the first call.
    if let Ok(fresh) = dial(ca.tls_addr(), &bundles, Some(&agent)).await {
        let later = ask_for_svid(fresh, &entry, &Csr::new().csr).await;
        assert!(later.is_err(), "an SVID over a new connection");
    }
}
