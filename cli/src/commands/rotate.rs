//! `ravelin rotate x509 | jwt`: the whole cycle of an authority. The CA drives it and goes on when this command leaves;
//! calling again joins the rotation that is under way.

use super::authority::{Kind, kind_text};
use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::progress::Progress;
use crate::output::{Format, escape_text, print_one, time_of_secs};
use clap::Args;
use ravelin_proto::pb::ravelin::v1::rotation_progress::Step;
use ravelin_proto::pb::ravelin::v1::{RotateRequest, RotationProgress, RotationStatusRequest};
use serde_json::{Value, json};

/// What to rotate, and how far.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin rotate x509 --wait --revoke-old   until nothing hangs on the old authority, then revoke it
  ravelin rotate jwt                        start, and come back later
  ravelin rotate x509 --status              how far it is
Ctrl-C leaves the rotation running; the same command shows it again.")]
pub(crate) struct RotateArguments {
    /// Kind of authority
    kind: Kind,
    /// Stay until the rotation is done
    #[arg(long)]
    wait: bool,
    /// Taint and revoke the old authority once no live SVID hangs on it
    #[arg(long)]
    revoke_old: bool,
    /// Only show how far the current rotation is
    #[arg(long, conflicts_with_all = ["wait", "revoke_old"])]
    status: bool,
}

/// Starts or joins a rotation.
pub(crate) async fn run(arguments: RotateArguments, shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    let kind = arguments.kind.message();
    if arguments.status {
        let request = RotationStatusRequest { kind: kind.into() };
        let progress = ca
            .rotation()
            .get_status(ask(request))
            .await
            .map_err(|status| Failure::status("show the rotation", &status))?
            .into_inner();
        return print_one(row(&progress), shared.output);
    }
    let request = RotateRequest {
        kind: kind.into(),
        revoke_old: arguments.revoke_old,
    };
    let mut stream = ca
        .rotation()
        .rotate(tonic::Request::new(request))
        .await
        .map_err(|status| Failure::status("rotate", &status))?
        .into_inner();
    let mut display = Progress::new();
    loop {
        let next = tokio::select! {
            next = stream.message() => next,
            _ = tokio::signal::ctrl_c() => {
                display.finish("still running");
                anstream::eprintln!("the CA goes on with the rotation; `ravelin rotate {} --wait` shows it again", kind_text(kind));
                return Ok(Exit::No);
            }
        };
        let progress = match next {
            Ok(Some(progress)) => progress,
            Ok(None) => {
                display.finish("unknown");
                return Err(Failure::unreachable(
                    "the CA ended the stream before the rotation was done",
                )
                .with_help("the rotation goes on; run the same command again to see it"));
            }
            Err(status) => {
                display.finish("unknown");
                return Err(Failure::status("rotate", &status).with_help(
                    "a rotation that was started goes on; run the same command again to see it",
                ));
            }
        };
        if let Some(outcome) = show(&mut display, &progress, arguments.wait, &shared) {
            return outcome;
        }
    }
}

/// Shows one report; `Some` when the command is done.
fn show(
    display: &mut Progress,
    progress: &RotationProgress,
    wait: bool,
    shared: &Shared,
) -> Option<Outcome> {
    match progress.step() {
        Step::Done => {
            display.finish("done");
            Some(finished(progress, shared))
        }
        Step::Failed => {
            display.finish("failed");
            Some(Err(Failure::no(format!(
                "the rotation failed: {}",
                escape_text(&progress.message)
            ))))
        }
        step @ (Step::Unspecified
        | Step::Prepare
        | Step::AwaitPrepared
        | Step::Activate
        | Step::Reissue
        | Step::Taint
        | Step::Revoke
        | Step::AwaitRevoked
        | Step::Idle) => {
            display.step(
                step_text(step),
                progress.done,
                progress.total,
                &note(progress),
            );
            if wait {
                return None;
            }
            display.finish("started");
            Some(print_one(row(progress), shared.output))
        }
    }
}

fn finished(progress: &RotationProgress, shared: &Shared) -> Outcome {
    if shared.output != Format::Table {
        return print_one(row(progress), shared.output);
    }
    say!("rotated {}", kind_text(progress.kind()))?;
    say!(
        "  old authority  {}",
        escape_text(&progress.old_authority_id)
    )?;
    say!(
        "  new authority  {}",
        escape_text(&progress.new_authority_id)
    )?;
    say!("  SVIDs of the old authority  {}", progress.old_svids)?;
    if !progress.message.is_empty() {
        say!("  {}", escape_text(&progress.message))?;
    }
    Ok(Exit::Yes)
}

fn note(progress: &RotationProgress) -> String {
    let mut parts = Vec::new();
    if progress.old_svids > 0 {
        parts.push(format!("{} SVIDs of the old authority", progress.old_svids));
    }
    if !progress.missing.is_empty() {
        let shown: Vec<String> = progress
            .missing
            .iter()
            .take(3)
            .map(|name| escape_text(name))
            .collect();
        let more = progress.missing.len().saturating_sub(shown.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        parts.push(format!("waiting for {}{more}", shown.join(", ")));
    }
    if !progress.message.is_empty() {
        parts.push(escape_text(&progress.message));
    }
    parts.join("; ")
}

fn step_text(step: Step) -> &'static str {
    match step {
        Step::Unspecified => "working",
        Step::Prepare => "prepare the new authority",
        Step::AwaitPrepared => "wait until everyone trusts it",
        Step::Activate => "activate it",
        Step::Reissue => "reissue SVIDs",
        Step::Taint => "taint the old authority",
        Step::Revoke => "revoke the old authority",
        Step::AwaitRevoked => "wait until nobody trusts the old one",
        Step::Done => "done",
        Step::Failed => "failed",
        Step::Idle => "no rotation",
    }
}

fn row(progress: &RotationProgress) -> Value {
    json!({
        "step": step_text(progress.step()),
        "kind": kind_text(progress.kind()),
        "old_authority_id": progress.old_authority_id,
        "new_authority_id": progress.new_authority_id,
        "done": progress.done,
        "total": progress.total,
        "missing": progress.missing,
        "old_svids": progress.old_svids,
        "message": progress.message,
        "started_at": time_of_secs(progress.started_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_names_whom_the_rotation_waits_for() {
        let progress = RotationProgress {
            old_svids: 2,
            missing: ["a", "b", "c", "d"].map(ToOwned::to_owned).to_vec(),
            ..RotationProgress::default()
        };
        assert_eq!(
            note(&progress),
            "2 SVIDs of the old authority; waiting for a, b, c and 1 more"
        );
    }
}
