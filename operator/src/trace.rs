//! Traces: each transition of an object, from the change that asked for it over the calls to its pods to the status that
//! tells of it. Without a collector no span is made.

use std::net::SocketAddr;

use lifecycle::BootFile;
use otlp::Service;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::observe::index::Owner;

const TARGET: &str = "operator::traces";
/// What collectors know this program by.
pub const SERVICE: Service = Service { name: "agentruntime-operator", target: TARGET };

/// The transition of an object that is under way. Nothing depends on it; one that began before this process has none.
#[derive(Clone, Debug, Default)]
pub struct Transition {
    under_way: Option<(i64, Span)>,
}

impl Transition {
    /// A new epoch begins a trace of its own, and ends the one before.
    pub fn begin(&mut self, owner: &Owner, file: &BootFile) {
        if self.under_way.as_ref().is_some_and(|(epoch, _)| *epoch == file.epoch) {
            return;
        }
        self.end("superseded");
        let span = info_span!(
            target: TARGET,
            parent: None,
            "transition",
            otel.name = %format_args!("transition to {}", file.state),
            k8s.namespace.name = owner.namespace,
            hive.runtime.name = owner.name,
            hive.epoch = file.epoch,
            hive.desired_state = %file.state,
            hive.outcome = Empty,
        );
        self.under_way = Some((file.epoch, span));
    }

    /// Its pods have acknowledged, and the status says so.
    pub fn reached(&mut self) {
        self.end("reached");
    }

    fn end(&mut self, outcome: &str) {
        if let Some((_, span)) = self.under_way.take() {
            span.record("hive.outcome", outcome);
        }
    }

    /// A request to the API server on its way.
    #[must_use]
    pub fn request(&self, name: &'static str) -> Span {
        let Some((_, transition)) = &self.under_way else { return Span::none() };
        info_span!(
            target: TARGET,
            parent: transition,
            "request",
            otel.name = name,
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
        )
    }

    /// A call to a pod on its way, with the pod's name, UID and address.
    #[must_use]
    pub fn call(&self, what: &'static str, (pod, uid): (&str, &str), address: SocketAddr) -> Span {
        let Some((_, transition)) = &self.under_way else { return Span::none() };
        info_span!(
            target: TARGET,
            parent: transition,
            "call",
            otel.name = %format_args!("{what} {pod}"),
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            k8s.pod.name = pod,
            k8s.pod.uid = uid,
            server.address = %address.ip(),
            server.port = address.port(),
        )
    }
}

/// What the present span tells of has failed.
pub fn failed(kind: &str) {
    let span = Span::current();
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}
