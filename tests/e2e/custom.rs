//! CUSTOM policies through a pair of proxies: an authorizer beside the workload by gRPC, and one that is itself a
//! service of the mesh, reached through mutual TLS.

use std::net::SocketAddr;

use ravelin_proto::pb::envoy::service::auth::v3 as auth;
use ravelin_proto::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use ravelin_proto::pb::google::rpc;
use ravelin_proto::pb::ravelin::v1::AuditQuery;
use ravelin_tests::http_call::Call;
use ravelin_tests::mesh_files::MeshFolder;
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::pair::Pair;
use ravelin_tests::wait::{SOON, until};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Allows callers that say who they are.
struct ByUser;

#[tonic::async_trait]
impl Authorization for ByUser {
    async fn check(
        &self,
        request: Request<auth::CheckRequest>,
    ) -> Result<Response<auth::CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap();
        let http = attributes.request.unwrap().http.unwrap();
        let code = if http.headers.contains_key("x-user") {
            0
        } else {
            7
        };
        Ok(Response::new(auth::CheckResponse {
            status: Some(rpc::Status {
                code,
                message: String::new(),
            }),
            http_response: None,
        }))
    }
}

async fn serve_grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(AuthorizationServer::new(ByUser))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

fn asking(pair: &Pair, provider: &str, rpc: SocketAddr) -> MeshFolder {
    let providers = format!(
        "  extensionProviders:\n    - name: beside\n      envoyExtAuthzGrpc: {{service: {}, port: {}}}\n    - name: in-mesh\n      envoyExtAuthzHttp: {{service: orders.shop, port: 80, pathPrefix: /check}}\n",
        rpc.ip(),
        rpc.port()
    );
    let ask = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: ask\nspec:\n  selector:\n    matchLabels:\n      app: inventory\n  action: CUSTOM\n  provider:\n    name: {provider}\n  rules:\n    - to:\n        - operation:\n            paths: [\"/inventory/*\", \"/admin\"]\n            methods: [\"GET\"]\n            notPorts: [\"{}\"]\n",
        pair.tcp_port
    );
    pair.allowing()
        .with_config(&providers)
        .with("policies/shop/ask.yaml", &ask)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_6_an_authorizer_beside_the_workload_judges_its_calls() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let folder = asking(&pair, "beside", serve_grpc().await);
    node.admin().publish(folder.messages()).await;
    let rows = [
        ("no", pair.lookup(), 403, "custom_denied"),
        ("yes", pair.lookup().with_header("x-user", "alice"), 200, ""),
        (
            "a yes bypasses nothing",
            Call::get("inventory.shop", "/admin").with_header("x-user", "alice"),
            403,
            "no_allow_matched",
        ),
    ];
    for (name, call, status, code) in rows {
        let answer = pair.call(&call).await;
        let got = (answer.status, answer.code());
        assert_eq!(got, (status, code), "{name}: {}", answer.body);
    }
    let query = AuditQuery {
        log: "decision".to_owned(),
        policy: "shop/ask".to_owned(),
        ..AuditQuery::default()
    };
    let records = until("the refusal is in the decision log", SOON, || async {
        let records = node.admin().query(query.clone()).await;
        (!records.is_empty()).then_some(records)
    })
    .await;
    assert!(records[0].json.contains("\"code\":\"custom_denied\""));
    assert!(records[0].json.contains("\"rule\":1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_62_an_authorizer_in_the_mesh_is_asked_through_mutual_tls() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let folder = asking(&pair, "in-mesh", serve_grpc().await);
    let open = folder.with_allow(
        "orders",
        "inventory",
        "[\"GET\"]",
        "[\"/check/inventory/*\"]",
    );
    node.admin().publish(open.messages()).await;
    let answer = pair.call(&pair.lookup()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    node.admin().publish(folder.messages()).await;
    let answer = pair.call(&pair.lookup()).await;
    let got = (answer.status, answer.code());
    assert_eq!(
        got,
        (403, "custom_denied"),
        "its own policy refuses the question"
    );
}
