//! The proxy's own SVID and the TLS configurations made from it; and the authenticated peer of a connection.
//!
//! INVARIANT: a new SVID or bundle makes new configurations with fresh session stores, so that no TLS session
//! outlives what it was built from.

use std::sync::Arc;

use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_proto::x509_svid::LeafSvid;
use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::tls::{self, ClientAuth, Expect, Identity, PeerIdentity, X509Bundles};
use rustls::{ClientConfig, ServerConfig};

/// Protocols that an inbound HTTP listener offers, and that an outbound connection asks for.
pub const HTTP_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why an SVID or bundle is not taken into use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not a chain with its key.
    #[error("the SVID cannot be used: {0}")]
    Svid(#[from] tls::IdentityError),
    /// The peer's leaf breaks a rule of the standard.
    #[error("the peer's certificate cannot be used: {0}")]
    Leaf(#[from] ravelin_proto::x509_svid::X509SvidError),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoPeer,
    /// The certificate is not of the identity that the agent named.
    #[error("the SVID is of `{0}`, not of the identity that was announced")]
    Mismatch(SpiffeId),
    /// A bundle is not readable.
    #[error("the bundle of `{0}` is not readable")]
    Bundle(String),
    /// The TLS configuration cannot be built.
    #[error("the SVID and bundle do not make a TLS configuration: {0}")]
    Config(#[source] tls::TlsError),
}

/// The proxy's own SVID.
#[derive(Debug)]
pub struct OwnSvid {
    /// For TLS.
    pub identity: Identity,
    /// End of its validity.
    pub expires_at: Timestamp,
    /// Authority that signed it.
    pub authority_id: String,
    /// Serial number.
    pub serial: String,
}

impl OwnSvid {
    /// Reads the agent's message and checks that it is one identity.
    pub fn from_pb(svid: &pb::ProxySvid) -> Result<Self, IdentityError> {
        let identity = Identity::from_der(&svid.x509_svid, &svid.x509_svid_key)?;
        if identity.id.as_str() != svid.spiffe_id {
            return Err(IdentityError::Mismatch(identity.id));
        }
        let leaf = identity.leaf().clone();
        Ok(Self {
            expires_at: identity.not_after(),
            authority_id: leaf
                .authority_id
                .unwrap_or_else(|| svid.x509_authority_id.clone()),
            serial: leaf.serial,
            identity,
        })
    }
}

/// Server configurations of the inbound listeners.
#[derive(Clone, Debug)]
pub struct ServerConfigs {
    /// For HTTP: ALPN `h2` and `http/1.1`.
    pub http: Arc<ServerConfig>,
    /// For plain TCP: no ALPN.
    pub tcp: Arc<ServerConfig>,
}

impl ServerConfigs {
    /// Builds both. A client certificate is required.
    pub fn build(
        identity: &Identity,
        bundles: &Arc<X509Bundles>,
        clock: &SharedClock,
    ) -> Result<Self, IdentityError> {
        let build = |protocols: &[&[u8]]| {
            tls::server_config(
                identity,
                Arc::clone(bundles),
                ClientAuth::Required,
                protocols,
                Arc::clone(clock),
            )
            .map_err(IdentityError::Config)
        };
        Ok(Self {
            http: build(&HTTP_PROTOCOLS)?,
            tcp: build(&[])?,
        })
    }
}

/// Builds the client configuration for one set of expected peers.
pub fn client_config(
    identity: &Identity,
    bundles: &Arc<X509Bundles>,
    expected: &[SpiffeId],
    protocols: &[&[u8]],
    clock: &SharedClock,
) -> Result<Arc<ClientConfig>, IdentityError> {
    tls::client_config(
        Some(identity),
        Arc::clone(bundles),
        Expect::OneOf(expected.to_vec()),
        protocols,
        Arc::clone(clock),
    )
    .map_err(IdentityError::Config)
}

/// An authenticated peer, with what later judgements need.
#[derive(Debug)]
pub struct Peer {
    identity: PeerIdentity,
    issued_at: Timestamp,
    leaf_digest: String,
}

impl Peer {
    /// Takes what the verifier established.
    pub fn new(identity: PeerIdentity) -> Result<Self, IdentityError> {
        let leaf = identity.chain.first().ok_or(IdentityError::NoPeer)?;
        let issued_at = LeafSvid::parse(leaf)?.validity.not_before;
        let leaf_digest = hex(&ravelin_runtime::crypto::digest_sha256(leaf));
        Ok(Self {
            identity,
            issued_at,
            leaf_digest,
        })
    }

    /// What the verifier established.
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.identity.id
    }

    /// Serial number of the SVID.
    pub fn serial(&self) -> &str {
        &self.identity.serial
    }

    /// Start of the SVID's validity.
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// End of the SVID's validity.
    pub fn not_after(&self) -> Timestamp {
        self.identity.not_after
    }

    /// SHA-256 of the leaf certificate, lower-case hex.
    pub fn leaf_digest(&self) -> &str {
        &self.leaf_digest
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(
        String::with_capacity(bytes.len().saturating_mul(2)),
        |mut text, byte| {
            // WHY: writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        },
    )
}
