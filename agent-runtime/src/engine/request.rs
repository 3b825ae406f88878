//! A request as a step: over http or https, capped, without redirects.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request as HttpRequest, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lifecycle::client::chain;
use serde_json::{Map, Value, json};
use tracing::Instrument as _;

use super::fill;
use super::step::{Outcome, Step};
use crate::definition::Request;
use crate::trace::{self, TraceContext};

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// A pool of connections.
#[derive(Debug)]
pub(super) struct Client {
    http: Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Default for Client {
    fn default() -> Self {
        let connector = HttpsConnectorBuilder::new();
        let connector = match otlp::trust::client() {
            Ok(config) => connector.with_tls_config(config),
            Err(reason) => {
                tracing::error!(reason, "requests over https trust the roots that browsers ship only");
                connector.with_webpki_roots()
            }
        };
        let connector = connector.https_or_http().enable_http1().build();
        let http = Hyper::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { http }
    }
}

impl Client {
    /// Makes a request. The outputs are `status`, `elapsed_ms`, `body`, and the fields of a body that is a JSON object.
    pub(super) async fn run(&self, request: &Request, memory: &Map<String, Value>, step: &Step<'_>) -> Outcome {
        let mut built = match build(request, memory, step) {
            Ok(built) => built,
            Err(reason) => return Outcome::failed("input", reason),
        };
        let span = trace::request(built.method(), built.uri());
        if let Some(here) = TraceContext::of_span(&span).or_else(|| step.trace.cloned()) {
            // What the agent sets itself comes first.
            for (name, value) in here.headers().filter(|(name, _)| !request.headers.contains_key(*name)) {
                built
                    .headers_mut()
                    .extend(HeaderValue::try_from(value).ok().map(|value| (HeaderName::from_static(name), value)));
            }
        }
        let outcome = self.send(request, built, step).instrument(span.clone()).await;
        if let Outcome::Failure(failure) = &outcome {
            trace::failed(&span, failure);
        }
        outcome
    }

    async fn send(&self, request: &Request, built: HttpRequest<Full<Bytes>>, step: &Step<'_>) -> Outcome {
        let begun = Instant::now();
        let answered = tokio::select! {
            answered = tokio::time::timeout(request.timeout, self.exchange(built)) => answered,
            // Dropping the exchange closes its connection.
            () = step.permit.interrupted() => return Outcome::Interrupted,
        };
        match answered {
            Err(_) => Outcome::failed("timeout", format!("no answer within {} s", request.timeout.as_secs_f32())),
            Ok(Err(reason)) => Outcome::failed("connection", reason),
            Ok(Ok((status, _))) if request.fail_on_error_status && status >= 400 => {
                Outcome::failed("status", format!("the answer was {status}"))
            }
            Ok(Ok((status, body))) => Outcome::Success(outputs(status, &body, begun)),
        }
    }

    async fn exchange(&self, request: HttpRequest<Full<Bytes>>) -> Result<(u16, Bytes), String> {
        let response = self.http.request(request).await.map_err(|error| chain(&error))?;
        let status = response.status().as_u16();
        tracing::Span::current().record("http.response.status_code", i64::from(status));
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the answer of at most {MAX_ANSWER} bytes cannot be read: {error}"))?;
        Ok((status, body.to_bytes()))
    }
}

fn build(request: &Request, memory: &Map<String, Value>, step: &Step<'_>) -> Result<HttpRequest<Full<Bytes>>, String> {
    let url = fill::text(&request.url, memory);
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    let body = match &request.body {
        Some(Value::String(text)) => Bytes::from(fill::text(text, memory)),
        Some(value) => Bytes::from(fill::json(value, memory).to_string()),
        None => Bytes::new(),
    };
    let mut built = HttpRequest::builder().method(request.method.clone()).uri(uri);
    if let Some(headers) = built.headers_mut() {
        headers
            .insert(header::USER_AGENT, HeaderValue::from_static(concat!("agent-runtime/", env!("CARGO_PKG_VERSION"))));
        if request.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &request.headers {
            let value = fill::text(value, memory);
            let name = HeaderName::try_from(name).map_err(|error| format!("header {name:?}: {error}"))?;
            let value = HeaderValue::try_from(value).map_err(|error| format!("header {name}: {error}"))?;
            headers.insert(name, value);
        }
        let key = HeaderValue::try_from(&step.idempotency_key).map_err(|error| format!("Idempotency-Key: {error}"))?;
        headers.insert("idempotency-key", key);
    }
    built.body(Full::new(body)).map_err(|error| error.to_string())
}

fn outputs(status: u16, body: &[u8], begun: Instant) -> Map<String, Value> {
    let value =
        serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
    let mut outputs = match &value {
        Value::Object(fields) => fields.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    outputs.insert("status".to_owned(), json!(status));
    outputs.insert("elapsed_ms".to_owned(), json!(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)));
    outputs.insert("body".to_owned(), value);
    outputs
}
