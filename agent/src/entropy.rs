//! A number from 0 to 1 for jitter; not for secrets.

use ravelin_runtime::crypto;

/// Drawn evenly from 0 to 1.
pub(crate) fn unit() -> f64 {
    f64::from(u32::from_le_bytes(crypto::random_bytes::<4>())) / f64::from(u32::MAX)
}
