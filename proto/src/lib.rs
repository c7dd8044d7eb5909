//! Skeleton.
pub mod pb;
