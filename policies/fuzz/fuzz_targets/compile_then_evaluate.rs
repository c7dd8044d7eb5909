//! `cargo fuzz run compile_then_evaluate`: see `targets/compile_then_evaluate.rs`.
#![no_main]

#[path = "../../tests/reference/mod.rs"]
mod reference;

#[path = "../targets/compile_then_evaluate.rs"]
mod compile_then_evaluate;

libfuzzer_sys::fuzz_target!(|data: &[u8]| compile_then_evaluate::run(data));
