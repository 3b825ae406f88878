//! A collector for tests: it takes spans over OTLP as they are on the wire, and whatever else is asked of it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use tokio::sync::watch;

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// The trace, in hexadecimal digits.
    pub trace: String,
    /// The span, in hexadecimal digits.
    pub id: String,
    /// The span that it is part of; empty for the first of a trace.
    pub parent: String,
    /// As the protocol counts them: 2 is a server's, 3 a client's.
    pub kind: i32,
    /// Its attributes, and those of its resource.
    pub attributes: BTreeMap<String, String>,
    /// Its status is an error.
    pub failed: bool,
}

/// What has been collected so far.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    address: String,
    spans: Arc<watch::Sender<Vec<Span>>>,
    /// The headers of requests that are none of a collector's.
    pub others: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Collector {
    /// Collects until the test ends.
    ///
    /// # Panics
    /// No port of loopback is free.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let collector = Self { address, ..Self::default() };
        let other = |State(collector): State<Self>, headers: HeaderMap| async move {
            collector.others.lock().unwrap().push(headers);
            "{}"
        };
        let router = Router::new().route("/v1/traces", post(take)).fallback(other).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        collector
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for a span of this name.
    pub async fn arrived(&self, name: &str) {
        let mut spans = self.spans.subscribe();
        // The sender is this collector's own.
        let _ = spans.wait_for(|spans| spans.iter().any(|span| span.name == name)).await;
    }

    /// All spans of a name.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    /// The one span of a name.
    ///
    /// # Panics
    /// There is none, or more than one.
    #[must_use]
    pub fn one(&self, name: &str) -> Span {
        let named = self.named(name);
        assert_eq!(named.len(), 1, "{name}: {:?}", self.all().iter().map(|span| span.name.clone()).collect::<Vec<_>>());
        named[0].clone()
    }

    /// All spans, in the order in which they came.
    #[must_use]
    pub fn all(&self) -> Vec<Span> {
        self.spans.borrow().clone()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap().attributes;
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let span = Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                attributes: resource.iter().chain(&span.attributes).map(plain).collect(),
                failed: span.status.is_some_and(|status| status.code == 2),
            };
            collector.spans.send_modify(|spans| spans.push(span));
        }
    }
    Vec::new()
}

fn plain(pair: &KeyValue) -> (String, String) {
    let text = match pair.value.clone() {
        Some(AnyValue { value: Some(Any::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Any::IntValue(number)) }) => number.to_string(),
        other => format!("{other:?}"),
    };
    (pair.key.clone(), text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
