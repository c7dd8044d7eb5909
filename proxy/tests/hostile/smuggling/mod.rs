//! Messages that two readers could take for different ones (threats 51 to 54). The judge is the recorder behind the
//! proxies: the requests that it saw are the requests that were meant, and each answer went to the one who asked.

mod chunks;
mod downgrade;
mod heads;
mod lengths;
mod responses;
mod targets;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::ground::{Ground, PATIENCE};
use crate::wire::Carrier;

/// Name, bytes, and the requests that the application has to see. `@@` stands for the `Host` field.
///
/// A request for `/end` follows the bytes and closes, unless the name begins with `cut`: then the connection is cut, and
/// with `cut or whole` the application may have seen nothing.
/// Rows that begin with `peer` are for inventory's listener alone.
pub type Row = (&'static str, &'static [u8], &'static [&'static str]);

/// The request that follows each row.
const END: &[u8] = b"GET /end HTTP/1.1\r\n@@\r\nconnection: close\r\n\r\n";
/// Refused, and nothing after it is read.
pub const NONE: &[&str] = &[];

fn bytes_of(row: &Row) -> Vec<u8> {
    let mut bytes = row.1.to_vec();
    if !row.0.starts_with("cut") {
        bytes.extend_from_slice(END);
    }
    let mut out = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some(at) = rest.windows(2).position(|pair| pair == b"@@") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"host: inventory.shop");
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    out
}

/// Writes, reads to the end, and returns which requests were answered, as the echo tells.
pub async fn converse(mut stream: impl Carrier, bytes: &[u8], is_cut: bool) -> Option<Vec<String>> {
    let mut answer = Vec::new();
    let talked = async {
        // A side that refuses early may close before all is written.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        if is_cut {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut answer).await;
    };
    timeout(PATIENCE, talked).await.ok()?;
    Some(echoes(&answer))
}

fn echoes(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    text.split("seen: ")
        .skip(1)
        .map(|echo| {
            echo.split_once('\n')
                .map_or(echo, |(line, _)| line)
                .to_owned()
        })
        .collect()
}

/// One table, through inventory's listener and through both proxies.
async fn run(rows: &[Row]) {
    let mut ground = Ground::start().await;
    let tls = ground.tls("orders", &[b"http/1.1"]);
    let mut wrong = Vec::new();
    for is_inbound in [true, false] {
        for row in rows {
            if row.0.starts_with("peer") && !is_inbound {
                continue;
            }
            ground.recorder.clear();
            let (bytes, is_cut) = (bytes_of(row), row.0.starts_with("cut"));
            let answered = if is_inbound {
                converse(ground.dial(&tls).await, &bytes, is_cut).await
            } else {
                converse(ground.dial_application().await, &bytes, is_cut).await
            };
            let seen = ground.recorder.lines();
            let flow = if is_inbound { "inbound" } else { "both" };
            match answered {
                None => wrong.push(format!("{flow} {}: stays open; seen {seen:?}", row.0)),
                Some(_) if seen.is_empty() && row.0.starts_with("cut or whole") => {}
                Some(answered) if seen != row.2 || (answered != seen && !is_cut) => {
                    wrong.push(format!(
                        "{flow} {}: want {:?}, seen {seen:?}, answered {answered:?}",
                        row.0, row.2
                    ))
                }
                Some(_) => {}
            }
            if let Some(what) = canary(&ground).await {
                wrong.push(format!("{flow} {}: then {what}", row.0));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(ground.recorder.faults(), [""; 0]);
    ground.assert_alive();
}

/// Another caller's answer is its own.
pub async fn canary(ground: &Ground) -> Option<String> {
    let bytes = bytes_of(&(
        "cut",
        b"GET /canary HTTP/1.1\r\n@@\r\nconnection: close\r\n\r\n",
        NONE,
    ));
    let answered = converse(ground.dial_application().await, &bytes, false).await;
    match answered {
        Some(answered) if answered == ["GET /canary|"] => None,
        other => Some(format!("a caller got {other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_no_disguise_of_a_length_smuggles_a_request() {
    run(lengths::ROWS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_no_malformed_head_smuggles_a_request() {
    run(heads::ROWS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_no_chunk_trick_smuggles_a_request() {
    run(chunks::ROWS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_51_52_53_no_target_host_or_method_is_read_in_two_ways() {
    run(targets::ROWS).await;
}
