//! `ravelin audit`: who got which identity, who called what, which rule decided, and the proof that nothing was changed.

use super::audit_verify;
use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Format, Row, Rows, escape_text, now, print_one, time_of_millis};
use clap::{Args, Subcommand};
use ravelin_proto::pb::ravelin::v1::{
    AuditQuery, AuditRecord, Checkpoint, ExportRecord, ExportRequest, GetCheckpointRequest,
    InclusionRequest, export_record,
};
use ravelin_proto::time::Timestamp;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;

/// The verbs of `ravelin audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Search both logs
    Query(QueryArguments),
    /// Print records as they come
    Tail(FilterArguments),
    /// Show one leaf of the audit log
    #[command(after_help = "Example:\n  ravelin audit show 42")]
    Show {
        /// Index of the leaf
        index: u64,
    },
    /// Verify the whole log: every leaf, every segment, the tree and the signature
    Verify(audit_verify::VerifyArguments),
    /// Print the newest signed checkpoint, to keep it apart
    #[command(
        after_help = "Example:\n  ravelin audit checkpoint > kept.note   and later: ravelin audit verify --checkpoint kept.note"
    )]
    Checkpoint,
    /// Prove that a leaf is in the log
    #[command(after_help = "Example:\n  ravelin audit prove 42 -o json")]
    Prove {
        /// Index of the leaf
        index: u64,
        /// Size of the tree to prove against; the newest checkpoint otherwise
        #[arg(long)]
        size: Option<u64>,
    },
    /// Write everything that an offline verification needs, one JSON object a line
    #[command(
        after_help = "Example:\n  ravelin audit export --file audit.jsonl && ravelin audit verify audit.jsonl"
    )]
    Export {
        /// Where to write it; stdout otherwise
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

/// What to search for.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin audit query --since 5m
  ravelin audit query --log decision --decision deny --since 1h -o jsonl
  ravelin audit query --log decision --since 7d --limit 0 -o jsonl > week.jsonl
  ravelin audit query --kind 'svid.*' --spiffe-id spiffe://shop.example/ns/shop/sa/orders")]
pub(crate) struct QueryArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Up to this time: RFC 3339, or a span back from now such as `5m`
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many records, the newest; 0 for all
    #[arg(long, default_value_t = 1000)]
    limit: u32,
}

/// Conditions on a record; all must hold.
#[derive(Debug, Args)]
pub(crate) struct FilterArguments {
    /// From this time: RFC 3339, or a span back from now such as `5m`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// One of the logs: `audit` or `decision`
    #[arg(long, value_parser = ["audit", "decision"])]
    log: Option<String>,
    /// Kind of event; a `*` at the end matches a prefix
    #[arg(long)]
    kind: Option<String>,
    /// Who acted
    #[arg(long)]
    actor: Option<String>,
    /// A SPIFFE ID that the record is about
    #[arg(long)]
    spiffe_id: Option<String>,
    /// The peer of a call
    #[arg(long)]
    peer: Option<String>,
    /// The deciding policy, `NAMESPACE/NAME`
    #[arg(long)]
    policy: Option<String>,
    /// Number of the deciding rule
    #[arg(long)]
    rule: Option<String>,
    /// How a call was decided
    #[arg(long, value_parser = ["allow", "deny"])]
    decision: Option<String>,
    /// Serial number of an X509-SVID
    #[arg(long)]
    serial: Option<String>,
    /// Id of a JWT-SVID
    #[arg(long)]
    jti: Option<String>,
    /// SPIFFE ID of an agent
    #[arg(long)]
    agent: Option<String>,
}

impl FilterArguments {
    fn query(self) -> Result<AuditQuery, Failure> {
        Ok(AuditQuery {
            since_ms: moment(self.since.as_deref())?,
            log: self.log.unwrap_or_default(),
            kind: self.kind.unwrap_or_default(),
            actor: self.actor.unwrap_or_default(),
            spiffe_id: self.spiffe_id.unwrap_or_default(),
            peer: self.peer.unwrap_or_default(),
            policy: self.policy.unwrap_or_default(),
            rule: self.rule.unwrap_or_default(),
            decision: self.decision.unwrap_or_default(),
            serial: self.serial.unwrap_or_default(),
            jti: self.jti.unwrap_or_default(),
            agent_id: self.agent.unwrap_or_default(),
            ..AuditQuery::default()
        })
    }
}

