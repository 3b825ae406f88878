//! The boot file, the record, and what they decide at boot: never a gate that opens by itself.
#![no_main]

use lifecycle::{BootFile, Desired, Record};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = serde_json::from_slice::<BootFile>(bytes).ok();
    let record = serde_json::from_slice::<Record>(bytes).ok();
    let boot = lifecycle::fence::boot(true, "runtime-1", record.as_ref(), file.as_ref());
    assert!(boot.await_confirmation || boot.holds.target() != Desired::Running);
});
