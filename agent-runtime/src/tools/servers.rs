//! The file that names MCP servers, as Hive writes it: `mcp_servers.json` beside the agent.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Error;
use super::server::{Reach, Server};

/// Seconds that a call may take, when its server does not say.
const TIMEOUT_SECONDS: u64 = 60;

#[derive(Debug, Deserialize)]
struct Shape {
    #[serde(default)]
    transport: Option<String>,
    #[serde(default)]
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    timeout_seconds: Option<u64>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// The servers of a file.
#[derive(Debug, Default)]
pub struct Servers {
    servers: Vec<Server>,
    warnings: Vec<String>,
}

impl Servers {
    /// Reads the file; none if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub fn load(path: &Path) -> Result<Option<Self>, Error> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Config { file, reason: error.to_string() }),
        }
    }

    /// Reads the text of the file at a path, from which folders of programs are counted.
    ///
    /// # Errors
    /// It is not what it should be.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let error = |reason: String| Error::Config { file: file.to_owned(), reason };
        let mut value: Value = serde_json::from_str(text).map_err(|fault| error(fault.to_string()))?;
        // Other programs wrap the same object.
        if let Some(inner) = value.get_mut("mcpServers") {
            value = inner.take();
        }
        let mut all = Self::default();
        if let Some(entries) = value.as_object_mut() {
            entries.retain(|name, entry| {
                let remark = name.starts_with('_') && !entry.is_object();
                if remark {
                    all.warnings.push(format!("{file}: {name} is not used by this version"));
                }
                !remark
            });
        }
        if let Some(list) = value.get_mut("servers").and_then(Value::as_array_mut) {
            value = named(std::mem::take(list)).map_err(error)?;
        }
        let shapes: BTreeMap<String, Shape> =
            serde_json::from_value(value).map_err(|fault| error(fault.to_string()))?;
        let folder = Path::new(file).parent().unwrap_or(Path::new("."));
        for (name, shape) in shapes {
            let unknown = shape.rest.keys().map(|key| format!("{file}: {name}.{key} is not used by this version"));
            all.warnings.extend(unknown);
            let timeout = Duration::from_secs(shape.timeout_seconds.unwrap_or(TIMEOUT_SECONDS).max(1));
            let reach = reach(shape, folder).map_err(|reason| error(format!("{name}: {reason}")))?;
            all.servers.push(Server::new(name, reach, timeout));
        }
        Ok(all)
    }

    /// What was ignored, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn into_servers(self) -> impl Iterator<Item = Server> {
        self.servers.into_iter()
    }
}

/// The older form of the file is a list whose entries bear their names.
fn named(list: Vec<Value>) -> Result<Value, String> {
    let entry = |(i, mut entry): (usize, Value)| {
        let name = entry.as_object_mut().and_then(|fields| fields.remove("name"));
        match name.as_ref().and_then(Value::as_str) {
            Some(name) => Ok((name.to_owned(), entry)),
            None => Err(format!("servers[{i}] has no name")),
        }
    };
    list.into_iter().enumerate().map(entry).collect::<Result<serde_json::Map<_, _>, _>>().map(Value::Object)
}

fn reach(shape: Shape, folder: &Path) -> Result<Reach, String> {
    let transport = shape.transport.as_deref().unwrap_or(if shape.url.is_some() { "http" } else { "stdio" });
    match transport {
        "stdio" => {
            let command = shape.command.filter(|command| !command.is_empty()).ok_or("stdio needs a command")?;
            let environment = shape.env.into_iter().map(|(name, value)| Ok((name, filled(&value)?)));
            Ok(Reach::Program {
                command,
                arguments: shape.args,
                folder: shape.cwd.map(|cwd| folder.join(cwd)),
                environment: environment.collect::<Result<_, String>>()?,
            })
        }
        "http" | "streamable-http" | "streamable_http" => {
            let url = shape.url.filter(|url| url.starts_with("http://") || url.starts_with("https://"));
            let headers = shape.headers.into_iter().map(|(name, value)| {
                let value = filled(&value)?;
                let name = http::HeaderName::try_from(&name).map_err(|error| format!("header {name:?}: {error}"))?;
                let value = http::HeaderValue::try_from(&value).map_err(|error| format!("header {name}: {error}"))?;
                Ok((name, value))
            });
            Ok(Reach::Http {
                url: url.ok_or("http needs a url that begins with http:// or https://")?,
                headers: headers.collect::<Result<_, String>>()?,
            })
        }
        "sse" => {
            Err("sse is the transport that streamable HTTP replaced: give http and the address of that".to_owned())
        }
        other => Err(format!("transport is stdio or http, not {other:?}")),
    }
}

/// Fills in `${NAME}` from the environment, so that secrets need not stand in the file.
fn filled(text: &str) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| format!("{text:?}: ${{ is not closed"))?;
        filled.push_str(before);
        filled.push_str(&std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hives_file_is_read_and_unknown_keys_are_warned_about() {
        let text = r#"{
            "local": {"transport": "stdio", "command": "uv", "args": ["run"], "cwd": "../tools", "description": "x"},
            "remote": {"transport": "http", "url": "https://tools/mcp", "headers": {"X-Path": "${PATH}"}}
        }"#;
        let servers = Servers::parse("/agents/mcp_servers.json", text).unwrap();
        assert_eq!(servers.warnings(), ["/agents/mcp_servers.json: local.description is not used by this version"]);
        let listed = r#"{"_note": "x", "servers": [{"name": "local", "command": "uv"}]}"#;
        let listed = Servers::parse("f", listed).unwrap();
        assert_eq!(listed.warnings(), ["f: _note is not used by this version"]);
        assert_eq!(listed.into_servers().map(|server| server.name().to_owned()).collect::<Vec<_>>(), ["local"]);
        let wrapped = format!("{{\"mcpServers\": {text}}}");
        assert_eq!(Servers::parse("f", &wrapped).unwrap().into_servers().count(), 2);
        assert!(Servers::load(Path::new("/none/mcp_servers.json")).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_names_file_and_server() {
        for (text, word) in [
            ("[]", "f"),
            ("{", "line 1"),
            (r#"{"s": {"transport": "pigeon"}}"#, "pigeon"),
            (r#"{"s": {"transport": "stdio"}}"#, "command"),
            (r#"{"s": {"transport": "sse", "url": "http://x"}}"#, "streamable HTTP"),
            (r#"{"servers": [{"command": "x"}]}"#, "servers[0]"),
            (r#"{"s": {"url": "tools"}}"#, "url"),
            (r#"{"s": {"command": "x", "env": {"A": "${NOT_SET_ANYWHERE}"}}}"#, "NOT_SET_ANYWHERE"),
            (r#"{"s": {"url": "http://x", "headers": {"a b": "c"}}}"#, "a b"),
        ] {
            let error = Servers::parse("f", text).unwrap_err().to_string();
            assert!(error.starts_with("f: ") && error.contains(word), "{error}");
        }
    }
}
