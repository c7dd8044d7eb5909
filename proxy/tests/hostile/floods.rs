//! Floods of HTTP/2 frames by an authenticated peer (threat 54): memory stays within 64 MB, the connection ends, and the
//! calls of others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::client::TlsStream;

use crate::ground::{Ground, PATIENCE};
use crate::smuggling::canary;
use crate::wire::*;

/// What one attacker may make the proxy hold.
const MEMORY: u64 = 64 * 1024 * 1024;
/// Rounds of an attack that is to be ended.
const ROUNDS: u32 = 200_000;

/// How an attack is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The proxy cuts it.
    Cut,
    /// It holds what it may hold, until its own end.
    Held,
}

struct Attack {
    name: &'static str,
    /// Sent first.
    opening: Vec<u8>,
    /// Sent in round `n`, until the connection ends.
    round: fn(u32) -> Vec<u8>,
    /// Whether the attacker reads what comes.
    reads: bool,
    end: End,
}

/// The stream of a round.
fn stream(round: u32) -> u32 {
    round * 2 + 1
}

fn attack(name: &'static str, round: fn(u32) -> Vec<u8>) -> Attack {
    Attack {
        name,
        opening: Vec::new(),
        round,
        reads: true,
        end: End::Cut,
    }
}

/// A head with one more field.
fn head_with(stream: u32, flags: u8, path: &str, extra: &[u8]) -> Vec<u8> {
    let block = [&request("POST", path), extra].concat();
    frame(HEADERS, flags, stream, &block)
}

fn many(count: u32, frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(frames).collect()
}

