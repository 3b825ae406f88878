//! An MCP server to try agents with: over standard input and output, or with `--http PORT` over HTTP.
//!
//! It counts the calls of `web_search` by idempotency key in the file that MCP_COUNT_FILE names,
//! and their places in a trace in that of MCP_TRACE_FILE.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt as _};
use serde_json::{Value, json};

/// Offers the tools of the examples.
#[derive(Clone)]
struct Web;

impl ServerHandler for Web {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::default();
        info.capabilities = ServerCapabilities::builder().enable_tools().build();
        info
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &'static str, argument: &str| {
            let schema = json!({"type": "object", "properties": {argument: {}}});
            let Value::Object(schema) = schema else { return Tool::new(name, "", Arc::default()) };
            Tool::new(name, "A tool to try agents with.", Arc::new(schema))
        };
        let tools =
            [("web_search", "query"), ("web_scrape", "url"), ("echo", "text"), ("slow", "seconds"), ("die", "now")];
        Ok(ListToolsResult::with_all_items(tools.map(|(name, argument)| tool(name, argument)).to_vec()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = call.arguments.unwrap_or_default();
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = context.meta.0.get("agents.hive.dev/idempotency-key").cloned().unwrap_or_default();
        count("MCP_COUNT_FILE", &call.name, &key);
        count("MCP_TRACE_FILE", &call.name, context.meta.0.get("traceparent").unwrap_or(&Value::Null));
        let said = match call.name.as_ref() {
            "web_search" => format!("https://example.org/{} is about {}", text("query"), text("query")),
            "web_scrape" => format!("the content of {}", text("url")),
            "echo" => text("text"),
            "slow" => {
                let seconds = arguments.get("seconds").and_then(Value::as_f64).unwrap_or(1.0);
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                "awake".to_owned()
            }
            "die" => std::process::exit(1),
            other => return Ok(CallToolResult::error(vec![ContentBlock::text(format!("no tool {other}"))]).into()),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
    }
}

/// Notes a call in the file that a variable names, so that a test can count them.
fn count(variable: &str, tool: &str, key: &Value) {
    let Some(path) = std::env::var_os(variable) else { return };
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path) {
        // In one write, for calls side by side would mix their lines. One that cannot be noted is
        // missed by the test.
        let line = format!("{tool} {}\n", key.as_str().unwrap_or("none"));
        let _ = file.write_all(line.as_bytes());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--http") {
        let port: u16 = arguments.next().unwrap_or_default().parse()?;
        let sessions = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(|| Ok(Web), sessions, StreamableHttpServerConfig::default());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        eprintln!("listening on {}", listener.local_addr()?);
        axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await?;
        return Ok(());
    }
    Web.serve((tokio::io::stdin(), tokio::io::stdout())).await?.waiting().await?;
    Ok(())
}
