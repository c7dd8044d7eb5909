//! `cargo fuzz run token_parser`: see `targets/token_parser.rs`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::token_parser::run(data));
