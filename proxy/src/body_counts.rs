//! What a body was as it passed: bytes, and the messages of gRPC. Pure; nothing is held back or looked into but lengths.

use std::cell::{Cell, RefCell};

/// Bytes and messages of one body.
#[derive(Debug, Default)]
pub struct BodyCounts {
    bytes: Cell<u64>,
    messages: RefCell<Option<GrpcMessages>>,
}

impl BodyCounts {
    /// Counts the messages of gRPC from now on.
    pub fn count_messages(&self) {
        self.messages.borrow_mut().get_or_insert_default();
    }

    /// Counts a piece.
    pub fn feed(&self, data: &[u8]) {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.bytes.set(self.bytes.get().saturating_add(length));
        if let Some(messages) = self.messages.borrow_mut().as_mut() {
            messages.feed(data);
        }
    }

    /// Counts bytes of something that is no message.
    pub fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Messages begun so far; 0 where they are not counted.
    pub fn messages(&self) -> u64 {
        self.messages
            .borrow()
            .as_ref()
            .map_or(0, |messages| messages.count)
    }
}

/// Counts length-prefixed messages: one byte of flags, four of length, then as many bytes (gRPC over HTTP/2).
#[derive(Clone, Copy, Debug, Default)]
struct GrpcMessages {
    count: u64,
    /// Bytes of a prefix that were seen.
    prefix: u8,
    length: u32,
    /// Bytes of the present message that are to come.
    left: usize,
}

impl GrpcMessages {
    fn feed(&mut self, mut data: &[u8]) {
        loop {
            let skipped = self.left.min(data.len());
            self.left = self.left.saturating_sub(skipped);
            let Some((byte, rest)) = data.get(skipped..).and_then(<[u8]>::split_first) else {
                return;
            };
            data = rest;
            if self.prefix > 0 {
                self.length = (self.length << 8) | u32::from(*byte);
            }
            self.prefix = self.prefix.saturating_add(1);
            if self.prefix == 5 {
                self.count = self.count.saturating_add(1);
                self.left = usize::try_from(self.length).unwrap_or(usize::MAX);
                self.prefix = 0;
                self.length = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + usize::try_from(length).unwrap(), 0xff);
        bytes
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes: Vec<u8> = [message(0), message(1), message(300), message(70_000)].concat();
        for size in [1, 2, 3, 5, 7, 64, 4_096, bytes.len()] {
            let counts = BodyCounts::default();
            counts.count_messages();
            for piece in bytes.chunks(size) {
                counts.feed(piece);
            }
            assert_eq!(
                (counts.messages(), counts.bytes()),
                (4, u64::try_from(bytes.len()).unwrap()),
                "{size}"
            );
        }
        let plain = BodyCounts::default();
        plain.feed(&bytes);
        assert_eq!(
            (plain.messages(), plain.bytes()),
            (0, u64::try_from(bytes.len()).unwrap())
        );
    }
}