/// Runs a verb.
pub(crate) async fn run(command: AuditCommand, shared: Shared) -> Outcome {
    match command {
        AuditCommand::Verify(verify) => audit_verify::run(verify, shared).await,
        AuditCommand::Query(query) => {
            let mut filter = query.filter.query()?;
            filter.until_ms = moment(query.until.as_deref())?;
            filter.limit = query.limit;
            search(filter, &shared).await
        }
        AuditCommand::Tail(filter) => {
            let mut query = filter.query()?;
            query.follow = true;
            if query.since_ms == 0 {
                query.since_ms = now().unix_millis();
            }
            tail(query, &shared).await
        }
        AuditCommand::Checkpoint => {
            let ca = Ca::connect(&shared).await?;
            let checkpoint = ca
                .audit()
                .get_checkpoint(ask(GetCheckpointRequest {}))
                .await
                .map_err(|status| Failure::status("get the checkpoint", &status))?
                .into_inner();
            crate::output::put(&checkpoint.note)?;
            Ok(Exit::Yes)
        }
        AuditCommand::Show { index } => {
            let proof = prove(index, None, &shared).await?;
            let leaf: Value = serde_json::from_str(&proof.leaf_json)
                .map_err(|error| Failure::no(format!("leaf {index} is not JSON: {error}")))?;
            print_one(leaf, shared.output)
        }
        AuditCommand::Prove { index, size } => {
            let proof = prove(index, size, &shared).await?;
            audit_verify::check_inclusion(&proof)?;
            let hashes: Vec<String> = proof.hashes.iter().map(hex::encode).collect();
            let note = proof.checkpoint.unwrap_or_default().note;
            print_one(
                json!({"index": proof.index, "size": proof.size, "leaf": proof.leaf_json, "hashes": hashes, "checkpoint": note}),
                shared.output,
            )
        }
        AuditCommand::Export { file } => export(file, &shared).await,
    }
}

async fn search(query: AuditQuery, shared: &Shared) -> Outcome {
    let ca = Ca::connect(shared).await?;
    let mut stream = ca
        .audit()
        .query(query)
        .await
        .map_err(|status| Failure::status("query the logs", &status))?
        .into_inner();
    let mut rows = Rows::new(&["time", "log", "index", "kind", "who", "what"]);
    loop {
        match stream.message().await {
            // WHY: a whole log may be asked for; its lines go out as they come.
            Ok(Some(record)) if shared.output == Format::Jsonl => {
                print_line(&record, Format::Jsonl)?;
            }
            Ok(Some(record)) => rows.push(Value::Object(row(&record))),
            Ok(None) => return rows.print(shared.output),
            Err(status) => return Err(Failure::status("query the logs", &status)),
        }
    }
}

async fn tail(query: AuditQuery, shared: &Shared) -> Outcome {
    let ca = Ca::connect(shared).await?;
    let mut stream = ca
        .audit()
        .query(query)
        .await
        .map_err(|status| Failure::status("follow the logs", &status))?
        .into_inner();
    loop {
        let next = tokio::select! {
            next = stream.message() => next,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Yes),
        };
        match next {
            Ok(Some(record)) => print_line(&record, shared.output)?,
            Ok(None) => {
                return Err(Failure::unreachable(
                    "the CA ended the stream; run the command again",
                ));
            }
            Err(status) => return Err(Failure::status("follow the logs", &status)),
        }
    }
}

fn print_line(record: &AuditRecord, format: Format) -> Result<(), Failure> {
    if format == Format::Table {
        if record.log == "decision" {
            say!("{}", crate::up::decision_line(record))?;
        } else {
            let row = row(record);
            let text = |key: &str| crate::output::cell(row.get(key));
            say!(
                "{} {} {}  {}",
                text("time"),
                text("kind"),
                text("who"),
                text("what")
            )?;
        }
        return Ok(());
    }
    let mut rows = Rows::new(&["time", "log", "index", "kind", "who", "what"]);
    rows.push(Value::Object(row(record)));
    rows.print(if format == Format::Json {
        Format::Jsonl
    } else {
        format
    })
    .map(|_| ())
}

