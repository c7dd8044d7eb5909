//! Signs what the plan says is due: key pairs made here, many requests in one call to the CA.

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, NewX509svidParams, batch_new_x509svid_response,
    svid_client::SvidClient,
};
use ravelin_runtime::drain::Drain;

use crate::ca_client::{CaClient, CaError, call};
use crate::cache::{Due, X509Svid};
use crate::csr::NewKey;
use crate::limits;
use crate::metrics::Metrics;
use crate::renewal::{self, Reason, Renewal};
use crate::state::State;

const CALL: &str = "BatchNewX509SVID";

/// The task that gets X509-SVIDs for the workloads of this node.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// Shared state.
    pub state: Arc<State>,
    /// The way to the CA.
    pub ca: Arc<CaClient>,
    /// Counters.
    pub metrics: Metrics,
}

impl Issuer {
    /// Runs until the drain.
    pub(crate) async fn run(self, drain: Drain) {
        while !drain.is_started() {
            self.state.expire();
            let now = self.state.now();
            let (plan, rate) = self.state.with_cache(|cache| {
                (
                    cache.issue_plan(now),
                    cache.authorities().reissue_per_sec_max,
                )
            });
            let (batch, is_bounded) = next_batch(plan.due, rate);
            let pause = if batch.is_empty() {
                renewal::pause_until(plan.wake_at, now, limits::SLEEP_MAX)
            } else {
                self.issue(&batch).await;
                if !is_bounded {
                    continue;
                }
                limits::REISSUE_TURN
            };
            // Cancel-safe: a permit of `issue_due` that is not taken stays.
            tokio::select! {
                () = drain.started() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.state.issue_due.notified(), if !is_bounded => {}
            }
        }
    }

    async fn issue(&self, batch: &[Due]) {
        match self.sign(batch).await {
            Ok(results) => {
                for (due, result) in batch.iter().zip(results) {
                    self.settle(due, result);
                }
            }
            Err(error) => {
                tracing::warn!(%error, svids = batch.len(), "the CA signed nothing");
                self.metrics.x509_failed.inc();
                let text = error.to_string();
                for due in batch {
                    self.state.note_failure(&due.entry.id, &text, refused_pause);
                }
            }
        }
    }

    async fn sign(&self, batch: &[Due]) -> Result<Vec<Result<X509Svid, String>>, CaError> {
        let channel = self.ca.channel().await?;
        let keys: Vec<NewKey> = batch
            .iter()
            .map(|_| NewKey::generate())
            .collect::<Result<_, _>>()?;
        let params = batch
            .iter()
            .zip(&keys)
            .map(|(due, key)| NewX509svidParams {
                entry_id: due.entry.id.clone(),
                csr: key.csr.clone(),
            })
            .collect();
        let mut client = SvidClient::new(channel);
        let answer = call(
            CALL,
            client.batch_new_x509svid(BatchNewX509svidRequest { params }),
        )
        .await?;
        if answer.results.len() != batch.len() {
            return Err(CaError::Malformed {
                call: CALL,
                reason: format!(
                    "{} results for {} requests",
                    answer.results.len(),
                    batch.len()
                ),
            });
        }
        let results = answer.results.into_iter().zip(batch).zip(&keys);
        Ok(results
            .map(|((result, due), key)| self.read(result, &due.entry, key))
            .collect())
    }

    fn read(
        &self,
        result: batch_new_x509svid_response::Result,
        entry: &RegistrationEntry,
        key: &NewKey,
    ) -> Result<X509Svid, String> {
        let status = result.status.unwrap_or_default();
        if status.code != 0 {
            return Err(format!("the CA refused: {}", status.message));
        }
        let chain = result.svid.ok_or("the CA sent no SVID")?.cert_chain;
        if !chain.first().is_some_and(|leaf| key.is_key_of(leaf)) {
            return Err("the CA signed another key than the one that was sent".into());
        }
        X509Svid::parse(chain, key.key.clone(), entry.revision, self.state.now())
            .and_then(|svid| svid.expect_id(&entry.spiffe_id))
            .map_err(|error| error.to_string())
    }

