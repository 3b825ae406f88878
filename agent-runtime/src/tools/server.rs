//! One MCP server: connected when it is needed, and again after it was lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ContentBlock, PaginatedRequestParams, RequestMetaObject, ResourceContents,
};
use rmcp::service::{RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, serve_client};
use rustix::process::Signal;
use serde_json::{Map, Value};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::{Cx, Error, Output, Tool};
use crate::programs::Family;
use crate::{lines, programs};

/// How long connecting and listing may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// The longest text that the model is told, in bytes.
const MAX_TEXT: usize = 1024 * 1024;
/// Pages of a server's tools.
const MAX_PAGES: usize = 100;
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
    /// Variables that it does not inherit.
    hidden: Vec<String>,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// A connection, with the program behind it.
#[derive(Debug)]
struct Connection {
    service: RunningService<RoleClient, ()>,
    program: Option<Program>,
}

/// A program, with all that descends from it, which goes with it.
#[derive(Debug)]
struct Program {
    child: Mutex<Child>,
    family: std::sync::Mutex<Option<Family>>,
}

impl Program {
    fn family(&self) -> std::sync::MutexGuard<'_, Option<Family>> {
        self.family.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(family) = self.family().as_ref() {
            family.signal(signal);
        }
    }

    /// SIGTERM to the group, two seconds, SIGKILL; returns when nothing of it is left.
    async fn end(&self) {
        self.signal(Signal::TERM);
        let mut child = self.child.lock().await;
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            if let Err(error) = child.wait().await {
                tracing::error!(%error, "an MCP server could not be reaped");
            }
        }
        let family = self.family().take();
        if let Some(family) = family {
            family.end().await;
        }
    }
}

impl Server {
    pub(super) fn new(name: String, reach: Reach, timeout: Duration) -> Self {
        Self { name, reach, timeout, hidden: Vec::new(), connection: Mutex::default() }
    }

    pub(super) fn hiding(self, hidden: &[String]) -> Self {
        Self { hidden: hidden.to_vec(), ..self }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The tools that it offers.
    pub(super) async fn tools(&self) -> Result<Vec<Tool>, Error> {
        let connection = self.connected().await?;
        let listed = tokio::time::timeout(CONNECT_WITHIN, self.list(&connection)).await;
        let tools = listed.map_err(|_| self.unreachable(&"its tools are not listed in time"))??;
        let tool = |tool: rmcp::model::Tool| Tool {
            name: tool.name.into_owned(),
            description: tool.description.map(std::borrow::Cow::into_owned).unwrap_or_default(),
            schema: Value::Object(tool.input_schema.as_ref().clone()),
        };
        Ok(tools.into_iter().map(tool).collect())
    }

    /// Every page of its tools, until one leads nowhere new.
    async fn list(&self, connection: &Connection) -> Result<Vec<rmcp::model::Tool>, Error> {
        let (mut tools, mut seen) = (Vec::new(), BTreeSet::new());
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let page = PaginatedRequestParams::default().with_cursor(cursor.take());
            let page = connection.service.peer().list_tools(Some(page)).await;
            let page = page.map_err(|error| self.unreachable(&error))?;
            tools.extend(page.tools);
            let Some(next) = page.next_cursor.filter(|next| !next.is_empty()) else { return Ok(tools) };
            if !seen.insert(next.clone()) {
                tracing::warn!(
                    server = self.name,
                    cursor = next,
                    "it lists its tools in a circle: those of one round are used"
                );
                return Ok(tools);
            }
            cursor = Some(next);
        }
        Err(self.unreachable(&format!("its tools have more than {MAX_PAGES} pages")))
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
            program.end().await;
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
                program.args(arguments);
                if let Some(folder) = folder {
                    program.current_dir(folder);
                }
                program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let (mut child, family) = programs::spawn(&mut program, environment, &self.hidden)
                    .map_err(|error| self.unreachable(&format!("{command}: {error}")))?;
                let pipes = (child.stdout.take(), child.stdin.take(), child.stderr.take());
                let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
                    return Err(self.unreachable(&"it has no pipes"));
                };
                let server = self.name.clone();
                tokio::spawn(async move {
                    lines::tell(stderr, |line| tracing::info!(server, stream = "stderr", "{line}")).await;
                });
                // From here on all of it goes when the program does.
                let program = Program { child: Mutex::new(child), family: std::sync::Mutex::new(Some(family)) };
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
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => text,
            ResourceContents::BlobResourceContents { uri, .. } => format!("[resource {uri}]"),
            _ => "[resource]".to_owned(),
        },
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
