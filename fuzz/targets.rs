//! What is done with any input at all: shared by the cargo-fuzz targets and by the runs on stable.

use agent_runtime::definition::expression::Expression;
use agent_runtime::store::{Entry, Execution};
use lifecycle::{BootFile, Desired, Record};
use serde_json::{Map, Value, json};

/// An agent's file, as YAML and as JSON.
pub(crate) fn agent_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = agent_runtime::definition::parse("a.yaml", text);
    let _ = agent_runtime::definition::parse("a.json", text);
}

/// The condition of an edge: read, and evaluated over a small memory.
pub(crate) fn condition(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(expression) = Expression::parse(text) {
        let memory = Map::from_iter([("x".to_owned(), json!([1, "a", {"b": null}])), ("s".to_owned(), json!("text"))]);
        let _ = expression.holds(&memory, &Map::new());
    }
}

/// The signature of a webhook, and the file of MCP servers.
pub(crate) fn webhook(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (header, body) = text.split_once('\n').unwrap_or((text, ""));
    assert!(agent_runtime::server::signature::verify(b"secret", Some(header), body.as_bytes()).is_err());
    let _ = agent_runtime::tools::Servers::parse("mcp_servers.json", text);
}

/// The body of a verb, and of a trigger.
pub(crate) fn command(bytes: &[u8]) {
    let _ = serde_json::from_slice::<lifecycle::wire::Command>(bytes).map(|command| command.check());
    if let Ok(brake) = serde_json::from_slice::<lifecycle::wire::BrakeCommand>(bytes).map(|command| command.brake()) {
        assert!(brake.is_err() || brake.is_ok_and(|brake| brake.state != Desired::Running));
    }
    let _ = serde_json::from_slice::<Map<String, Value>>(bytes);
}

/// Records of the store: what is read is written back the same.
pub(crate) fn journal(bytes: &[u8]) {
    if let Ok(entry) = serde_json::from_slice::<Entry>(bytes) {
        let written = serde_json::to_vec(&entry).expect("it is written");
        assert_eq!(serde_json::from_slice::<Entry>(&written).expect("it is read again"), entry);
    }
    if let Ok(execution) = serde_json::from_slice::<Execution>(bytes) {
        let written = serde_json::to_vec(&execution).expect("it is written");
        assert_eq!(serde_json::from_slice::<Execution>(&written).expect("it is read again"), execution);
    }
}

/// The boot file, the record, and what they decide at boot: never a gate that opens by itself.
pub(crate) fn boot_file(bytes: &[u8]) {
    let file = serde_json::from_slice::<BootFile>(bytes).ok();
    let record = serde_json::from_slice::<Record>(bytes).ok();
    let boot = lifecycle::fence::boot(true, "runtime-1", record.as_ref(), file.as_ref());
    assert!(boot.await_confirmation || boot.holds.target() != Desired::Running);
    if let Some(record) = record {
        let written = serde_json::to_vec(&record).expect("it is written");
        assert_eq!(serde_json::from_slice::<Record>(&written).expect("it is read again"), record);
        let kept = boot.brakes.iter().count() == record.brakes.iter().count();
        let names_some = file.is_some_and(|file| !file.releases.is_empty());
        assert!(kept || names_some || record.runtime_uid != "runtime-1", "a brake went without being named");
    }
}

/// What is done with an input.
#[allow(dead_code, reason = "the targets of cargo-fuzz are programs of their own")]
pub(crate) type Target = fn(&[u8]);

/// Every target by its name, which is that of its folder in `corpus` too.
#[allow(dead_code, reason = "the targets of cargo-fuzz are programs of their own")]
pub(crate) const ALL: &[(&str, Target)] = &[
    ("agent_file", agent_file),
    ("condition", condition),
    ("webhook", webhook),
    ("command", command),
    ("journal", journal),
    ("boot_file", boot_file),
];
