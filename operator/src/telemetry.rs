//! Metrics. No label holds an object's name: their number would grow without bound.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The name under which controller-runtime would know this controller and its queue.
const CONTROLLER: &str = "agentruntime";

/// The steps that may fail, and why Events may be lost. Each is measured from the start: no increase is seen of a counter
/// that begins with its first failure.
const STEPS: [&str; 6] = [
    "boot_file_unwritable",
    "pods_unlisted",
    "scale_failed",
    "child_unapplied",
    "child_undeleted",
    "definition_unread",
];
const LOSSES: [&str; 3] = ["overflow", "refused", "timeout"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueueLabel {
    name: &'static str,
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabel {
    call: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    desired: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DesiredLabel {
    desired: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

/// Seconds; from a warm push to a hung pod.
const CALLS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 3.0, 30.0];
/// Seconds; from an idle pod's pause to a long drain.
const TRANSITIONS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

fn calls() -> Histogram {
    Histogram::new(CALLS)
}

fn transitions() -> Histogram {
    Histogram::new(TRANSITIONS)
}

/// How the fleet stands at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Objects by effective desired state and state.
    pub runtimes: Vec<(&'static str, &'static str)>,
    /// Objects whose desired state is not reached.
    pub diverged: usize,
    /// Pods that have not acknowledged their epoch.
    pub unacknowledged: i64,
    /// The age of the oldest answer of a pod.
    pub oldest_answer: Duration,
    /// Owners that wait to be looked at.
    pub waiting: usize,
    /// Objects that cannot be decoded as a whole.
    pub illegible: usize,
}

/// Takes the census when the metrics are read.
pub type Taker = Box<dyn Fn() -> Census + Send + Sync>;

/// Counts what the operator does.
pub struct Telemetry {
    registry: Mutex<Registry>,
    reconciles: Family<ResultLabel, Counter>,
    errors: Family<ControllerLabel, Counter>,
    failures: Family<ReasonLabel, Counter>,
    events_lost: Family<ReasonLabel, Counter>,
    reconcile_seconds: Family<ControllerLabel, Histogram>,
    active: Family<ControllerLabel, Gauge>,
    concurrency: Family<ControllerLabel, Gauge>,
    depth: Family<QueueLabel, Gauge>,
    adds: Family<QueueLabel, Counter>,
    retries: Family<QueueLabel, Counter>,
    calls: Family<CallLabel, Counter>,
    call_seconds: Family<CallLabel, Histogram>,
    push_seconds: Histogram,
    acknowledgement_seconds: Family<DesiredLabel, Histogram>,
    runtimes: Family<StateLabel, Gauge>,
    steps: Family<StepLabel, Counter>,
    diverged: Gauge,
    illegible: Gauge,
    unacknowledged: Gauge,
    oldest_answer: Gauge<f64, AtomicU64>,
    leading: Gauge<i64, AtomicI64>,
    ready: AtomicBool,
    census: OnceLock<Taker>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let this = Self {
            registry: Mutex::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            failures: Family::default(),
            events_lost: Family::default(),
            reconcile_seconds: Family::new_with_constructor(calls),
            active: Family::default(),
            concurrency: Family::default(),
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(calls),
            push_seconds: calls(),
            acknowledgement_seconds: Family::new_with_constructor(transitions),
            runtimes: Family::default(),
            steps: Family::default(),
            diverged: Gauge::default(),
            illegible: Gauge::default(),
            unacknowledged: Gauge::default(),
            oldest_answer: Gauge::default(),
            leading: Gauge::default(),
            ready: AtomicBool::new(false),
            census: OnceLock::new(),
        };
        this.register();
        this
    }
}

impl Telemetry {
    /// The names are controller-runtime's where the meaning is.
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &mut *registry;
        all.register("controller_runtime_reconcile", "Reconciles by result", self.reconciles.clone());
        all.register("controller_runtime_reconcile_errors", "Reconciles that failed", self.errors.clone());
        let help = "Length of reconciles, which never wait for a pod";
        all.register("controller_runtime_reconcile_time_seconds", help, self.reconcile_seconds.clone());
        all.register("controller_runtime_active_workers", "Reconciles under way", self.active.clone());
        let help = "Reconciles that may be under way at once";
        all.register("controller_runtime_max_concurrent_reconciles", help, self.concurrency.clone());
        all.register("workqueue_depth", "Objects that wait for their turn to be looked at", self.depth.clone());
        let help = "Times an object's turn to be looked at has come";
        all.register("workqueue_adds", help, self.adds.clone());
        all.register("workqueue_retries", "Objects put back after a reconcile that failed", self.retries.clone());
        let help = "Reconciles that failed, by what failed";
        all.register("agentruntime_reconcile_failures", help, self.failures.clone());
        let help = "Events that did not reach the API server, by why";
        all.register("agentruntime_events_lost", help, self.events_lost.clone());
        all.register("agentruntime_pod_calls", "Calls to pods by verb and result", self.calls.clone());
        let help = "Length of calls to pods; a status call may wait for a change";
        all.register("agentruntime_pod_call_seconds", help, self.call_seconds.clone());
        let help = "From a plan that commands a pod to the pod's answer";
        all.register_with_unit("agentruntime_push", help, Unit::Seconds, self.push_seconds.clone());
        let help = "From a new epoch to the status that says that every pod has acknowledged and reached it";
        let unit = Unit::Seconds;
        all.register_with_unit("agentruntime_acknowledgement", help, unit, self.acknowledgement_seconds.clone());
        let help = "Objects by effective desired state and state";
        all.register("agentruntime_runtimes", help, self.runtimes.clone());
        let help = "Objects whose desired state is not reached";
        all.register("agentruntime_diverged_runtimes", help, self.diverged.clone());
        let help = "Steps that failed and are tried again, by what failed";
        all.register("agentruntime_step_failures", help, self.steps.clone());
        let help = "Objects that cannot be decoded as a whole: each is held as it was";
        all.register("agentruntime_undecodable_objects", help, self.illegible.clone());
        let help = "Pods that have not acknowledged the epoch in force";
        all.register("agentruntime_unacknowledged_pods", help, self.unacknowledged.clone());
        let help = "Age of the oldest answer that something is said from";
        let unit = Unit::Seconds;
        all.register_with_unit("agentruntime_oldest_answer", help, unit, self.oldest_answer.clone());
        all.register("agentruntime_leading", "1 while this replica acts", self.leading.clone());
        for step in STEPS {
            self.steps.get_or_create(&StepLabel { step }).inc_by(0);
        }
        for reason in LOSSES {
            self.events_lost.get_or_create(&ReasonLabel { reason }).inc_by(0);
        }
    }

    /// Notes that an object's turn has come and its reconcile begins.
    pub fn begins(&self) {
        self.adds.get_or_create(&QUEUE).inc();
        self.active.get_or_create(&ControllerLabel { controller: CONTROLLER }).inc();
    }

    /// Notes a reconcile that ended, and the reason if it failed.
    pub fn reconciled(&self, failed: Option<&'static str>, took: Duration) {
        let controller = ControllerLabel { controller: CONTROLLER };
        self.active.get_or_create(&controller).dec();
        self.reconcile_seconds.get_or_create(&controller).observe(took.as_secs_f64());
        let result = if failed.is_some() { "error" } else { "success" };
        self.reconciles.get_or_create(&ResultLabel { controller: CONTROLLER, result }).inc();
        if let Some(reason) = failed {
            self.errors.get_or_create(&controller).inc();
            self.failures.get_or_create(&ReasonLabel { reason }).inc();
            self.retries.get_or_create(&QUEUE).inc();
        }
    }

    /// Notes a step that failed and is tried again.
    pub fn step_failed(&self, step: &'static str) {
        self.steps.get_or_create(&StepLabel { step }).inc();
    }

    /// Notes how many reconciles may be under way at once.
    pub fn set_concurrency(&self, most: u16) {
        self.concurrency.get_or_create(&ControllerLabel { controller: CONTROLLER }).set(i64::from(most));
    }

    /// Notes an Event that did not reach the API server.
    pub fn lost_event(&self, reason: &'static str) {
        self.events_lost.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Notes a call to a pod.
    pub fn called(&self, call: &'static str, result: &'static str, took: Duration) {
        let label = CallLabel { call, result };
        self.calls.get_or_create(&label).inc();
        self.call_seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Notes a command that was answered, from its plan on.
    pub fn pushed(&self, took: Duration) {
        self.push_seconds.observe(took.as_secs_f64());
    }

    /// Notes that every pod has acknowledged and reached a state, from its epoch on.
    pub fn acknowledged(&self, desired: &'static str, took: Duration) {
        self.acknowledgement_seconds.get_or_create(&DesiredLabel { desired }).observe(took.as_secs_f64());
    }

    /// Notes whether this replica acts.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// The CRD is there: this replica leads or can take over.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Whether this replica leads or can take over.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Who takes the census; the first one does.
    pub fn take_census_by(&self, taker: Taker) {
        // There is one controller in a process.
        let _ = self.census.set(taker);
    }

    /// All metrics, as OpenMetrics text.
    ///
    /// # Errors
    /// They could not be written as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        if let Some(taker) = self.census.get() {
            self.note(&taker());
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry).map(|()| text)
    }

    fn note(&self, census: &Census) {
        // A pair that no object is in any more would keep its last count.
        self.runtimes.clear();
        for (desired, state) in &census.runtimes {
            self.runtimes.get_or_create(&StateLabel { desired, state }).inc();
        }
        self.diverged.set(i64::try_from(census.diverged).unwrap_or(i64::MAX));
        self.illegible.set(i64::try_from(census.illegible).unwrap_or(i64::MAX));
        self.unacknowledged.set(census.unacknowledged);
        self.oldest_answer.set(census.oldest_answer.as_secs_f64());
        self.depth.get_or_create(&QUEUE).set(i64::try_from(census.waiting).unwrap_or(i64::MAX));
    }
}

