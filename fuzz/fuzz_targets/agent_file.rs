//! An agent's file, as YAML and as JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = agent_runtime::definition::parse("a.yaml", text);
    let _ = agent_runtime::definition::parse("a.json", text);
});
