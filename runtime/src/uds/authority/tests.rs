//! The rewriter against hand-made frames, in one piece and split at every byte.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags, 0, 0, 0, 1]);
    out.extend(payload);
    out
}

fn literal(prefix: &[u8], value: &[u8], is_huffman: bool) -> Vec<u8> {
    let bytes = if is_huffman {
        huffman::encode(value)
    } else {
        value.to_vec()
    };
    let mut out = prefix.to_vec();
    out.push(u8::try_from(bytes.len()).expect("short") | u8::from(is_huffman) << 7);
    out.extend(bytes);
    out
}

fn c_core_name() -> Vec<u8> {
    [&[0x40, 10][..], b":authority"].concat()
}

fn run(pieces: &[&[u8]]) -> Vec<u8> {
    let mut rewriter = AuthorityRewriter::default();
    let mut out = BytesMut::new();
    for piece in pieces {
        rewriter.push(piece, &mut out);
    }
    rewriter.finish(&mut out);
    out.to_vec()
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frames.concat()[..]].concat()
}

#[test]
fn a_sockets_path_becomes_an_authority_of_equal_length() {
    for (value, want) in [
        ("%2Ftmp%2Fagent.sock", "-2Ftmp-2Fagent.sock"),
        ("/run/ravelin/agent.sock", "-run-ravelin-agent.sock"),
        ("tmp%2Fagent.sock", "tmp-2Fagent.sock"),
        ("tmp/agent.sock", "tmp-agent.sock"),
        ("localhost", "localhost"),
        ("localhost:8081", "localhost:8081"),
        ("[::1]:443", "[::1]:443"),
        ("", ""),
    ] {
        for prefix in [vec![0x41], vec![0x01], vec![0x11], c_core_name()] {
            for is_huffman in [false, true] {
                let make = |value: &str| {
                    let block = literal(&prefix, value.as_bytes(), is_huffman);
                    connection(&[
                        frame(4, 0, &[]),
                        frame(HEADERS, END_HEADERS, &[&[0x83, 0x86][..], &block].concat()),
                        frame(0, 1, b"data"),
                    ])
                };
                assert_eq!(
                    run(&[&make(value)]),
                    make(want),
                    "{value} {prefix:?} {is_huffman}"
                );
            }
        }
    }
}

#[test]
fn odd_bytes_of_a_path_are_replaced_too() {
    for value in [
        "/tmp/a b:c=d",
        "/tmp/x@y?z",
        "/tmp/(1)'+|~",
        "/tmp/a,b;c&d*e",
    ] {
        for is_huffman in [false, true] {
            let got = replacement(value.as_bytes(), is_huffman).expect(value);
            assert!(Authority::try_from(got.as_slice()).is_ok(), "{value}");
            assert_eq!(got.len(), value.len());
            if is_huffman {
                assert_eq!(
                    huffman::encode(&got).len(),
                    huffman::encode(value.as_bytes()).len()
                );
            }
        }
    }
    assert_eq!(
        replacement(b"/tmp/\\", true),
        None,
        "no code is as long: left to h2"
    );
}

#[test]
fn a_path_elsewhere_than_in_authority_is_left_alone() {
    let whole = connection(&[frame(
        HEADERS,
        END_HEADERS,
        &[
            literal(&[0x44], b"/orders", false),
            literal(&[0x0f, 0x17], b"/x%2F", true),
        ]
        .concat(),
    )]);
    assert_eq!(run(&[&whole]), whole);
}

#[test]
fn padding_priority_and_continuation_are_understood() {
    let block = |value: &[u8]| literal(&c_core_name(), value, false);
    let make = |value: &[u8]| {
        let block = block(value);
        let (head, tail) = block.split_at(15);
        let (middle, tail) = tail.split_at(1);
        let padded = [&[3, 0, 0, 0, 0, 9][..], head, &[0, 0, 0]].concat();
        connection(&[
            frame(HEADERS, PADDED | PRIORITY, &padded),
            frame(CONTINUATION, 0, middle),
            frame(CONTINUATION, 0, &[]),
            frame(CONTINUATION, END_HEADERS, tail),
            frame(HEADERS, END_HEADERS, &[0xbe]),
        ])
    };
    assert_eq!(run(&[&make(b"/tmp/agent.sock")]), make(b"-tmp-agent.sock"));
}

#[test]
fn what_is_not_understood_passes_unchanged() {
    for (name, bytes) in [
        (
            "HTTP/1.1",
            b"GET /%2F HTTP/1.1\r\nhost: %2Ftmp\r\n\r\n".to_vec(),
        ),
        ("half a preface", PREFACE[..10].to_vec()),
        ("half a frame header", connection(&[vec![0, 0, 9, 1]])),
        (
            "half a block",
            connection(&[frame(HEADERS, END_HEADERS, &[0x41, 4, b'/'])]),
        ),
        (
            "continuation alone",
            connection(&[frame(CONTINUATION, END_HEADERS, b"abc")]),
        ),
        (
            "data inside a block",
            connection(&[
                frame(HEADERS, 0, &[0x82]),
                frame(0, 0, b"x"),
                frame(HEADERS, 4, b""),
            ]),
        ),
        (
            "too much padding",
            connection(&[frame(HEADERS, PADDED | END_HEADERS, &[9, 0])]),
        ),
        (
            "no room for priority",
            connection(&[frame(HEADERS, PRIORITY | END_HEADERS, &[0])]),
        ),
        (
            "a block past the limit",
            connection(&[
                frame(HEADERS, 0, &vec![0x82; 60_000]),
                frame(CONTINUATION, 0, &vec![0x82; 60_000]),
            ]),
        ),
    ] {
        assert_eq!(run(&[&bytes]), bytes, "{name}");
    }
}

#[test]
fn reads_may_be_split_anywhere() {
    let make = |value: &[u8]| {
        connection(&[
            frame(4, 0, &[0, 3, 0, 0, 0, 100]),
            frame(HEADERS, 0, &literal(&c_core_name(), value, true)[..14]),
            frame(
                CONTINUATION,
                END_HEADERS,
                &literal(&c_core_name(), value, true)[14..],
            ),
            frame(0, 1, b"some data that passes"),
        ])
    };
    let (whole, want) = (make(b"%2Ftmp%2Fa.sock"), make(b"-2Ftmp-2Fa.sock"));
    for at in 0..whole.len() {
        assert_eq!(run(&[&whole[..at], &whole[at..]]), want, "split at {at}");
    }
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(run(&bytes), want, "byte by byte");
}

proptest! {
    #[test]
    fn no_input_loses_bytes_or_depends_on_how_it_is_split(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kinds in prop::collection::vec(0_u8..10, 0..6),
        at in any::<prop::sample::Index>(),
    ) {
        let frames: Vec<Vec<u8>> =
            kinds.iter().map(|kind| frame(*kind, END_HEADERS, &bytes)).collect();
        let whole = connection(&[frames.concat(), bytes]);
        let got = run(&[&whole]);
        prop_assert_eq!(got.len(), whole.len());
        let at = at.index(whole.len());
        prop_assert_eq!(run(&[&whole[..at], &whole[at..]]), got);
    }
}
