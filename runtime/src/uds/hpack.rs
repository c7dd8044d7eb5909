//! Finds the `:authority` values of an HPACK header block (RFC 7541 section 6) and keeps the dynamic table's names and
//! sizes, which is all that is needed to understand later blocks. It judges nothing: h2 decodes the same bytes afterwards.

use std::collections::VecDeque;
use std::ops::Range;

use super::huffman;
use crate::limits::HPACK_TABLE_BYTES_MAX;

const AUTHORITY: &[u8] = b":authority";
/// RFC 7541 4.1: what an entry weighs besides its name and value.
const ENTRY_OVERHEAD: usize = 32;
/// Lengths of the static table's names, from index 1; the first is `:authority`.
const STATIC_NAME_BYTES: [usize; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// The block is not HPACK as we know it. The connection is left to h2 from here on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A string literal in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Literal {
    /// Its bytes in the block.
    pub(super) at: Range<usize>,
    /// Whether they are Huffman-coded.
    pub(super) is_huffman: bool,
    /// How many bytes it has once decoded.
    decoded_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    bytes: usize,
    is_authority: bool,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    size: usize,
}

/// What the peer's encoder has put into the dynamic table so far.
#[derive(Debug)]
pub(super) struct HeaderTable {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for HeaderTable {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max: HPACK_TABLE_BYTES_MAX,
        }
    }
}

impl HeaderTable {
    /// The literal `:authority` values of one whole block, and the table brought up to date with it.
    pub(super) fn read_block(&mut self, block: &[u8]) -> Result<Vec<Literal>, Malformed> {
        let mut reader = Reader { block, at: 0 };
        let mut found = Vec::new();
        while let Some(first) = block.get(reader.at).copied() {
            if first & 0x80 != 0 {
                reader.integer(7)?;
            } else if first & 0xe0 == 0x20 {
                let bytes_max = reader.integer(5)?;
                self.resize(bytes_max)?;
            } else {
                let is_indexed = first & 0x40 != 0;
                let index = reader.integer(if is_indexed { 6 } else { 4 })?;
                let name = if index == 0 {
                    reader.name()?
                } else {
                    self.name(index)?
                };
                let value = reader.literal()?;
                if is_indexed {
                    self.insert(name, value.decoded_bytes);
                }
                if name.is_authority {
                    found.push(value);
                }
            }
        }
        Ok(found)
    }

    fn name(&self, index: usize) -> Result<Name, Malformed> {
        let position = index.checked_sub(1).ok_or(Malformed)?;
        if let Some(bytes) = STATIC_NAME_BYTES.get(position) {
            return Ok(Name {
                bytes: *bytes,
                is_authority: index == 1,
            });
        }
        let position = position
            .checked_sub(STATIC_NAME_BYTES.len())
            .ok_or(Malformed)?;
        self.entries
            .get(position)
            .map(|entry| entry.name)
            .ok_or(Malformed)
    }

    fn insert(&mut self, name: Name, value_bytes: usize) {
        let size = name
            .bytes
            .saturating_add(value_bytes)
            .saturating_add(ENTRY_OVERHEAD);
        self.evict(self.bytes_max.saturating_sub(size));
        // RFC 7541 4.4: an entry larger than the table empties it and is no error.
        if size <= self.bytes_max {
            self.entries.push_front(Entry { name, size });
            self.bytes += size;
        }
    }

    fn resize(&mut self, bytes_max: usize) -> Result<(), Malformed> {
        if bytes_max > HPACK_TABLE_BYTES_MAX {
            return Err(Malformed);
        }
        self.bytes_max = bytes_max;
        self.evict(bytes_max);
        Ok(())
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.bytes -= oldest.size;
        }
    }
}

struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.block.get(self.at).copied().ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    /// RFC 7541 5.1.
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, Malformed> {
        let mask = u8::MAX >> (8 - prefix_bits);
        let prefix = self.byte()? & mask;
        let mut value = usize::from(prefix);
        if prefix < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// RFC 7541 5.2.
    fn literal(&mut self) -> Result<Literal, Malformed> {
        let is_huffman = self.block.get(self.at).ok_or(Malformed)? & 0x80 != 0;
        let bytes = self.integer(7)?;
        let at = self.at..self.at.checked_add(bytes).ok_or(Malformed)?;
        let text = self.block.get(at.clone()).ok_or(Malformed)?;
        self.at = at.end;
        let decoded_bytes = if is_huffman {
            huffman::decode(text).ok_or(Malformed)?.len()
        } else {
            text.len()
        };
        Ok(Literal {
            at,
            is_huffman,
            decoded_bytes,
        })
    }

    fn name(&mut self) -> Result<Name, Malformed> {
        let literal = self.literal()?;
        let text = self.block.get(literal.at).ok_or(Malformed)?;
        let is_authority = if literal.is_huffman {
            let decoded = huffman::decode(text).ok_or(Malformed)?;
            decoded
                .iter()
                .map(|placed| placed.symbol)
                .eq(AUTHORITY.iter().copied())
        } else {
            text == AUTHORITY
        };
        Ok(Name {
            bytes: literal.decoded_bytes,
            is_authority,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8], is_huffman: bool) -> Vec<u8> {
        let bytes = if is_huffman {
            huffman::encode(text)
        } else {
            text.to_vec()
        };
        let mut out = vec![u8::try_from(bytes.len()).expect("short") | u8::from(is_huffman) << 7];
        out.extend(bytes);
        out
    }

    #[test]
    fn authority_is_found_however_it_is_named() {
        let value = string(b"%2Ftmp", false);
        for (name, prefix) in [
            ("static name, indexed", vec![0x41]),
            ("static name, not indexed", vec![0x01]),
            ("static name, never indexed", vec![0x11]),
            (
                "literal name",
                [vec![0x40], string(b":authority", false)].concat(),
            ),
            (
                "literal name in huffman",
                [vec![0x40], string(b":authority", true)].concat(),
            ),
            (
                "literal name, not indexed",
                [vec![0x00], string(b":authority", false)].concat(),
            ),
        ] {
            let block = [&prefix[..], &value[..]].concat();
            let found = HeaderTable::default().read_block(&block).expect(name);
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(&block[found[0].at.clone()], b"%2Ftmp", "{name}");
        }
        for block in [[vec![0x44], value.clone()].concat(), vec![0x81, 0x82, 0x86]] {
            assert_eq!(HeaderTable::default().read_block(&block), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_name_in_the_dynamic_table_is_known_until_it_is_evicted() {
        let mut table = HeaderTable::default();
        let first = [
            vec![0x40],
            string(b":authority", false),
            string(b"a", false),
        ]
        .concat();
        let by_index = [vec![0x7e], string(b"b", false)].concat();
        assert_eq!(table.read_block(&first).expect("block").len(), 1);
        assert_eq!(table.read_block(&by_index).expect("block").len(), 1);
        let resized_to_nothing = [0x20];
        assert_eq!(table.read_block(&resized_to_nothing), Ok(Vec::new()));
        assert_eq!(table.read_block(&by_index), Err(Malformed));
    }

    #[test]
    fn the_table_drops_its_oldest_entries_by_size_as_the_encoder_does() {
        let mut table = HeaderTable::default();
        let authority = [vec![0x41], string(b"a", false)].concat();
        table.read_block(&authority).expect("block");
        let filler = [
            vec![0x40],
            string(&[b'n'; 100], false),
            string(&[b'v'; 100], true),
        ]
        .concat();
        for _ in 0..18 {
            table.read_block(&filler).expect("block");
            assert!(table.bytes <= HPACK_TABLE_BYTES_MAX);
        }
        assert_eq!(table.entries.len(), 17);
        assert_eq!(table.bytes, 17 * 232);
        assert!(!table.entries.iter().any(|entry| entry.name.is_authority));
    }

    #[test]
    fn malformed_blocks_are_named_as_such() {
        for block in [
            &[0x41][..],
            &[0x41, 0x05, b'a'],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x7f, 0x40, 0x01, b'a'],
            &[0x3f, 0xff, 0xff, 0x7f],
            &[0x41, 0x81, 0x00],
        ] {
            assert_eq!(
                HeaderTable::default().read_block(block),
                Err(Malformed),
                "{block:?}"
            );
        }
    }
}
