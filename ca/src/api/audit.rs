//! `ravelin.v1.Audit`: query, follow, prove, export, and the agents' decision segments.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::{Stream, stream};
use ravelin_proto::merkle::{consistency_path, inclusion_path};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::audit_server::{Audit, AuditServer};
use ravelin_proto::pb::ravelin::v1::export_record::Item;
use ravelin_runtime::drain::Drain;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::store_status;
use crate::audit::key::open_note;
use crate::audit::query::{LogChoice, LogReader};
use crate::hub::Hub;
use crate::limits::{
    DECISION_BYTES_MAX, QUERY_PAGE, QUERY_TEXT_BYTES_MAX, SEGMENT_DECISIONS_MAX,
    SEGMENT_ID_BYTES_MAX, SEGMENT_MESSAGE_BYTES_MAX,
};
use crate::store::{
    LogFilter, LogRecord, Page, Segment, Store, StoreError, StoredCheckpoint, decision_json, kinds,
};

type Records<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over a hub.
#[derive(Debug, Clone)]
pub struct AuditService {
    hub: Hub,
    drain: Drain,
}

impl AuditService {
    /// Streams that follow the log end when `drain` begins.
    pub fn server(hub: Hub, drain: Drain) -> AuditServer<Self> {
        AuditServer::new(Self::new(hub, drain)).max_decoding_message_size(SEGMENT_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn new(hub: Hub, drain: Drain) -> Self {
        Self { hub, drain }
    }

    fn store(&self) -> &Store {
        self.hub.store()
    }

    fn admin<T>(&self, request: &Request<T>) -> Result<(), Status> {
        Caller::of(request.extensions(), &self.hub.registry()).admin()
    }

    fn checkpoint_to_pb(&self, stored: StoredCheckpoint) -> Result<pb::Checkpoint, Status> {
        let key = self.store().verifier_key();
        let checkpoint = ravelin_proto::merkle::checkpoint::VerifierKey::parse(key)
            .ok()
            .and_then(|key| open_note(&stored.note, &key))
            .ok_or_else(|| Status::data_loss("the newest checkpoint does not verify"))?;
        Ok(pb::Checkpoint {
            note: stored.note,
            size: checkpoint.size,
            root_hash: checkpoint.root.to_vec(),
            verifier_key: key.to_owned(),
        })
    }

    /// The size that a request means (0: the newest), and the newest checkpoint.
    async fn size(&self, wanted: u64) -> Result<(u64, StoredCheckpoint), Status> {
        let newest = self.store().checkpoint().await.map_err(status)?;
        match wanted {
            0 => Ok((newest.size, newest)),
            size if size <= newest.size => Ok((size, newest)),
            size => Err(Status::out_of_range(format!(
                "the log has {} leaves, not {size}",
                newest.size
            ))),
        }
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` takes"
)]
fn status(error: StoreError) -> Status {
    store_status(&error)
}

fn record_to_pb(record: LogRecord) -> pb::AuditRecord {
    pb::AuditRecord {
        log: if record.is_decision {
            "decision"
        } else {
            "audit"
        }
        .to_owned(),
        index: record.index,
        time_ms: record.time_ms,
        kind: record.kind,
        json: record.json,
    }
}

fn choice(query: &pb::AuditQuery) -> Result<LogChoice, Status> {
    match query.log.as_str() {
        "" => Ok(LogChoice::Both),
        "audit" => Ok(LogChoice::Audit),
        "decision" => Ok(LogChoice::Decisions),
        _ => Err(Status::invalid_argument(
            "`log` is `audit`, `decision` or empty",
        )),
    }
}

fn filter(query: pb::AuditQuery) -> Result<LogFilter, Status> {
    let texts = [
        &query.kind,
        &query.actor,
        &query.spiffe_id,
        &query.peer,
        &query.policy,
        &query.serial,
        &query.jti,
        &query.agent_id,
        &query.rule,
    ];
    if texts.iter().any(|text| text.len() > QUERY_TEXT_BYTES_MAX) {
        return Err(Status::invalid_argument("a text of the query is too long"));
    }
    let is_allowed = match query.decision.as_str() {
        "" => None,
        "allow" => Some(true),
        "deny" => Some(false),
        _ => return Err(Status::invalid_argument("`decision` is `allow` or `deny`")),
    };
    let mut policy = query.policy;
    let rule = match query.rule.rsplit_once('#') {
        _ if query.rule.is_empty() => None,
        None => Some(query.rule.as_str()),
        Some((name, number)) => {
            name.clone_into(&mut policy);
            Some(number)
        }
    };
    let rule = rule
        .map(str::parse)
        .transpose()
        .map_err(|_| Status::invalid_argument("`rule` is a number or `namespace/name#number`"))?;
    Ok(LogFilter {
        since_ms: (query.since_ms != 0).then_some(query.since_ms),
        until_ms: (query.until_ms != 0).then_some(query.until_ms),
        kind: query.kind,
        actor: query.actor,
        spiffe_id: query.spiffe_id,
        peer: query.peer,
        policy,
        rule,
        is_allowed,
        serial: query.serial,
        jti: query.jti,
        agent_id: query.agent_id,
    })
}

/// A segment from outside, as canonical lines within the limits.
fn segment(message: &pb::DecisionSegment) -> Result<Segment, Status> {
    let id = &message.segment_id;
    if id.is_empty() || id.len() > SEGMENT_ID_BYTES_MAX || !id.chars().all(|c| c.is_ascii_graphic())
    {
        return Err(Status::invalid_argument("`segment_id` is malformed"));
    }
    if message.decisions.len() > SEGMENT_DECISIONS_MAX {
        return Err(Status::invalid_argument(
            "the segment has too many decisions",
        ));
    }
    let lines: Vec<String> = message.decisions.iter().map(decision_json).collect();
    if lines.iter().any(|line| line.len() > DECISION_BYTES_MAX) {
        return Err(Status::invalid_argument("a decision is too long"));
    }
    Ok(Segment {
        segment_id: id.clone(),
        lines,
        lost: message.lost,
    })
}

/// An export under way.
struct Export {
    service: AuditService,
    after: Option<LogRecord>,
    from: u64,
    checkpoint: Option<StoredCheckpoint>,
    waiting: VecDeque<LogRecord>,
    segment: Option<u64>,
    to: u64,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Item>, Status> {
        let store = self.service.store();
        if let Some(leaf_index) = self.segment.take() {
            let lines = store.segment_lines(leaf_index).await.map_err(status)?;
            return Ok(Some(Item::Segment(pb::ExportSegment {
                leaf_index,
                records: lines.join("\n").into_bytes(),
            })));
        }
        if self.waiting.is_empty() {
            let page = Page {
                from: self.from,
                to: self.to,
                after: self.after.as_ref(),
                limit: QUERY_PAGE,
                is_newest_first: false,
            };
            let filter = LogFilter::default();
            let records = store.leaves_page(&filter, page).await.map_err(status)?;
            self.after = records.last().cloned().or(self.after.take());
            self.waiting.extend(records);
        }
        if let Some(leaf) = self.waiting.pop_front() {
            self.segment = (leaf.kind == kinds::DECISIONS_SEALED).then_some(leaf.index);
            return Ok(Some(Item::Leaf(pb::ExportLeaf {
                index: leaf.index,
                json: leaf.json,
            })));
        }
        match self.checkpoint.take() {
            Some(stored) => Ok(Some(Item::Checkpoint(
                self.service.checkpoint_to_pb(stored)?,
            ))),
            None => Ok(None),
        }
    }
}

#[tonic::async_trait]
impl Audit for AuditService {
    type QueryStream = Records<pb::AuditRecord>;
    type ExportStream = Records<pb::ExportRecord>;

    async fn query(
        &self,
        request: Request<pb::AuditQuery>,
    ) -> Result<Response<Self::QueryStream>, Status> {
        self.admin(&request)?;
        let query = request.into_inner();
        let (choice, follow, limit) = (choice(&query)?, query.follow, query.limit);
        let reader = LogReader::new(self.store().clone(), filter(query)?, choice, limit);
        let state = Some((reader, self.drain.clone()));
        Ok(Response::new(Box::pin(stream::unfold(
            state,
            move |state| async move {
                let (mut reader, drain) = state?;
                loop {
                    match reader.next().await {
                        Ok(Some(record)) => {
                            return Some((Ok(record_to_pb(record)), Some((reader, drain))));
                        }
                        Ok(None) if follow => {}
                        Ok(None) => return None,
                        Err(error) => return Some((Err(status(error)), None)),
                    }
                    // Both arms are cancel-safe: neither takes anything before it is done.
                    tokio::select! {
                        () = drain.started() => {
                            return Some((Err(Status::unavailable("the CA is draining")), None));
                        }
                        () = reader.grown() => {}
                    }
                }
            },
        ))))
    }

    async fn get_checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<pb::Checkpoint>, Status> {
        self.admin(&request)?;
        let (_, newest) = self.size(0).await?;
        Ok(Response::new(self.checkpoint_to_pb(newest)?))
    }

    async fn prove_inclusion(
        &self,
        request: Request<pb::InclusionRequest>,
    ) -> Result<Response<pb::InclusionProof>, Status> {
        self.admin(&request)?;
        let request = request.into_inner();
        let (size, _) = self.size(request.size).await?;
        let checkpoint = self.store().checkpoint_at(size).await.map_err(status)?;
        let hashes = self.store().leaf_hashes(size).await.map_err(status)?;
        let path = inclusion_path(request.index, &hashes).ok_or_else(|| {
            Status::not_found(format!(
                "there is no leaf {} in a log of {size}",
                request.index
            ))
        })?;
        let leaf_json = self
            .store()
            .leaf_json(request.index)
            .await
            .map_err(status)?
            .unwrap_or_default();
        Ok(Response::new(pb::InclusionProof {
            index: request.index,
            size,
            hashes: path.iter().map(|hash| hash.to_vec()).collect(),
            leaf_json,
            checkpoint: checkpoint
                .filter(|checkpoint| checkpoint.size == size)
                .map(|checkpoint| self.checkpoint_to_pb(checkpoint))
                .transpose()?,
        }))
    }

    async fn prove_consistency(
        &self,
        request: Request<pb::ConsistencyRequest>,
    ) -> Result<Response<pb::ConsistencyProof>, Status> {
        self.admin(&request)?;
        let request = request.into_inner();
        let (new_size, _) = self.size(request.new_size).await?;
        let hashes = self.store().leaf_hashes(new_size).await.map_err(status)?;
        let path = consistency_path(request.old_size, &hashes)
            .ok_or_else(|| Status::invalid_argument("`old_size` is between 1 and `new_size`"))?;
        Ok(Response::new(pb::ConsistencyProof {
            old_size: request.old_size,
            new_size,
            hashes: path.iter().map(|hash| hash.to_vec()).collect(),
        }))
    }

    async fn export(
        &self,
        request: Request<pb::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        self.admin(&request)?;
        let (to, checkpoint) = self.size(0).await?;
        let export = Export {
            service: self.clone(),
            after: None,
            from: request.into_inner().from_index,
            checkpoint: Some(checkpoint),
            waiting: VecDeque::new(),
            segment: None,
            to,
        };
        Ok(Response::new(Box::pin(stream::unfold(
            Some(export),
            |state| async move {
                let mut export = state?;
                match export.next().await {
                    Ok(Some(item)) => {
                        Some((Ok(pb::ExportRecord { item: Some(item) }), Some(export)))
                    }
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            },
        ))))
    }

    async fn append_decisions(
        &self,
        request: Request<pb::DecisionSegment>,
    ) -> Result<Response<pb::AppendDecisionsResponse>, Status> {
        let caller = Caller::of(request.extensions(), &self.hub.registry());
        let agent_id = caller.agent()?.id.clone();
        let segment = segment(request.get_ref())?;
        self.store()
            .write(move |tx| Box::pin(async move { tx.seal_decisions(&segment, &agent_id).await }))
            .await
            .map_err(status)?;
        Ok(Response::new(pb::AppendDecisionsResponse {}))
    }
}
