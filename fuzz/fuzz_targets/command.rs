//! The body of a verb, and of a trigger.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<lifecycle::wire::Command>(bytes);
    let _ = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes);
});
