//! Real listeners on loopback and on Unix sockets, with the Workload API as the service.

mod sockets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt as _};
use ravelin_proto::pb;
use ravelin_proto::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ravelin_proto::pb::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use ravelin_proto::spiffe_id::SpiffeId;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::clock::TestClock;
use crate::drain::Drain;
use crate::tls::fixture::{Authority, bundles, clock, set_validity, svid_params};
use crate::tls::{ClientAuth, Expect, Identity, client_config, server_config};
use crate::uds::PeerProcess;
use crate::workload_client::SECURITY_HEADER;

const ORDERS: &str = "spiffe://one.test/orders";
const SERVER: &str = "spiffe://one.test/spire/server";

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers with what it knows of its peer.
struct Mirror {
    authority: Arc<Authority>,
}

#[allow(clippy::unnecessary_wraps, reason = "it is what a handler returns")]
fn once<T: Send + 'static>(answer: T) -> Result<Response<Answers<T>>, Status> {
    Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)))))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Mirror {
    type FetchX509SVIDStream = Answers<pb::X509svidResponse>;
    type FetchX509BundlesStream = Answers<pb::X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<pb::JwtBundlesResponse>;
    type FetchWITSVIDStream = Answers<pb::WitsvidResponse>;
    type FetchWITBundlesStream = Answers<pb::WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<pb::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        if request
            .metadata()
            .get(SECURITY_HEADER)
            .is_none_or(|value| value != "true")
        {
            return Err(Status::invalid_argument("security header missing"));
        }
        let identity = self.authority.identity(ORDERS);
        once(pb::X509svidResponse {
            svids: vec![pb::X509svid {
                spiffe_id: ORDERS.to_owned(),
                x509_svid: identity.chain_der(),
                x509_svid_key: identity.key_der().to_vec(),
                bundle: self.authority.der.to_vec(),
                hint: "internal".to_owned(),
            }],
            ..Default::default()
        })
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<pb::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let bundles = [("spiffe://one.test".to_owned(), self.authority.der.to_vec())].into();
        once(pb::X509BundlesResponse {
            bundles,
            crl: vec![],
        })
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<pb::JwtsvidRequest>,
    ) -> Result<Response<pb::JwtsvidResponse>, Status> {
        let audience = request.into_inner().audience;
        if audience.is_empty() {
            return Err(Status::invalid_argument("audience missing"));
        }
        Err(Status::permission_denied("no identity issued"))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<pb::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let bundles = [("spiffe://one.test".to_owned(), b"{\"keys\":[]}".to_vec())].into();
        once(pb::JwtBundlesResponse { bundles })
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<pb::ValidateJwtsvidRequest>,
    ) -> Result<Response<pb::ValidateJwtsvidResponse>, Status> {
        let tls = request.extensions().get::<TlsPeer>();
        let process = request.extensions().get::<PeerProcess>();
        let spiffe_id = match (tls, process) {
            (
                Some(TlsPeer {
                    identity: Some(peer),
                    ..
                }),
                None,
            ) => peer.id.to_string(),
            (Some(TlsPeer { identity: None, .. }), None) => "spiffe://nobody/x".to_owned(),
            (None, Some(process)) => format!("spiffe://process/{}", process.pid),
            _ => return Err(Status::internal("no peer")),
        };
        let number = |value| prost_types::Value {
            kind: Some(prost_types::value::Kind::NumberValue(value)),
        };
        let claims = prost_types::Struct {
            fields: [("exp".to_owned(), number(1_800_000_000.0))].into(),
        };
        Ok(Response::new(pb::ValidateJwtsvidResponse {
            spiffe_id,
            claims: Some(claims),
        }))
    }

    async fn fetch_witsvid(
        &self,
        _: Request<pb::WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        // Never answers: a call that is in flight when drain begins.
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<pb::WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented("FetchWITBundles"))
    }
}

struct Served {
    address: ServerAddress,
    config: Arc<ArcSwap<ServerConfig>>,
    authority: Arc<Authority>,
    clock: TestClock,
    drain: Drain,
    task: JoinHandle<Result<(), ServeError>>,
}

fn routes(authority: &Arc<Authority>) -> Routes {
    let mirror = Mirror {
        authority: Arc::clone(authority),
    };
    let (routes, _) = with_health_and_reflection(Routes::new(SpiffeWorkloadApiServer::new(mirror)));
    routes
}

