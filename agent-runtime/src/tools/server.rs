//! One MCP server: connected when it is needed, and again after it was lost.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{CallToolRequestParams, CallToolResult, ContentBlock, RequestMetaObject};
use rmcp::service::{RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, serve_client};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::{Cx, Error, Output, Tool};

/// How long connecting and listing may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// The longest text that the model is told, in bytes.
const MAX_TEXT: usize = 1024 * 1024;
/// Where the idempotency key stands in a call's `_meta`.
const KEY: &str = "agents.hive.dev/idempotency-key";

/// How a server is reached.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// It is a program that speaks over its standard input and output.
    Program { command: String, arguments: Vec<String>, folder: Option<PathBuf>, environment: BTreeMap<String, String> },
    /// It is reached by requests.
    Http { url: String, headers: HashMap<http::HeaderName, http::HeaderValue> },
}

/// A server, connected or not.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    reach: Reach,
    timeout: Duration,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// A connection, with the program behind it.
#[derive(Debug)]
struct Connection {
    service: RunningService<RoleClient, ()>,
    program: Option<Program>,
}

/// A program in a process group of its own, which goes with it.
#[derive(Debug)]
struct Program {
    child: Mutex<Child>,
    group: Option<Pid>,
}

impl Drop for Program {
    fn drop(&mut self) {
        signal(self.group, Signal::KILL);
    }
}

impl Server {
    pub(super) fn new(name: String, reach: Reach, timeout: Duration) -> Self {
        Self { name, reach, timeout, connection: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The tools that it offers.
    pub(super) async fn tools(&self) -> Result<Vec<Tool>, Error> {
        let connection = self.connected().await?;
        let listed = tokio::time::timeout(CONNECT_WITHIN, connection.service.peer().list_all_tools()).await;
        let listed = listed.map_err(|_| self.unreachable(&"its tools are not listed in time"))?;
        let tools = listed.map_err(|error| self.unreachable(&error))?;
        let tool = |tool: rmcp::model::Tool| Tool {
            name: tool.name.into_owned(),
            description: tool.description.map(std::borrow::Cow::into_owned).unwrap_or_default(),
            schema: Value::Object(tool.input_schema.as_ref().clone()),
        };
        Ok(tools.into_iter().map(tool).collect())
    }

    /// Calls a tool, on a new connection if the last was lost.
    pub(super) async fn call(&self, tool: &str, arguments: &Map<String, Value>, cx: &Cx<'_>) -> Result<Output, Error> {
        let connection = self.connected().await?;
        let mut call = CallToolRequestParams::new(tool.to_owned());
        call.arguments = Some(arguments.clone());
        let mut meta = Map::from_iter([(KEY.to_owned(), cx.idempotency_key.into())]);
        meta.extend(
            cx.trace.iter().flat_map(|trace| trace.headers()).map(|(name, value)| (name.to_owned(), value.into())),
        );
        call.meta = serde_json::from_value::<RequestMetaObject>(Value::Object(meta)).ok();
        let called = tokio::time::timeout(self.timeout, connection.service.peer().call_tool(call)).await;
        let (server, tool) = (self.name.clone(), tool.to_owned());
        match called {
            Err(_) => Err(Error::Timeout { server, tool, seconds: self.timeout.as_secs() }),
            Ok(Ok(result)) => Ok(output(result)),
            // The server understood the call and refused it: the model is told.
            Ok(Err(ServiceError::McpError(error))) => Ok(Output { text: error.message.into_owned(), is_error: true }),
            Ok(Err(error)) => {
                self.drop_connection(&connection).await;
                Err(Error::Lost { server, tool, reason: error.to_string() })
            }
        }
    }

    /// Ends its program: SIGTERM to the group, two seconds, SIGKILL.
    pub(super) async fn close(&self) {
        let Some(connection) = self.connection.lock().await.take() else { return };
        connection.service.cancellation_token().cancel();
        if let Some(program) = &connection.program {
            signal(program.group, Signal::TERM);
            let mut child = program.child.lock().await;
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                signal(program.group, Signal::KILL);
                // Killed, it is reaped at once.
                let _ = child.wait().await;
            }
        }
    }

    /// The connection, made anew if there is none that works.
    async fn connected(&self) -> Result<Arc<Connection>, Error> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = known.as_ref().filter(|connection| !connection.service.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        if known.take().is_some() {
            tracing::warn!(server = self.name, "the MCP server was lost and is connected anew");
        }
        let connection = tokio::time::timeout(CONNECT_WITHIN, self.connect()).await;
        let connection = Arc::new(connection.map_err(|_| self.unreachable(&"it does not answer in time"))??);
        *known = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        match &self.reach {
            Reach::Program { command, arguments, folder, environment } => {
                let mut program = Command::new(command);
                program.args(arguments).envs(environment);
                program.env_remove("HIVE_LIFECYCLE_TOKEN").env_remove("HIVE_STORE_URL");
                for secret in ["HIVE_LLM_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"] {
                    if !environment.contains_key(secret) {
                        program.env_remove(secret);
                    }
                }
                if let Some(folder) = folder {
                    program.current_dir(folder);
                }
                program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
                let mut child = program
                    .kill_on_drop(true)
                    .spawn()
                    .map_err(|error| self.unreachable(&format!("{command}: {error}")))?;
                let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                let pipes = (child.stdout.take(), child.stdin.take(), child.stderr.take());
                let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
                    return Err(self.unreachable(&"it has no pipes"));
                };
                let server = self.name.clone();
                tokio::spawn(async move {
                    let mut lines = BufReader::new(stderr).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        tracing::info!(server, stream = "stderr", "{line}");
                    }
                });
                // From here on the group goes when the program does.
                let program = Program { child: Mutex::new(child), group };
                let service = serve_client((), (stdout, stdin)).await.map_err(|error| self.unreachable(&error))?;
                Ok(Connection { service, program: Some(program) })
            }
            Reach::Http { url, headers } => {
                let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
                config.custom_headers = headers.clone();
                let tls = otlp::trust::client().map_err(|reason| self.unreachable(&reason))?;
                let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
                let client = client.redirect(reqwest::redirect::Policy::none()).build();
                let client = client.map_err(|error| self.unreachable(&error))?;
                let transport = StreamableHttpClientTransport::with_client(client, config);
                let service = serve_client((), transport).await.map_err(|error| self.unreachable(&error))?;
                Ok(Connection { service, program: None })
            }
        }
    }

    /// Forgets a connection that failed, unless another has taken its place.
    async fn drop_connection(&self, failed: &Arc<Connection>) {
        let mut known = self.connection.lock().await;
        if known.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, failed)) {
            *known = None;
        }
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Unreachable { server: self.name.clone(), reason: reason.to_string() }
    }
}

/// What the model is told of a result.
fn output(result: CallToolResult) -> Output {
    let said = result.content.into_iter().map(|block| match block {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => format!("[image {}]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[audio {}]", audio.mime_type),
        ContentBlock::Resource(_) => "[resource]".to_owned(),
        ContentBlock::ResourceLink(link) => format!("[resource {}]", link.uri),
        _ => "[content of another kind]".to_owned(),
    });
    let mut text = said.collect::<Vec<_>>().join("\n");
    if text.is_empty() {
        text = result.structured_content.map(|value| value.to_string()).unwrap_or_default();
    }
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        text.push_str("\n[cut: the tool said more]");
    }
    Output { text, is_error: result.is_error.unwrap_or(false) }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The group may be gone already.
        let _ = kill_process_group(group, signal);
    }
}
