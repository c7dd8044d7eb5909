//! HPACK's Huffman code (RFC 7541 appendix B), as far as the `:authority` rewriter needs it: where each symbol of a
//! string lies, and overwriting one with another whose code is as long. The code is canonical: lengths say all.

use std::sync::LazyLock;

/// Bits of each symbol's code; the end-of-string symbol (30 ones) is no symbol of a string.
const CODE_BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const BITS_MAX: u8 = 30;

struct Codes {
    code: [u32; 256],
    /// By length: the first code of that length and the symbols that have it, in order.
    by_bits: Vec<(u32, Vec<u8>)>,
}

static CODES: LazyLock<Codes> = LazyLock::new(|| {
    let mut code = [0; 256];
    let mut by_bits = vec![(0, Vec::new())];
    let mut next: u32 = 0;
    for bits in 1..=BITS_MAX {
        next <<= 1;
        let first = next;
        let mut symbols = Vec::new();
        for (symbol, slot) in (0..=u8::MAX).zip(code.iter_mut()) {
            if bits_of(symbol) == bits {
                *slot = next;
                symbols.push(symbol);
                next += 1;
            }
        }
        by_bits.push((first, symbols));
    }
    Codes { code, by_bits }
});

/// How many bits the code of `symbol` has.
pub(super) fn bits_of(symbol: u8) -> u8 {
    CODE_BITS
        .get(usize::from(symbol))
        .copied()
        .unwrap_or(BITS_MAX)
}

/// A symbol and the bit of the string where its code begins.
pub(super) struct Placed {
    pub(super) symbol: u8,
    pub(super) bit: usize,
}

/// The symbols of a string. `None` if it is not one: unknown code, or padding that is longer than 7 bits or not all ones.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Placed>> {
    let mut placed = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut code, mut bits, mut start) = (0_u32, 0_u8, 0_usize);
    for bit in 0..bytes.len() * 8 {
        code = code << 1 | u32::from(bit_at(bytes, bit)?);
        bits += 1;
        if bits > BITS_MAX {
            return None;
        }
        if let Some(symbol) = symbol_of(code, bits) {
            placed.push(Placed { symbol, bit: start });
            (code, bits, start) = (0, 0, bit + 1);
        }
    }
    let is_padding = bits < 8 && code == (1 << bits) - 1;
    is_padding.then_some(placed)
}

fn symbol_of(code: u32, bits: u8) -> Option<u8> {
    let (first, symbols) = CODES.by_bits.get(usize::from(bits))?;
    let offset = usize::try_from(code.checked_sub(*first)?).ok()?;
    symbols.get(offset).copied()
}

fn bit_at(bytes: &[u8], bit: usize) -> Option<bool> {
    let byte = bytes.get(bit / 8)?;
    Some(byte >> (7 - bit % 8) & 1 == 1)
}

/// Writes the code of `symbol` from `bit` on. The caller sees to it that the code there was as long.
pub(super) fn overwrite(bytes: &mut [u8], bit: usize, symbol: u8) {
    let bits = usize::from(bits_of(symbol));
    let code = CODES
        .code
        .get(usize::from(symbol))
        .copied()
        .unwrap_or_default();
    for offset in 0..bits {
        let is_set = code >> (bits - 1 - offset) & 1 == 1;
        let at = bit + offset;
        if let Some(byte) = bytes.get_mut(at / 8) {
            let mask = 1 << (7 - at % 8);
            *byte = if is_set { *byte | mask } else { *byte & !mask };
        }
    }
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let bits: usize = text
        .iter()
        .map(|symbol| usize::from(bits_of(*symbol)))
        .sum();
    let mut out = vec![0xff; bits.div_ceil(8)];
    let mut at = 0;
    for symbol in text {
        overwrite(&mut out, at, *symbol);
        at += usize::from(bits_of(*symbol));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(decode(bytes)?.iter().map(|placed| placed.symbol).collect())
    }

    #[test]
    fn the_examples_of_rfc_7541_appendix_c_decode() {
        for (bytes, want) in [
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f],
                "custom-key",
            ),
            (
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
                "custom-value",
            ),
            (&[], ""),
        ] {
            assert_eq!(text_of(bytes).as_deref(), Some(want.as_bytes()));
            assert_eq!(encode(want.as_bytes()), bytes);
        }
    }

    #[test]
    fn every_symbol_survives_a_round_trip() {
        for symbol in 0..=u8::MAX {
            assert_eq!(
                text_of(&encode(&[symbol, b'a', symbol])),
                Some(vec![symbol, b'a', symbol])
            );
        }
    }

    #[test]
    fn wrong_padding_and_the_end_of_string_symbol_are_refused() {
        for bytes in [
            &[0x00][..],
            &[0xff],
            &[0xff, 0xff, 0xff, 0xff],
            &[0x1f, 0xff],
        ] {
            assert!(decode(bytes).is_none(), "{bytes:?}");
        }
    }
}
