//! Webhooks: requests on paths of the agent's own, signed, and bounded in rate and size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::problem::Refusal;
use super::{App, executions, signature};
use crate::definition::{Agent, Trigger, Webhook};
use crate::store::Key;
use crate::trace::TraceContext;

/// Headers that an execution is told of.
const TOLD: &[&str] = &["content-type", "user-agent", "x-github-event", "x-github-delivery", "x-event-type"];
/// Headers that name a delivery, so that one that is repeated begins nothing again.
const DELIVERY: &[&str] = &["idempotency-key", "x-github-delivery"];
/// Seconds after which a refused request may be tried again.
const RETRY_SECONDS: u32 = 5;

/// A rate, and what keeps to it.
type Limited = (u32, Arc<DefaultDirectRateLimiter>);

/// One limiter for each path, made anew when its rate changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    paths: Arc<Mutex<HashMap<String, Limited>>>,
}

impl Rates {
    /// Whether one more request fits into the rate.
    fn admits(&self, webhook: &Webhook) -> bool {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = webhook.per_minute.get();
        let fresh = || (rate, Arc::new(RateLimiter::direct(Quota::per_minute(webhook.per_minute))));
        let known = paths.entry(webhook.path.clone()).or_insert_with(fresh);
        if known.0 != rate {
            *known = fresh();
        }
        known.1.check().is_ok()
    }
}

/// The entry point of a path.
pub(super) fn find<'a>(agent: &'a Agent, path: &str) -> Option<(&'a String, &'a Webhook)> {
    agent.entry_points.iter().find_map(|(id, entry)| match &entry.trigger {
        Trigger::Webhook(webhook) if webhook.path == path => Some((id, webhook)),
        Trigger::Webhook(_) | Trigger::Api | Trigger::Timer(_) | Trigger::Event(_) => None,
    })
}

/// Every path that is not the runtime's own: a webhook's, or nothing's.
pub(super) async fn receive(
    State(app): State<App>,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let agent = app.controller.engine().map(|engine| engine.agent());
    let Some((entry_point, webhook)) = agent.as_ref().and_then(|agent| find(agent, uri.path())) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "see /openapi.json for what is here"));
    };
    if !webhook.methods.contains(&method) {
        let detail = format!("this webhook takes {:?}", webhook.methods);
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail));
    }
    if !app.rates.admits(webhook) {
        let detail = format!("more than {} requests in a minute", webhook.per_minute);
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail).retry_after(RETRY_SECONDS));
    }
    if body.len() > webhook.max_body {
        let detail = format!("a body has at most {} bytes here", webhook.max_body);
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail));
    }
    check(webhook, &headers, &body)?;
    let key = DELIVERY.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let key = key.map(|key| Key { key: key.to_owned(), body: Sha256::digest(&body).into() });
    let trace = TraceContext::of_headers(&headers);
    executions::accept(&app, entry_point.clone(), memory(&uri, &method, &headers, &body), key, trace, None).await
}

fn check(webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let Some(secret) = &webhook.secret else { return Ok(()) };
    let secret = secret.read().map_err(|reason| {
        tracing::error!(path = webhook.path, reason, "the webhook's secret cannot be read, so nothing is let in");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the webhook is not set up")
    })?;
    let given = headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok());
    signature::verify(secret.as_bytes(), given, body)
        .map_err(|error| Refusal::new(StatusCode::UNAUTHORIZED, "bad_signature", error.to_string()))
}

/// What an execution begins with: the body's fields, or the body whole, and where it came from.
fn memory(uri: &Uri, method: &Method, headers: &HeaderMap, body: &[u8]) -> Map<String, Value> {
    let mut memory = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => Map::from_iter([("body".to_owned(), other)]),
        Err(_) => Map::from_iter([("body".to_owned(), String::from_utf8_lossy(body).into())]),
    };
    let told = TOLD.iter().filter_map(|name| Some(((*name).to_owned(), headers.get(*name)?.to_str().ok()?.into())));
    let request = json!({
        "path": uri.path(),
        "query": uri.query(),
        "method": method.as_str(),
        "headers": told.collect::<Map<String, Value>>(),
    });
    memory.insert("webhook".to_owned(), request);
    memory
}

/// Whether a path is a webhook's.
pub(super) fn is_one(app: &App, path: &str) -> bool {
    let agent = app.controller.engine().map(|engine| engine.agent());
    agent.is_some_and(|agent| find(&agent, path).is_some())
}

/// Whether a request proves by itself who sent it.
pub(super) fn is_signed(app: &App, path: &str) -> bool {
    let agent = app.controller.engine().map(|engine| engine.agent());
    agent.is_some_and(|agent| find(&agent, path).is_some_and(|(_, webhook)| webhook.secret.is_some()))
}
