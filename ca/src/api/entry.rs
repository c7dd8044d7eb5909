//! `spire.api.server.entry.v1.Entry`: registration entries, and what an agent may hand out.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt, stream};
use ravelin_proto::convert::{ConvertError, entry_from_pb, entry_to_pb};
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::spire::api::server::entry::v1 as pb;
use ravelin_proto::pb::spire::api::server::entry::v1::entry_server::{Entry, EntryServer};
use ravelin_proto::pb::spire::api::types;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::crypto::random_bytes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller::Caller;
use super::entry_filter::{EntryFilter, mask, merge};
use super::store_status;
use crate::hub::Hub;
use crate::limits::{ENTRY_BATCH_MAX, ENTRY_LIST_MAX};
use crate::mesh::proposal::ENTRY_ID_PREFIX;
use crate::store::{StoreError, WriteTx};

/// The service over a hub.
#[derive(Debug, Clone)]
pub struct EntryService {
    hub: Hub,
}

/// Why one entry of a batch was not taken; with the entry that is in the way, if there is one.
#[derive(Debug)]
struct Refusal {
    code: Code,
    message: String,
    existing: Option<Arc<RegistrationEntry>>,
}

impl Refusal {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            existing: None,
        }
    }

    fn status(&self) -> types::Status {
        types::Status {
            code: self.code.into(),
            message: self.message.clone(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = store_status(&error);
        Self::new(status.code(), status.message())
    }
}

impl From<ConvertError> for Refusal {
    fn from(error: ConvertError) -> Self {
        Self::new(Code::InvalidArgument, error.to_string())
    }
}

fn malformed(error: ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn ok() -> types::Status {
    types::Status {
        code: Code::Ok.into(),
        message: String::new(),
    }
}

/// Entries of the mesh folder change by `apply` alone.
fn refuse_mesh(id: &str) -> Result<(), Refusal> {
    if id.starts_with(ENTRY_ID_PREFIX) {
        return Err(Refusal::new(
            Code::FailedPrecondition,
            format!("`{id}` comes from the mesh folder; change it there and run `ravelin apply`"),
        ));
    }
    Ok(())
}

/// An id that is free: random, or the caller's own.
fn entry_id(wanted: &str) -> String {
    if wanted.is_empty() {
        return uuid::Builder::from_random_bytes(random_bytes::<16>())
            .into_uuid()
            .to_string();
    }
    wanted.to_owned()
}

/// The entry that already stands for the same ID, parent and selectors, or has the same id.
fn in_the_way(tx: &WriteTx, entry: &RegistrationEntry) -> Option<Arc<RegistrationEntry>> {
    tx.with_snapshot(|registry| {
        registry.entry(&entry.id).cloned().or_else(|| {
            registry
                .entries_by_spiffe_id(&entry.spiffe_id)
                .into_iter()
                .find(|other| {
                    other.parent_id == entry.parent_id && other.selectors == entry.selectors
                })
        })
    })
}

impl EntryService {
    /// The service.
    pub fn server(hub: Hub) -> EntryServer<Self> {
        EntryServer::new(Self::new(hub))
    }

    pub(crate) fn new(hub: Hub) -> Self {
        Self { hub }
    }

    fn admin<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let caller = Caller::of(request.extensions(), &self.hub.registry());
        caller.admin()?;
        Ok(caller.actor())
    }

    fn agent<T>(&self, request: &Request<T>) -> Result<SpiffeId, Status> {
        let caller = Caller::of(request.extensions(), &self.hub.registry());
        Ok(caller.agent()?.id.clone())
    }

    fn check_domain(&self, entry: &RegistrationEntry) -> Result<(), Refusal> {
        let trust_domain = self.hub.store().trust_domain();
        if entry.spiffe_id.is_member_of(trust_domain) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::InvalidArgument,
            format!(
                "`{}` is not in trust domain `{trust_domain}`",
                entry.spiffe_id
            ),
        ))
    }

    async fn create(
        &self,
        entry: types::Entry,
        actor: String,
    ) -> Result<Arc<RegistrationEntry>, Refusal> {
        refuse_mesh(&entry.id)?;
        let mut entry = entry_from_pb(entry)?;
        entry.id = entry_id(&entry.id);
        self.check_domain(&entry)?;
        self.hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    if let Some(existing) = in_the_way(tx, &entry) {
                        return Err(Refusal {
                            existing: Some(existing),
                            ..Refusal::new(Code::AlreadyExists, "a similar entry already exists")
                        });
                    }
                    Ok(tx.put_entry(entry, &actor).await?)
                })
            })
            .await
    }

    async fn update(
        &self,
        update: types::Entry,
        input_mask: Option<types::EntryMask>,
        actor: String,
    ) -> Result<Arc<RegistrationEntry>, Refusal> {
        refuse_mesh(&update.id)?;
        let service = self.clone();
        self.hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    let stored = tx
                        .with_snapshot(|registry| registry.entry(&update.id).cloned())
                        .ok_or_else(|| Refusal::new(Code::NotFound, "there is no such entry"))?;
                    let merged = merge(entry_to_pb(&stored), update, input_mask.as_ref());
                    let entry = entry_from_pb(merged)?;
                    service.check_domain(&entry)?;
                    Ok(tx.put_entry(entry, &actor).await?)
                })
            })
            .await
    }

    async fn delete(&self, id: String, actor: String) -> Result<(), Refusal> {
        refuse_mesh(&id)?;
        self.hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    match tx.delete_entry(&id, &actor).await? {
                        Some(_) => Ok(()),
                        None => Err(Refusal::new(Code::NotFound, "there is no such entry")),
                    }
                })
            })
            .await
    }
}

