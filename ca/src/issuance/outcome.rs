//! Logs what became of each ticket, in batches, behind the signatures: the intent was durable before, so an SVID that a
//! crash leaves without its outcome is still in the log.

use tokio::sync::mpsc;

use crate::audit::{AuditError, Event, Sequencer};
use crate::limits::{OUTCOMES_BATCH_MAX, OUTCOMES_WAITING_MAX};

/// Where signers report.
#[derive(Debug, Clone)]
pub struct Outcomes(mpsc::Sender<Event>);

/// Writes the reports; ends when every sender is gone.
#[derive(Debug)]
pub struct OutcomeLog {
    reports: mpsc::Receiver<Event>,
    sequencer: Sequencer,
}

impl Outcomes {
    /// Both ends.
    pub fn new(sequencer: Sequencer) -> (Self, OutcomeLog) {
        let (sender, reports) = mpsc::channel(OUTCOMES_WAITING_MAX);
        (Self(sender), OutcomeLog { reports, sequencer })
    }

    /// Reports; waits while too many are waiting.
    pub async fn report(&self, event: Event) {
        // The log is gone only when the program ends; the intent is on record.
        let _ = self.0.send(event).await;
    }
}

impl OutcomeLog {
    /// Runs until every sender is gone, or the log cannot be written.
    pub async fn run(mut self) -> Result<(), AuditError> {
        let mut batch = Vec::with_capacity(OUTCOMES_BATCH_MAX);
        while self.reports.recv_many(&mut batch, OUTCOMES_BATCH_MAX).await > 0 {
            self.sequencer.append(std::mem::take(&mut batch)).await?;
        }
        Ok(())
    }
}
