//! A collector of the test's own: it takes spans over OTLP as they are on the wire, and whatever else is asked of it.

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

/// A span as it came.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) kind: i32,
    /// Its attributes, and those of its resource.
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Collector {
    address: String,
    spans: Arc<Mutex<Vec<Span>>>,
    /// The headers of requests that are none of a collector's.
    pub(crate) others: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Collector {
    /// Collects until the test ends.
    pub(crate) async fn start() -> Self {
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

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    /// The one span of a name.
    pub(crate) fn one(&self, name: &str) -> Span {
        let named = self.named(name);
        assert_eq!(named.len(), 1, "{name}: {:?}", self.all().iter().map(|span| span.name.clone()).collect::<Vec<_>>());
        named[0].clone()
    }

    pub(crate) fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap().attributes;
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            collector.spans.lock().unwrap().push(Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                attributes: resource.iter().chain(&span.attributes).map(plain).collect(),
                failed: span.status.is_some_and(|status| status.code == 2),
            });
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