fn check_batch(count: usize) -> Result<(), Status> {
    if count > ENTRY_BATCH_MAX {
        return Err(Status::invalid_argument(format!(
            "a batch has at most {ENTRY_BATCH_MAX} entries, not {count}"
        )));
    }
    Ok(())
}

fn masked(entry: &RegistrationEntry, output: Option<&types::EntryMask>) -> types::Entry {
    let mut message = entry_to_pb(entry);
    mask(&mut message, output);
    message
}

#[tonic::async_trait]
impl Entry for EntryService {
    async fn count_entries(
        &self,
        request: Request<pb::CountEntriesRequest>,
    ) -> Result<Response<pb::CountEntriesResponse>, Status> {
        self.admin(&request)?;
        let filter = request
            .into_inner()
            .filter
            .map(|filter| pb::list_entries_request::Filter {
                by_spiffe_id: filter.by_spiffe_id,
                by_parent_id: filter.by_parent_id,
                by_selectors: filter.by_selectors,
                by_federates_with: filter.by_federates_with,
                by_hint: filter.by_hint,
                by_downstream: filter.by_downstream,
            });
        let filter = EntryFilter::parse(filter).map_err(malformed)?;
        let registry = self.hub.registry();
        let count = registry
            .entries()
            .filter(|entry| filter.accepts(entry))
            .count();
        Ok(Response::new(pb::CountEntriesResponse {
            count: i32::try_from(count).unwrap_or(i32::MAX),
        }))
    }

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<pb::ListEntriesResponse>, Status> {
        self.admin(&request)?;
        let request = request.into_inner();
        let filter = EntryFilter::parse(request.filter).map_err(malformed)?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => ENTRY_LIST_MAX,
            Ok(size) => size.min(ENTRY_LIST_MAX),
            Err(_) => return Err(Status::invalid_argument("`page_size` is negative")),
        };
        let registry = self.hub.registry();
        let mut found = registry
            .entries_after(&request.page_token)
            .filter(|entry| filter.accepts(entry));
        let page: Vec<_> = found.by_ref().take(size).collect();
        let next_page_token = match (found.next(), page.last()) {
            (Some(_), Some(last)) => last.id.clone(),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListEntriesResponse {
            entries: page
                .into_iter()
                .map(|entry| masked(entry, request.output_mask.as_ref()))
                .collect(),
            next_page_token,
        }))
    }

    async fn get_entry(
        &self,
        request: Request<pb::GetEntryRequest>,
    ) -> Result<Response<types::Entry>, Status> {
        self.admin(&request)?;
        let request = request.into_inner();
        let registry = self.hub.registry();
        let entry = registry
            .entry(&request.id)
            .ok_or_else(|| Status::not_found("there is no such entry"))?;
        Ok(Response::new(masked(entry, request.output_mask.as_ref())))
    }

    async fn batch_create_entry(
        &self,
        request: Request<pb::BatchCreateEntryRequest>,
    ) -> Result<Response<pb::BatchCreateEntryResponse>, Status> {
        let actor = self.admin(&request)?;
        let request = request.into_inner();
        check_batch(request.entries.len())?;
        let creating = request
            .entries
            .into_iter()
            .map(|entry| self.create(entry, actor.clone()));
        let output = request.output_mask.as_ref();
        let results = join_all(creating)
            .await
            .into_iter()
            .map(|result| match result {
                Ok(entry) => pb::batch_create_entry_response::Result {
                    status: Some(ok()),
                    entry: Some(masked(&entry, output)),
                },
                Err(refusal) => pb::batch_create_entry_response::Result {
                    status: Some(refusal.status()),
                    entry: refusal.existing.map(|entry| masked(&entry, output)),
                },
            })
            .collect();
        Ok(Response::new(pb::BatchCreateEntryResponse { results }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<pb::BatchUpdateEntryRequest>,
    ) -> Result<Response<pb::BatchUpdateEntryResponse>, Status> {
        let actor = self.admin(&request)?;
        let request = request.into_inner();
        check_batch(request.entries.len())?;
        let updating = request
            .entries
            .into_iter()
            .map(|entry| self.update(entry, request.input_mask, actor.clone()));
        let output = request.output_mask.as_ref();
        let results = join_all(updating)
            .await
            .into_iter()
            .map(|result| match result {
                Ok(entry) => pb::batch_update_entry_response::Result {
                    status: Some(ok()),
                    entry: Some(masked(&entry, output)),
                },
                Err(refusal) => pb::batch_update_entry_response::Result {
                    status: Some(refusal.status()),
                    entry: None,
                },
            })
            .collect();
        Ok(Response::new(pb::BatchUpdateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<pb::BatchDeleteEntryRequest>,
    ) -> Result<Response<pb::BatchDeleteEntryResponse>, Status> {
        let actor = self.admin(&request)?;
        let ids = request.into_inner().ids;
        check_batch(ids.len())?;
        let deleting = ids.iter().map(|id| self.delete(id.clone(), actor.clone()));
        let results = join_all(deleting)
            .await
            .into_iter()
            .zip(&ids)
            .map(|(result, id)| pb::batch_delete_entry_response::Result {
                status: Some(result.map_or_else(|refusal| refusal.status(), |()| ok())),
                id: id.clone(),
            })
            .collect();
        Ok(Response::new(pb::BatchDeleteEntryResponse { results }))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<pb::GetAuthorizedEntriesRequest>,
    ) -> Result<Response<pb::GetAuthorizedEntriesResponse>, Status> {
        let agent = self.agent(&request)?;
        let output = request.into_inner().output_mask;
        let entries = self
            .hub
            .registry()
            .authorized_entries(&agent)
            .values()
            .map(|entry| masked(entry, output.as_ref()))
            .collect();
        Ok(Response::new(pb::GetAuthorizedEntriesResponse { entries }))
    }

    type SyncAuthorizedEntriesStream =
        Pin<Box<dyn Stream<Item = Result<pb::SyncAuthorizedEntriesResponse, Status>> + Send>>;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<pb::SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let agent = self.agent(&request)?;
        let requests = request.into_inner();
        let service = self.clone();
        let responses = requests.enumerate().flat_map(move |(number, request)| {
            let answers = match request {
                Ok(request) => service.sync_answers(&agent, number == 0, &request),
                Err(status) => vec![Err(status)],
            };
            stream::iter(answers)
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

impl EntryService {
    /// First everything, or (past one page) the revisions; then the entries that are asked for.
    fn sync_answers(
        &self,
        agent: &SpiffeId,
        is_first: bool,
        request: &pb::SyncAuthorizedEntriesRequest,
    ) -> Vec<Result<pb::SyncAuthorizedEntriesResponse, Status>> {
        let authorized = self.hub.registry().authorized_entries(agent);
        let output = request.output_mask.as_ref();
        if is_first && !request.ids.is_empty() {
            return vec![Err(Status::invalid_argument(
                "the first request names no ids",
            ))];
        }
        if is_first && authorized.len() > ENTRY_BATCH_MAX {
            let revisions: Vec<_> = authorized
                .values()
                .map(|entry| pb::EntryRevision {
                    id: entry.id.clone(),
                    revision_number: i64::try_from(entry.revision).unwrap_or(i64::MAX),
                    created_at: entry.created_at.unix_secs(),
                })
                .collect();
            return pages(&revisions, |entry_revisions, more| {
                pb::SyncAuthorizedEntriesResponse {
                    entry_revisions,
                    entries: Vec::new(),
                    more,
                }
            });
        }
        let entries: Vec<_> = if is_first {
            authorized
                .values()
                .map(|entry| masked(entry, output))
                .collect()
        } else {
            request
                .ids
                .iter()
                .filter_map(|id| authorized.get(id))
                .map(|entry| masked(entry, output))
                .collect()
        };
        pages(&entries, |entries, more| {
            pb::SyncAuthorizedEntriesResponse {
                entry_revisions: Vec::new(),
                entries,
                more,
            }
        })
    }
}

/// Splits items into pages; at least one, and only the last says that no more follow.
fn pages<T: Clone, R>(items: &[T], page: impl Fn(Vec<T>, bool) -> R) -> Vec<Result<R, Status>> {
    if items.is_empty() {
        return vec![Ok(page(Vec::new(), false))];
    }
    let count = items.len().div_ceil(ENTRY_BATCH_MAX);
    items
        .chunks(ENTRY_BATCH_MAX)
        .zip(1..)
        .map(|(chunk, number)| Ok(page(chunk.to_vec(), number < count)))
        .collect()
}
