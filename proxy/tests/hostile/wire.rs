//! HTTP/2 by hand: frames and header blocks as bytes, written and read without any of the rules of a client.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;
/// A whole request without body.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL: u32 = 1;
pub const FLOW_CONTROL: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE: u32 = 6;
pub const REFUSED: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION: u32 = 9;
pub const CALM: u32 = 11;

/// Anything that carries bytes.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of GOAWAY or RST_STREAM.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        number(&self.payload[at..at + 4])
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in pairs {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// Dependency and weight of a stream.
pub fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    let mut payload = on.to_be_bytes().to_vec();
    payload.push(weight);
    frame(PRIORITY, 0, stream, &payload)
}

pub fn goaway(stream: u32, code: u32) -> Vec<u8> {
    let mut payload = 0_u32.to_be_bytes().to_vec();
    payload.extend_from_slice(&code.to_be_bytes());
    frame(GOAWAY, 0, stream, &payload)
}

/// A string literal without Huffman code (RFC 7541 section 5.2).
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if bytes.len() < 127 {
        out.push(bytes.len() as u8);
    } else {
        out.push(127);
        let mut rest = bytes.len() - 127;
        while rest >= 128 {
            out.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(bytes);
    out
}

/// A field as a literal without indexing, its name included.
pub fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(string(name.as_ref()));
    out.extend(string(value.as_ref()));
    out
}

/// Fields one after the other.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// The four pseudo header fields of a request to the application.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[
        (":method", method),
        (":scheme", "https"),
        (":authority", "inventory.shop"),
        (":path", path),
    ])
}

/// A GET of `path` on `stream`.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &request("GET", path))
}

/// The head of a POST whose body is to follow.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", path))
}

/// One connection.
pub struct Wire {
    stream: Box<dyn Carrier>,
    buffer: Vec<u8>,
    /// Everything that came, in its order.
    pub frames: Vec<Frame>,
    pub is_closed: bool,
}

impl Wire {
    pub fn raw(stream: impl Carrier + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
            frames: Vec::new(),
            is_closed: false,
        }
    }

    /// Sends the preface, and SETTINGS that keep the peer's header blocks without dynamic table.
    pub async fn open(stream: impl Carrier + 'static) -> Self {
        let mut wire = Self::raw(stream);
        let mut opening = PREFACE.to_vec();
        opening.extend(settings(&[(1, 0)]));
        wire.send(&opening).await;
        wire
    }

    /// Writes; a peer that closed already is found out by reading.
    pub async fn send(&mut self, bytes: &[u8]) {
        if self.try_send(bytes).await.is_err() {
            self.is_closed = true;
        }
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads one more frame; none at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if self.buffer.len() >= 9 {
                let length = number(&[0, self.buffer[0], self.buffer[1], self.buffer[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    let rest = self.buffer.split_off(9 + length);
                    let bytes = std::mem::replace(&mut self.buffer, rest);
                    let frame = Frame {
                        kind: bytes[3],
                        flags: bytes[4],
                        stream: number(&bytes[5..9]) & 0x7fff_ffff,
                        payload: bytes[9..].to_vec(),
                    };
                    self.frames.push(frame.clone());
                    return Some(frame);
                }
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(count) if count > 0 => {}
                _ => {
                    self.is_closed = true;
                    return None;
                }
            }
        }
    }

    /// Reads until a frame `is_wanted`, or to the end; none when neither comes within `patience`.
    pub async fn until(
        &mut self,
        patience: Duration,
        is_wanted: impl Fn(&Frame) -> bool,
    ) -> Option<Option<Frame>> {
        let found = async {
            while let Some(frame) = self.next().await {
                if is_wanted(&frame) {
                    return Some(frame);
                }
            }
            None
        };
        timeout(patience, found).await.ok()
    }

    /// Status of the first answer on `stream` among what came.
    pub fn status(&self, stream: u32) -> Option<u16> {
        let head = self
            .frames
            .iter()
            .find(|frame| frame.kind == HEADERS && frame.stream == stream)?;
        status(&head.payload)
    }

    /// The body on `stream` as far as it came.
    pub fn body(&self, stream: u32) -> String {
        let data = self
            .frames
            .iter()
            .filter(|frame| frame.kind == DATA && frame.stream == stream);
        let bytes: Vec<u8> = data.flat_map(|frame| frame.payload.clone()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `:status` of a header block that begins with it and has no dynamic table behind it.
fn status(block: &[u8]) -> Option<u16> {
    let mut block = block;
    while block.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
        block = &block[1..];
    }
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    let first = *block.first()?;
    if first & 0x80 != 0 {
        return indexed
            .get(usize::from(first & 0x7f).checked_sub(8)?)
            .copied();
    }
    let length = *block.get(1)?;
    let digits = block.get(2..2 + usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(digits).ok()?.parse().ok();
    }
    // The digits of RFC 7541 appendix B: five bits for 0 to 2, six for the others.
    let bits: String = digits.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let short = u16::from_str_radix(bits.get(at..at + 5)?, 2).ok()?;
        if short < 3 {
            (value, at) = (value * 10 + short, at + 5);
        } else {
            let long = u16::from_str_radix(bits.get(at..at + 6)?, 2).ok()?;
            (value, at) = (value * 10 + long.checked_sub(22)?, at + 6);
        }
    }
    Some(value)
}
