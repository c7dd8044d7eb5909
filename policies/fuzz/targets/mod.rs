//! What must hold for any input: one function a target, a panic is a finding. `tests/fuzz.rs` and libFuzzer run them.
//!
//! An input that means nothing to its target is passed over; whatever a target accepts it checks to the end.
//! `compile_then_evaluate` stands beside these, since it needs the reference.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    unreachable_pub,
    reason = "a panic is what a target is for; libFuzzer's programs take one each"
)]

pub mod path_normalizer;
pub mod template_matcher;
pub mod token_parser;
pub mod yaml_loader;

use ravelin_policies::SourceFile;

/// A mesh that everything may be added to.
pub const MESH: &str = "
apiVersion: ravelin.dev/v1
kind: MeshConfig
spec: {trustDomain: shop.example}
---
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: payments, namespace: shop, labels: {app: payments}}
spec: {selectors: ['launch:name:payments']}
";

/// A file of a mesh folder.
pub fn file(path: &str, content: &str) -> SourceFile {
    SourceFile {
        path: path.into(),
        content: content.into(),
    }
}
