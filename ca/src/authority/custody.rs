//! Custody of the authorities: applies a verb, makes it durable together with its audit event, then publishes the bundle
//! and the signers. Keys are open in memory for the two active authorities alone.
//!
//! INVARIANT: an authority was published in a bundle before it signs; the store's one writer puts verbs in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ravelin_proto::pb::ravelin::v1::AuthorityState;
use tokio::sync::watch;

use super::certificate::{self, AuthorityKeyError, NewAuthority};
use super::state::{Authority, AuthoritySet, Kind, VerbRefusal};
use crate::audit::Event;
use crate::bundle;
use crate::hub::Hub;
use crate::issuance::jwt::JwtSigner;
use crate::issuance::sign::{SignError, X509Signer};
use crate::keys::{KeyStoreError, KeyWrap};
use crate::limits::REISSUE_PER_SEC_MAX;
use crate::store::{Authorities, StoreError};

/// Why a verb did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The state machine refuses it.
    #[error(transparent)]
    Refused(#[from] VerbRefusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key cannot be sealed or opened.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A key or certificate cannot be made.
    #[error(transparent)]
    Make(#[from] AuthorityKeyError),
    /// A key and its authority do not fit.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// There is no active authority yet.
    #[error("no {0} authority is active")]
    NoneActive(Kind),
}

/// The authorities that sign now.
#[derive(Debug)]
pub struct Signers {
    /// For X509-SVIDs.
    pub x509: Option<Arc<X509Signer>>,
    /// For JWT-SVIDs.
    pub jwt: Option<Arc<JwtSigner>>,
}

/// A verb of the state machine, by the id of its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Let it sign.
    Activate(String),
    /// Mark it.
    Taint(String),
    /// Take it out of the bundle.
    Revoke(String),
    /// Take it out of the bundle because it has expired.
    Prune(String),
}

