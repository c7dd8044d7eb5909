//! `cargo fuzz run yaml_loader`: see `targets/yaml_loader.rs`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::yaml_loader::run(data));
