//! A client of the SPIFFE Workload API (sections 4 to 6): what the proxies and the command line get their identities by.
//!
//! Every answer is full state, checked as a whole before it is handed on. It does not reconnect: the caller does, with
//! `backoff`. It never waits without the caller being able to drop the wait.

use std::path::Path;

use futures_util::{Stream, StreamExt as _};
use ravelin_proto::jwks::{JwkSet, JwksError};
use ravelin_proto::pb;
use ravelin_proto::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ravelin_proto::secret::Secret;
use ravelin_proto::spiffe_id::{SpiffeId, SpiffeIdError, TrustDomain};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Number, Value};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::jwt::JwtBundles;
use crate::limits::{CALL_DEADLINE, MESSAGE_BYTES_MAX};
use crate::rpc::{RpcError, ServerAddress, connect};
use crate::tls::{Identity, IdentityError, X509Bundles, split_certificates};

/// The header that a Workload API call carries, against requests that a workload was tricked into (E-2).
pub const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Why the Workload API gave nothing usable.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// No agent answers.
    #[error(transparent)]
    Connect(#[from] RpcError),
    /// The agent has no identity for this process (`PermissionDenied`): drop what was given before.
    #[error("the agent has no identity for this process: {0}")]
    NoIdentity(String),
    /// The agent said no otherwise.
    #[error("the agent answered {code}: {message}")]
    Refused {
        /// gRPC's code.
        code: Code,
        /// The agent's words.
        message: String,
    },
    /// No answer within `limits::CALL_DEADLINE`.
    #[error("the agent did not answer in time")]
    Deadline,
    /// The stream ended.
    #[error("the agent closed the stream")]
    Closed,
    /// A field that must be there is missing.
    #[error("the agent's answer lacks `{0}`")]
    Missing(&'static str),
    /// A chain or key that is none.
    #[error("the agent's answer has an unusable SVID: {0}")]
    Svid(#[from] IdentityError),
    /// The ID beside an SVID is not the one inside.
    #[error("the agent's answer names `{named}` for the SVID of `{inside}`")]
    IdMismatch {
        /// Beside the SVID.
        named: String,
        /// In the SVID.
        inside: SpiffeId,
    },
    /// An ID that is none.
    #[error("the agent's answer has an unusable SPIFFE ID: {0}")]
    Id(#[from] SpiffeIdError),
    /// A JWT bundle that is none.
    #[error("the agent's answer has an unusable JWT bundle: {0}")]
    Jwks(#[from] JwksError),
}

impl WorkloadError {
    /// Whether trying again can help: not for `InvalidArgument` and `Unimplemented`.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { code, .. } => {
                !matches!(code, Code::InvalidArgument | Code::Unimplemented)
            }
            Self::Connect(error) => error.is_transient(),
            Self::NoIdentity(_)
            | Self::Deadline
            | Self::Closed
            | Self::Missing(_)
            | Self::Svid(_)
            | Self::IdMismatch { .. }
            | Self::Id(_)
            | Self::Jwks(_) => true,
        }
    }
}

impl From<Status> for WorkloadError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        let code = status.code();
        if code == Code::PermissionDenied {
            return Self::NoIdentity(message);
        }
        Self::Refused { code, message }
    }
}

/// One X.509-SVID of this process.
#[derive(Debug, Clone)]
pub struct FetchedX509Svid {
    /// Chain and key.
    pub identity: Identity,
    /// How an operator tells several identities apart; may be empty.
    pub hint: String,
}

/// The full state of the X.509 profile.
#[derive(Debug, Clone)]
pub struct X509Update {
    /// At least one; the first is the default.
    pub svids: Vec<FetchedX509Svid>,
    /// Own and federated trust domains.
    pub bundles: X509Bundles,
}

impl X509Update {
    /// The default SVID, or the one with this ID.
    pub fn svid(&self, id: Option<&SpiffeId>) -> Option<&FetchedX509Svid> {
        match id {
            None => self.svids.first(),
            Some(id) => self.svids.iter().find(|svid| svid.identity.id == *id),
        }
    }
}

