//! Asking an external authorizer, for CUSTOM policies: Envoy's public ext_authz protocols, gRPC or plain HTTP.
//!
//! One question a call, within the provider's timeout. Whatever is not a clear yes is a no; a provider that cannot be
//! asked is a no as well unless it fails open. Who is asked, and whether, is decided by the policies (rules 6, 57 to 63).

pub mod answer;
pub mod grpc;
pub mod http;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ::http::header::{self, HeaderMap, HeaderValue};
use ::http::request::Parts;
use ::http::{Method, Request, Response, Uri};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use ravelin_policies::{CheckProtocol, Connection, ExtensionProvider, NormalizedPath};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use tokio::time::timeout;

use crate::body::{BodySource, ReadAhead};
use crate::limits;
use crate::snapshot::Snapshot;
use crate::upstream::balancer::Cluster;
use crate::upstream::{Answered, Pool, SendError};
use crate::worker::Worker;
pub use answer::{Answer, Changes, Denial, HeaderChange};

/// The header that tells an authorizer whether it got the whole body.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// What is asked about.
#[derive(Debug)]
pub struct Question<'a> {
    /// The connection; its principal is the caller.
    pub connection: &'a Connection,
    /// Where the connection comes from.
    pub source: SocketAddr,
    /// Who is called.
    pub workload: &'a SpiffeId,
    /// When the question is asked.
    pub time: Timestamp,
    /// The request; none for a connection whose content is not HTTP.
    pub request: Option<RequestView<'a>>,
}

/// A request as an authorizer sees it.
#[derive(Debug)]
pub struct RequestView<'a> {
    /// Its id.
    pub id: &'a HeaderValue,
    /// Checked head.
    pub head: &'a Parts,
    /// Host with its port if one was given, lower case.
    pub host: &'a HeaderValue,
    /// The path that is judged and forwarded.
    pub path: &'a NormalizedPath,
    /// As much of the body as the provider gets; none where it gets nothing.
    pub body: Option<&'a ReadAhead>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No service of the mesh has the provider's name, or it would be asked about calls to itself.
    #[error("the provider is no service that can be asked")]
    NoService,
    /// No connection, or it ended without an answer.
    #[error(transparent)]
    Unreachable(#[from] SendError),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// An answer that means nothing.
    #[error("the answer cannot be used: {0}")]
    BadAnswer(&'static str),
}

impl CheckError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoService => ravelin_policies::BAD_PROVIDER,
            Self::Unreachable(_) => "custom_unreachable",
            Self::Timeout => "custom_timeout",
            Self::BadAnswer(_) => "custom_bad_answer",
        }
    }
}

/// Asks `provider` once.
pub async fn ask(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    provider: &ExtensionProvider,
    question: &Question<'_>,
) -> Result<Answer, CheckError> {
    let authorizer = Authorizer::find(worker, snapshot, provider).ok_or(CheckError::NoService)?;
    let asked = async {
        match &provider.protocol {
            CheckProtocol::Grpc => grpc::check(worker, &authorizer, provider, question).await,
            CheckProtocol::Http { .. } => {
                http::check(worker, &authorizer, provider, question).await
            }
        }
    };
    timeout(provider.timeout, asked)
        .await
        .unwrap_or(Err(CheckError::Timeout))
}

/// Where a provider is.
#[derive(Debug)]
pub(crate) struct Authorizer {
    authority: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// An address: plain text.
    Plain(Rc<Pool>),
    /// A service of the mesh: mutual TLS, and one of its declared identities has to answer.
    Mesh(Rc<Cluster>),
}

impl Authorizer {
    fn find(
        worker: &Rc<Worker>,
        snapshot: &Snapshot,
        provider: &ExtensionProvider,
    ) -> Option<Self> {
        if let Ok(address) = provider.service.parse::<IpAddr>() {
            let address = SocketAddr::new(address, provider.port);
            let is_http2 = provider.protocol == CheckProtocol::Grpc;
            return Some(Self {
                authority: address.to_string(),
                way: Way::Plain(worker.authorizer(address, is_http2)),
            });
        }
        let authority = format!("{}:{}", provider.service, provider.port);
        let route = snapshot.routes.find(&authority)?;
        // WHY: an authorizer whose own proxy asks it about the question would never answer.
        if route.expected.contains(&snapshot.workload) {
            return None;
        }
        let way = Way::Mesh(worker.clusters().of(route));
        Some(Self { authority, way })
    }

    /// Sends one request and reads its answer to the end.
    async fn call(
        &self,
        worker: &Rc<Worker>,
        head: &Parts,
        body: Bytes,
    ) -> Result<Whole, CheckError> {
        let body = BodySource::of_bytes(body);
        let answered = match &self.way {
            Way::Plain(pool) => pool.send(worker, head, &body).await?,
            Way::Mesh(cluster) => cluster.send(worker, head, &body).await?,
        };
        read(answered).await
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Whole {
    head: ::http::response::Parts,
    body: Bytes,
    trailers: HeaderMap,
}

async fn read(answered: Answered) -> Result<Whole, CheckError> {
    let (head, incoming) = Response::into_parts(answered.response);
    match read_body(incoming).await {
        Ok((body, trailers)) => {
            if let Some(lease) = answered.lease {
                lease.give_back();
            }
            Ok(Whole {
                head,
                body,
                trailers,
            })
        }
        // WHY: where the provider fails open, a no with too long a body would become a yes.
        Err(_) if http::is_no(head.status) => Ok(Whole {
            head,
            body: Bytes::new(),
            trailers: HeaderMap::new(),
        }),
        Err(error) => Err(error),
    }
}

async fn read_body(mut incoming: Incoming) -> Result<(Bytes, HeaderMap), CheckError> {
    let (mut body, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(SendError::Failed)?;
        if let Some(data) = frame.data_ref() {
            if body.len().saturating_add(data.len()) > limits::CHECK_ANSWER_BYTES_MAX {
                return Err(CheckError::BadAnswer("it is too long"));
            }
            body.extend_from_slice(data);
        } else if let Ok(last) = frame.into_trailers() {
            trailers = last;
        }
    }
    Ok((body.freeze(), trailers))
}

/// The head of a question: `host` is the authority that it is addressed to.
fn head(method: &Method, host: HeaderValue, target: &str) -> Result<Parts, CheckError> {
    let uri: Uri = target
        .parse()
        .map_err(|_| CheckError::Unreachable(SendError::Target))?;
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method.clone();
    parts.uri = uri;
    parts.headers.insert(header::HOST, host);
    Ok(parts)
}

/// `true` or `false` for [`PARTIAL_BODY`]; none where no body is sent.
fn partial_body(body: Option<&ReadAhead>) -> Option<&'static str> {
    body.map(|body| if body.is_whole { "false" } else { "true" })
}
