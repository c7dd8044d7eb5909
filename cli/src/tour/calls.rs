//! Has a service of the shop make one call.

use super::steps::{Action, Step, Token};
use super::{Actual, service, strangers};
use crate::demo::{CallOrder, CallReport};
use crate::exit::Failure;
use crate::http_call::{self, HttpCall};
use crate::up::RunningMesh;

/// Makes the call of a step. `expired` is the token for a step that wants one.
pub(super) async fn make(
    running: &RunningMesh,
    step: &Step,
    expired: Option<String>,
) -> Result<Actual, Failure> {
    let to = service(running.plan(), step.to)?;
    match step.action {
        Action::PlainText => Ok(strangers::plain_text(to.inbound).await),
        Action::ForeignCertificate => strangers::foreign_certificate(running, to.inbound).await,
        Action::Call {
            from,
            method,
            target,
            token,
        } => {
            let order = CallOrder {
                host: format!("{}.shop", step.to),
                method: method.to_owned(),
                target: target.to_owned(),
                request_id: uuid::Uuid::now_v7().to_string(),
                audience: match token {
                    Token::Audience(audience) => Some(audience.to_owned()),
                    Token::None | Token::Expired => None,
                },
                token: expired,
            };
            Ok(through(service(running.plan(), from)?.app, order).await)
        }
    }
}

async fn through(app: std::net::SocketAddr, order: CallOrder) -> Actual {
    let request_id = order.request_id.clone();
    let call = HttpCall {
        method: "POST".to_owned(),
        host: app.to_string(),
        target: "/call".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: serde_json::to_vec(&order).unwrap_or_default(),
    };
    let report = match http_call::send(app, call).await {
        Ok(answer) => {
            serde_json::from_slice::<CallReport>(&answer.body).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match report {
        Ok(report) if report.error.is_empty() => Actual {
            status: report.status,
            seen: report.code,
            request_id: if report.request_id.is_empty() {
                request_id
            } else {
                report.request_id
            },
            ..Actual::default()
        },
        Ok(report) => broken(report.error),
        Err(error) => broken(error),
    }
}

/// The call did not come about at all.
pub(super) fn broken(error: String) -> Actual {
    Actual {
        seen: error,
        is_broken: true,
        ..Actual::default()
    }
}
