//! The HTTP server: bounded in every direction, and closed on time whatever clients do.

mod access;
mod events;
mod executions;
mod extract;
mod openapi;
mod problem;
pub mod signature;
mod verbs;
mod webhooks;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::control::Controller;
use crate::trace;
use problem::Refusal;

pub use openapi::document;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// A request's head, and then its body, must come within this.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// A client that takes nothing of its answer for this long is gone.
const TAKEN_WITHIN: Duration = READ_WITHIN;
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// What every handler needs.
#[derive(Clone, Debug)]
struct App {
    controller: Arc<Controller>,
    /// Connections are to be closed after their answer.
    leaving: Arc<AtomicBool>,
    rates: webhooks::Rates,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
    leaving: Arc<AtomicBool>,
    connections: Arc<Semaphore>,
}

/// Tells a server to end.
#[derive(Clone, Debug)]
pub struct Leaving {
    flag: Arc<AtomicBool>,
}

impl Leaving {
    /// From now on each answer closes its connection, so that clients find another pod.
    pub fn begin(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr, controller: Arc<Controller>) -> io::Result<Self> {
        let listener = lifecycle::listen::bind(address)?;
        let leaving = Arc::new(AtomicBool::new(false));
        // More wait in the kernel's backlog.
        let connections = Arc::new(Semaphore::new(controller.config().max_connections));
        let app = App { controller, leaving: Arc::clone(&leaving), rates: webhooks::Rates::default() };
        let router = router(app);
        Ok(Self { listener, router, leaving, connections })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The way to tell it that it is about to end.
    #[must_use]
    pub fn leaving(&self) -> Leaving {
        Leaving { flag: Arc::clone(&self.leaving) }
    }

    /// Serves until `stop`, then lets answers under way finish, for at most `patience`.
    pub async fn run(self, stop: CancellationToken, patience: Duration) {
        let graceful = GracefulShutdown::new();
        let connections = self.connections;
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &connections) => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of descriptors: accepting again at once would spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(self.router.clone());
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_WITHIN)
                .max_header_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended badly");
                }
                drop(permit);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
            tracing::warn!("connections were still open at the end");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let patience = u32::try_from(TAKEN_WITHIN.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, patience)?;
    Ok((stream, permit))
}

fn router(app: App) -> Router {
    Router::new()
        .route("/api/v1/lifecycle/{verb}", post(verbs::command))
        .route("/api/v1/lifecycle/brake", post(verbs::brake))
        .route("/api/v1/status", get(verbs::status))
        .route("/api/v1/status/streams", get(verbs::streams))
        .route("/api/v1/entry-points/{id}/trigger", post(executions::trigger))
        .route("/api/v1/executions", get(executions::list))
        .route("/api/v1/executions/cancel", post(executions::cancel_all))
        .route("/api/v1/executions/{id}", get(executions::get))
        .route("/api/v1/executions/{id}/cancel", post(executions::cancel))
        .route("/api/v1/executions/{id}/retry", post(executions::retry))
        .route("/api/v1/executions/{id}/input", post(executions::input))
        .route("/api/v1/executions/{id}/events", get(events::follow))
        .route("/api/v1/events/{name}", post(events::emit))
        .route("/health/live", get(verbs::live))
        .route("/health/ready", get(verbs::ready))
        .route("/metrics", get(verbs::metrics))
        .route("/openapi.json", get(openapi::serve))
        .route("/agent.schema.json", get(openapi::agent_schema))
        .fallback(webhooks::receive)
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "see /openapi.json for what is allowed")
        })
        .layer(middleware::from_fn_with_state(app.clone(), bound))
        .with_state(app)
}

/// Asks for what a request must bear, reads its body within its bounds, and closes connections when leaving.
async fn bound(State(app): State<App>, request: Request, next: Next) -> Response {
    let span = traced(&app, &request);
    let mut response = match admit(&app, request).await {
        Ok(request) => next.run(request).instrument(span.clone()).await,
        Err(refusal) => {
            let mut response = refusal.into_response();
            // The rest of the body is not read, so the connection cannot be used again.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    if app.leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    app.controller.telemetry().answered(response.status().as_u16());
    trace::answered(&span, response.status());
    response
}

/// The span of a request that may begin something; of the others none is made.
fn traced(app: &App, request: &Request) -> Span {
    if !trace::is_on() {
        return Span::none();
    }
    let (method, path) = (request.method(), request.uri().path());
    let within = |before: &str, after: &str| path.starts_with(before) && path.ends_with(after);
    let route = match *method {
        Method::POST if within("/api/v1/entry-points/", "/trigger") => "/api/v1/entry-points/{id}/trigger",
        Method::POST if within("/api/v1/events/", "") => "/api/v1/events/{name}",
        _ if webhooks::is_one(app, path) => path,
        _ => return Span::none(),
    };
    trace::trigger(method, path, route, request.headers())
}

async fn admit(app: &App, request: Request) -> Result<Request, Refusal> {
    let path = request.uri().path();
    let need = access::Rules::of(app).need(request.method(), path, webhooks::is_signed(app, path));
    access::admit(app, need, path, request.headers()).await?;
    read(request).await
}

async fn read(request: Request) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    let too_large = || {
        let detail = format!("a body has at most {MAX_BODY} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    let whole = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(READ_WITHIN, whole).await {
        Ok(Ok(whole)) => Ok(Request::from_parts(parts, Body::from(whole.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::invalid(format!("the body cannot be read: {error}"))),
        Err(_) => {
            let detail = format!("the body did not come within {} s", READ_WITHIN.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail))
        }
    }
}
