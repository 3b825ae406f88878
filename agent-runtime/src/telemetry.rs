//! Metrics, and the health of models and tools from their recent calls.

use std::collections::VecDeque;
use std::sync::atomic::AtomicI64;
use std::sync::{Mutex, PoisonError};

use lifecycle::wire::HealthLevel;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::step::Outcome;
use crate::llm::Usage;
use crate::store::State;

/// Recent calls from which health is judged.
const RECENT: usize = 20;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EntryLabel {
    entry_point: String,
}

/// Values that are read when they are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Executions with a permit.
    pub in_flight: usize,
    /// Executions that wait for their turn.
    pub queued: usize,
    /// Executions that are parked.
    pub parked: usize,
    /// Whether executions are admitted.
    pub open: bool,
    /// The epoch held.
    pub epoch: i64,
}

/// Counts what the runtime does.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    executions: Family<StateLabel, Counter>,
    steps: Family<StepLabel, Counter>,
    answers: Family<CodeLabel, Counter>,
    accept_seconds: Histogram,
    in_flight: Gauge<i64, AtomicI64>,
    queued: Gauge<i64, AtomicI64>,
    parked: Gauge<i64, AtomicI64>,
    open: Gauge<i64, AtomicI64>,
    epoch: Gauge<i64, AtomicI64>,
    tokens: Family<DirectionLabel, Counter>,
    run_seconds: Family<EntryLabel, Histogram>,
    recent: Mutex<VecDeque<bool>>,
    recent_models: Mutex<VecDeque<bool>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hive");
        let (executions, steps, answers) = (Family::default(), Family::default(), Family::default());
        let accept_seconds = Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0]);
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::<i64, AtomicI64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        registry.register("executions", "Executions that ended, by state", Family::clone(&executions));
        registry.register("steps", "Programs and requests, by kind and result", Family::clone(&steps));
        registry.register("http_answers", "Answers of this server, by code", Family::clone(&answers));
        registry.register("accept_seconds", "From a trigger to its execution on disk", accept_seconds.clone());
        let tokens = Family::default();
        let run_seconds = Family::new_with_constructor(run_histogram as fn() -> Histogram);
        registry.register("tokens", "Tokens of language models, by direction", Family::clone(&tokens));
        registry.register(
            "execution_run_seconds",
            "Time that an execution held its permit, by entry point",
            Family::clone(&run_seconds),
        );
        let in_flight = gauge(&mut registry, "executions_in_flight", "Executions that hold a permit");
        let queued = gauge(&mut registry, "executions_queued", "Executions that wait for their turn");
        let parked = gauge(&mut registry, "executions_parked", "Executions parked until a time");
        let open = gauge(&mut registry, "gate_open", "1 while executions are admitted");
        let epoch = gauge(&mut registry, "epoch", "The highest epoch accepted");
        Self {
            registry,
            executions,
            steps,
            answers,
            accept_seconds,
            in_flight,
            queued,
            parked,
            open,
            epoch,
            tokens,
            run_seconds,
            recent: Mutex::default(),
            recent_models: Mutex::default(),
        }
    }
}

impl Telemetry {
    /// Notes an execution's end.
    pub fn ended(&self, state: State) {
        self.executions.get_or_create(&StateLabel { state: state.as_str() }).inc();
    }

    /// Notes a step's end.
    pub fn stepped(&self, kind: &'static str, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Success(_) => "success",
            Outcome::Failure(_) => "failure",
            Outcome::Interrupted => "interrupted",
            Outcome::Parked(_) | Outcome::Asks { .. } => "parked",
        };
        self.steps.get_or_create(&StepLabel { kind, result }).inc();
        match outcome {
            Outcome::Success(_) | Outcome::Failure(_) if kind != "event_loop" => self.called_tool(result == "success"),
            Outcome::Success(_)
            | Outcome::Failure(_)
            | Outcome::Interrupted
            | Outcome::Parked(_)
            | Outcome::Asks { .. } => {}
        }
    }

    /// Notes a call of a tool, a program or a request.
    pub fn called_tool(&self, good: bool) {
        note(&self.recent, good);
    }

    /// Notes a call of a model: what it used, if it answered.
    pub fn called_model(&self, usage: Option<Usage>) {
        note(&self.recent_models, usage.is_some());
        let usage = usage.unwrap_or_default();
        for (direction, tokens) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            let counter = self.tokens.get_or_create(&DirectionLabel { direction });
            counter.inc_by(u64::try_from(tokens).unwrap_or(0));
        }
    }

    /// Notes how long an execution held its permit.
    pub fn walked(&self, entry_point: &str, took: std::time::Duration) {
        let label = EntryLabel { entry_point: entry_point.to_owned() };
        self.run_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Notes an answer of the server.
    pub fn answered(&self, code: u16) {
        self.answers.get_or_create(&CodeLabel { code }).inc();
    }

    /// Notes how long it took to accept an execution.
    pub fn accepted(&self, took: std::time::Duration) {
        self.accept_seconds.observe(took.as_secs_f64());
    }

    /// How well programs, requests and tools worked lately.
    #[must_use]
    pub fn tools(&self) -> HealthLevel {
        judge(&self.recent)
    }

    /// How well the model answered lately.
    #[must_use]
    pub fn models(&self) -> HealthLevel {
        judge(&self.recent_models)
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// The text could not be written.
    pub fn text(&self, gauges: Gauges) -> Result<String, std::fmt::Error> {
        let set = |gauge: &Gauge<i64, AtomicI64>, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.in_flight, gauges.in_flight);
        set(&self.queued, gauges.queued);
        set(&self.parked, gauges.parked);
        self.open.set(i64::from(gauges.open));
        self.epoch.set(gauges.epoch);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn run_histogram() -> Histogram {
    Histogram::new([0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0])
}

fn note(recent: &Mutex<VecDeque<bool>>, good: bool) {
    let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
    recent.push_back(good);
    if recent.len() > RECENT {
        recent.pop_front();
    }
}

fn judge(recent: &Mutex<VecDeque<bool>>) -> HealthLevel {
    let recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
    let good = recent.iter().filter(|good| **good).count();
    match (good, recent.len()) {
        (_, 0) => HealthLevel::Unknown,
        (good, all) if good == all => HealthLevel::Healthy,
        (0, _) => HealthLevel::Unhealthy,
        (_, _) => HealthLevel::Degraded,
    }
}
