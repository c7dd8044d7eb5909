//! One stream per agent: deltas out, acknowledgements in.

pub mod delta;
pub mod mesh;
pub mod stream;
#[cfg(test)]
pub(crate) mod tests;
