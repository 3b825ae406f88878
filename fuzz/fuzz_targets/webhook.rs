//! The signature of a webhook, and the file of MCP servers.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (header, body) = text.split_once('\n').unwrap_or((text, ""));
    assert!(agent_runtime::server::signature::verify(b"secret", Some(header), body.as_bytes()).is_err());
    let _ = agent_runtime::tools::Servers::parse("mcp_servers.json", text);
});