/// A record as a row: its own fields, and for the table who did what.
fn row(record: &AuditRecord) -> Row {
    let content: Value = serde_json::from_str(&record.json).unwrap_or(Value::Null);
    let text = |key: &str| {
        content
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut row = Row::new();
    let (who, what) = if record.log == "decision" {
        let peer = text("peer");
        let who = if peer.is_empty() {
            "(no identity)".to_owned()
        } else {
            peer
        };
        let call = format!(
            "{} {} -> {}",
            text("method"),
            text("path"),
            text("workload")
        );
        let rule = crate::up::deciding_rule(&content);
        (who, format!("{} {} {rule}", call.trim(), text("code")))
    } else {
        (text("actor"), facts(content.get("fields")))
    };
    row.insert("time".to_owned(), time_of_millis(record.time_ms));
    row.insert("log".to_owned(), json!(record.log));
    row.insert("index".to_owned(), json!(record.index));
    row.insert("kind".to_owned(), json!(record.kind));
    row.insert("who".to_owned(), json!(who));
    row.insert("what".to_owned(), json!(what));
    row.insert("record".to_owned(), content);
    row
}

fn facts(fields: Option<&Value>) -> String {
    const SHOWN: [&str; 8] = [
        "spiffe_id",
        "agent_id",
        "serial",
        "jti",
        "authority_id",
        "revision",
        "reason",
        "entry_id",
    ];
    let Some(Value::Object(fields)) = fields else {
        return String::new();
    };
    let shown: Vec<String> = SHOWN
        .iter()
        .filter_map(|key| {
            Some(format!(
                "{key}={}",
                crate::output::cell(Some(fields.get(*key)?))
            ))
        })
        .collect();
    shown.join(" ")
}

async fn prove(
    index: u64,
    size: Option<u64>,
    shared: &Shared,
) -> Result<ravelin_proto::pb::ravelin::v1::InclusionProof, Failure> {
    let ca = Ca::connect(shared).await?;
    let request = InclusionRequest {
        index,
        size: size.unwrap_or(0),
    };
    Ok(ca
        .audit()
        .prove_inclusion(ask(request))
        .await
        .map_err(|status| Failure::status("prove the leaf", &status))?
        .into_inner())
}

async fn export(file: Option<PathBuf>, shared: &Shared) -> Outcome {
    let ca = Ca::connect(shared).await?;
    let mut stream = ca
        .audit()
        .export(tonic::Request::new(ExportRequest { from_index: 0 }))
        .await
        .map_err(|status| Failure::status("export the log", &status))?
        .into_inner();
    let mut out: Box<dyn std::io::Write + Send> = match &file {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path).map_err(|error| Failure::file("write", path, error))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    let failed =
        |error: std::io::Error| Failure::usage(format!("cannot write the export: {error}"));
    let mut lines = 0_u64;
    loop {
        match stream.message().await {
            Ok(Some(record)) => {
                if let Some(line) = export_line(record) {
                    writeln!(out, "{line}").map_err(failed)?;
                    lines += 1;
                }
            }
            Ok(None) => break,
            Err(status) => return Err(Failure::status("export the log", &status)),
        }
    }
    out.flush().map_err(failed)?;
    if let Some(path) = file {
        say!(
            "wrote {lines} records to {}",
            escape_text(&path.display().to_string())
        )?;
    }
    Ok(Exit::Yes)
}

/// One record of an export as a JSON line.
fn export_line(record: ExportRecord) -> Option<Value> {
    Some(match record.item? {
        export_record::Item::Leaf(leaf) => {
            json!({"leaf": {"index": leaf.index, "json": leaf.json}})
        }
        export_record::Item::Segment(segment) => json!({"segment": {
            "leaf_index": segment.leaf_index,
            "records": String::from_utf8_lossy(&segment.records),
        }}),
        export_record::Item::Checkpoint(Checkpoint {
            note, verifier_key, ..
        }) => {
            json!({"checkpoint": {"note": note, "verifier_key": verifier_key}})
        }
    })
}

/// A moment in RFC 3339, or as a span back from now; 0 where none is given.
fn moment(text: Option<&str>) -> Result<i64, Failure> {
    let Some(text) = text else { return Ok(0) };
    if let Some(at) = Timestamp::parse_rfc3339(text) {
        return Ok(at.unix_millis());
    }
    humantime::parse_duration(text)
        .map(|back| now().minus(back).unix_millis())
        .map_err(|_| {
            Failure::usage(format!("`{}` is not a time", escape_text(text))).with_help(
                "write `5m` for five minutes ago, or RFC 3339 such as `2026-11-20T13:00:00Z`",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_absolute_or_a_span_back_from_now() {
        assert_eq!(moment(None).unwrap(), 0);
        assert_eq!(moment(Some("1970-01-01T00:00:01Z")).unwrap(), 1000);
        let then = moment(Some("5m")).unwrap();
        let ago = now().unix_millis() - then;
        assert!((300_000..360_000).contains(&ago), "{ago}");
        assert!(moment(Some("yesterday")).is_err());
    }
}
