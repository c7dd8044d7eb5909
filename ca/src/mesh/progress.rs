//! Who has taken a mesh revision into use. Pure but for the table it reads.

use ravelin_proto::pb::ravelin::v1::ApplyProgress;

use crate::acks::{AckTable, AgentAck};

/// Live agents and their proxies, counted by a revision.
pub fn of_revision(acks: &AckTable, revision: u64) -> ApplyProgress {
    let mut progress = ApplyProgress {
        revision,
        ..ApplyProgress::default()
    };
    for ack in acks.live_agents() {
        count_agent(&mut progress, &ack, revision);
    }
    progress
}

fn count_agent(progress: &mut ApplyProgress, ack: &AgentAck, revision: u64) {
    let mut has_lagging_proxy = false;
    for proxy in &ack.proxies {
        let is_done = proxy.mesh_revision >= revision;
        has_lagging_proxy |= !is_done;
        let refusal = match proxy.refusal.as_str() {
            "" => String::new(),
            refusal => format!(": {refusal}"),
        };
        count(progress, is_done, || {
            format!("{} ({}){refusal}", proxy.name, proxy.spiffe_id)
        });
    }
    // An agent's number is the lowest of its own and its proxies'.
    let is_done = ack.mesh_revision >= revision || has_lagging_proxy;
    let refusal = match ack.refusal.as_str() {
        "" => String::new(),
        refusal => format!(": {refusal}"),
    };
    count(progress, is_done, || format!("{}{refusal}", ack.agent_id));
}

fn count(progress: &mut ApplyProgress, is_done: bool, name: impl FnOnce() -> String) {
    progress.total = progress.total.saturating_add(1);
    if is_done {
        progress.acknowledged = progress.acknowledged.saturating_add(1);
    } else {
        progress.missing.push(name());
    }
}
