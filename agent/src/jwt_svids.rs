//! JWT-SVIDs on demand: from the cache while fresh, else signed by the CA, else (the CA being
//! away) from the cache while they last.

use std::sync::Arc;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::jws::CompactJws;
use ravelin_proto::jwt_svid::read_claims;
use ravelin_proto::pb::spire::api::server::svid::v1::{NewJwtsvidRequest, svid_client::SvidClient};
use ravelin_proto::time::Timestamp;

use crate::ca_client::{CaClient, CaError, call};
use crate::cache::{JwtKey, JwtToken, is_token_denied};
use crate::metrics::Metrics;
use crate::state::{self, State};

const CALL: &str = "NewJWTSVID";

/// Gets JWT-SVIDs.
#[derive(Debug, Clone)]
pub(crate) struct JwtSvids {
    /// Shared state.
    pub state: Arc<State>,
    /// The way to the CA.
    pub ca: Arc<CaClient>,
    /// Counters.
    pub metrics: Metrics,
}

impl JwtSvids {
    /// A token of this entry for exactly these audiences.
    pub(crate) async fn token(
        &self,
        entry: &RegistrationEntry,
        audiences: &[String],
    ) -> Result<JwtToken, CaError> {
        let now = self.state.now();
        let key = JwtKey {
            entry_id: entry.id.clone(),
            audiences: audiences.iter().cloned().collect(),
        };
        let is_cacheable = !entry.jwt_svid_include_jti;
        let held = self
            .state
            .with_jwts(|jwts| jwts.token(&key, &entry.spiffe_id, now).cloned())
            .filter(|_| is_cacheable);
        if let Some(token) = held.as_ref().filter(|token| token.is_fresh(now)) {
            self.metrics.jwt_cached.inc();
            return Ok(token.clone());
        }
        match self.sign(entry, audiences).await {
            Ok(token) => {
                self.metrics.jwt_issued.inc();
                if is_cacheable && self.is_trusted(&token) {
                    self.state
                        .with_jwts(|jwts| jwts.store(key, token.clone(), now));
                    self.state
                        .ack_tick
                        .send_modify(|tick| *tick = tick.wrapping_add(1));
                }
                Ok(token)
            }
            Err(error) => match held {
                Some(token) if !error.is_considered_no() => Ok(token),
                _ => Err(error),
            },
        }
    }

    async fn sign(
        &self,
        entry: &RegistrationEntry,
        audiences: &[String],
    ) -> Result<JwtToken, CaError> {
        let mut client = SvidClient::new(self.ca.channel().await?);
        let request = NewJwtsvidRequest {
            entry_id: entry.id.clone(),
            audience: audiences.to_vec(),
        };
        let answer = call(CALL, client.new_jwtsvid(request)).await?;
        let svid = answer.svid.unwrap_or_default();
        read_token(svid.token, entry, audiences, self.state.now())
            .map_err(|reason| CaError::Malformed { call: CALL, reason })
    }

    /// A token that was denied, or whose key was tainted, removed or replaced, while it was signed is not kept.
    fn is_trusted(&self, token: &JwtToken) -> bool {
        let key_id = token.key_id.as_str();
        self.state.with_cache(|cache| {
            state::is_jwt_key_current(cache.authorities(), key_id)
                && !is_token_denied(&cache.denylist(), token)
                && cache.bundle().is_some_and(|bundle| {
                    bundle
                        .jwt_authorities
                        .iter()
                        .any(|authority| authority.key_id == key_id && !authority.is_tainted)
                })
        })
    }
}

fn read_token(
    token: String,
    entry: &RegistrationEntry,
    audiences: &[String],
    now: Timestamp,
) -> Result<JwtToken, String> {
    let parsed = CompactJws::parse(&token).map_err(|error| error.to_string())?;
    let svid = read_claims(&parsed).map_err(|error| error.to_string())?;
    if svid.id != entry.spiffe_id {
        return Err(format!("the token is for `{}`", svid.id));
    }
    if !audiences
        .iter()
        .all(|audience| svid.audience.contains(audience))
    {
        return Err("the token lacks an audience that was asked for".into());
    }
    if svid.expires_at <= now {
        return Err("the token has expired already; compare the clocks".into());
    }
    let (key_id, expires_at) = (svid.key_id.unwrap_or_default(), svid.expires_at);
    let issued_at = svid.issued_at.unwrap_or(now).min(now);
    Ok(JwtToken {
        token,
        spiffe_id: svid.id,
        key_id,
        jti: svid.jti,
        issued_at,
        expires_at,
    })
}
