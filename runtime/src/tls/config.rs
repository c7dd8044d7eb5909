//! rustls configurations of an identity and the bundles: TLS 1.3 only, our verifier on both sides, no resumption; and
//! one for servers of the web, which are none of ours.

use std::sync::Arc;

use ravelin_proto::x509_svid::LeafSvid;
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig};

use super::verifier::SpiffeVerifier;
use super::{Expect, Identity, PeerIdentity, X509Bundles};
use crate::clock::{SharedClock, TlsTime};
use crate::crypto;

/// Why a configuration cannot be built.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// The key is not the leaf's, or of a kind that the provider does not know.
    #[error("the SVID of `{id}` and its key do not fit together")]
    Identity {
        /// Whose it is.
        id: String,
        /// The provider's reason.
        source: rustls::Error,
    },
    /// The provider cannot speak TLS 1.3.
    #[error("the crypto provider does not speak TLS 1.3")]
    Provider(#[source] rustls::Error),
}

/// Whether a server asks its clients for an SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No SVID, no connection.
    Required,
    /// A client may come without; an SVID that it does show is judged as strictly.
    Optional,
    /// Clients are not asked.
    None,
}

/// A server that shows `identity` and judges clients by `bundles`.
pub fn server_config(
    identity: &Identity,
    bundles: Arc<X509Bundles>,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_details(crypto::provider(), Arc::new(TlsTime(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Provider)?;
    let verifier = |is_required| SpiffeVerifier::new(bundles, Expect::AnyMember, is_required);
    let builder = match client_auth {
        ClientAuth::Required => builder.with_client_cert_verifier(Arc::new(verifier(true))),
        ClientAuth::Optional => builder.with_client_cert_verifier(Arc::new(verifier(false))),
        ClientAuth::None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|source| TlsError::Identity {
            id: identity.id.to_string(),
            source,
        })?;
    config.alpn_protocols = to_alpn(alpn);
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client that shows `identity`, if it has one, and accepts the servers that `expect` names.
pub fn client_config(
    identity: Option<&Identity>,
    bundles: Arc<X509Bundles>,
    expect: Expect,
    alpn: &[&[u8]],
    clock: SharedClock,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_details(crypto::provider(), Arc::new(TlsTime(clock)))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Provider)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SpiffeVerifier::new(bundles, expect, true)));
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|source| TlsError::Identity {
                id: identity.id.to_string(),
                source,
            })?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = to_alpn(alpn);
    config.resumption = Resumption::disabled();
    // The name is ours, not the peer's: peers are known by SPIFFE ID.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// A client of the web: it shows nothing, trusts `roots`, and speaks TLS 1.2 as well, since the other end is not ours.
pub fn web_client_config(
    roots: RootCertStore,
    clock: SharedClock,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config =
        ClientConfig::builder_with_details(crypto::provider(), Arc::new(TlsTime(clock)))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Provider)?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = to_alpn(&[b"http/1.1"]);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn to_alpn(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// The peer of a finished handshake; `None` if it showed no certificate. Takes a `ServerConnection` or a
/// `ClientConnection` of a configuration from here: its verifier has judged the chain.
pub fn peer_identity(connection: &CommonState) -> Option<PeerIdentity> {
    let chain = connection.peer_certificates()?;
    let leaf = LeafSvid::parse(chain.first()?).ok()?;
    Some(PeerIdentity::new(leaf, chain))
}

#[cfg(test)]
mod tests;