fn attacks() -> Vec<Attack> {
    let with = |opening: Vec<u8>, attack: Attack| Attack { opening, ..attack };
    let held = |attack: Attack| Attack {
        end: End::Held,
        ..attack
    };
    let deaf = |attack: Attack| Attack {
        reads: false,
        ..attack
    };
    // An entry of 4,000 bytes in the dynamic table, named once with each octet.
    let mut entry = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    entry.resize(entry.len() + 4000, b'a');
    let bomb = [
        &request("GET", "/t"),
        &entry[..],
        &vec![0xbe; 16 * 1024 - 4200],
    ]
    .concat();
    vec![
        attack("rapid reset", |round| {
            [get(stream(round), "/hang"), reset(stream(round), CANCEL)].concat()
        }),
        attack("rapid reset in bursts", |round| {
            many(50, |at| {
                let stream = stream(round * 50 + at);
                [get(stream, "/hang"), reset(stream, CANCEL)].concat()
            })
        }),
        attack("rapid reset of uploads", |round| {
            [post(stream(round), "/hang"), reset(stream(round), CANCEL)].concat()
        }),
        attack("made to reset: WINDOW_UPDATE of 0", |round| {
            [get(stream(round), "/hang"), window_update(stream(round), 0)].concat()
        }),
        attack("made to reset: a window beyond the largest", |round| {
            [
                get(stream(round), "/hang"),
                window_update(stream(round), 0x7fff_ffff),
            ]
            .concat()
        }),
        attack("made to reset: DATA after the end", |round| {
            [
                get(stream(round), "/hang"),
                frame(DATA, 0, stream(round), b"x"),
            ]
            .concat()
        }),
        attack("made to reset: HEADERS after the end", |round| {
            [get(stream(round), "/hang"), get(stream(round), "/hang")].concat()
        }),
        attack("made to reset: PRIORITY of another length", |round| {
            [
                get(stream(round), "/hang"),
                frame(PRIORITY, 0, stream(round), b"xxx"),
            ]
            .concat()
        }),
        attack("made to reset: a stream that depends on itself", |round| {
            let on_itself = priority(stream(round), stream(round), 1);
            [get(stream(round), "/hang"), on_itself].concat()
        }),
        attack("made to reset: a length that is wrong", |round| {
            head_with(stream(round), WHOLE, "/hang", &field("content-length", "4"))
        }),
        attack("made to reset: a name in upper case", |round| {
            head_with(stream(round), WHOLE, "/hang", &field("X-A", "b"))
        }),
        attack("made to reset: trailers without end", |round| {
            let trailers = frame(HEADERS, END_HEADERS, stream(round), &field("x-a", "b"));
            [post(stream(round), "/hang"), trailers].concat()
        }),
        attack("made to refuse: calls that policy denies", |round| {
            [get(stream(round), "/secret"), reset(stream(round), CANCEL)].concat()
        }),
        with(
            frame(HEADERS, END_STREAM, 1, &request("GET", "/t")),
            attack("CONTINUATION without end", |_| {
                many(50, |_| {
                    frame(CONTINUATION, 0, 1, &field("x-a", "b".repeat(1000)))
                })
            }),
        ),
        with(
            frame(HEADERS, END_STREAM, 1, &request("GET", "/t")),
            attack("empty CONTINUATION", |_| {
                many(50, |_| frame(CONTINUATION, 0, 1, b""))
            }),
        ),
        held(with(
            frame(HEADERS, WHOLE, 1, &bomb),
            attack("an HPACK bomb", |_| Vec::new()),
        )),
        attack("SETTINGS", |_| many(50, |_| settings(&[(4, 1000)]))),
        attack("SETTINGS of many pairs", |_| {
            settings(&[(1, 0); 2000]).repeat(3)
        }),
        attack("SETTINGS that nobody acknowledges", |_| {
            frame(SETTINGS, ACK, 0, b"").repeat(50)
        }),
        attack("PING", |_| frame(PING, 0, 0, b"12345678").repeat(50)),
        held(deaf(attack("PING without reading", |_| {
            frame(PING, 0, 0, b"12345678").repeat(50)
        }))),
        with(
            post(1, "/hang"),
            attack("empty DATA", |_| frame(DATA, 0, 1, b"").repeat(50)),
        ),
        with(
            post(1, "/hang"),
            attack("empty padded DATA", |_| {
                frame(DATA, PADDED, 1, &[0]).repeat(50)
            }),
        ),
        with(
            post(1, "/hang"),
            attack("DATA of one byte", |_| frame(DATA, 0, 1, b"x").repeat(50)),
        ),
        attack("PRIORITY", |round| {
            many(50, |at| priority(stream(round * 50 + at), 0, 1))
        }),
        attack("WINDOW_UPDATE", |_| window_update(0, 1).repeat(50)),
        attack("frames of an unknown type", |_| {
            frame(99, 0, 0, b"").repeat(50)
        }),
        held(with(
            [
                settings(&[(4, 0)]),
                many(256, |at| get(stream(at), "/size/1000000")),
            ]
            .concat(),
            attack("a window of nothing", |_| Vec::new()),
        )),
        held(deaf(with(
            many(256, |at| get(stream(at), "/size/1000000")),
            attack("answers that nobody reads", |_| Vec::new()),
        ))),
        held(with(
            many(256, |at| {
                head_with(
                    stream(at),
                    END_HEADERS,
                    "/hang",
                    &field("x-a", "b".repeat(16_000)),
                )
            }),
            attack("heads of the largest size", |_| Vec::new()),
        )),
        held(with(
            many(100, |at| {
                [
                    post(stream(at), "/early"),
                    frame(DATA, 0, stream(at), &[b'x'; 16_384]),
                ]
                .concat()
            }),
            attack("uploads that nobody takes", |_| Vec::new()),
        )),
    ]
}

