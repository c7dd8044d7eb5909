//! Makes gRPC's C core (Python, C++, Ruby) and grpc-java understood over a Unix socket: they send the socket's path,
//! percent-encoded or absolute, as `:authority`, which h2 refuses. The value is overwritten in the HEADERS frame by one of
//! equal length, on the wire and decoded, so that frames and HPACK tables stay as they are. Nobody reads the value
//! here. All that is not understood passes through unchanged. Sans-IO: called by `stream`.

use std::ops::Range;

use bytes::{BufMut as _, BytesMut};
use http::uri::Authority;

use super::hpack::{HeaderTable, Literal, Malformed};
use super::huffman;
use crate::limits::INSPECTED_HEADER_BYTES_MAX;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Preface,
    Frames,
    PassThrough,
}

/// One direction of one connection: bytes in, bytes out.
#[derive(Debug, Default)]
pub(super) struct AuthorityRewriter {
    mode: Mode,
    /// Read, but not released yet: less than a frame header, or a header block that is not complete.
    held: BytesMut,
    /// Bytes of the present frame that pass as they come.
    skip: usize,
    /// Where in `held` the parts of the header block lie that is being gathered.
    fragments: Vec<Range<usize>>,
    /// Where in `held` the next frame of that header block begins.
    next_frame: usize,
    table: HeaderTable,
}

struct FrameHeader {
    bytes: usize,
    kind: u8,
    flags: u8,
}

impl AuthorityRewriter {
    /// Takes what was read and appends what may be passed on.
    pub(super) fn push(&mut self, input: &[u8], out: &mut BytesMut) {
        let (passing, rest) = match self.mode {
            Mode::PassThrough => (input, &[][..]),
            Mode::Preface | Mode::Frames => {
                input.split_at_checked(self.skip).unwrap_or((input, &[]))
            }
        };
        out.put_slice(passing);
        self.skip = self.skip.saturating_sub(passing.len());
        self.held.put_slice(rest);
        while !self.held.is_empty() && self.advance(out) {}
    }

    /// The peer has closed: what is still held is passed on as it is.
    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        out.unsplit(self.held.split());
        self.mode = Mode::PassThrough;
    }

    /// One step; `false` if more has to be read first.
    fn advance(&mut self, out: &mut BytesMut) -> bool {
        match self.mode {
            Mode::PassThrough => {
                self.finish(out);
                false
            }
            Mode::Preface => {
                let seen = self.held.len().min(PREFACE.len());
                if self.held.get(..seen) != PREFACE.get(..seen) {
                    self.finish(out);
                    return false;
                }
                if seen < PREFACE.len() {
                    return false;
                }
                out.unsplit(self.held.split_to(PREFACE.len()));
                self.mode = Mode::Frames;
                true
            }
            Mode::Frames => self.frame(out).unwrap_or_else(|Malformed| {
                self.finish(out);
                false
            }),
        }
    }

    fn frame(&mut self, out: &mut BytesMut) -> Result<bool, Malformed> {
        let Some(header) = self.held.get(self.next_frame..).and_then(read_frame_header) else {
            return Ok(false);
        };
        let is_in_block = self.next_frame > 0;
        match (is_in_block, header.kind) {
            (false, HEADERS) | (true, CONTINUATION) => {}
            (true, _) => return Err(Malformed),
            (false, _) => {
                let whole = FRAME_HEADER_BYTES + header.bytes;
                let now = whole.min(self.held.len());
                out.unsplit(self.held.split_to(now));
                self.skip = whole - now;
                return Ok(true);
            }
        }
        let start = self.next_frame + FRAME_HEADER_BYTES;
        let end = start + header.bytes;
        if end > INSPECTED_HEADER_BYTES_MAX {
            return Err(Malformed);
        }
        let Some(payload) = self.held.get(start..end) else {
            return Ok(false);
        };
        let inner = if is_in_block {
            0..payload.len()
        } else {
            fragment_of(payload, header.flags)?
        };
        self.fragments.push(start + inner.start..start + inner.end);
        self.next_frame = end;
        if header.flags & END_HEADERS != 0 {
            self.rewrite_block()?;
            out.unsplit(self.held.split_to(end));
            self.next_frame = 0;
        }
        Ok(true)
    }

    fn rewrite_block(&mut self) -> Result<(), Malformed> {
        let fragments = std::mem::take(&mut self.fragments);
        let mut block: Vec<u8> = fragments
            .iter()
            .filter_map(|at| self.held.get(at.clone()))
            .flatten()
            .copied()
            .collect();
        let found = self.table.read_block(&block)?;
        let mut is_changed = false;
        for literal in found {
            is_changed |= rewrite_value(&mut block, &literal);
        }
        if is_changed {
            let mut changed = block.as_slice();
            for at in fragments {
                let (part, rest) = changed.split_at_checked(at.len()).ok_or(Malformed)?;
                self.held
                    .get_mut(at)
                    .ok_or(Malformed)?
                    .copy_from_slice(part);
                changed = rest;
            }
        }
        Ok(())
    }
}

