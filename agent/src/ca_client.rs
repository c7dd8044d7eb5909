//! The way to the CA: one channel on mutual TLS by the agent's own SVID, made anew when that SVID
//! or the bundle changes, and one without a client certificate for attestation.
//!
//! The server must be `spiffe://TD/spire/server`, by the bundle that was last received; by the
//! configured trust bundle until there is one, and after an outage that outlived it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ravelin_proto::spiffe_id::{SpiffeId, SpiffeIdError};
use ravelin_proto::time::Timestamp;
use ravelin_proto::x509_svid::SigningCertificate;
use ravelin_runtime::rpc::{self, RpcError, ServerAddress};
use ravelin_runtime::tls::{self, Expect, Identity, IdentityError, TlsError, X509Bundles};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cache::X509Svid;
use crate::limits;
use crate::state::State;

/// Why the CA cannot be asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// The agent has no SVID of its own yet.
    #[error("this node is not attested yet")]
    NotAttested,
    /// The agent's own SVID has expired.
    #[error("the agent's own SVID expired at {0}")]
    OwnExpired(Timestamp),
    /// Nothing to verify the CA by.
    #[error("no trust bundle: set `trust_bundle` to a PEM file with the CA's authorities")]
    BundleMissing,
    /// The PEM file cannot be used.
    #[error("cannot use the trust bundle `{}`: {reason}", path.display())]
    BundleFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The trust domain makes no server ID.
    #[error(transparent)]
    ServerId(#[from] SpiffeIdError),
    /// The agent's own SVID cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The CA refused, or the connection was lost.
    #[error("`{call}` failed: {} ({})", status.message(), code_name(status.code()))]
    Refused {
        /// The method.
        call: &'static str,
        /// The CA's answer.
        status: Box<Status>,
    },
    /// No answer in time.
    #[error("`{0}` was not answered in time")]
    Deadline(&'static str),
    /// An answer that breaks its contract.
    #[error("the CA's answer to `{call}` cannot be used: {reason}")]
    Malformed {
        /// The method.
        call: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No key pair could be made.
    #[error(transparent)]
    Key(#[from] crate::csr::KeyError),
}

impl CaError {
    /// True when the CA is there but one side does not trust the other: what one of them holds is
    /// older than a rotation that the agent was not there for. Only a new attestation helps.
    pub(crate) fn is_distrust(&self) -> bool {
        if let Self::Refused { status, .. } = self {
            return status.code() == Code::Unauthenticated || has_tls_alert(status);
        }
        matches!(self, Self::Rpc(RpcError::Peer { .. }))
    }

    /// True when the CA cannot read the request: it will not take the same one later either.
    pub(crate) fn is_malformed_request(&self) -> bool {
        matches!(self, Self::Refused { status, .. }
            if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange))
    }

    /// True when the CA considered the request and said no: asking again at once does not help.
    pub(crate) fn is_considered_no(&self) -> bool {
        let Self::Refused { status, .. } = self else {
            return false;
        };
        matches!(
            status.code(),
            Code::PermissionDenied
                | Code::InvalidArgument
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::Unimplemented
                | Code::Unauthenticated
        )
    }
}

/// The CA's refusal of a certificate arrives after the handshake, wrapped by every layer above TLS.
fn has_tls_alert(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.to_string().contains("received fatal alert") {
            return true;
        }
        next = error.source();
    }
    false
}

fn code_name(code: Code) -> String {
    format!("{code:?}").to_lowercase()
}

#[derive(Debug, Clone)]
struct Held {
    key: ChannelKey,
    channel: Channel,
}

/// What a channel was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ChannelKey {
    serial: String,
    authorities: Vec<Vec<u8>>,
}

/// The agent's client of the CA.
#[derive(Debug)]
pub(crate) struct CaClient {
    address: ServerAddress,
    state: Arc<State>,
    trust_bundle: Option<PathBuf>,
    held: Mutex<Option<Held>>,
    /// Attested by the configured bundle: it counts beside the kept one until the CA sends a new one.
    trusts_file: AtomicBool,
}

impl CaClient {
    /// A client of one CA address.
    pub(crate) fn new(
        address: ServerAddress,
        state: Arc<State>,
        trust_bundle: Option<PathBuf>,
    ) -> Self {
        Self {
            address,
            state,
            trust_bundle,
            held: Mutex::default(),
            trusts_file: AtomicBool::new(false),
        }
    }

