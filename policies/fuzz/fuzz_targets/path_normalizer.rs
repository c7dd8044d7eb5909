//! `cargo fuzz run path_normalizer`: see `targets/path_normalizer.rs`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::path_normalizer::run(data));
