//! `cargo fuzz run template_matcher`: see `targets/template_matcher.rs`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::template_matcher::run(data));
