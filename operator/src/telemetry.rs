//! Metrics and the health endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Error;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabel {
    call: &'static str,
    result: &'static str,
}

/// Seconds; from a warm push to a hung pod.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 3.0, 30.0];

/// Counts what the operator does. No label holds an object's name: their number would grow without bound.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_seconds: Histogram,
    calls: Family<CallLabel, Counter>,
    call_seconds: Histogram,
    leading: Gauge<i64, AtomicI64>,
    ready: AtomicBool,
}

impl Default for Telemetry {
    fn default() -> Self {
        let reconciles = Family::<ResultLabel, Counter>::default();
        let reconcile_seconds = Histogram::new(BUCKETS);
        let calls = Family::<CallLabel, Counter>::default();
        let call_seconds = Histogram::new(BUCKETS);
        let leading = Gauge::<i64, AtomicI64>::default();
        let mut registry = Registry::default();
        registry.register("controller_runtime_reconcile", "Reconciles by result", reconciles.clone());
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "Length of reconciles, which never wait for a pod",
            reconcile_seconds.clone(),
        );
        registry.register("agentruntime_pod_calls", "Calls to pods by verb and result", calls.clone());
        registry.register("agentruntime_pod_call_seconds", "Length of calls to pods", call_seconds.clone());
        registry.register("agentruntime_leading", "1 while this replica acts", leading.clone());
        Self { registry, reconciles, reconcile_seconds, calls, call_seconds, leading, ready: AtomicBool::new(false) }
    }
}

impl Telemetry {
    /// Notes a reconcile.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Notes a call to a pod.
    pub fn called(&self, call: &'static str, result: &'static str, took: Duration) {
        self.calls.get_or_create(&CallLabel { call, result }).inc();
        self.call_seconds.observe(took.as_secs_f64());
    }

    /// Notes whether this replica acts.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// The CRD is there: this replica leads or can take over.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

/// Serves /metrics, /healthz and /readyz until `stop`.
///
/// # Errors
/// The address is taken or not ours.
pub async fn serve(
    address: SocketAddr,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) -> Result<JoinHandle<std::io::Result<()>>, Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(telemetry);
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    Ok(tokio::spawn(serving.into_future()))
}

async fn ready(State(telemetry): State<Arc<Telemetry>>) -> impl IntoResponse {
    if telemetry.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the CustomResourceDefinition agentruntimes.agents.hive.dev")
    }
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &telemetry.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
