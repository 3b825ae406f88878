//! The condition of an edge: read, and evaluated over a small memory.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "the other targets are programs of their own")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::condition(bytes));
