//! One fetch of keys: the discovery document where only the issuer is known, then the key set.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ravelin_policies::KeyAddress;
use ravelin_proto::http_url::{HttpUrl, HttpUrlError};
use ravelin_proto::jwks::{JwkSet, JwksError, ReadKey};
use ravelin_runtime::clock::SharedClock;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::address::Reach;
use super::http;
use super::roots::{Roots, RootsError};
use crate::config::JwksConfig;
use crate::limits;

/// Why keys cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the name cannot be resolved: {0}")]
    Resolve(#[source] std::io::Error),
    #[error(
        "`{0}` has no address that may be reached from here: allow it with `jwks.allow_private_hosts`"
    )]
    AddressRefused(String),
    #[error("`{0}` cannot be reached: {1}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("the server is not who it should be, or breaks off: {0}")]
    Tls(#[source] std::io::Error),
    #[error("there are no trusted roots")]
    Roots,
    #[error(transparent)]
    RootsUnreadable(#[from] RootsError),
    #[error("the name cannot stand in a request")]
    ServerName,
    #[error("the answer is not HTTP, or breaks off: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is a redirect ({0}), which is not followed")]
    Redirect(u16),
    #[error("the answer is {0}")]
    Status(u16),
    #[error("the answer is compressed, which was not asked for")]
    Encoded,
    #[error("the answer is longer than {max} bytes", max = limits::KEY_BODY_BYTES_MAX)]
    TooLarge,
    #[error("the answer is not a key set: {0}")]
    NotKeySet(JwksError),
    #[error("the key set has more than {max} keys", max = limits::KEYS_PER_ISSUER_MAX)]
    TooManyKeys,
    #[error("the key set has no usable key")]
    NoUsableKey,
    #[error("the discovery document is not readable")]
    Document,
    #[error("the discovery document is of another issuer")]
    IssuerMismatch,
    #[error("the discovery document's `jwks_uri` is not an address: {0}")]
    JwksUri(HttpUrlError),
    #[error("the discovery document came by `https` and names plain `http`")]
    Downgrade,
}

impl FetchError {
    /// Stable; metric label and log field.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "resolve",
            Self::AddressRefused(_) => "address_refused",
            Self::Connect(..) => "connect",
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
            Self::Roots | Self::RootsUnreadable(_) => "roots",
            Self::ServerName => "server_name",
            Self::Http(_) => "http",
            Self::Redirect(_) => "redirect",
            Self::Status(_) => "status",
            Self::Encoded => "encoded",
            Self::TooLarge => "too_large",
            Self::NotKeySet(_) => "not_key_set",
            Self::TooManyKeys => "too_many_keys",
            Self::NoUsableKey => "no_usable_key",
            Self::Document => "document",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::JwksUri(_) => "jwks_uri",
            Self::Downgrade => "downgrade",
        }
    }
}

/// Keys of an issuer, and what of its set was not taken.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) set: JwkSet,
    pub(super) left_out: usize,
    pub(super) private: usize,
}

/// Fetches by the rules of the configuration.
#[derive(Debug)]
pub(super) struct Fetcher {
    reach: Reach,
    roots: Roots,
}

impl Fetcher {
    pub(super) fn new(config: &JwksConfig, roots: Roots) -> Self {
        Self {
            reach: Reach::new(config),
            roots,
        }
    }

    /// `wait` is for everything: names, connections and answers.
    pub(super) async fn fetch(
        &self,
        address: &KeyAddress,
        wait: Duration,
        clock: &SharedClock,
    ) -> Result<Fetched, FetchError> {
        let fetched = timeout(wait, async {
            match address {
                KeyAddress::JwksUri(url) => self.key_set(url, clock).await,
                KeyAddress::Issuer(issuer) => {
                    let url = self.discover(issuer, clock).await?;
                    self.key_set(&url, clock).await
                }
            }
        });
        fetched.await.map_err(|_| FetchError::Timeout)?
    }

    async fn get(&self, url: &HttpUrl, clock: &SharedClock) -> Result<Vec<u8>, FetchError> {
        let tls: Option<Arc<ClientConfig>> = if url.is_tls() {
            Some(self.roots.client_config(clock, Instant::now())?)
        } else {
            None
        };
        http::get(url, &self.reach, tls).await
    }

    async fn key_set(&self, url: &HttpUrl, clock: &SharedClock) -> Result<Fetched, FetchError> {
        read_key_set(&self.get(url, clock).await?)
    }

    /// SPEC: OpenID Connect Discovery 1.0, sections 4.1 and 4.3.
    async fn discover(&self, issuer: &HttpUrl, clock: &SharedClock) -> Result<HttpUrl, FetchError> {
        let base = issuer.as_str().trim_end_matches('/');
        let url = HttpUrl::parse(&format!("{base}/.well-known/openid-configuration"))
            .map_err(|_| FetchError::ServerName)?;
        read_document(issuer, &self.get(&url, clock).await?)
    }
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

fn read_document(issuer: &HttpUrl, bytes: &[u8]) -> Result<HttpUrl, FetchError> {
    let document: Document = serde_json::from_slice(bytes).map_err(|_| FetchError::Document)?;
    if document.issuer != issuer.as_str() {
        return Err(FetchError::IssuerMismatch);
    }
    let url = HttpUrl::parse(&document.jwks_uri).map_err(FetchError::JwksUri)?;
    if issuer.is_tls() && !url.is_tls() {
        return Err(FetchError::Downgrade);
    }
    Ok(url)
}

/// SPEC: RFC 7517 5: keys that cannot be used are left out. A key whose private half was published is not used:
/// everybody can sign with it (threat 48).
fn read_key_set(bytes: &[u8]) -> Result<Fetched, FetchError> {
    let text = std::str::from_utf8(bytes);
    let text = text.map_err(|_| FetchError::NotKeySet(JwksError::NotKeySet))?;
    let read = JwkSet::parse_each(text).map_err(FetchError::NotKeySet)?;
    if read.len() > limits::KEYS_PER_ISSUER_MAX {
        return Err(FetchError::TooManyKeys);
    }
    let mut fetched = Fetched {
        set: JwkSet::default(),
        left_out: 0,
        private: 0,
    };
    for key in read {
        match key {
            ReadKey::Usable(mut key) => {
                // WHY: certificates say nothing here, and would be kept by every worker.
                key.x5c = Vec::new();
                fetched.set.keys.push(key);
            }
            ReadKey::Private(_) | ReadKey::Symmetric => fetched.private += 1,
            ReadKey::Broken(_) => fetched.left_out += 1,
            ReadKey::Unknown => {}
        }
    }
    if fetched.set.keys.is_empty() {
        return Err(FetchError::NoUsableKey);
    }
    Ok(fetched)
}
