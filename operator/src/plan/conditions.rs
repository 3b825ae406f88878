//! The conditions: Ready, Serving and Drained always; Reconciling and Stalled only while true.

use crds::{AgentRuntime, RuntimeState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lifecycle::Desired;

use super::effective::{Effective, Kind};
use super::reading::Reading;
use super::spans::{seconds, stands_since};

/// All conditions, each with the time of its last change kept.
pub(super) fn of(
    runtime: &AgentRuntime,
    reading: &Reading<'_>,
    effective: &Effective,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let ready = ready(reading, effective);
    let mut set = vec![ready.clone(), serving(reading), drained(reading)];
    match &reading.stalled {
        Some((reason, message)) => set.push(("Stalled", "True", (*reason).to_owned(), message.clone())),
        None if ready.1 != "True" => set.push(("Reconciling", "True", ready.2, ready.3)),
        None => {}
    }
    set.into_iter().map(|part| finish(runtime, part, generation, now)).collect()
}

type Part = (&'static str, &'static str, String, String);

fn ready(reading: &Reading<'_>, effective: &Effective) -> Part {
    let policy = &effective.policy;
    // What is stalled is not settled, though the pods are where they are to be.
    if reading.ready && reading.stalled.is_none() {
        let none = reading.standings.is_empty();
        let (reason, message) = match policy.desired {
            Desired::Running if none => ("ScaledToZero", "spec.replicas is 0, so there is no pod that could run"),
            Desired::Paused if none => ("Paused", "there is no pod: nothing is in flight, and nothing will start"),
            Desired::Running => ("Running", "every pod runs"),
            Desired::Paused => ("Paused", "every pod has acknowledged the pause and nothing is in flight"),
            Desired::Stopped => ("Stopped", "every pod has stopped and is gone"),
        };
        let (source, why) = (&effective.source, because(&effective.why));
        return match effective.kind {
            Kind::Freeze => ("Ready", "True", "Frozen".to_owned(), format!("held by {source}{why}: {message}")),
            Kind::Window => ("Ready", "True", "Window".to_owned(), format!("held by {source}{why}: {message}")),
            Kind::Spec | Kind::Rollout | Kind::Kept => ("Ready", "True", reason.to_owned(), message.to_owned()),
        };
    }
    if !reading.unknown.is_empty() {
        let names: Vec<&str> = reading.unknown.iter().take(5).copied().collect();
        let message = format!(
            "no answer from {} of {} pods: {}",
            reading.unknown.len(),
            reading.standings.len(),
            names.join(", ")
        );
        return ("Ready", "Unknown", "PodsUnreachable".to_owned(), message);
    }
    if let Some((reason, message)) = &reading.stalled {
        return ("Ready", "False", (*reason).to_owned(), message.clone());
    }
    if let Some((hook, pods)) = reading.hooks {
        let message = format!("spec.lifecycle.{} is under way in {pods} pods", hook.as_str());
        return ("Ready", "False", "CallingHooks".to_owned(), message);
    }
    let there = reading.standings.iter().filter(|s| s.reached).count();
    let all = reading.standings.len();
    let reason = match policy.desired {
        Desired::Running if there == all && !reading.rolled_out => "RollingOut",
        Desired::Running => "Starting",
        Desired::Paused if effective.kind == Kind::Rollout => "DrainingBeforeRestart",
        Desired::Paused if there == all => "RollingOut",
        Desired::Paused => "Pausing",
        Desired::Stopped => "Stopping",
    };
    let by = match effective.kind {
        Kind::Freeze | Kind::Window => format!(", held by {}{}", effective.source, because(&effective.why)),
        Kind::Rollout => ", before others replace them".to_owned(),
        Kind::Spec | Kind::Kept => String::new(),
    };
    ("Ready", "False", reason.to_owned(), format!("{there} of {all} pods are {}{by}", policy.desired))
}

/// The reason that people gave, in brackets.
fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

fn serving(reading: &Reading<'_>) -> Part {
    let ready = reading.standings.iter().filter(|s| s.serves()).count();
    if ready > 0 {
        return ("Serving", "True", "PodsReady".to_owned(), format!("{ready} pods accept work"));
    }
    if let Some((reason @ ("CircuitOpen" | "LocalHold"), message)) = &reading.stalled {
        return ("Serving", "False", (*reason).to_owned(), message.clone());
    }
    let reason = match reading.state {
        RuntimeState::Paused | RuntimeState::Pausing => "Paused",
        RuntimeState::Stopped | RuntimeState::Stopping => "Stopped",
        RuntimeState::Running | RuntimeState::Starting | RuntimeState::Unknown => "NoPodReady",
    };
    ("Serving", "False", reason.to_owned(), "no pod accepts work".to_owned())
}

fn drained(reading: &Reading<'_>) -> Part {
    // The number is left out: it would make each execution a change of the status.
    match (reading.in_flight, reading.state) {
        (_, RuntimeState::Running) => ("Drained", "False", "Running".to_owned(), "work is admitted".to_owned()),
        (Some(0), _) => ("Drained", "True", "NothingInFlight".to_owned(), "nothing is in flight".to_owned()),
        (Some(_), _) => ("Drained", "False", "WorkInFlight".to_owned(), "work is in flight".to_owned()),
        (None, _) => ("Drained", "Unknown", "PodsUnreachable".to_owned(), "some pod did not say".to_owned()),
    }
}

fn finish(runtime: &AgentRuntime, (kind, status, reason, message): Part, generation: i64, now: Timestamp) -> Condition {
    let before = stands_since(runtime.status.iter().flat_map(|s| &s.conditions), kind, status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason,
        message,
        observed_generation: Some(generation),
        last_transition_time: before.cloned().unwrap_or_else(|| seconds(now)),
    }
}
