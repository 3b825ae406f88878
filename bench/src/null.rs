//! The null server: hyper and nothing else, with answers as long as the runtime's. What it reaches is the limit.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::group_commit::Writer;

/// Where it listens and writes.
#[derive(Debug, Args)]
pub(crate) struct Null {
    port: u16,
    /// The folder of its log; without one it accepts no triggers.
    folder: Option<PathBuf>,
}

/// As long as the status of a runtime with one entry point.
const STATUS: &str = r#"{"state":"running","uptime_seconds":0,"active_streams":0,"total_executions":0,"failed_executions":0,"entry_points":["main"],"health":{"storage":"healthy","llm":"unknown","tools":"unknown"},"in_flight":0,"waiting_for_input":0,"queued":0,"epoch":0,"holds":[],"boot_id":"00000000000000000000000000000000","version":"00000000000000000000000000000000.3","counter_scope":"pod","awaiting_confirmation":false}"#;
const ACCEPTED: &str = r#"{"execution":"00000000-0000-0000-0000-000000000000","repeated":false}"#;

/// Serves until the process is ended.
pub(crate) fn serve(task: &Null) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, task.port))).await?;
        let writer = Arc::new(task.folder.as_deref().map(|folder| Writer::start(folder, None)).transpose()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let writer = Arc::clone(&writer);
            let service = service_fn(move |request| answer(Arc::clone(&writer), request));
            // A client that hangs up is no fault.
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

async fn answer(writer: Arc<Option<Writer>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_trigger = request.method() == Method::POST && request.uri().path().ends_with("/trigger");
    let is_status = request.uri().path() == "/api/v1/status";
    let read = request.into_body().collect().await.is_ok();
    let (code, text) = match writer.as_ref() {
        Some(writer) if is_trigger && read && writer.write().await.is_ok() => (StatusCode::ACCEPTED, ACCEPTED),
        Some(_) | None if is_trigger => (StatusCode::SERVICE_UNAVAILABLE, ""),
        Some(_) | None if is_status => (StatusCode::OK, STATUS),
        Some(_) | None => (StatusCode::OK, "ready"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
