//! Serial numbers: 127 random bits, positive and never zero (RFC 5280 4.1.2.2).

use std::fmt;

use ravelin_runtime::crypto;

const SERIAL_BYTES: usize = 16;

/// A certificate's serial number; shown as lower-case hex without leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial([u8; SERIAL_BYTES]);

impl Serial {
    /// From the operating system's generator at each call, so a forked or restored machine does not repeat itself.
    pub fn random() -> Self {
        Self::from_random(crypto::random_bytes())
    }

    /// Clears the sign bit and sets the next, so that every serial has 16 bytes.
    fn from_random(mut bytes: [u8; SERIAL_BYTES]) -> Self {
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        Self(bytes)
    }

    /// Big-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hex::encode(self.0).trim_start_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn threat_26_serials_are_positive_full_size_and_do_not_repeat() {
        assert_eq!(Serial::from_random([0; 16]).to_string().len(), 32);
        assert_eq!(Serial::from_random([0xff; 16]).as_bytes()[0], 0x7f);
        let many: BTreeSet<String> = (0..10_000).map(|_| Serial::random().to_string()).collect();
        assert_eq!(many.len(), 10_000);
    }
}