/// One JWT-SVID of this process.
#[derive(Debug, Clone)]
pub struct FetchedJwtSvid {
    /// Whose it is.
    pub id: SpiffeId,
    /// The token in compact form.
    pub token: Secret<String>,
    /// How an operator tells several identities apart; may be empty.
    pub hint: String,
}

/// What `validate_jwt` found.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatedJwt {
    /// `sub`.
    pub id: SpiffeId,
    /// All claims that the agent lets us see.
    pub claims: Map<String, Value>,
}

#[derive(Debug, Clone)]
struct SecurityHeader;

impl Interceptor for SecurityHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert(SECURITY_HEADER, AsciiMetadataValue::from_static("true"));
        Ok(request)
    }
}

/// A connection to an agent's Workload API. Copies share it.
#[derive(Debug, Clone)]
pub struct WorkloadClient {
    client: SpiffeWorkloadApiClient<InterceptedService<Channel, SecurityHeader>>,
}

impl WorkloadClient {
    /// Connects to an agent's socket.
    pub async fn connect(socket: impl AsRef<Path>) -> Result<Self, WorkloadError> {
        Self::connect_to(&ServerAddress::Unix(socket.as_ref().to_owned())).await
    }

    /// Connects to an agent at an address, as `SPIFFE_ENDPOINT_SOCKET` gives it.
    pub async fn connect_to(address: &ServerAddress) -> Result<Self, WorkloadError> {
        let channel = connect(address, None).await?;
        let client = SpiffeWorkloadApiClient::with_interceptor(channel, SecurityHeader)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client })
    }

    /// X.509-SVIDs and bundles: the first at once, then one with every change. Ends after its first error.
    pub async fn x509_svids(
        &self,
    ) -> Result<impl Stream<Item = Result<X509Update, WorkloadError>> + Send + use<>, WorkloadError>
    {
        let mut client = self.client.clone();
        let stream = first_answer(client.fetch_x509svid(pb::X509svidRequest {})).await?;
        Ok(until_error(stream, |message| read_x509_update(&message)))
    }

    /// X.509 bundles alone.
    pub async fn x509_bundles(
        &self,
    ) -> Result<impl Stream<Item = Result<X509Bundles, WorkloadError>> + Send + use<>, WorkloadError>
    {
        let mut client = self.client.clone();
        let stream = first_answer(client.fetch_x509_bundles(pb::X509BundlesRequest {})).await?;
        Ok(until_error(stream, |message| {
            let mut bundles = X509Bundles::new();
            for (domain, der) in &message.bundles {
                insert_bundle(&mut bundles, domain, der)?;
            }
            Ok(bundles)
        }))
    }

    /// JWT bundles.
    pub async fn jwt_bundles(
        &self,
    ) -> Result<impl Stream<Item = Result<JwtBundles, WorkloadError>> + Send + use<>, WorkloadError>
    {
        let mut client = self.client.clone();
        let stream = first_answer(client.fetch_jwt_bundles(pb::JwtBundlesRequest {})).await?;
        Ok(until_error(stream, |message| {
            let mut bundles = JwtBundles::new();
            for (domain, json) in &message.bundles {
                let text = String::from_utf8_lossy(json);
                bundles.insert(TrustDomain::parse(domain)?, JwkSet::parse(&text)?);
            }
            Ok(bundles)
        }))
    }

    /// JWT-SVIDs for these audiences: of one identity, or of all of this process's.
    pub async fn jwt_svid(
        &self,
        audience: &[String],
        id: Option<&SpiffeId>,
    ) -> Result<Vec<FetchedJwtSvid>, WorkloadError> {
        let request = pb::JwtsvidRequest {
            audience: audience.to_vec(),
            spiffe_id: id.map(ToString::to_string).unwrap_or_default(),
        };
        let answer = first_answer(self.client.clone().fetch_jwtsvid(request)).await?;
        let svids: Result<Vec<_>, WorkloadError> = answer
            .svids
            .into_iter()
            .map(|svid| {
                Ok(FetchedJwtSvid {
                    id: SpiffeId::parse(&svid.spiffe_id)?,
                    token: Secret::new(svid.svid),
                    hint: svid.hint,
                })
            })
            .collect();
        svids.and_then(|svids| {
            if svids.is_empty() {
                Err(WorkloadError::Missing("svids"))
            } else {
                Ok(svids)
            }
        })
    }

    /// Has the agent check a JWT-SVID for an audience.
    pub async fn validate_jwt(
        &self,
        audience: &str,
        token: &str,
    ) -> Result<ValidatedJwt, WorkloadError> {
        let request = pb::ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid: token.to_owned(),
        };
        let answer = first_answer(self.client.clone().validate_jwtsvid(request)).await?;
        let claims = answer.claims.ok_or(WorkloadError::Missing("claims"))?;
        Ok(ValidatedJwt {
            id: SpiffeId::parse(&answer.spiffe_id)?,
            claims: read_struct(claims),
        })
    }
}