impl Verb {
    fn id(&self) -> &str {
        match self {
            Self::Activate(id) | Self::Taint(id) | Self::Revoke(id) | Self::Prune(id) => id,
        }
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Activate(_) => "authority.activated",
            Self::Taint(_) => "authority.tainted",
            Self::Revoke(_) => "authority.revoked",
            Self::Prune(_) => "authority.expired",
        }
    }

    /// Activation alone leaves the bundle's content as it is.
    fn is_content_changed(&self) -> bool {
        !matches!(self, Self::Activate(_))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Custody {
    hub: Hub,
    wrap: KeyWrap,
    life: Duration,
    authorities: ArcSwap<Authorities>,
    signers: ArcSwap<Signers>,
    reissuing: Mutex<[bool; 2]>,
    publishing: Mutex<()>,
    changes: watch::Sender<u64>,
}

impl Custody {
    /// Reads the authorities, opens the keys of the active ones and publishes the bundle.
    pub async fn open(hub: Hub, wrap: KeyWrap, life: Duration) -> Result<Self, CustodyError> {
        let authorities = hub.store().authorities().await?;
        let custody = Self {
            hub,
            wrap,
            life,
            authorities: ArcSwap::from_pointee(authorities.clone()),
            signers: ArcSwap::from_pointee(Signers {
                x509: None,
                jwt: None,
            }),
            reissuing: Mutex::new([false; 2]),
            publishing: Mutex::new(()),
            changes: watch::Sender::new(0),
        };
        let signers = custody.open_signers(&authorities).await?;
        custody.publish(authorities, signers);
        Ok(custody)
    }

    /// All authorities as of the last verb.
    pub fn authorities(&self) -> Arc<Authorities> {
        self.authorities.load_full()
    }

    /// Who signs now.
    pub fn signers(&self) -> Arc<Signers> {
        self.signers.load_full()
    }

    /// Ticks with each verb.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes a new authority and publishes it in the bundle.
    pub async fn prepare(&self, kind: Kind, actor: &str) -> Result<Authority, CustodyError> {
        let store = self.hub.store();
        let now = store.clock().now();
        let NewAuthority { authority, key } =
            certificate::generate(kind, store.trust_domain(), self.life, now)?;
        let sealed = self.wrap.seal(&seal_name(&authority), &key)?;
        drop(key);
        let (made, actor) = (authority.clone(), actor.to_owned());
        let authorities = store
            .write(move |tx| {
                Box::pin(async move {
                    let authorities = tx.authorities().await?;
                    let set = authorities.of(kind).clone().prepare(made.clone())?;
                    tx.insert_authority(&made, &sealed).await?;
                    let event = event("authority.prepared", &actor, &made);
                    advance(tx, authorities.with(set), event, true).await
                })
            })
            .await?;
        self.adopt(authorities).await?;
        Ok(authority)
    }

    /// Applies a verb to an authority; returns it as it is afterwards.
    pub async fn apply(
        &self,
        kind: Kind,
        verb: Verb,
        actor: &str,
    ) -> Result<Authority, CustodyError> {
        let (applied, actor) = (verb.clone(), actor.to_owned());
        let authorities = self
            .hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    let authorities = tx.authorities().await?;
                    let now = tx.now();
                    let set = apply_verb(authorities.of(kind).clone(), &applied, now)?;
                    tx.save_authorities(&set).await?;
                    let Some(authority) = set.find(applied.id()) else {
                        return Err(unknown(kind, applied.id()).into());
                    };
                    let event = event(applied.event(), &actor, authority);
                    let is_changed = applied.is_content_changed();
                    advance(tx, authorities.with(set), event, is_changed).await
                })
            })
            .await?;
        let found = authorities.of(kind).find(verb.id()).cloned();
        self.adopt(authorities).await?;
        found.ok_or_else(|| unknown(kind, verb.id()).into())
    }

    /// Tells the agents to replace every SVID that is not of the active authority, or to stop doing so.
    pub fn set_reissuing(&self, kind: Kind, is_reissuing: bool) {
        {
            let mut reissuing = self
                .reissuing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let [x509, jwt] = &mut *reissuing;
            match kind {
                Kind::X509 => *x509 = is_reissuing,
                Kind::Jwt => *jwt = is_reissuing,
            }
        }
        self.publish_state(&self.authorities());
    }

    async fn adopt(&self, authorities: Authorities) -> Result<(), CustodyError> {
        let signers = self.open_signers(&authorities).await?;
        self.publish(authorities, signers);
        Ok(())
    }

    /// Opens keys of active authorities; one that is open already is not read again.
    async fn open_signers(&self, authorities: &Authorities) -> Result<Signers, CustodyError> {
        let present = self.signers();
        let x509 = match (authorities.x509.active(), &present.x509) {
            (None, _) => None,
            (Some(active), Some(signer)) if signer.id() == active.id => Some(Arc::clone(signer)),
            (Some(active), _) => {
                let key = self.key_of(active).await?;
                Some(Arc::new(X509Signer::new(active.clone(), &key)?))
            }
        };
        let jwt = match (authorities.jwt.active(), &present.jwt) {
            (None, _) => None,
            (Some(active), Some(signer)) if signer.id() == active.id => Some(Arc::clone(signer)),
            (Some(active), _) => {
                let key = self.key_of(active).await?;
                Some(Arc::new(JwtSigner::new(active.clone(), &key)?))
            }
        };
        Ok(Signers { x509, jwt })
    }

    async fn key_of(
        &self,
        authority: &Authority,
    ) -> Result<ravelin_proto::secret::Secret<Vec<u8>>, CustodyError> {
        let sealed = self.hub.store().sealed_key(&authority.id).await?;
        Ok(self.wrap.unseal(&seal_name(authority), &sealed)?)
    }

    /// Later verbs may have been published already: an older state never replaces a newer one.
    fn publish(&self, authorities: Authorities, signers: Signers) {
        let _turn = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if authorities.bundle.revision < self.authorities.load().bundle.revision {
            return;
        }
        let trust_domain = self.hub.store().trust_domain();
        // WHY this order: whoever gets an SVID of the new signer must be able to get the bundle with it.
        self.hub
            .publish_bundle(bundle::assemble(trust_domain, &authorities));
        self.signers.store(Arc::new(signers));
        self.publish_state(&authorities);
        self.authorities.store(Arc::new(authorities));
        self.changes
            .send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    fn publish_state(&self, authorities: &Authorities) {
        let id = |set: &AuthoritySet| set.active().map(|active| active.id.clone());
        let reissuing = *self
            .reissuing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.hub.set_authorities(AuthorityState {
            active_x509_authority_id: id(&authorities.x509).unwrap_or_default(),
            active_jwt_authority_id: id(&authorities.jwt).unwrap_or_default(),
            reissue: reissuing.contains(&true),
            reissue_per_sec_max: REISSUE_PER_SEC_MAX,
        });
    }
}

fn seal_name(authority: &Authority) -> String {
    format!("{}/{}", authority.kind, authority.id)
}

fn unknown(kind: Kind, id: &str) -> VerbRefusal {
    VerbRefusal::Unknown {
        kind,
        id: id.chars().take(128).collect(),
    }
}

fn apply_verb(
    set: AuthoritySet,
    verb: &Verb,
    now: ravelin_proto::time::Timestamp,
) -> Result<AuthoritySet, VerbRefusal> {
    match verb {
        Verb::Activate(id) => set.activate(id, now),
        Verb::Taint(id) => set.taint(id),
        Verb::Revoke(id) => set.revoke(id),
        Verb::Prune(id) => Ok(set.prune(id)),
    }
}

fn event(kind: &'static str, actor: &str, authority: &Authority) -> Event {
    Event::new(kind, actor)
        .with("authority_id", authority.id.as_str())
        .with("authority_kind", authority.kind.name())
        .with("not_after", authority.validity.not_after.rfc3339())
        .with(
            "public_sha256",
            hex::encode(ravelin_runtime::crypto::digest_sha256(&authority.public)),
        )
}

async fn advance(
    tx: &mut crate::store::WriteTx,
    mut authorities: Authorities,
    event: Event,
    is_content_changed: bool,
) -> Result<Authorities, CustodyError> {
    let state = &mut authorities.bundle;
    state.revision = state.revision.saturating_add(1);
    state.sequence = state.sequence.saturating_add(u64::from(is_content_changed));
    tx.save_bundle_state(*state).await?;
    tx.audit(event.with("bundle_sequence", authorities.bundle.sequence))?;
    Ok(authorities)
}
