//! What came up, for a person: trust domain, authority, agent, identities, listeners, sockets, logs.

use super::start::RunningMesh;
use crate::connection::ask;
use crate::exit::Failure;
use crate::output::{escape_text, now, put, span, table};
use owo_colors::OwoColorize as _;
use ravelin_proto::pb::ravelin::v1::{AgentAdminStatus, HealthRequest, HealthResponse};
use ravelin_proto::time::Timestamp;
use std::path::Path;

/// Prints it to stdout.
pub(crate) async fn print(running: &RunningMesh, mesh_path: &Path) -> Result<(), Failure> {
    let health = running
        .connect_ca()
        .await?
        .admin()
        .get_health(ask(HealthRequest {}))
        .await
        .map_err(|status| Failure::status("ask the CA for its health", &status))?
        .into_inner();
    let agent = running.agent_status().await?;
    head(running, mesh_path, &health)?;
    identities(&agent)?;
    listeners(running)?;
    places(running)
}

fn head(running: &RunningMesh, mesh_path: &Path, health: &HealthResponse) -> Result<(), Failure> {
    let domain = &running.plan().trust_domain;
    say!("{}", format!("ravelin is up: trust domain {domain}").bold())?;
    let mut facts = table::empty();
    let mut fact = |name: &str, value: String| {
        facts.add_row([name.to_owned(), value]);
    };
    fact(
        "mesh",
        format!("{} (revision {})", mesh_path.display(), running.revision()),
    );
    fact(
        "X.509 authority",
        authority(
            &health.active_x509_authority_id,
            health.x509_authority_expires_at,
        ),
    );
    fact(
        "JWT authority",
        authority(
            &health.active_jwt_authority_id,
            health.jwt_authority_expires_at,
        ),
    );
    fact("CA", format!("https://{}", running.plan().ca_listen));
    fact(
        "audit log",
        format!(
            "{} records; `ravelin audit query --since 5m`",
            health.audit_size
        ),
    );
    put(&table::finished(&facts))
}

fn authority(id: &str, expires_at: i64) -> String {
    let expires_at = Timestamp::from_unix_secs(expires_at);
    format!(
        "{} until {} ({} left)",
        escape_text(id),
        expires_at,
        span(expires_at.since(now()))
    )
}

fn identities(agent: &AgentAdminStatus) -> Result<(), Failure> {
    let mut rows = table::empty();
    rows.set_header(["IDENTITY", "TIME LEFT", "SERIAL"]);
    let left = |expires_at: i64| span(Timestamp::from_unix_secs(expires_at).since(now()));
    rows.add_row([
        escape_text(&agent.agent_id),
        left(agent.svid_expires_at),
        "agent".to_owned(),
    ]);
    for identity in &agent.identities {
        rows.add_row([
            escape_text(&identity.spiffe_id),
            left(identity.expires_at),
            escape_text(&identity.serial),
        ]);
    }
    say!("\n{}", table::finished(&rows).trim_end())
}

fn listeners(running: &RunningMesh) -> Result<(), Failure> {
    let mut rows = table::empty();
    rows.set_header([
        "WORKLOAD",
        "LISTENS ON",
        "PROXY INBOUND (MTLS)",
        "PROXY OUTBOUND",
    ]);
    for service in &running.plan().services {
        rows.add_row([
            service.name.clone(),
            service.app.to_string(),
            service.inbound.to_string(),
            service.outbound.to_string(),
        ]);
    }
    say!("\n{}", table::finished(&rows).trim_end())
}

fn places(running: &RunningMesh) -> Result<(), Failure> {
    let folder = running.folder();
    let mut rows = table::empty();
    let mut place = |name: &str, path: std::path::PathBuf| {
        rows.add_row([name.to_owned(), path.display().to_string()]);
    };
    place("Workload API", folder.agent_socket());
    place("agent admin", folder.agent_admin_socket());
    place("CA admin", folder.ca_admin_socket());
    place("audit log", folder.ca_data().join("ca.db"));
    place("logs", folder.root().join("logs"));
    say!("\n{}", table::finished(&rows))
}
