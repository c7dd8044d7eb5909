//! The 147 cases of the public HTTP/2 conformance list, by its section numbers, against both listeners. Each case is
//! frames to send and what RFC 9113 or RFC 7541 wants in return; deviations are listed by name and must stay true.

mod frames;
mod generic;
mod hpack;
mod messages;
mod streams;

use crate::ground::{Ground, PATIENCE};
use crate::wire::*;

/// One step of a case.
pub enum Step {
    /// Bytes to send.
    Send(Vec<u8>),
    /// Wait until the answer on this stream has ended.
    Answered(u32),
    /// Wait for a DATA frame of this length.
    Flowed(usize),
}

pub use Step::{Answered, Flowed, Send};

/// What has to come of it.
#[derive(Debug)]
pub enum Want {
    /// A whole answer with status 200 on this stream, and no error.
    Answer(u32),
    /// An answer whose body contains this.
    Echo(u32, &'static str),
    /// GOAWAY with one of these codes, then the end of the connection.
    Connection(&'static [u32]),
    /// RST_STREAM with one of these codes on the stream, or an error of the whole connection with it.
    Stream(u32, &'static [u32]),
    /// The end of the connection, with or without a word.
    Closed,
    /// DATA frames of these lengths, one after the other.
    Data(&'static [usize]),
    /// An acknowledgement of SETTINGS.
    SettingsAck,
    /// A PING with this content comes back.
    Pong([u8; 8]),
    /// A call is refused with 400, or the stream is reset with PROTOCOL_ERROR: nothing reaches the application.
    Malformed(u32),
    /// Nothing: the connection goes on.
    Ignored,
}

pub struct Case {
    /// Section and number in the public list.
    pub id: &'static str,
    pub what: &'static str,
    /// The preface and SETTINGS are sent first.
    pub is_opened: bool,
    pub steps: Vec<Step>,
    pub want: Want,
}

pub fn case(id: &'static str, what: &'static str, steps: Vec<Step>, want: Want) -> Case {
    Case {
        id,
        what,
        is_opened: true,
        steps,
        want,
    }
}

/// The end of one case: what was seen, where it is not what was wanted.
async fn judge(mut wire: Wire, case: &Case) -> Result<(), String> {
    for step in &case.steps {
        match step {
            Send(bytes) => wire.send(bytes).await,
            Answered(stream) => {
                let ended = |frame: &Frame| {
                    frame.stream == *stream
                        && frame.kind <= HEADERS
                        && frame.flags & END_STREAM != 0
                };
                wire.until(PATIENCE, ended).await;
            }
            Flowed(length) => {
                let data = wire.until(PATIENCE, |frame| frame.kind == DATA).await;
                let got = data.flatten().map(|data| data.payload.len());
                if got != Some(*length) {
                    return Err(format!("{} {}: {got:?} bytes flowed", case.id, case.what));
                }
            }
        }
    }
    let is_met = settle(&mut wire, &case.want).await;
    let deviation = DEVIATIONS
        .iter()
        .find(|deviation| deviation.ids.contains(&case.id));
    match deviation {
        None if is_met => return Ok(()),
        Some(_) if is_met => return Err(format!("{} is no deviation any more", case.id)),
        Some(deviation) if (deviation.is_so)(&wire) => return Ok(()),
        None | Some(_) => {}
    }
    let seen: Vec<String> = wire
        .frames
        .iter()
        .map(|frame| match frame.kind {
            GOAWAY | RST_STREAM => format!("{}:{} code {}", frame.kind, frame.stream, frame.code()),
            HEADERS => format!("1:{} status {:?}", frame.stream, wire.status(frame.stream)),
            kind => format!("{kind}:{} {} bytes", frame.stream, frame.payload.len()),
        })
        .collect();
    Err(format!(
        "{} {}: want {:?}, got {seen:?}, closed {}",
        case.id, case.what, case.want, wire.is_closed
    ))
}

async fn settle(wire: &mut Wire, want: &Want) -> bool {
    let is_error = |frame: &Frame| matches!(frame.kind, GOAWAY | RST_STREAM);
    let ends = |stream: u32| {
        move |frame: &Frame| {
            is_error(frame)
                || (frame.stream == stream
                    && frame.kind <= HEADERS
                    && frame.flags & END_STREAM != 0)
        }
    };
    match want {
        Want::Answer(stream) | Want::Echo(stream, _) => {
            let is_done = wire.status(*stream).is_some() && {
                let mut frames = wire.frames.iter();
                frames.any(|frame| ends(*stream)(frame))
            };
            if !is_done {
                wire.until(PATIENCE, ends(*stream)).await;
            }
            let has_text = match want {
                Want::Echo(stream, text) => wire.body(*stream).contains(text),
                _ => true,
            };
            wire.status(*stream) == Some(200) && has_text && !wire.frames.iter().any(is_error)
        }
        Want::Connection(codes) => {
            let is_ended = wire.until(PATIENCE, |_| false).await.is_some();
            is_ended && has(wire, GOAWAY, 0, codes)
        }
        Want::Stream(stream, codes) => {
            wire.until(PATIENCE, |frame| {
                frame.kind == GOAWAY || (frame.kind == RST_STREAM && frame.stream == *stream)
            })
            .await;
            has(wire, RST_STREAM, *stream, codes) || has(wire, GOAWAY, 0, codes)
        }
        Want::Closed => wire.until(PATIENCE, |_| false).await.is_some(),
        Want::Data(lengths) => {
            for length in *lengths {
                let found = wire.until(PATIENCE, |frame| frame.kind == DATA).await;
                let Some(Some(data)) = found else {
                    return false;
                };
                if data.payload.len() != *length {
                    return false;
                }
                // The next window: one byte more.
                wire.send(&window_update(1, 1)).await;
            }
            true
        }
        Want::SettingsAck => {
            let is_ack = |frame: &Frame| frame.kind == SETTINGS && frame.flags & ACK != 0;
            wire.frames.iter().any(is_ack)
                || matches!(wire.until(PATIENCE, is_ack).await, Some(Some(_)))
        }
        Want::Pong(content) => {
            let is_pong = |frame: &Frame| {
                frame.kind == PING && frame.flags & ACK != 0 && frame.payload == content
            };
            matches!(wire.until(PATIENCE, is_pong).await, Some(Some(_)))
        }
        Want::Malformed(stream) => {
            wire.until(PATIENCE, ends(*stream)).await;
            let is_refused = wire.status(*stream).is_some_and(|status| status == 400);
            is_refused
                || has(wire, RST_STREAM, *stream, &[PROTOCOL])
                || has(wire, GOAWAY, 0, &[PROTOCOL])
        }
        Want::Ignored => {
            wire.send(&frame(PING, 0, 0, b"goes on?")).await;
            let is_pong = |frame: &Frame| {
                frame.kind == GOAWAY || (frame.kind == PING && frame.payload == b"goes on?")
            };
            let found = wire.until(PATIENCE, is_pong).await;
            matches!(found, Some(Some(frame)) if frame.kind == PING)
        }
    }
}

fn has(wire: &Wire, kind: u8, stream: u32, codes: &[u32]) -> bool {
    wire.frames
        .iter()
        .any(|frame| frame.kind == kind && frame.stream == stream && codes.contains(&frame.code()))
}

/// Where the codec in use differs from the letter of the standard. The public list itself is content with these.
struct Deviation {
    ids: &'static [&'static str],
    /// What happens instead. A case that passes after all is a fault of this table.
    is_so: fn(&Wire) -> bool,
    /// Why it is so, and why that opens nothing.
    #[allow(dead_code, reason = "for the reader")]
    reason: &'static str,
}

const DEVIATIONS: &[Deviation] = &[
    Deviation {
        ids: &[
            "hpack/2.3.3/1",
            "hpack/2.3.3/2",
            "hpack/4.2/1",
            "hpack/5.2/1",
            "hpack/5.2/2",
            "hpack/5.2/3",
            "hpack/6.1/1",
            "hpack/6.3/1",
            "http2/5.4.1/2",
            "http2/6.3/2",
            "http2/6.4/3",
            "http2/6.5/1",
            "http2/6.5/3",
            "http2/6.5.2/2",
            "http2/6.7/4",
            "http2/6.9/3",
            "http2/6.9.2/3",
            "http2/5.1/5",
            "http2/5.1/6",
            "http2/5.1/9",
            "http2/5.1/12",
        ],
        is_so: |wire| has(wire, GOAWAY, 0, &[PROTOCOL]),
        reason: "the decoder has one answer to every frame that it cannot read, and a frame on a stream that the peer \
                 closed counts as one: GOAWAY with PROTOCOL_ERROR. The connection ends as it must; the code is coarser \
                 and the scope wider, to the cost of the one who broke the rule.",
    },
    Deviation {
        ids: &["http2/8.1.2.1/3"],
        is_so: |wire| wire.body(1).contains("POST /m|test\n"),
        reason: "a pseudo header field among trailers is dropped by the decoder instead of refused: it reaches neither \
                 policy nor application, as the recorder shows.",
    },
];

fn cases() -> Vec<Case> {
    let mut cases = generic::cases();
    cases.extend(streams::cases());
    cases.extend(frames::cases());
    cases.extend(messages::cases());
    cases.extend(hpack::cases());
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_the_public_http2_conformance_list_holds_on_both_listeners() {
    let mut ground = Ground::start().await;
    assert_eq!(cases().len(), 147);
    let mut wrong = Vec::new();
    let tls = ground.tls("orders", &[b"h2"]);
    for is_inbound in [true, false] {
        let mut running = tokio::task::JoinSet::new();
        for case in cases() {
            let opens = async {
                if is_inbound {
                    let stream = ground.dial(&tls).await;
                    open(stream, case.is_opened).await
                } else {
                    open(ground.dial_application().await, case.is_opened).await
                }
            };
            let wire = opens.await;
            running.spawn(async move { judge(wire, &case).await });
        }
        while let Some(judged) = running.join_next().await {
            if let Err(what) = judged.unwrap() {
                wrong.push(format!("inbound {is_inbound}: {what}"));
            }
        }
    }
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(ground.recorder.faults(), [""; 0]);
    ground.assert_alive();
}

async fn open(stream: impl Carrier + 'static, is_opened: bool) -> Wire {
    if is_opened {
        Wire::open(stream).await
    } else {
        Wire::raw(stream)
    }
}