fn limits() -> RpcLimits {
    RpcLimits {
        drain_deadline: Duration::from_millis(50),
        ..RpcLimits::default()
    }
}

impl Served {
    async fn tls(auth: ClientAuth) -> Self {
        Self::tls_within(auth, limits()).await
    }

    async fn tls_within(auth: ClientAuth, limits: RpcLimits) -> Self {
        let (authority, clock, drain) =
            (Arc::new(Authority::new("one.test")), clock(), Drain::new());
        let config = server_tls(&authority, &authority.identity(SERVER), auth, &clock);
        let config = Arc::new(ArcSwap::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let serving = serve_tls(
            listener,
            Arc::clone(&config),
            routes(&authority),
            limits,
            drain.clone(),
        );
        let address = ServerAddress::Https {
            host: "127.0.0.1".to_owned(),
            port,
        };
        Self {
            address,
            config,
            authority,
            clock,
            drain,
            task: tokio::task::spawn(serving),
        }
    }

    fn client(&self, identity: Option<&Identity>, expect: Expect) -> Arc<ClientConfig> {
        let trusted = bundles(&[("one.test", &[&self.authority])]);
        client_config(identity, trusted, expect, &[b"h2"], self.clock.shared()).expect("client")
    }
}

fn server_tls(
    authority: &Authority,
    identity: &Identity,
    auth: ClientAuth,
    clock: &TestClock,
) -> Arc<ServerConfig> {
    let trusted = bundles(&[("one.test", &[authority])]);
    server_config(identity, trusted, auth, &[b"h2"], clock.shared()).expect("server")
}

async fn who_am_i(channel: tonic::transport::Channel) -> Result<String, Status> {
    let request = pb::ValidateJwtsvidRequest {
        audience: "a".to_owned(),
        svid: "t".to_owned(),
    };
    let answer = SpiffeWorkloadApiClient::new(channel)
        .validate_jwtsvid(request)
        .await?;
    Ok(answer.into_inner().spiffe_id)
}

#[tokio::test]
async fn a_handler_learns_who_called_over_tls() {
    let served = Served::tls(ClientAuth::Optional).await;
    let orders = served.authority.identity(ORDERS);
    for (identity, want) in [(Some(&orders), ORDERS), (None, "spiffe://nobody/x")] {
        let expect = Expect::OneOf(vec![SpiffeId::parse(SERVER).expect("id")]);
        let tls = served.client(identity, expect);
        let channel = connect(&served.address, Some(tls))
            .await
            .expect("connected");
        assert_eq!(who_am_i(channel).await.expect("answer"), want);
    }
}

#[tokio::test]
async fn each_handshake_takes_the_newest_configuration() {
    let served = Served::tls(ClientAuth::Optional).await;
    let newer = SpiffeId::parse("spiffe://one.test/newer").expect("id");
    let expects_newer = || served.client(None, Expect::OneOf(vec![newer.clone()]));
    let error = connect(&served.address, Some(expects_newer()))
        .await
        .expect_err("the older answers");
    assert!(matches!(error, RpcError::Peer { .. }), "{error}");
    let identity = served.authority.identity(newer.as_str());
    let config = server_tls(
        &served.authority,
        &identity,
        ClientAuth::Optional,
        &served.clock,
    );
    served.config.store(config);
    let channel = connect(&served.address, Some(expects_newer()))
        .await
        .expect("connected");
    assert!(who_am_i(channel).await.is_ok());
}

#[tokio::test]
async fn threat_59_an_open_connection_ends_when_the_clients_svid_does() {
    let served = Served::tls(ClientAuth::Required).await;
    let mut short = svid_params(ORDERS);
    set_validity(&mut short, -60, 1);
    let short = served.authority.identity_of(&short);
    let tls = served.client(Some(&short), Expect::AnyMember);
    let channel = connect(&served.address, Some(tls))
        .await
        .expect("connected");
    let mut client = SpiffeWorkloadApiClient::new(channel.clone());
    let stream = client
        .fetch_witsvid(pb::WitsvidRequest::default())
        .await
        .expect("stream");
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.into_inner().next()).await;
    assert!(
        ended
            .expect("ends with the SVID")
            .is_none_or(|item| item.is_err())
    );
    served.clock.advance(Duration::from_secs(2));
    assert!(
        who_am_i(channel).await.is_err(),
        "and no new connection is made with it"
    );
}

