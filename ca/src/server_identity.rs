//! The CA's own SVID: issued like any other, renewed at half of its life and whenever another authority signs, and shown
//! by the newest TLS configuration. The configuration is built anew with each bundle, so that nobody is judged by an old one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ravelin_proto::spiffe_id::{SpiffeId, SpiffeIdError};
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::tls::{
    ClientAuth, Identity, IdentityError, TlsError, X509Bundles, server_config,
};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::authority::custody::Custody;
use crate::hub::Hub;
use crate::issuance::authorize::Grant;
use crate::issuance::csr::{CsrRefusal, VerifiedCsr};
use crate::issuance::issuer::{IssueError, Issuer};
use crate::limits::{SCHEDULE_LOOK, SERVER_SVID_LIFE};
use crate::registry::SERVER_PATH;

/// Why the CA has no SVID of its own.
#[derive(Debug, thiserror::Error)]
pub enum ServerIdentityError {
    /// The key or the request could not be made.
    #[error("the server's key could not be made")]
    Key(#[from] rcgen::Error),
    /// Our own request is refused.
    #[error(transparent)]
    Csr(#[from] CsrRefusal),
    /// Issuance refused or failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The ID cannot be formed.
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
    /// What was issued is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No TLS configuration comes of it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is known of the SVID that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSvid {
    /// Who signed it.
    pub authority_id: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl ServerSvid {
    fn of(identity: &Identity) -> Self {
        Self {
            authority_id: authority_of(identity),
            expires_at: identity.not_after(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct ServerIdentity {
    hub: Hub,
    custody: Arc<Custody>,
    issuer: Arc<Issuer>,
    identity: Identity,
    config: Arc<ArcSwap<ServerConfig>>,
    shown: watch::Sender<ServerSvid>,
}

impl ServerIdentity {
    /// Issues the first SVID.
    pub async fn open(
        hub: Hub,
        custody: Arc<Custody>,
        issuer: Arc<Issuer>,
    ) -> Result<Self, ServerIdentityError> {
        let identity = issue(&hub, &issuer).await?;
        let config = build(&hub, &identity)?;
        let shown = watch::Sender::new(ServerSvid::of(&identity));
        let config = Arc::new(ArcSwap::from(config));
        Ok(Self {
            hub,
            custody,
            issuer,
            identity,
            config,
            shown,
        })
    }

    /// The configuration for the listener; always the newest.
    pub fn config(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.config)
    }

    /// The SVID that is shown.
    pub fn shown(&self) -> watch::Receiver<ServerSvid> {
        self.shown.subscribe()
    }

    /// Renews until drain begins. A failure leaves the last SVID in use and is tried again.
    pub async fn run(mut self, drain: Drain) {
        let mut verbs = self.custody.changes();
        let mut bundles = self.hub.bundles();
        loop {
            if let Err(error) = self.renew().await {
                tracing::error!(%error, "the server's own SVID is not renewed");
            }
            // Every arm is cancel-safe.
            tokio::select! {
                () = drain.started() => return,
                changed = verbs.changed() => if changed.is_err() { return },
                changed = bundles.changed() => if changed.is_err() { return },
                () = sleep(SCHEDULE_LOOK) => continue,
            }
            match build(&self.hub, &self.identity) {
                Ok(config) => self.config.store(config),
                Err(error) => tracing::error!(%error, "the new bundle is not in use"),
            }
        }
    }

    async fn renew(&mut self) -> Result<(), ServerIdentityError> {
        let now = self.hub.store().clock().now();
        let validity = self.identity.leaf().validity;
        let signers = self.custody.signers();
        let is_other = signers
            .x509
            .as_ref()
            .is_some_and(|signer| signer.id() != authority_of(&self.identity));
        if !is_other && validity.remaining(now) > validity.lifetime() / 2 {
            return Ok(());
        }
        let identity = issue(&self.hub, &self.issuer).await?;
        self.config.store(build(&self.hub, &identity)?);
        tracing::info!(expires_at = %identity.not_after(), "renewed the server's own SVID");
        self.shown.send_replace(ServerSvid::of(&identity));
        self.identity = identity;
        Ok(())
    }
}

fn authority_of(identity: &Identity) -> String {
    identity.leaf().authority_id.clone().unwrap_or_default()
}

async fn issue(hub: &Hub, issuer: &Issuer) -> Result<Identity, ServerIdentityError> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let request = rcgen::CertificateParams::default().serialize_request(&pair)?;
    let csr = VerifiedCsr::parse(request.der())?;
    let id = SpiffeId::new(hub.store().trust_domain(), SERVER_PATH)?;
    let svid = issuer
        .x509("ca", csr, Grant::to_server(id, SERVER_SVID_LIFE))
        .await?;
    Ok(Identity::new(
        vec![CertificateDer::from(svid.der)],
        &pair.serialize_der(),
    )?)
}

fn build(hub: &Hub, identity: &Identity) -> Result<Arc<ServerConfig>, ServerIdentityError> {
    let bundle = hub.bundle();
    let authorities: Vec<CertificateDer<'_>> = bundle
        .x509_authorities
        .iter()
        .map(|authority| CertificateDer::from(authority.der.as_slice()))
        .collect();
    let mut bundles = X509Bundles::new();
    bundles.insert(bundle.trust_domain.clone(), &authorities);
    let clock: SharedClock = Arc::clone(hub.store().clock());
    Ok(server_config(
        identity,
        Arc::new(bundles),
        ClientAuth::Optional,
        &[b"h2"],
        clock,
    )?)
}
