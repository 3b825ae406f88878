//! Hands finished spans to a collector over OTLP, as OpenTelemetry's environment variables say. What the
//! collector does not take in time is dropped: nothing waits for it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

/// How long a collector has for a batch where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A program whose spans are exported.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The name under which collectors find it, where nothing else is said.
    pub name: &'static str,
    /// Spans of this target are for collectors alone; log lines name the span around them.
    pub target: &'static str,
}

/// What the environment says about traces.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    timeout: Duration,
}

impl Settings {
    /// Traces are on when `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set,
    /// unless `OTEL_SDK_DISABLED` is true or `OTEL_TRACES_EXPORTER` is none. The rest of the standard
    /// variables is read where it is used.
    /// An error names the variable that asks for what there is not.
    fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let get = |name: &str| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let of_traces = |name: &str| {
            [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")]
                .into_iter()
                .find_map(|name| get(&name).map(|value| (name, value)))
        };
        let off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if off || of_traces("ENDPOINT").is_none() {
            return Ok(None);
        }
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => return Err(format!("OTEL_TRACES_EXPORTER is otlp or none here, not {other:?}")),
        }
        if let Some((name, value)) = of_traces("PROTOCOL").filter(|(_, value)| value != "http/protobuf") {
            return Err(format!("{name} is http/protobuf here, not {value:?}; collectors take it at port 4318"));
        }
        if let Some((name, value)) = of_traces("COMPRESSION").filter(|(_, value)| value != "none") {
            return Err(format!("{name} is none here, not {value:?}"));
        }
        let timeout = match of_traces("TIMEOUT") {
            None => TIMEOUT,
            Some((name, value)) => match value.parse::<u64>() {
                Ok(millis) => Duration::from_millis(millis),
                Err(_) => return Err(format!("{name} is a number of milliseconds, not {value:?}")),
            },
        };
        Ok(Some(Self { timeout }))
    }
}

/// Finished spans on their way to a collector.
#[derive(Clone, Debug)]
pub struct Export {
    provider: SdkTracerProvider,
}

impl Export {
    /// Begins to export; an error is a variable that is not what it should be.
    fn begin(service: Service, settings: &Settings) -> Result<Self, String> {
        let client = Client::new(settings.timeout)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(settings.timeout)
            .build()
            .map_err(|error| error.to_string())?;
        let mut resource = Resource::builder();
        let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
            || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
        if !named {
            resource = resource.with_service_name(service.name);
        }
        let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
        Ok(Self { provider })
    }

    /// Hands over what is finished, and gives up after `patience`.
    pub async fn finish(self, patience: Duration) {
        // The crate of traces blocks.
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(patience)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces were not delivered");
        }
    }
}

/// Begins to write log lines by this filter, and to export spans if the environment names a collector; has to be called
/// inside of the runtime that serves. What is wrong with the environment is a log line: there are no traces then, and the
/// program runs all the same.
#[must_use]
pub fn begin(service: Service, log: &str) -> Option<Export> {
    let settings = Settings::from_env(|name| std::env::var(name).ok());
    let export = settings.and_then(|settings| settings.map(|settings| Export::begin(service, &settings)).transpose());
    let subscriber = subscriber(log, service, export.as_ref().ok().and_then(Option::as_ref));
    if let Err(error) = tracing::dispatcher::set_global_default(subscriber) {
        eprintln!("cannot write log lines: {error}");
    }
    export.unwrap_or_else(|reason| {
        tracing::error!(reason, "there are no traces");
        None
    })
}

/// Takes log lines and, with an export, spans. Log lines are as they were without one.
fn subscriber(log: &str, service: Service, export: Option<&Export>) -> Dispatch {
    use tracing_subscriber::filter::FilterExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;
    // The hints of levels are what spares the debugging lines of every library the question.
    let is_trace = move |metadata: &Metadata<'_>| metadata.target() == service.target;
    let is_line = filter_fn(move |metadata| !is_trace(metadata));
    let lines = tracing_subscriber::fmt::layer().json().with_span_list(false).with_writer(std::io::stderr);
    let filter = EnvFilter::new(log);
    match export {
        Some(export) => {
            let is_trace = filter_fn(is_trace).with_max_level_hint(LevelFilter::INFO);
            let spans = spans(service, export).with_filter(is_trace);
            let lines = lines.with_filter(filter.and(is_line.with_max_level_hint(LevelFilter::TRACE)));
            tracing_subscriber::registry().with(lines).with(spans).into()
        }
        // Not a filter of the layer's own, beside an absent layer: tracing-subscriber 0.3 then asks it for each trace that
        // nobody takes, answers yes whatever it says (`FilterMap::any_enabled`), and has its no held against the next span
        // of the thread, which log lines do not name any more.
        None => tracing_subscriber::registry().with(lines).with(filter).with(is_line).into(),
    }
}