    fn settle(&self, due: &Due, result: Result<X509Svid, String>) {
        let id = &due.entry.id;
        let svid = match result {
            Ok(svid) => svid,
            Err(message) => {
                tracing::warn!(entry = %id, error = %message, "no SVID for an entry");
                self.metrics.x509_failed.inc();
                self.state.note_failure(id, &message, refused_pause);
                return;
            }
        };
        self.metrics.x509_issued.inc();
        tracing::info!(
            spiffe_id = %svid.spiffe_id, entry = %id, serial = %svid.serial,
            expires_at = %svid.validity.not_after, reason = ?due.reason, "new X509-SVID"
        );
        let authorities = self.state.with_cache(|cache| cache.authorities().clone());
        let again = renewal::plan(&svid.tracked(), &authorities, self.state.now());
        // Without a pause a CA that goes on signing what it has denied would be asked for ever.
        if !self.state.store_svid(id, svid) {
            let message = "the SVID is on the deny-list, or its entry changed meanwhile";
            self.state.note_failure(id, message, refused_pause);
            return;
        }
        // The bundle or the authority state is about to change: without a pause this would spin.
        if matches!(again, Renewal::Now(_)) {
            let message = "the CA has not changed over to its new authority yet";
            self.state
                .note_failure(id, message, |_| limits::REFUSED_FIRST);
        }
    }
}

/// Doubles from one second to a minute.
fn refused_pause(count: u32) -> Duration {
    limits::REFUSED_FIRST
        .saturating_mul(2_u32.saturating_pow(count.min(16)))
        .min(limits::REFUSED_MAX)
}

/// What to ask for in this turn, and whether the rate of a reissue bounds the next one.
fn next_batch(mut due: Vec<Due>, reissue_per_sec_max: u32) -> (Vec<Due>, bool) {
    let bound = usize::try_from(reissue_per_sec_max).unwrap_or(usize::MAX);
    let urgent = due
        .iter()
        .filter(|due| due.reason != Reason::Reissue)
        .count();
    if bound == 0 || urgent > 0 || due.len() <= bound {
        if urgent > 0 && bound != 0 {
            due.truncate(urgent);
        }
        due.truncate(limits::CSRS_PER_CALL_MAX);
        return (due, false);
    }
    due.truncate(bound.min(limits::CSRS_PER_CALL_MAX));
    (due, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ravelin_proto::spiffe_id::SpiffeId;

    fn due(count: usize, reason: Reason) -> Vec<Due> {
        let id = |text| SpiffeId::parse(text).unwrap();
        (0..count)
            .map(|number| Due {
                entry: Arc::new(RegistrationEntry::new(
                    &number.to_string(),
                    id("spiffe://td/a"),
                    id("spiffe://td/n"),
                    Vec::new(),
                )),
                reason,
            })
            .collect()
    }

    #[test]
    fn a_reissue_keeps_to_its_rate_and_what_is_missing_goes_first() {
        let mixed = || [due(3, Reason::Missing), due(50, Reason::Reissue)].concat();
        let rows = [
            ("nothing", Vec::new(), 10, (0, false)),
            ("no bound", due(50, Reason::Reissue), 0, (50, false)),
            ("bound", due(50, Reason::Reissue), 10, (10, true)),
            ("below the bound", due(5, Reason::Reissue), 10, (5, false)),
            ("missing ones first", mixed(), 10, (3, false)),
            (
                "one call",
                due(1000, Reason::HalfLife),
                0,
                (limits::CSRS_PER_CALL_MAX, false),
            ),
        ];
        for (name, due, rate, want) in rows {
            let (batch, is_bounded) = next_batch(due, rate);
            assert_eq!((batch.len(), is_bounded), want, "{name}");
        }
    }

    #[test]
    fn a_refused_entry_waits_longer_each_time_up_to_a_minute() {
        let secs: Vec<u64> = [0, 1, 2, 10, u32::MAX]
            .map(|count| refused_pause(count).as_secs())
            .into();
        assert_eq!(secs, [1, 2, 4, 60, 60]);
    }
}
