//! The front door for events that come with no other write: durable when `append` returns.

use super::event::{Event, Leaf};
use crate::limits::AUDIT_EVENTS_MAX;
use crate::store::{Store, StoreError};

/// Why an append did not happen. Whoever needed it must not go on: no audit, no SVID.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// More events than one append may have.
    #[error("an append has at most {AUDIT_EVENTS_MAX} events, not {0}")]
    TooMany(usize),
    /// The store refused or failed.
    #[error("the audit log could not be written")]
    Store(#[from] StoreError),
}

/// Appends events to the audit log; callers at the same time share one durable commit.
#[derive(Debug, Clone)]
pub struct Sequencer {
    store: Store,
}

impl Sequencer {
    /// A sequencer over the store's log.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Logs all of the events or none, in this order, as neighbours. On return they are durable
    /// and under a signed checkpoint.
    pub async fn append(&self, events: Vec<Event>) -> Result<Vec<Leaf>, AuditError> {
        if events.len() > AUDIT_EVENTS_MAX {
            return Err(AuditError::TooMany(events.len()));
        }
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    events
                        .into_iter()
                        .map(|event| tx.audit(event).map_err(AuditError::Store))
                        .collect()
                })
            })
            .await
    }
}
