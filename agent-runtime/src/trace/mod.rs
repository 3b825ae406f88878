//! Traces: which trace an execution belongs to, kept with it so that the trace goes on after a crash,
//! and the spans from the trigger to each call. Without a collector none of the spans is made.

mod spans;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use utoipa::ToSchema;

pub(crate) use spans::{
    answered, asked, called, execution, failed, model, node, request, rested, settled, tick, tool, trigger,
};

const TARGET: &str = "agent_runtime::traces";
/// What collectors know this program by.
pub const SERVICE: otlp::Service = otlp::Service { name: "agent-runtime", target: TARGET };
/// The longest tracestate that is kept, in bytes; a longer one may be left out.
const MAX_STATE: usize = 512;

/// Whether spans go anywhere.
pub(crate) fn is_on() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// A place in a trace, as W3C Trace Context writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceContext {
    /// The trace, the span in it, and whether it is recorded.
    pub traceparent: String,
    /// What the systems on the way add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// What a request bears; none if that is not well-formed.
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let all = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().ok())
                .collect::<Option<Vec<_>>>()
                .unwrap_or_default()
        };
        // Of the one there is one; the other may come in pieces.
        let traceparent = match all("traceparent").as_slice() {
            [one] => (*one).to_owned(),
            _ => return None,
        };
        let tracestate = Some(all("tracestate").join(",")).filter(|states| !states.is_empty());
        let given = Self { traceparent, tracestate };
        Self::of(&given.context())
    }

    /// The present span, or what was kept where no span is recorded.
    #[must_use]
    pub(crate) fn here(kept: Option<&Self>) -> Option<Self> {
        Self::of_span(&Span::current()).or_else(|| kept.cloned())
    }

    pub(crate) fn of_span(span: &Span) -> Option<Self> {
        Self::of(&span.context())
    }

    fn of(context: &Context) -> Option<Self> {
        if !context.span().span_context().is_valid() {
            return None;
        }
        let mut written = Self { traceparent: String::new(), tracestate: None };
        TraceContextPropagator::new().inject_context(context, &mut written);
        Some(written)
    }

    /// What the crate of traces makes of it.
    fn context(&self) -> Context {
        // Whatever span is current here, it is not the parent.
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }

    /// The headers that hand it on.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let state = self.tracestate.as_deref().map(|state| ("tracestate", state));
        [("traceparent", self.traceparent.as_str())].into_iter().chain(state)
    }
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        self.headers().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn keys(&self) -> Vec<&str> {
        self.headers().map(|(name, _)| name).collect()
    }
}

impl Injector for TraceContext {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "traceparent" => self.traceparent = value,
            "tracestate" if (1..=MAX_STATE).contains(&value.len()) => self.tracestate = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(pairs: &[(&'static str, &str)]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        TraceContext::of_headers(&headers)
    }

    #[test]
    fn a_requests_place_in_a_trace_is_kept_as_it_was_written() {
        let whole = read(&[("traceparent", PARENT), ("tracestate", "vendor=a:1,other=b")]).unwrap();
        assert_eq!((whole.traceparent.as_str(), whole.tracestate.as_deref()), (PARENT, Some("vendor=a:1,other=b")));
        let pieces = [("traceparent", PARENT), ("tracestate", "vendor=a:1"), ("tracestate", "other=b")];
        assert_eq!(read(&pieces), Some(whole.clone()));
        let unsampled = PARENT.replace("-01", "-00");
        assert_eq!(read(&[("traceparent", &unsampled)]).unwrap().traceparent, unsampled);
        let kept = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<TraceContext>(&kept).unwrap(), whole);
    }

    #[test]
    fn what_is_not_well_formed_begins_a_trace_of_its_own() {
        for parent in
            ["", "00", "zz", &PARENT[..52], &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32))]
        {
            assert_eq!(read(&[("traceparent", parent)]), None, "{parent:?}");
        }
        assert_eq!(read(&[("traceparent", PARENT), ("traceparent", PARENT)]), None, "two of them");
        let long = format!("vendor={}", "x".repeat(250));
        let longer = format!("{long},b={},c={}", "y".repeat(250), "z".repeat(250));
        assert_eq!(read(&[("traceparent", PARENT), ("tracestate", &longer)]).unwrap().tracestate, None);
    }
}
