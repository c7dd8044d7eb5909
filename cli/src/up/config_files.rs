//! The configuration files that `up` writes for its parts; a person may copy them to run the parts one by one.

use super::folder::UpFolder;
use super::plan::{Service, UpPlan};
use crate::exit::Failure;
use ravelin_runtime::durable;
use std::path::Path;
use toml::{Table, Value};

/// Writes the files of the CA, the agent and every proxy.
pub(crate) fn write(folder: &UpFolder, plan: &UpPlan) -> Result<(), Failure> {
    write_table(&folder.ca_config(), &ca(folder, plan))?;
    write_table(&folder.agent_config(), &agent(folder, plan))?;
    for service in &plan.services {
        write_table(&folder.proxy_config(&service.name), &proxy(folder, service))?;
    }
    Ok(())
}

fn ca(folder: &UpFolder, plan: &UpPlan) -> Table {
    let mut table = Table::new();
    put(&mut table, "trust_domain", plan.trust_domain.as_str());
    put(
        &mut table,
        "data_dir",
        &folder.ca_data().display().to_string(),
    );
    put(&mut table, "listen", &plan.ca_listen.to_string());
    put(
        &mut table,
        "admin_socket",
        &folder.ca_admin_socket().display().to_string(),
    );
    table
}

fn agent(folder: &UpFolder, plan: &UpPlan) -> Table {
    let mut table = Table::new();
    put(&mut table, "trust_domain", plan.trust_domain.as_str());
    put(
        &mut table,
        "data_dir",
        &folder.agent_data().display().to_string(),
    );
    put(&mut table, "server", &format!("https://{}", plan.ca_listen));
    put(
        &mut table,
        "trust_bundle",
        &folder.bundle().display().to_string(),
    );
    put(
        &mut table,
        "join_token_file",
        &folder.join_token().display().to_string(),
    );
    put(
        &mut table,
        "socket",
        &folder.agent_socket().display().to_string(),
    );
    put(
        &mut table,
        "admin_socket",
        &folder.agent_admin_socket().display().to_string(),
    );
    table
}

fn proxy(folder: &UpFolder, service: &Service) -> Table {
    let mut table = Table::new();
    put(&mut table, "name", &service.name);
    put(
        &mut table,
        "agent_socket",
        &folder.agent_socket().display().to_string(),
    );
    put(&mut table, "spiffe_id", service.spiffe_id.as_str());
    put(&mut table, "outbound", &service.outbound.to_string());
    let mut access_log = Table::new();
    put(
        &mut access_log,
        "to",
        &folder
            .log(&format!("access {}", service.name))
            .display()
            .to_string(),
    );
    table.insert("access_log".to_owned(), Value::Table(access_log));
    let mut inbound = Table::new();
    put(&mut inbound, "listen", &service.inbound.to_string());
    put(&mut inbound, "forward", &service.app.to_string());
    put(&mut inbound, "protocol", service.protocol);
    table.insert(
        "inbound".to_owned(),
        Value::Array(vec![Value::Table(inbound)]),
    );
    table
}

fn put(table: &mut Table, key: &str, value: &str) {
    table.insert(key.to_owned(), Value::String(value.to_owned()));
}

fn write_table(path: &Path, table: &Table) -> Result<(), Failure> {
    let text =
        format!("# Written by `ravelin up`; changes are lost when it starts again.\n{table}");
    durable::write_atomically(path, text.as_bytes(), 0o600)
        .map_err(|error| Failure::file("write", path, error))
}
