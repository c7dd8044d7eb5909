//! The one stream to the CA: says what the agent holds, takes changes into use, acknowledges them.
//!
//! A change is in use and on disk before it is acknowledged. A message that is refused leaves the
//! last good state in place, is named in the acknowledgement, and is asked for again as a snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use ravelin_proto::pb::ravelin::v1::{
    SyncRequest, SyncResponse, sync_client::SyncClient, sync_request,
};
use ravelin_runtime::backoff::Backoff;
use ravelin_runtime::drain::Drain;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::ca_client::{CaClient, CaError, within};
use crate::delta::Parts;
use crate::entropy;
use crate::limits;
use crate::proxies;
use crate::state::{State, SyncRefusal};
use crate::storage::Storage;

const CALL: &str = "Sync";
/// Acknowledgements that wait for the connection; each one is full state.
const ACKS_WAITING: usize = 4;

/// The task that keeps the sync stream.
#[derive(Debug)]
pub(crate) struct SyncTask {
    /// Shared state.
    pub state: Arc<State>,
    /// The way to the CA.
    pub ca: Arc<CaClient>,
    /// The disk.
    pub storage: Arc<Storage>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum SyncEnd {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the CA sent what cannot be taken into use: {0}")]
    Refused(#[from] SyncRefusal),
    #[error("the CA closed the stream")]
    Closed,
    #[error("the agent's own SVID changed")]
    OwnChanged,
    #[error("an authority is not trusted any more")]
    AuthorityGone,
    #[error("the agent ends")]
    Drained,
}

struct Stream {
    requests: mpsc::Sender<SyncRequest>,
    answers: Streaming<SyncResponse>,
    acks: watch::Receiver<u64>,
    own: watch::Receiver<u64>,
    last_ack: Option<sync_request::Ack>,
    /// Authorities that were trusted when the server was verified.
    trusted: BTreeSet<String>,
    parts: Parts,
}

impl SyncTask {
    /// Runs until the drain.
    pub(crate) async fn run(self, drain: Drain) {
        let mut backoff = Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_MAX);
        let mut own = self.state.own_tick.subscribe();
        let mut is_snapshot_wanted = false;
        while !drain.is_started() {
            own.borrow_and_update();
            let end = self.stream(is_snapshot_wanted, &drain, &mut backoff).await;
            self.state.note(|progress| progress.is_synced = false);
            is_snapshot_wanted = matches!(end, SyncEnd::Refused(_));
            if matches!(
                end,
                SyncEnd::Drained | SyncEnd::OwnChanged | SyncEnd::AuthorityGone
            ) {
                continue;
            }
            if matches!(&end, SyncEnd::Ca(error) if error.is_distrust()) {
                self.state.note_distrust();
            }
            let is_waiting_for_node = matches!(
                end,
                SyncEnd::Ca(CaError::NotAttested | CaError::OwnExpired(_))
            );
            let pause = backoff.next(entropy::unit());
            if !is_waiting_for_node {
                tracing::warn!(error = %end, retry_in = ?pause, "no sync stream to the CA");
                let text = end.to_string();
                self.state.note(|progress| progress.last_error = text);
            }
            // Cancel-safe: nothing is taken from a queue here.
            tokio::select! {
                () = drain.started() => {}
                () = tokio::time::sleep(pause) => {}
                _ = own.changed() => {}
            }
        }
    }

    async fn stream(&self, wants_snapshot: bool, drain: &Drain, backoff: &mut Backoff) -> SyncEnd {
        let mut stream = match self.open(wants_snapshot).await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        match self.first(&mut stream).await {
            Ok(()) => {}
            Err(end) => return end,
        }
        backoff.reset();
        self.state.clear_failures();
        tracing::info!(
            revision = self.state.with_cache(crate::cache::Cache::revision),
            "synced with the CA"
        );
        loop {
            if let Err(end) = self.turn(&mut stream, drain).await {
                return end;
            }
        }
    }

    async fn open(&self, wants_snapshot: bool) -> Result<Stream, CaError> {
        let acks = self.state.ack_tick.subscribe();
        let own = self.state.own_tick.subscribe();
        let revision = self.state.with_cache(crate::cache::Cache::revision);
        let hello = sync_request::Hello {
            revision: if wants_snapshot { 0 } else { revision },
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            mesh_revision: if wants_snapshot {
                0
            } else {
                self.state.with_mesh(crate::mesh::MeshStore::revision)
            },
        };
        let (requests, outgoing) = mpsc::channel(ACKS_WAITING);
        let first = SyncRequest {
            step: Some(sync_request::Step::Hello(hello)),
        };
        // The queue is new and has room.
        let _ = requests.try_send(first);
        let mut client = SyncClient::new(self.ca.channel().await?)
            .max_decoding_message_size(limits::SYNC_MESSAGE_BYTES_MAX);
        let answers = within(CALL, limits::SYNC_FIRST_WAIT, async {
            client
                .stream(ReceiverStream::new(outgoing))
                .await
                .map_err(refused)
        })
        .await?
        .into_inner();
        Ok(Stream {
            requests,
            answers,
            acks,
            own,
            last_ack: None,
            trusted: self.trusted(),
            parts: Parts::default(),
        })
    }

    async fn first(&self, stream: &mut Stream) -> Result<(), SyncEnd> {
        let whole = within(CALL, limits::SYNC_FIRST_WAIT, async {
            loop {
                let Some(answer) = stream.answers.message().await.map_err(refused)? else {
                    return Ok(None);
                };
                if let Some(whole) = stream.parts.take(answer) {
                    return Ok(Some(whole));
                }
            }
        })
        .await?;
        self.use_and_acknowledge(whole.ok_or(SyncEnd::Closed)?, stream)
            .await
    }

    async fn use_and_acknowledge(
        &self,
        whole: SyncResponse,
        stream: &mut Stream,
    ) -> Result<(), SyncEnd> {
        self.take(whole, stream).await?;
        self.acknowledge(stream).await?;
        // The server was verified by an authority that may be the one that is gone.
        if stream.trusted.is_subset(&self.trusted()) {
            return Ok(());
        }
        Err(SyncEnd::AuthorityGone)
    }

    async fn turn(&self, stream: &mut Stream, drain: &Drain) -> Result<(), SyncEnd> {
        // Cancel-safe: `message` keeps what it has read in the stream, the others wait for a
        // number that stays changed.
        tokio::select! {
            answer = stream.answers.message() => {
                let answer = answer.map_err(refused)?.ok_or(SyncEnd::Closed)?;
                match stream.parts.take(answer) {
                    Some(whole) => self.use_and_acknowledge(whole, stream).await,
                    None => Ok(()),
                }
            }
            _ = stream.acks.changed() => self.acknowledge(stream).await,
            _ = stream.own.changed() => {
                self.acknowledge(stream).await?;
                Err(SyncEnd::OwnChanged)
            }
            () = drain.started() => Err(SyncEnd::Drained),
        }
    }

    fn trusted(&self) -> BTreeSet<String> {
        self.state
            .with_cache(|cache| cache.authorities().trusted_x509.clone())
    }

    async fn take(&self, answer: SyncResponse, stream: &Stream) -> Result<(), SyncEnd> {
        let revision = answer.revision;
        if let Err(refusal) = self.state.apply(answer) {
            tracing::error!(revision, error = %refusal, "refusing a message of the CA; the last good state stays");
            let text = proxies::bounded(&refusal.to_string(), limits::REFUSAL_CHARS_MAX);
            self.state.note(|progress| progress.refusal = text);
            // The stream ends after this: the acknowledgement is sent if there is room for it.
            let _ = stream
                .requests
                .try_send(ack_request(self.state.compose_ack()));
            return Err(refusal.into());
        }
        self.ca.trust_bundle_alone();
        let now = self.state.now();
        self.state.note(|progress| {
            progress.is_synced = true;
            progress.last_sync_at = Some(now);
            progress.last_error.clear();
            progress.refusal.clear();
        });
        let (state, storage) = (Arc::clone(&self.state), Arc::clone(&self.storage));
        let saved = tokio::task::spawn_blocking(move || storage.save_sync(&state.snapshot()));
        if let Ok(Err(error)) = saved.await {
            tracing::error!(%error, "a restart without the CA would serve an older state");
            let text = error.to_string();
            self.state.note(|progress| progress.last_error = text);
        }
        Ok(())
    }

    async fn acknowledge(&self, stream: &mut Stream) -> Result<(), SyncEnd> {
        stream.acks.borrow_and_update();
        let ack = self.state.compose_ack();
        if stream.last_ack.as_ref() == Some(&ack) {
            return Ok(());
        }
        let sent = within(CALL, limits::CA_CALL_WAIT, async {
            Ok(stream.requests.send(ack_request(ack.clone())).await)
        })
        .await?;
        sent.map_err(|_| SyncEnd::Closed)?;
        stream.last_ack = Some(ack);
        Ok(())
    }
}

fn ack_request(ack: sync_request::Ack) -> SyncRequest {
    SyncRequest {
        step: Some(sync_request::Step::Ack(ack)),
    }
}

fn refused(status: Status) -> CaError {
    CaError::Refused {
        call: CALL,
        status: Box::new(status),
    }
}
