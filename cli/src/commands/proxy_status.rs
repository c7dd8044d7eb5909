//! `ravelin proxy status | routes | clusters | connections`: what a running proxy says on its admin listener.

use std::net::SocketAddr;

use crate::arguments::Shared;
use crate::exit::{Exit, Failure, Outcome};
use crate::http_call::{self, CallError, HttpCall};
use crate::output::{Rows, print_one};
use clap::Args;
use serde_json::Value;

/// Which proxy.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin proxy status
  ravelin proxy routes --admin 127.0.0.1:15000 -o jsonl
  ravelin proxy connections -o csv

`status` ends with exit code 1 when the proxy is not ready. `admin` in the proxy's configuration
opens the listener, on loopback alone.")]
pub(crate) struct AdminArguments {
    /// The proxy's admin listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15000")]
    admin: SocketAddr,
}

/// Prints the status; a proxy that is not ready is a considered no.
pub(crate) async fn status(arguments: AdminArguments, shared: Shared) -> Outcome {
    let status = fetch(arguments.admin, "/status").await?;
    let is_ready = status.get("ready") == Some(&Value::Bool(true));
    print_one(status, shared.output)?;
    Ok(if is_ready { Exit::Yes } else { Exit::No })
}

/// Prints the services.
pub(crate) async fn routes(arguments: AdminArguments, shared: Shared) -> Outcome {
    let rows = Rows::new(&["service", "endpoints", "expected"]);
    print(rows, fetch(arguments.admin, "/routes").await?, &shared)
}

/// Prints the endpoints.
pub(crate) async fn clusters(arguments: AdminArguments, shared: Shared) -> Outcome {
    let rows = Rows::new(&["worker", "service", "endpoint", "connected", "paused"]);
    print(rows, fetch(arguments.admin, "/clusters").await?, &shared)
}

/// Prints the connections of all workers.
pub(crate) async fn connections(arguments: AdminArguments, shared: Shared) -> Outcome {
    let workers = fetch(arguments.admin, "/connections").await?;
    let columns = [
        "worker",
        "id",
        "direction",
        "protocol",
        "address",
        "peer",
        "opened",
        "calls",
        "refusal",
    ];
    print(Rows::new(&columns), by_connection(workers), &shared)
}

/// One row a connection, with its worker.
fn by_connection(workers: Value) -> Value {
    let mut rows = Vec::new();
    for worker in list(workers) {
        let number = worker.get("worker").cloned().unwrap_or_default();
        let connections = worker.get("connections").cloned().unwrap_or_default();
        for mut connection in list(connections) {
            if let Value::Object(fields) = &mut connection {
                fields.insert("worker".to_owned(), number.clone());
            }
            rows.push(connection);
        }
    }
    Value::Array(rows)
}

fn print(mut rows: Rows, lines: Value, shared: &Shared) -> Outcome {
    for line in list(lines) {
        rows.push(line);
    }
    rows.print(shared.output)
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Vec::new()
        }
    }
}

async fn fetch(admin: SocketAddr, target: &str) -> Result<Value, Failure> {
    let call = HttpCall {
        method: "GET".to_owned(),
        host: admin.to_string(),
        target: target.to_owned(),
        ..HttpCall::default()
    };
    let answer = http_call::send(admin, call).await.map_err(|error| match error {
        CallError::Connect { .. } | CallError::NoAnswer(_) | CallError::Deadline => {
            Failure::unreachable(format!("the proxy does not answer: {error}")).with_help(
                "`admin = \"127.0.0.1:15000\"` in its configuration opens the listener; --admin names another",
            )
        }
        CallError::Request(_) | CallError::Body(_) => Failure::usage(error.to_string()),
    })?;
    let parsed = serde_json::from_slice(&answer.body).ok();
    parsed.filter(|_| answer.status == 200).ok_or_else(|| {
        Failure::usage(format!(
            "`{admin}` is no admin listener of a proxy: it answers {} to {target}",
            answer.status
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_connection_is_a_row_with_its_worker() {
        let workers = json!([
            {"worker": 0, "connections": [{"id": 1}, {"id": 2}]},
            {"worker": 1, "connections": []},
            {"worker": 2, "connections": [{"id": 1}]},
        ]);
        let rows = json!([
            {"worker": 0, "id": 1},
            {"worker": 0, "id": 2},
            {"worker": 2, "id": 1},
        ]);
        assert_eq!(by_connection(workers), rows);
    }
}