fn spans<S: Subscriber + for<'a> LookupSpan<'a>>(service: Service, export: &Export) -> impl Layer<S> + use<S> {
    tracing_opentelemetry::layer()
        .with_tracer(export.provider.tracer(service.name))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false)
        .with_level(false)
}

/// Reaches the collector from the thread of the export, by the runtime that serves.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    timeout: Duration,
    /// The collector did not take the last batch, which has been said.
    away: Arc<AtomicBool>,
}

impl Client {
    fn new(timeout: Duration) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::trust::client()?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { http, runtime: Handle::current(), timeout, away: Arc::default() })
    }
}

/// What the trait asks for.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'life0, 'async_trait>(&'life0 self, request: Request<Bytes>) -> Answering<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let (http, timeout, away) = (self.http.clone(), self.timeout, Arc::clone(&self.away));
        let task = self.runtime.spawn(async move {
            let answered = tokio::time::timeout(timeout, exchange(&http, request)).await;
            let answered =
                answered.unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs_f32()).into()));
            let reason = match &answered {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("it answered {}", answer.status())),
                Err(error) => Some(lifecycle::client::chain(error.as_ref())),
            };
            // Said once for each time that it is away.
            match (away.swap(reason.is_some(), Ordering::Relaxed), reason) {
                (false, Some(reason)) => tracing::warn!(reason, "the collector takes no traces: they are dropped"),
                (true, None) => tracing::info!("the collector takes traces again"),
                (_, _) => {}
            }
            answered
        });
        Box::pin(async move { task.await? })
    }
}

async fn exchange(http: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut response = http.execute(request.try_into()?).await?;
    let mut answer = Response::builder().status(response.status());
    if let Some(headers) = answer.headers_mut() {
        headers.clone_from(response.headers());
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ANSWER {
            return Err(format!("its answer has more than {MAX_ANSWER} bytes").into());
        }
    }
    Ok(answer.body(Bytes::from(body))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::Registry;
    use tracing_subscriber::fmt::FormattedFields;
    use tracing_subscriber::fmt::format::JsonFields;

    /// What the layer of lines keeps with each span that it is to name.
    type JsonLine = FormattedFields<JsonFields>;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::from_env(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn traces_are_on_where_a_collector_is_named() {
        let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(read(&[on]), Ok(Some(Settings { timeout: TIMEOUT })));
        assert_eq!(read(&[on, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(read(&[on, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        let short = Settings { timeout: Duration::from_millis(200) };
        let times = [("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "200")];
        assert_eq!(read(&[on, times[0], times[1]]), Ok(Some(short)));
    }

    /// What the layer of lines makes of a span that is made after a library has asked whether it would be heard.
    #[tokio::test]
    async fn a_question_that_is_answered_with_no_hides_no_span() {
        let service = Service { name: "test", target: "traces" };
        let export = Export::begin(service, &Settings { timeout: TIMEOUT }).unwrap();
        for export in [None, Some(&export)] {
            let subscriber = subscriber("info", service, export);
            tracing::dispatcher::with_default(&subscriber, || {
                assert_eq!(LevelFilter::current(), LevelFilter::INFO, "debugging lines are asked for: {export:?}");
                for _ in 0..2 {
                    assert!(!tracing::enabled!(target: "sqlx::query", tracing::Level::DEBUG));
                    assert_eq!(tracing::enabled!(target: "traces", tracing::Level::INFO), export.is_some());
                    let span = tracing::info_span!("execution", id = 1);
                    let lines = span.with_subscriber(|(id, dispatch)| {
                        dispatch
                            .downcast_ref::<Registry>()
                            .unwrap()
                            .span(id)
                            .unwrap()
                            .extensions()
                            .get::<JsonLine>()
                            .is_some()
                    });
                    assert_eq!(lines, Some(true), "{export:?}");
                }
            });
        }
    }

    #[test]
    fn a_variable_that_asks_for_what_there_is_not_is_named() {
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ] {
            let error =
                read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/v1/traces"), (name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
