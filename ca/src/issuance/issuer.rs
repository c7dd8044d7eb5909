//! Flow A from an authorized request to an SVID. Reads top to bottom: plan (template, lint), record (durable intent,
//! gives the ticket), sign, report.
//!
//! A batch is one audit commit; its signatures are spread over the cores.

use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_proto::x509_svid::SigningCertificate;
use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::crypto;

use super::authorize::{Grant, GrantRefusal};
use super::clock_guard::{ClockGuard, ClockRefusal};
use super::csr::{CsrRefusal, VerifiedCsr};
use super::events;
use super::jwt::{JwtSignError, JwtSigner};
use super::lint::{self, Ground, LintError, Linted};
use super::outcome::Outcomes;
use super::serial::Serial;
use super::sign::{SignError, Ticket, X509Signer};
use super::template::{self, Claims, Contents, Profile};
use crate::audit::Event;
use crate::authority::custody::Custody;
use crate::authority::state::Kind;
use crate::hub::Hub;
use crate::store::{StoreError, WriteTx};

/// Why one SVID is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueRefusal {
    /// The CSR.
    #[error(transparent)]
    Csr(#[from] CsrRefusal),
    /// The identity.
    #[error(transparent)]
    Grant(#[from] GrantRefusal),
    /// The contents.
    #[error(transparent)]
    Lint(#[from] LintError),
    /// The clock.
    #[error(transparent)]
    Clock(#[from] ClockRefusal),
    /// Nobody can sign.
    #[error("no {0} authority is active")]
    NoAuthority(Kind),
}

impl IssueRefusal {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Csr(refusal) => refusal.code(),
            Self::Grant(refusal) => refusal.code(),
            Self::Lint(refusal) => refusal.code(),
            Self::Clock(_) => "clock_moved_back",
            Self::NoAuthority(_) => "no_active_authority",
        }
    }
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A considered No; it is in the audit log.
    #[error(transparent)]
    Refused(#[from] IssueRefusal),
    /// The intent could not be made durable: no audit, no SVID.
    #[error("the audit log could not be written")]
    Store(#[from] StoreError),
    /// Signing failed; the outcome is in the audit log.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Signing a token failed; the outcome is in the audit log.
    #[error(transparent)]
    Jwt(#[from] JwtSignError),
}

/// A signed certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Svid {
    /// Leaf alone: the authority is itself the trust anchor.
    pub der: Vec<u8>,
    /// Whom it names.
    pub id: SpiffeId,
    /// Its serial number.
    pub serial: String,
    /// Who signed it.
    pub authority_id: String,
    /// When it ends.
    pub not_after: Timestamp,
}

/// A signed token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSvid {
    /// Compact JWS.
    pub token: String,
    /// Whom it names.
    pub id: SpiffeId,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// Linted contents with their signer, not yet on record.
#[derive(Debug)]
pub struct Planned {
    linted: Linted<Contents>,
    signer: Arc<X509Signer>,
    grant: Grant,
}

impl Planned {
    /// The serial that it will have.
    pub fn serial(&self) -> String {
        self.linted.contents().serial.to_string()
    }

    /// When it will end.
    pub fn not_after(&self) -> Timestamp {
        self.linted.contents().validity.not_after
    }

    fn event(&self, kind: &'static str, actor: &str) -> Event {
        events::x509_event(kind, actor, self.linted.contents(), &self.grant)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Issuer {
    hub: Hub,
    custody: Arc<Custody>,
    profile: Profile,
    guard: ClockGuard,
    outcomes: Outcomes,
    clock: SharedClock,
}

impl Issuer {
    /// An issuer over the authorities in custody.
    pub fn new(
        hub: Hub,
        custody: Arc<Custody>,
        profile: Profile,
        guard: ClockGuard,
        outcomes: Outcomes,
    ) -> Self {
        let clock = Arc::clone(hub.store().clock());
        Self {
            hub,
            custody,
            profile,
            guard,
            outcomes,
            clock,
        }
    }

    /// Limits and defaults.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Template and lint.
    pub fn plan(&self, csr: &VerifiedCsr, grant: Grant) -> Result<Planned, IssueRefusal> {
        self.plan_beside(csr, grant, &self.authority_keys())
    }

    fn plan_beside(
        &self,
        csr: &VerifiedCsr,
        grant: Grant,
        keys: &[Vec<u8>],
    ) -> Result<Planned, IssueRefusal> {
        let now = self.guard.check(self.clock.now())?;
        let signer = self
            .custody
            .signers()
            .x509
            .clone()
            .ok_or(IssueRefusal::NoAuthority(Kind::X509))?;
        let authority = (signer.id(), signer.validity());
        let contents = template::x509(csr, &grant, &self.profile, authority, Serial::random(), now);
        let linted = lint::x509(contents, &self.ground(signer.validity(), keys, now))?;
        Ok(Planned {
            linted,
            signer,
            grant,
        })
    }

    fn ground<'a>(
        &'a self,
        authority: ravelin_proto::time::Validity,
        authority_keys: &'a [Vec<u8>],
        now: Timestamp,
    ) -> Ground<'a> {
        Ground {
            trust_domain: &self.profile.trust_domain,
            authority,
            authority_keys,
            now,
        }
    }

    fn authority_keys(&self) -> Vec<Vec<u8>> {
        let authorities = self.custody.authorities();
        let x509 = authorities.x509.published().filter_map(|authority| {
            SigningCertificate::parse(&authority.public)
                .ok()
                .map(|parsed| parsed.spki)
        });
        let jwt = authorities
            .jwt
            .published()
            .map(|authority| authority.public.clone());
        x509.chain(jwt).collect()
    }

    /// Puts the intent on record. The ticket counts only once the transaction is durable.
    pub(crate) async fn record(
        tx: &mut WriteTx,
        planned: &Planned,
        actor: &str,
    ) -> Result<Ticket, StoreError> {
        let contents = planned.linted.contents();
        let serial = contents.serial.to_string();
        tx.insert_issued(&events::x509_row(contents, &planned.grant))
            .await?;
        let digest = hex::encode(crypto::digest_sha256(&contents.spki));
        let event = planned
            .event("svid.intended", actor)
            .with("not_before", contents.validity.not_before.rfc3339())
            .with("dns_names", contents.dns_names.clone())
            .with("public_key_sha256", digest);
        let leaf = tx.audit(event)?;
        Ok(Ticket::new(serial, leaf))
    }

    /// Signs against a ticket whose transaction is durable, and reports the outcome.
    pub(crate) async fn redeem(
        &self,
        planned: Planned,
        ticket: Ticket,
        actor: &str,
    ) -> Result<X509Svid, IssueError> {
        self.guard.record(self.clock.now());
        let signed = planned.signer.sign(&planned.linted, ticket);
        self.finish(planned, signed, actor).await
    }

    async fn finish(
        &self,
        planned: Planned,
        signed: Result<Vec<u8>, SignError>,
        actor: &str,
    ) -> Result<X509Svid, IssueError> {
        let der = match signed {
            Ok(der) => der,
            Err(error) => {
                tracing::error!(%error, serial = planned.serial(), "signing failed");
                let failed = planned.event("svid.failed", actor);
                self.outcomes
                    .report(failed.with("reason", error.to_string()))
                    .await;
                return Err(error.into());
            }
        };
        let digest = hex::encode(crypto::digest_sha256(&der));
        let event = planned.event("svid.issued", actor).with("sha256", digest);
        self.outcomes.report(event).await;
        let contents = planned.linted.contents();
        Ok(X509Svid {
            der,
            id: contents.id.clone(),
            serial: contents.serial.to_string(),
            authority_id: contents.authority_id.clone(),
            not_after: contents.validity.not_after,
        })
    }

    /// Issues a batch: one commit of the audit log, then signatures on all cores. Results keep the order.
    pub async fn x509_batch(
        &self,
        actor: &str,
        requests: Vec<Result<(VerifiedCsr, Grant), IssueRefusal>>,
    ) -> Result<Vec<Result<X509Svid, IssueError>>, IssueError> {
        let keys = self.authority_keys();
        let plans: Vec<Result<Planned, IssueRefusal>> = requests
            .into_iter()
            .map(|request| request.and_then(|(csr, grant)| self.plan_beside(&csr, grant, &keys)))
            .collect();
        let recorded = self.record_batch(plans, actor).await?;
        let count = recorded.len();
        // The intents are on record; a signer that broke leaves them without an outcome.
        let signed = tokio::task::spawn_blocking(move || sign_all(recorded))
            .await
            .ok()
            .flatten()
            .filter(|signed| signed.len() == count)
            .ok_or(SignError::Broken)?;
        let mut results = Vec::with_capacity(signed.len());
        for item in signed {
            results.push(match item {
                Ok((planned, signed)) => self.finish(planned, signed, actor).await,
                Err(refusal) => Err(refusal.into()),
            });
        }
        Ok(results)
    }

    async fn record_batch(
        &self,
        plans: Vec<Result<Planned, IssueRefusal>>,
        actor: &str,
    ) -> Result<Vec<Recorded>, IssueError> {
        let actor = actor.to_owned();
        let (at, recorded) = self
            .hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    let mut recorded = Vec::with_capacity(plans.len());
                    for plan in plans {
                        // The registry of this transaction, not of the moment when the call came in.
                        let plan = plan.and_then(|planned| {
                            tx.with_snapshot(|registry| planned.grant.check_still(registry))?;
                            Ok(planned)
                        });
                        recorded.push(match plan {
                            Ok(planned) => {
                                let ticket = Self::record(tx, &planned, &actor).await?;
                                Ok((planned, ticket))
                            }
                            Err(refusal) => {
                                tx.audit(events::refused("x509", &actor, &refusal))?;
                                Err(refusal)
                            }
                        });
                    }
                    Ok::<_, StoreError>((tx.now(), recorded))
                })
            })
            .await?;
        self.guard.record(at);
        Ok(recorded)
    }

    /// Issues one X509-SVID.
    pub async fn x509(
        &self,
        actor: &str,
        csr: VerifiedCsr,
        grant: Grant,
    ) -> Result<X509Svid, IssueError> {
        let mut results = self.x509_batch(actor, vec![Ok((csr, grant))]).await?;
        results.pop().unwrap_or(Err(SignError::Broken.into()))
    }

    /// Puts a refusal that came before planning on record.
    pub async fn refuse(
        &self,
        kind: Kind,
        actor: &str,
        refusal: &IssueRefusal,
    ) -> Result<(), IssueError> {
        let event = events::refused(kind.name(), actor, refusal);
        self.hub
            .store()
            .write(move |tx| Box::pin(async move { tx.audit(event) }))
            .await?;
        Ok(())
    }

    /// Issues one JWT-SVID.
    pub async fn jwt(
        &self,
        actor: &str,
        grant: Grant,
        audience: Vec<String>,
    ) -> Result<JwtSvid, IssueError> {
        let (linted, signer) = match self.plan_jwt(&grant, audience) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.refuse(Kind::Jwt, actor, &refusal).await?;
                return Err(refusal.into());
            }
        };
        let ticket = self.record_jwt(linted.contents(), &grant, actor).await??;
        let claims = linted.contents();
        match signer.sign(&linted, ticket) {
            Ok(token) => {
                self.outcomes
                    .report(events::jwt_event("svid.issued", actor, claims, &grant))
                    .await;
                Ok(JwtSvid {
                    token,
                    id: claims.id.clone(),
                    issued_at: claims.issued_at,
                    expires_at: claims.expires_at,
                })
            }
            Err(error) => {
                let failed = events::jwt_event("svid.failed", actor, claims, &grant);
                self.outcomes
                    .report(failed.with("reason", error.to_string()))
                    .await;
                Err(error.into())
            }
        }
    }

    fn plan_jwt(
        &self,
        grant: &Grant,
        audience: Vec<String>,
    ) -> Result<(Linted<Claims>, Arc<JwtSigner>), IssueRefusal> {
        let now = self.guard.check(self.clock.now())?;
        let signer = self
            .custody
            .signers()
            .jwt
            .clone()
            .ok_or(IssueRefusal::NoAuthority(Kind::Jwt))?;
        let authority = (signer.id(), signer.validity());
        let jti = uuid::Builder::from_random_bytes(crypto::random_bytes())
            .into_uuid()
            .to_string();
        let claims = template::jwt(grant, audience, &self.profile, authority, jti, now);
        let linted = lint::jwt(claims, &self.ground(signer.validity(), &[], now))?;
        Ok((linted, signer))
    }

    async fn record_jwt(
        &self,
        claims: &Claims,
        grant: &Grant,
        actor: &str,
    ) -> Result<Result<Ticket, IssueRefusal>, StoreError> {
        let svid = events::jwt_row(claims, grant);
        let event = events::jwt_event("svid.intended", actor, claims, grant);
        let (grant, actor) = (grant.clone(), actor.to_owned());
        let (at, leaf) = self
            .hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    let checked = tx.with_snapshot(|registry| grant.check_still(registry));
                    if let Err(refusal) = checked.map_err(IssueRefusal::from) {
                        tx.audit(events::refused(Kind::Jwt.name(), &actor, &refusal))?;
                        return Ok((tx.now(), Err(refusal)));
                    }
                    tx.insert_issued(&svid).await?;
                    Ok::<_, StoreError>((tx.now(), Ok(tx.audit(event)?)))
                })
            })
            .await?;
        self.guard.record(at);
        Ok(leaf.map(|leaf| Ticket::new(claims.jti.clone(), leaf)))
    }
}

type Recorded = Result<(Planned, Ticket), IssueRefusal>;
type Signed = Result<(Planned, Result<Vec<u8>, SignError>), IssueRefusal>;

/// Signs on every core; keeps the order. `None` when a signer broke.
fn sign_all(recorded: Vec<Recorded>) -> Option<Vec<Signed>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = recorded.len().div_ceil(cores).max(SIGN_SHARE_MIN);
    let sign = |item: Recorded| -> Signed {
        let (planned, ticket) = item?;
        let signed = planned.signer.sign(&planned.linted, ticket);
        Ok((planned, signed))
    };
    let mut rest = recorded;
    let mut shares = Vec::new();
    while rest.len() > share {
        let tail = rest.split_off(share);
        shares.push(std::mem::replace(&mut rest, tail));
    }
    shares.push(rest);
    std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().map(sign).collect::<Vec<_>>()))
            .collect();
        let mut signed = Vec::new();
        for thread in threads {
            signed.extend(thread.join().ok()?);
        }
        Some(signed)
    })
}

/// Fewer signatures than this are not worth a thread of their own.
const SIGN_SHARE_MIN: usize = 8;
