//! One stream to the agent: hello, configuration in, acknowledgements and decision records out.
//!
//! An acknowledgement is sent only when every worker uses what it names.

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::proxy_config_client::ProxyConfigClient;
use ravelin_runtime::backoff::Backoff;
use ravelin_runtime::rpc::{self, RpcError, ServerAddress};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{Control, finished};
use crate::limits;
use crate::snapshot::Snapshot;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The agent's socket cannot be reached.
    #[error(transparent)]
    Connect(#[from] RpcError),
    /// No answer in time.
    #[error("the agent does not answer in time")]
    Deadline,
    /// The agent refuses or broke off.
    #[error("the agent says `{}`: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    /// The agent closed the stream.
    #[error("the agent closed the stream")]
    Closed,
}

/// Runs one stream. `Ok` once the workers have ended and their last records are sent.
pub(super) async fn session(
    control: &mut Control,
    backoff: &mut Backoff,
) -> Result<(), SessionError> {
    let address = ServerAddress::Unix(control.common.config.agent_socket.clone());
    let channel = timeout(limits::AGENT_CONNECT_DEADLINE, rpc::connect(&address, None))
        .await
        .map_err(|_| SessionError::Deadline)??;
    let mut client =
        ProxyConfigClient::new(channel).max_decoding_message_size(limits::AGENT_MESSAGE_BYTES_MAX);
    let (requests, queue) = mpsc::channel(limits::AGENT_QUEUE_MAX);
    let hello = pb::proxy_request::Step::Hello(control.hello());
    send(&requests, hello).await?;
    let answer = timeout(
        limits::AGENT_CONNECT_DEADLINE,
        client.stream(ReceiverStream::new(queue)),
    );
    let mut messages = answer
        .await
        .map_err(|_| SessionError::Deadline)??
        .into_inner();
    control.metrics().agent_connected.set(1);
    let mut is_finished = control.finished.clone();
    let mut flush = interval(limits::DECISION_BATCH_WAIT);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // WHY: every arm is cancel-safe: a message is read whole or not at all, a tick and a watch lose nothing.
        tokio::select! {
            message = messages.message() => {
                let message = message?.ok_or(SessionError::Closed)?;
                backoff.reset();
                let ack = control.take(message).await;
                send(&requests, pb::proxy_request::Step::Ack(ack)).await?;
            }
            _ = flush.tick() => control.send_decisions(&requests),
            () = finished(&mut is_finished) => break,
        }
    }
    last_decisions(control, requests, &mut messages).await;
    Ok(())
}

async fn send(
    requests: &mpsc::Sender<pb::ProxyRequest>,
    step: pb::proxy_request::Step,
) -> Result<(), SessionError> {
    requests
        .send(pb::ProxyRequest { step: Some(step) })
        .await
        .map_err(|_| SessionError::Closed)
}

/// Sends what is left, closes our side and waits a moment for the agent to have read it.
async fn last_decisions(
    control: &mut Control,
    requests: mpsc::Sender<pb::ProxyRequest>,
    messages: &mut tonic::Streaming<pb::ProxySnapshot>,
) {
    let flushed = timeout(limits::FLUSH_DEADLINE, async {
        while !control.decisions.is_empty() {
            control.send_decisions(&requests);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        control.send_decisions(&requests);
        while requests.capacity() < requests.max_capacity() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(requests);
        // WHY: the stream has taken everything; an agent that keeps its side open gets a moment to read it.
        let closed = async { while let Ok(Some(_)) = messages.message().await {} };
        let _ = timeout(limits::LAST_WRITE, closed).await;
    });
    if flushed.await.is_err() {
        tracing::warn!(
            records = control.decisions.len(),
            "decision records were not sent in time"
        );
    }
}

impl Control {
    fn hello(&self) -> pb::ProxyHello {
        let config = &self.common.config;
        pb::ProxyHello {
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mesh_revision: self.store.mesh_revision(),
            spiffe_id: config
                .spiffe_id
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        }
    }

    /// Takes a configuration into use as far as it is good, and says what is in use then.
    async fn take(&mut self, message: pb::ProxySnapshot) -> pb::ProxyAck {
        let taken = self.store.take(message);
        let mut refusals: Vec<String> = taken.refusals.iter().map(ToString::to_string).collect();
        for refusal in &refusals {
            tracing::error!(refusal, "configuration refused, keeping the last good one");
        }
        if let Some(snapshot) = taken.snapshot {
            tracing::info!(
                mesh_revision = snapshot.mesh_revision,
                bundle_sequence = snapshot.bundle_sequence,
                denylist = snapshot.denylist.number(),
                svid = %snapshot.workload,
                serial = snapshot.svid.serial,
                expires = %snapshot.svid.expires_at.rfc3339(),
                "configuration in use"
            );
            if !self.publish(snapshot).await {
                refusals.push("a worker did not take the configuration in time".to_owned());
            }
        }
        let in_use = self.snapshots.borrow().clone();
        self.ack(in_use, refusals.join("; "))
    }

    fn ack(&self, in_use: Option<Arc<Snapshot>>, refusal: String) -> pb::ProxyAck {
        let name = self.common.config.name.clone();
        match in_use {
            None => pb::ProxyAck {
                name,
                refusal,
                ..pb::ProxyAck::default()
            },
            Some(snapshot) => pb::ProxyAck {
                name,
                spiffe_id: snapshot.workload.to_string(),
                bundle_sequence: snapshot.bundle_sequence,
                denylist_number: snapshot.denylist.number(),
                mesh_revision: snapshot.mesh_revision,
                x509_authority_id: snapshot.svid.authority_id.clone(),
                refusal,
            },
        }
    }

    /// Moves queued records to the stream as far as it has room; the rest waits in the bounded queue.
    fn send_decisions(&mut self, requests: &mpsc::Sender<pb::ProxyRequest>) {
        loop {
            let Ok(place) = requests.try_reserve() else {
                return;
            };
            let mut decisions = Vec::new();
            while decisions.len() < limits::DECISION_BATCH_MAX {
                match self.decisions.try_recv() {
                    Ok(record) => decisions.push(record.to_pb()),
                    Err(_) => break,
                }
            }
            let lost = self.take_lost();
            if decisions.is_empty() && lost == 0 {
                return;
            }
            let batch = pb::DecisionBatch { decisions, lost };
            place.send(pb::ProxyRequest {
                step: Some(pb::proxy_request::Step::Decisions(batch)),
            });
        }
    }
}