const QUEUE: QueueLabel = QueueLabel { name: CONTROLLER, controller: CONTROLLER };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_controller_runtime_and_the_census_is_taken_when_they_are_read() {
        let telemetry = Telemetry::default();
        telemetry.begins();
        telemetry.reconciled(Some("conflict"), Duration::from_millis(2));
        telemetry.begins();
        telemetry.called("pause", "ok", Duration::from_millis(2));
        telemetry.pushed(Duration::from_millis(2));
        telemetry.acknowledged("paused", Duration::from_secs(1));
        let census = Census { runtimes: vec![("paused", "pausing"); 2], diverged: 2, ..Census::default() };
        telemetry.take_census_by(Box::new(move || census.clone()));
        let text = telemetry.text().unwrap();
        for line in [
            r#"controller_runtime_reconcile_total{controller="agentruntime",result="error"} 1"#,
            r#"controller_runtime_reconcile_errors_total{controller="agentruntime"} 1"#,
            r#"controller_runtime_reconcile_time_seconds_count{controller="agentruntime"} 1"#,
            r#"controller_runtime_active_workers{controller="agentruntime"} 1"#,
            r#"workqueue_adds_total{name="agentruntime",controller="agentruntime"} 2"#,
            r#"workqueue_retries_total{name="agentruntime",controller="agentruntime"} 1"#,
            r#"agentruntime_reconcile_failures_total{reason="conflict"} 1"#,
            r#"agentruntime_pod_calls_total{call="pause",result="ok"} 1"#,
            "agentruntime_push_seconds_count 1",
            r#"agentruntime_acknowledgement_seconds_count{desired="paused"} 1"#,
            r#"agentruntime_runtimes{desired="paused",state="pausing"} 2"#,
            "agentruntime_diverged_runtimes 2",
            r#"agentruntime_step_failures_total{step="child_unapplied"} 0"#,
            r#"agentruntime_events_lost_total{reason="refused"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
