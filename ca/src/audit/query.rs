//! Both logs as one stream of records: merged by time, page by page, and followed as they grow.

use std::collections::VecDeque;

use tokio::sync::watch;

use crate::limits::{QUERY_LIMIT_MAX, QUERY_PAGE};
use crate::store::{LogFilter, LogRecord, Page, Store, StoreError};

/// Which of the two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogChoice {
    /// The audit log alone.
    Audit,
    /// The decision log alone.
    Decisions,
    /// Both, merged.
    Both,
}

/// One of the two logs in a stretch of leaf indexes.
#[derive(Debug, Default)]
struct Lane {
    is_wanted: bool,
    is_done: bool,
    after: Option<LogRecord>,
    waiting: VecDeque<LogRecord>,
}

impl Lane {
    fn needs_page(&self) -> bool {
        self.is_wanted && !self.is_done && self.waiting.is_empty()
    }

    fn take_page(&mut self, records: Vec<LogRecord>) {
        self.is_done = u32::try_from(records.len()).is_ok_and(|count| count < QUERY_PAGE);
        self.after = records.last().cloned().or(self.after.take());
        self.waiting.extend(records);
    }
}

/// A query under way.
#[derive(Debug)]
pub struct LogReader {
    store: Store,
    filter: LogFilter,
    sizes: watch::Receiver<u64>,
    from: u64,
    to: u64,
    leaves: Lane,
    decisions: Lane,
    limit: u32,
}

impl LogReader {
    /// Reads what the log holds now. `limit` 0 means all; otherwise the newest so many.
    pub fn new(store: Store, filter: LogFilter, choice: LogChoice, limit: u32) -> Self {
        let mut sizes = store.audit_sizes();
        let to = *sizes.borrow_and_update();
        let wants = |log| choice == LogChoice::Both || choice == log;
        Self {
            leaves: Lane {
                is_wanted: wants(LogChoice::Audit) && !filter.is_decisions_only(),
                ..Lane::default()
            },
            decisions: Lane {
                is_wanted: wants(LogChoice::Decisions) && !filter.is_audit_only(),
                ..Lane::default()
            },
            store,
            filter,
            sizes,
            from: 0,
            to,
            limit: limit.min(QUERY_LIMIT_MAX),
        }
    }

    /// The next record, oldest first; `None` when the log holds no further one now.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, StoreError> {
        if self.limit > 0 {
            self.fill_newest().await?;
        }
        if self.leaves.needs_page() {
            let page = self.page(self.leaves.after.as_ref());
            let records = self.store.leaves_page(&self.filter, page).await?;
            self.leaves.take_page(records);
        }
        if self.decisions.needs_page() {
            let page = self.page(self.decisions.after.as_ref());
            let records = self.store.decisions_page(&self.filter, page).await?;
            self.decisions.take_page(records);
        }
        let leaf = self.leaves.waiting.front().map(LogRecord::order);
        let decision = self.decisions.waiting.front().map(LogRecord::order);
        let lane = match (leaf, decision) {
            (None, None) => return Ok(None),
            (Some(leaf), decision) if decision.is_none_or(|decision| leaf <= decision) => {
                &mut self.leaves
            }
            (_, _) => &mut self.decisions,
        };
        Ok(lane.waiting.pop_front())
    }

    /// Waits until the log has grown, and goes on behind what was read. Safe to drop.
    pub async fn grown(&mut self) {
        if self.sizes.changed().await.is_err() {
            // The writer ended, so nothing can grow any more.
            std::future::pending::<()>().await;
        }
        self.from = self.to;
        self.to = *self.sizes.borrow_and_update();
        for lane in [&mut self.leaves, &mut self.decisions] {
            lane.is_done = false;
            lane.after = None;
        }
    }

    fn page<'a>(&self, after: Option<&'a LogRecord>) -> Page<'a> {
        Page {
            from: self.from,
            to: self.to,
            after,
            limit: QUERY_PAGE,
            is_newest_first: false,
        }
    }

    /// The newest `limit` records of both logs together, once.
    async fn fill_newest(&mut self) -> Result<(), StoreError> {
        let page = Page {
            from: self.from,
            to: self.to,
            after: None,
            limit: std::mem::take(&mut self.limit),
            is_newest_first: true,
        };
        let mut newest = Vec::new();
        if self.leaves.is_wanted {
            newest.extend(self.store.leaves_page(&self.filter, page).await?);
        }
        if self.decisions.is_wanted {
            newest.extend(self.store.decisions_page(&self.filter, page).await?);
        }
        newest.sort_by_key(LogRecord::order);
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let surplus = newest.len().saturating_sub(limit);
        for record in newest.into_iter().skip(surplus) {
            let lane = if record.is_decision {
                &mut self.decisions
            } else {
                &mut self.leaves
            };
            lane.waiting.push_back(record);
        }
        self.leaves.is_done = true;
        self.decisions.is_done = true;
        Ok(())
    }
}