fn read_frame_header(bytes: &[u8]) -> Option<FrameHeader> {
    let [high, middle, low, kind, flags, ..] = *bytes.get(..FRAME_HEADER_BYTES)? else {
        return None;
    };
    let bytes = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    Some(FrameHeader { bytes, kind, flags })
}

/// A HEADERS frame's payload without padding and priority (RFC 9113 6.2).
fn fragment_of(payload: &[u8], flags: u8) -> Result<Range<usize>, Malformed> {
    let (mut start, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        let padding = payload.first().copied().ok_or(Malformed)?;
        start = 1;
        end = end.checked_sub(usize::from(padding)).ok_or(Malformed)?;
    }
    if flags & PRIORITY != 0 {
        start += PRIORITY_BYTES;
    }
    if start > end {
        Err(Malformed)
    } else {
        Ok(start..end)
    }
}

/// Whether the value was a socket's path and has been overwritten.
fn rewrite_value(block: &mut [u8], literal: &Literal) -> bool {
    let Some(wire) = block.get_mut(literal.at.clone()) else {
        return false;
    };
    if !literal.is_huffman {
        let Some(text) = replacement(wire, false) else {
            return false;
        };
        wire.copy_from_slice(&text);
        return true;
    }
    let Some(placed) = huffman::decode(wire) else {
        return false;
    };
    let text: Vec<u8> = placed.iter().map(|placed| placed.symbol).collect();
    let Some(text) = replacement(&text, true) else {
        return false;
    };
    for (placed, symbol) in placed.iter().zip(text) {
        huffman::overwrite(wire, placed.bit, symbol);
    }
    true
}

/// A valid authority as long as `text`, if `text` is a socket's path and no authority itself.
fn replacement(text: &[u8], is_huffman: bool) -> Option<Vec<u8>> {
    let is_path = text.contains(&b'/') || text.contains(&b'%');
    if !is_path || Authority::try_from(text).is_ok() {
        return None;
    }
    let replaced: Option<Vec<u8>> = text
        .iter()
        .map(|symbol| replace_symbol(*symbol, is_huffman))
        .collect();
    replaced.filter(|text| Authority::try_from(text.as_slice()).is_ok())
}

/// What no authority may hold becomes something harmless; in a Huffman string something whose code is as long.
fn replace_symbol(symbol: u8, is_huffman: bool) -> Option<u8> {
    if symbol.is_ascii_alphanumeric() || b"-._".contains(&symbol) {
        return Some(symbol);
    }
    if !is_huffman {
        return Some(b'-');
    }
    match huffman::bits_of(symbol) {
        6 => Some(b'-'),
        7 => Some(b'B'),
        8 => Some(b'X'),
        10 => Some(b'!'),
        11 => Some(b'+'),
        13 => Some(b'~'),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