async fn first_answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, WorkloadError> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(WorkloadError::Deadline),
    }
}

/// A stream of read messages that ends with its first error; the peer's closing is one.
fn until_error<M, T>(
    stream: tonic::Streaming<M>,
    read: impl Fn(M) -> Result<T, WorkloadError> + Send,
) -> impl Stream<Item = Result<T, WorkloadError>> + Send
where
    M: Send + 'static,
    T: Send,
{
    futures_util::stream::unfold(Some((stream, read)), |state| async move {
        let (mut stream, read) = state?;
        let item = match stream.next().await {
            Some(Ok(message)) => read(message),
            Some(Err(status)) => Err(status.into()),
            None => Err(WorkloadError::Closed),
        };
        let next = item.is_ok().then_some((stream, read));
        Some((item, next))
    })
}

fn read_x509_update(message: &pb::X509svidResponse) -> Result<X509Update, WorkloadError> {
    let mut bundles = X509Bundles::new();
    for (domain, der) in &message.federated_bundles {
        insert_bundle(&mut bundles, domain, der)?;
    }
    let mut svids = Vec::with_capacity(message.svids.len());
    for svid in &message.svids {
        let identity = Identity::from_der(&svid.x509_svid, &svid.x509_svid_key)?;
        if identity.id.as_str() != svid.spiffe_id {
            return Err(WorkloadError::IdMismatch {
                named: svid.spiffe_id.clone(),
                inside: identity.id,
            });
        }
        insert_bundle(
            &mut bundles,
            identity.id.trust_domain().as_str(),
            &svid.bundle,
        )?;
        svids.push(FetchedX509Svid {
            identity,
            hint: svid.hint.clone(),
        });
    }
    if svids.is_empty() {
        return Err(WorkloadError::Missing("svids"));
    }
    Ok(X509Update { svids, bundles })
}

/// `domain` is a name or its `spiffe://` form.
fn insert_bundle(bundles: &mut X509Bundles, domain: &str, der: &[u8]) -> Result<(), WorkloadError> {
    let domain = TrustDomain::parse(domain)?;
    let authorities: Vec<CertificateDer<'_>> = split_certificates(der)?;
    bundles.insert(domain, &authorities);
    Ok(())
}

fn read_struct(fields: prost_types::Struct) -> Map<String, Value> {
    fields
        .fields
        .into_iter()
        .map(|(name, value)| (name, read_value(value)))
        .collect()
}

/// Not deeper than prost itself allowed when it decoded the message.
fn read_value(value: prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => read_number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(read_value).collect())
        }
        Some(Kind::StructValue(fields)) => Value::Object(read_struct(fields)),
    }
}

/// A whole number is one again: `exp` and `iat` travel as floating point.
fn read_number(value: f64) -> Value {
    let text = format!("{value}");
    text.parse::<i64>()
        .map(Number::from)
        .ok()
        .or_else(|| Number::from_f64(value))
        .map_or(Value::Null, Value::Number)
}
