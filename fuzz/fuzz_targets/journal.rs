//! Records of the store: what is read is written back the same.
#![no_main]

use agent_runtime::store::{Entry, Execution};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = serde_json::from_slice::<Entry>(bytes) {
        let written = serde_json::to_vec(&entry).expect("it is written");
        assert_eq!(serde_json::from_slice::<Entry>(&written).expect("it is read again"), entry);
    }
    if let Ok(execution) = serde_json::from_slice::<Execution>(bytes) {
        let written = serde_json::to_vec(&execution).expect("it is written");
        assert_eq!(serde_json::from_slice::<Execution>(&written).expect("it is read again"), execution);
    }
});