    /// The channel by the agent's own SVID.
    pub(crate) async fn channel(&self) -> Result<Channel, CaError> {
        let own = self.state.own().ok_or(CaError::NotAttested)?;
        let now = self.state.now();
        if !own.is_live(now) {
            return Err(CaError::OwnExpired(own.validity.not_after));
        }
        let key = ChannelKey {
            serial: own.serial.clone(),
            authorities: self.authorities(now)?,
        };
        if let Some(held) = self.held().filter(|held| held.key == key) {
            return Ok(held.channel);
        }
        let channel = self.dial(Some(&own), &key.authorities).await?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Held {
            key,
            channel: channel.clone(),
        });
        Ok(channel)
    }

    /// A channel without a client certificate, for attestation.
    pub(crate) async fn bootstrap_channel(&self) -> Result<Channel, CaError> {
        let mut authorities = self.authorities(self.state.now()).unwrap_or_default();
        if let Some(path) = &self.trust_bundle {
            authorities.extend(read_pem(path)?);
        }
        if authorities.is_empty() {
            return Err(CaError::BundleMissing);
        }
        self.dial(None, &authorities).await
    }

    /// The node attested again: the bundle that is kept may be older than the outage was long.
    pub(crate) fn trust_file_until_synced(&self) {
        self.trusts_file.store(true, Ordering::Relaxed);
    }

    /// The CA sent its state: its bundle alone counts from now on.
    pub(crate) fn trust_bundle_alone(&self) {
        self.trusts_file.store(false, Ordering::Relaxed);
    }

    fn held(&self) -> Option<Held> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Trusted authorities: those of the bundle that are neither tainted nor expired, else those of the file.
    fn authorities(&self, now: Timestamp) -> Result<Vec<Vec<u8>>, CaError> {
        let bundle = self.state.with_cache(crate::cache::Cache::bundle);
        let live: Vec<Vec<u8>> = bundle
            .iter()
            .flat_map(|bundle| &bundle.x509_authorities)
            .filter(|authority| !authority.is_tainted && is_live(&authority.der, now))
            .map(|authority| authority.der.clone())
            .collect();
        match &self.trust_bundle {
            Some(path) if self.trusts_file.load(Ordering::Relaxed) => {
                Ok(live.into_iter().chain(read_pem(path)?).collect())
            }
            _ if !live.is_empty() => Ok(live),
            Some(path) => read_pem(path),
            None => Err(CaError::BundleMissing),
        }
    }

    async fn dial(
        &self,
        own: Option<&X509Svid>,
        authorities: &[Vec<u8>],
    ) -> Result<Channel, CaError> {
        let td = self.state.trust_domain();
        let server = SpiffeId::new(td, "/spire/server")?;
        let certificates: Vec<CertificateDer<'_>> = authorities
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let mut bundles = X509Bundles::new();
        bundles.insert(td.clone(), &certificates);
        let identity = own
            .map(|own| Identity::from_der(&own.chain_der(), &own.key))
            .transpose()?;
        let config = tls::client_config(
            identity.as_ref(),
            Arc::new(bundles),
            Expect::OneOf(vec![server]),
            &[b"h2"],
            Arc::clone(self.state.clock()),
        )?;
        within("connect", limits::CA_CONNECT_WAIT, async {
            Ok(rpc::connect(&self.address, Some(config)).await?)
        })
        .await
    }
}

fn is_live(der: &[u8], now: Timestamp) -> bool {
    SigningCertificate::parse(der).is_ok_and(|authority| now < authority.validity.not_after)
}

fn read_pem(path: &Path) -> Result<Vec<Vec<u8>>, CaError> {
    let failed = |reason: String| CaError::BundleFile {
        path: path.to_owned(),
        reason,
    };
    let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.len() > limits::TRUST_BUNDLE_BYTES_MAX {
        return Err(failed("the file is too large".into()));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let certificates: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&bytes)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("it holds no certificate".into()));
    }
    Ok(certificates)
}

/// Runs one step towards the CA with a deadline.
pub(crate) async fn within<T>(
    call: &'static str,
    wait: Duration,
    step: impl Future<Output = Result<T, CaError>>,
) -> Result<T, CaError> {
    tokio::time::timeout(wait, step)
        .await
        .unwrap_or(Err(CaError::Deadline(call)))
}

/// Runs one unary call with the usual deadline.
pub(crate) async fn call<T>(
    name: &'static str,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CaError> {
    within(name, limits::CA_CALL_WAIT, async {
        answer
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| CaError::Refused {
                call: name,
                status: Box::new(status),
            })
    })
    .await
}