/// Sends the attack; true when the proxy ended it.
async fn run(attack: &Attack, connection: TlsStream<TcpStream>) -> bool {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let is_over = Arc::new(AtomicBool::new(false));
    let (reads, seen) = (attack.reads, Arc::clone(&is_over));
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        // An attacker that does not read waits for nothing here.
        while reads && matches!(reader.read(&mut buffer).await, Ok(count) if count > 0) {}
        seen.store(reads, Ordering::Relaxed);
        // Kept open while the attack goes on.
        reader
    });
    let mut opening = PREFACE.to_vec();
    opening.extend(settings(&[(4, 65_535)]));
    opening.extend_from_slice(&attack.opening);
    let sending = async {
        writer.write_all(&opening).await?;
        writer.flush().await?;
        for round in 0..ROUNDS {
            let bytes = (attack.round)(round);
            if bytes.is_empty() || is_over.load(Ordering::Relaxed) {
                break;
            }
            writer.write_all(&bytes).await?;
            writer.flush().await?;
        }
        std::io::Result::Ok(())
    };
    let patience = match attack.end {
        End::Cut => PATIENCE,
        End::Held => Duration::from_millis(500),
    };
    // What is held has no end to wait for: it is looked at while the others call.
    let is_cut = matches!(timeout(patience, sending).await, Ok(Err(_)));
    if attack.end == End::Held {
        let _ = timeout(patience, std::future::pending::<()>()).await;
    }
    let is_cut = is_cut || is_over.load(Ordering::Relaxed) || {
        let ended = timeout(patience, async { attack.reads && reading.await.is_ok() }).await;
        ended == Ok(true)
    };
    drop(writer);
    is_cut
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_no_flood_of_a_peer_takes_memory_or_the_calls_of_others() {
    let ground = Arc::new(Ground::start().await);
    let tls = ground.tls("rogue", &[b"h2"]);
    let only = std::env::var("RAVELIN_FLOOD").ok();
    assert_eq!(canary(&ground).await, None);
    let mut wrong = Vec::new();
    for attack in attacks() {
        if only
            .as_deref()
            .is_some_and(|only| !attack.name.contains(only))
        {
            continue;
        }
        let before = ground.inventory.resident();
        let (most, is_over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let others = tokio::spawn({
            let (ground, is_over) = (Arc::clone(&ground), Arc::clone(&is_over));
            async move {
                let (mut calls, mut slowest) = (0, Duration::ZERO);
                while !is_over.load(Ordering::Relaxed) || calls == 0 {
                    let started = Instant::now();
                    if let Some(what) = canary(&ground).await {
                        return Err(what);
                    }
                    slowest = slowest.max(started.elapsed());
                    calls += 1;
                }
                Ok((calls, slowest))
            }
        });
        let sampler = tokio::spawn({
            let (ground, most) = (Arc::clone(&ground), Arc::clone(&most));
            async move {
                let mut pause = interval(Duration::from_millis(5));
                loop {
                    pause.tick().await;
                    most.fetch_max(ground.inventory.resident(), Ordering::Relaxed);
                }
            }
        });
        let started = Instant::now();
        let is_cut = run(&attack, ground.dial(&tls).await).await;
        let took = started.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let calls = others.await.unwrap();
        sampler.abort();
        let grown = most.load(Ordering::Relaxed).saturating_sub(before);
        println!(
            "{:48} {:>6} kB, cut {is_cut} after {took:?}, calls of others {calls:?}",
            attack.name,
            grown / 1024
        );
        if attack.end == End::Cut && !is_cut {
            wrong.push(format!("{}: goes on", attack.name));
        }
        if grown > MEMORY {
            wrong.push(format!("{}: {grown} bytes", attack.name));
        }
        if let Err(what) = calls {
            wrong.push(format!("{}: {what}", attack.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_under_memory_pressure_new_work_is_refused_and_what_runs_goes_on() {
    // Far above what a proxy needs, and within what one peer with many connections can make it hold.
    let mut ground = Ground::start_with("memory_max_mib = 96").await;
    let rogue = ground.tls("rogue", &[b"h2"]);
    let orders = ground.tls("orders", &[b"h2"]);
    let mut running = Wire::open(ground.dial(&orders).await).await;
    running.send(&post(1, "/upload")).await;
    running.send(&frame(DATA, 0, 1, b"before ")).await;
    let mut held = Vec::new();
    let head = |at| {
        head_with(
            stream(at),
            END_HEADERS,
            "/hang",
            &field("x-a", "b".repeat(16_000)),
        )
    };
    let shed = timeout(PATIENCE, async {
        for round in 0.. {
            if held.len() < 40 {
                // Once memory is short a new peer is refused, and so is the next call below.
                if let Ok(stream) = ground.try_dial(&rogue).await {
                    let mut wire = Wire::open(stream).await;
                    wire.send(&many(256, head)).await;
                    held.push(wire);
                }
            }
            let number = round * 2 + 3;
            running.send(&get(number, "/t")).await;
            let ended = |frame: &Frame| frame.stream == number && frame.flags & END_STREAM != 0;
            assert!(matches!(
                running.until(PATIENCE, ended).await,
                Some(Some(_))
            ));
            match running.status(number) {
                Some(200) => {}
                status => return status,
            }
        }
        None
    });
    assert_eq!(
        shed.await,
        Ok(Some(503)),
        "{} kB",
        ground.inventory.resident() / 1024
    );
    running.send(&frame(DATA, END_STREAM, 1, b"after")).await;
    let ended =
        |frame: &Frame| frame.stream == 1 && frame.kind == DATA && frame.flags & END_STREAM != 0;
    assert!(matches!(
        running.until(PATIENCE, ended).await,
        Some(Some(_))
    ));
    assert!(
        running.body(1).contains("POST /upload|before after"),
        "{}",
        running.body(1)
    );
    drop(held);
    let recovered = timeout(PATIENCE, async { while canary(&ground).await.is_some() {} });
    recovered.await.expect("new work is taken again");
    ground.assert_alive();
}