#[tokio::test]
async fn threat_08_connections_without_an_svid_are_few_per_address_and_end_soon() {
    let limits = RpcLimits {
        anonymous_per_address_max: 1,
        anonymous_age_max: Duration::from_secs(1),
        ..limits()
    };
    let served = Served::tls_within(ClientAuth::Optional, limits).await;
    let orders = served.authority.identity(ORDERS);
    let open = async |identity: Option<&Identity>| {
        let tls = served.client(identity, Expect::AnyMember);
        let channel = connect(&served.address, Some(tls)).await.ok()?;
        let mut client = SpiffeWorkloadApiClient::new(channel);
        let stream = client.fetch_witsvid(pb::WitsvidRequest::default()).await;
        Some(stream.ok()?.into_inner())
    };
    let mut named = open(Some(&orders)).await.expect("it has an SVID");
    let mut first = open(None).await.expect("the first one");
    assert!(open(None).await.is_none(), "one too many");
    let _other = open(Some(&orders)).await.expect("it has an SVID");
    let ended = tokio::time::timeout(Duration::from_secs(10), first.next()).await;
    assert!(ended.expect("its age").is_none_or(|item| item.is_err()));
    let again = tokio::time::timeout(Duration::from_secs(10), async {
        while open(None).await.is_none() {
            tokio::task::yield_now().await;
        }
    });
    again.await.expect("its place is free again");
    let quiet = tokio::time::timeout(Duration::from_millis(1), named.next()).await;
    assert!(quiet.is_err(), "an SVID's connection lasts");
}

#[tokio::test]
async fn drain_lets_the_listener_go_and_cuts_what_does_not_end() {
    let served = Served::tls(ClientAuth::None).await;
    let tls = served.client(None, Expect::AnyMember);
    let channel = connect(&served.address, Some(tls.clone()))
        .await
        .expect("connected");
    let mut client = SpiffeWorkloadApiClient::new(channel);
    let stream = client
        .fetch_witsvid(pb::WitsvidRequest::default())
        .await
        .expect("stream");
    served.drain.start();
    served
        .task
        .await
        .expect("joined")
        .expect("a drain is no error");
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.into_inner().next()).await;
    assert!(ended.expect("cut").is_none_or(|item| item.is_err()));
    let error = connect(&served.address, Some(tls))
        .await
        .expect_err("nobody listens");
    assert!(
        matches!(error, RpcError::Unreachable { .. }) && error.is_transient(),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_dialled_is_named() {
    let served = Served::tls(ClientAuth::Required).await;
    let error = connect(&served.address, None).await.expect_err("no TLS");
    assert!(
        matches!(error, RpcError::TlsMissing(_)) && !error.is_transient(),
        "{error}"
    );
    let missing = ServerAddress::Unix(PathBuf::from("/nonexistent/agent.sock"));
    let error = connect(&missing, None).await.expect_err("no socket");
    assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
    let ServerAddress::Https { port, .. } = served.address else {
        panic!("https")
    };
    let plain = ServerAddress::Tcp(([127, 0, 0, 1], port).into());
    let outcome = match connect(&plain, None).await {
        Ok(channel) => who_am_i(channel).await.map_err(|status| status.code()),
        Err(_) => Err(Code::Unavailable),
    };
    assert!(outcome.is_err(), "threat_60: plain text gets no answer");
}

#[tokio::test]
async fn threat_08_a_user_with_too_many_connections_gets_no_further_one_until_one_ends() {
    use tokio::io::AsyncReadExt as _;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.sock");
    let listener = crate::uds::UdsListener::bind(&path, 0o600).expect("bound");
    let limits = RpcLimits {
        connections_per_user_max: 1,
        ..RpcLimits::default()
    };
    let drain = Drain::new();
    let served = tokio::spawn(serve_uds(
        listener,
        tonic::service::Routes::default(),
        limits,
        drain.clone(),
    ));
    let open = || async {
        let mut stream = tokio::net::UnixStream::connect(&path).await.expect("open");
        let mut first = [0; 1];
        // A server that takes the connection says SETTINGS first; one that does not closes it.
        let count = stream.read(&mut first).await.unwrap_or(0);
        (count > 0).then_some(stream)
    };
    let held = open().await;
    assert!(held.is_some());
    assert!(open().await.is_none());
    drop(held);
    while open().await.is_none() {
        tokio::task::yield_now().await;
    }
    drain.start();
    served.abort();
}
