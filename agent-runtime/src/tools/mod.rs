//! Tools that a language model may call: those of MCP servers, and the runtime's own on files.

mod files;
mod server;
mod servers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Map, Value};

use crate::trace::TraceContext;
use files::Files;
use server::Server;
pub use servers::Servers;

/// A tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments.
    pub schema: Value,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its words.
    pub text: String,
    /// The call failed, and the words say why.
    pub is_error: bool,
}

/// On whose behalf a tool is called.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// The execution.
    pub execution: &'a str,
    /// The same at every repetition of this call.
    pub idempotency_key: &'a str,
    /// The call's place in a trace.
    pub trace: Option<&'a TraceContext>,
}

/// Why a tool gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file of the servers cannot be used.
    #[error("{file}: {reason}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A server cannot be reached.
    #[error("the MCP server {server:?} cannot be reached: {reason}")]
    Unreachable {
        /// The server.
        server: String,
        /// Why.
        reason: String,
    },
    /// A server was lost during a call, which it may have carried out.
    #[error("the MCP server {server:?} was lost while {tool} ran, which may have taken effect: {reason}")]
    Lost {
        /// The server.
        server: String,
        /// The tool.
        tool: String,
        /// Why.
        reason: String,
    },
    /// A call took too long.
    #[error("{tool} of the MCP server {server:?} gave no answer within {seconds} s")]
    Timeout {
        /// The server.
        server: String,
        /// The tool.
        tool: String,
        /// The limit.
        seconds: u64,
    },
    /// There is no such tool.
    #[error("there is no tool {0:?}")]
    Unknown(String),
}

impl Error {
    /// Whether the call may have been carried out all the same.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Timeout { .. } => true,
            Self::Config { .. } | Self::Unreachable { .. } | Self::Unknown(_) => false,
        }
    }
}

/// Every tool there is.
#[derive(Debug, Default)]
pub struct Toolbox {
    files: Option<Files>,
    servers: Vec<Arc<Server>>,
    /// Which server offers a tool.
    offered: BTreeMap<String, (Tool, Arc<Server>)>,
}

impl Toolbox {
    /// Connects to every server and asks for its tools. Files are kept in folders below `files`.
    ///
    /// # Errors
    /// A server cannot be reached; none is left running.
    pub async fn connect(config: Servers, files: PathBuf) -> Result<Self, Error> {
        let servers: Vec<Arc<Server>> = config.into_servers().map(Arc::new).collect();
        let listed = join_all(servers.iter().map(|server| server.tools())).await;
        let mut toolbox = Self { files: Some(Files::new(files)), servers, offered: BTreeMap::new() };
        for (server, tools) in toolbox.servers.clone().into_iter().zip(listed) {
            let tools = match tools {
                Ok(tools) => tools,
                Err(error) => {
                    toolbox.close().await;
                    return Err(error);
                }
            };
            for tool in tools {
                let taken = files::tool(&tool.name).is_some() || toolbox.offered.contains_key(&tool.name);
                if taken {
                    tracing::warn!(tool = tool.name, server = server.name(), "another tool of this name comes first");
                    continue;
                }
                toolbox.offered.insert(tool.name.clone(), (tool, Arc::clone(&server)));
            }
        }
        Ok(toolbox)
    }

    /// A tool by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Tool> {
        files::tool(name).or_else(|| self.offered.get(name).map(|(tool, _)| tool.clone()))
    }

    /// Calls a tool. Dropping the future gives the call up; a server may carry it out all the same.
    ///
    /// # Errors
    /// The tool gave no answer. An answer that is an error is none.
    pub async fn call(&self, name: &str, arguments: &Map<String, Value>, cx: &Cx<'_>) -> Result<Output, Error> {
        if let (Some(files), Some(_)) = (&self.files, files::tool(name)) {
            let (files, arguments) = (files.clone(), arguments.clone());
            let (name, execution, key) = (name.to_owned(), cx.execution.to_owned(), cx.idempotency_key.to_owned());
            let done = tokio::task::spawn_blocking(move || files.call(&name, &arguments, &execution, &key)).await;
            let done = done.unwrap_or_else(|error| Err(error.to_string()));
            let is_error = done.is_err();
            return Ok(Output { text: done.unwrap_or_else(|reason| reason), is_error });
        }
        let Some((_, server)) = self.offered.get(name) else { return Err(Error::Unknown(name.to_owned())) };
        server.call(name, arguments, cx).await
    }

    /// Throws away an execution's files.
    pub async fn forget(&self, execution: &str) {
        if let Some(files) = self.files.clone() {
            let execution = execution.to_owned();
            // What cannot be thrown away now is tried again never: it is only a folder.
            let _ = tokio::task::spawn_blocking(move || files.forget(&execution)).await;
        }
    }

    /// Ends every server that runs as a program.
    pub async fn close(&self) {
        join_all(self.servers.iter().map(|server| server.close())).await;
    }
}
