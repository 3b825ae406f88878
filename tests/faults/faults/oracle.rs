//! The oracle: sees each status that is written and each execution of each pod, in one order, and knows the promise.
//!
//! No status says paused while a pod executes, and nothing starts after paused until a newer epoch says so.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::Method;
use serde_json::Value;

use crate::plane::{number, text};

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, Pod>,
    /// The last status says paused, or stopped, at this epoch.
    held: Option<i64>,
    violations: Vec<String>,
    /// Executions begun, over all pods.
    begun: u64,
    statuses: u64,
}

#[derive(Debug, Default)]
struct Pod {
    /// Durably accepted.
    epoch: i64,
    executing: u32,
}

/// What a status said as it was on its way to the API server.
#[derive(Debug)]
pub(crate) struct Claim {
    held: Option<i64>,
    broken: Vec<String>,
}

impl Oracle {
    /// A pod exists from here on.
    pub(crate) fn appear(&self, pod: &str) {
        self.lock().pods.insert(pod.to_owned(), Pod::default());
    }

    /// A pod's process has ended for good, with all that it did.
    pub(crate) fn vanish(&self, pod: &str) {
        self.lock().pods.remove(pod);
    }

    /// A pod's process has ended, and another begins in its place: what it did has ended.
    pub(crate) fn restart(&self, pod: &str) {
        if let Some(pod) = self.lock().pods.get_mut(pod) {
            pod.executing = 0;
        }
    }

    /// A pod has accepted an epoch durably.
    pub(crate) fn accept(&self, pod: &str, epoch: i64) {
        if let Some(pod) = self.lock().pods.get_mut(pod) {
            pod.epoch = pod.epoch.max(epoch);
        }
    }

    /// An execution begins.
    pub(crate) fn begin(&self, uid: &str) {
        let mut state = self.lock();
        state.begun += 1;
        let held = state.held;
        let Some(pod) = state.pods.get_mut(uid) else { return };
        pod.executing += 1;
        let epoch = pod.epoch;
        if let Some(held) = held.filter(|held| epoch <= *held) {
            let what = format!("pod {uid} at epoch {epoch} begins an execution after status said held at epoch {held}");
            state.violations.push(what);
        }
    }

    /// An execution ends.
    pub(crate) fn end(&self, uid: &str) {
        if let Some(pod) = self.lock().pods.get_mut(uid) {
            pod.executing = pod.executing.saturating_sub(1);
        }
    }

    /// A status is about to be written. It is judged by what is so now: it was planned before.
    pub(crate) fn claim(&self, status: &Value) -> Claim {
        let state = self.lock();
        let (epoch, word) = (number(status, "/epoch"), text(status, "/state"));
        let held = matches!(word, "paused" | "stopped").then_some(epoch);
        let mut broken = Vec::new();
        // A running object of which people hold every pod says paused too, and promises nothing.
        let held = held.filter(|_| text(status, "/desiredState") != "running");
        if held.is_some() {
            for (uid, pod) in &state.pods {
                if pod.executing > 0 || pod.epoch < epoch {
                    broken.push(format!("status says {word} at epoch {epoch} while pod {uid} is {pod:?}"));
                }
            }
        }
        broken.extend(conditions(status));
        if word == "running" && is(status, "Ready", "True") {
            let behind = state.pods.values().filter(|pod| pod.epoch < epoch).count();
            if behind > 0 {
                broken.push(format!("Ready at epoch {epoch} while {behind} pods have not acknowledged it"));
            }
        }
        Claim { held, broken }
    }

    /// The API server has taken the status, and gives the whole object.
    pub(crate) fn written(&self, claim: Claim, object: &Value) {
        let mut state = self.lock();
        state.statuses += 1;
        let generation = number(object, "/metadata/generation");
        if number(object, "/status/observedGeneration") > generation {
            state.violations.push(format!("observedGeneration is ahead of generation {generation}"));
        }
        state.held = claim.held;
        state.violations.extend(claim.broken);
        if let Some(held) = claim.held {
            let late: Vec<String> = state
                .pods
                .iter()
                .filter(|(_, pod)| pod.executing > 0 && pod.epoch <= held)
                .map(|(uid, pod)| format!("pod {uid} is {pod:?} as the status held at {held} is written"))
                .collect();
            state.violations.extend(late);
        }
    }

    /// Whether this is a write to what is the user's: the spec of an AgentRuntime or of an AgentFreeze.
    pub(crate) fn forbids(&self, method: &Method, resource: &str, subresource: &str) -> bool {
        let users = matches!(resource, "agentruntimes" | "agentfreezes") && subresource != "status";
        let forbidden = users && *method != Method::GET;
        if forbidden {
            self.lock().violations.push(format!("{method} {resource}: the spec is the user's"));
        }
        forbidden
    }

    /// The object is gone, and with it what was said of it.
    pub(crate) fn forget(&self) {
        self.lock().held = None;
    }

    /// What broke the promise since the last look.
    pub(crate) fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().violations)
    }

    /// Executions begun and statuses seen so far: an oracle that saw none has proven nothing.
    pub(crate) fn seen(&self) -> (u64, u64) {
        let state = self.lock();
        (state.begun, state.statuses)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with the conditions of a status by themselves.
fn conditions(status: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for kind in ["Reconciling", "Stalled"] {
        if is(status, kind, "False") || is(status, kind, "Unknown") {
            wrong.push(format!("{kind} stands although it is not true"));
        }
        if is(status, kind, "True") && is(status, "Ready", "True") {
            wrong.push(format!("{kind} and Ready are both true"));
        }
    }
    for kind in ["Ready", "Serving", "Drained"] {
        if !["True", "False", "Unknown"].iter().any(|word| is(status, kind, word)) {
            wrong.push(format!("{kind} is missing"));
        }
    }
    wrong
}

/// Whether a condition has this value.
pub(crate) fn is(status: &Value, kind: &str, word: &str) -> bool {
    let conditions = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.filter(|c| text(c, "/type") == kind).any(|c| text(c, "/status") == word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paused(epoch: i64) -> Value {
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status });
        json!({ "epoch": epoch, "state": "paused", "desiredState": "paused", "observedGeneration": 1,
            "conditions": [condition("Ready", "True"), condition("Serving", "False"), condition("Drained", "True")] })
    }

    fn with_pod(epoch: i64) -> Oracle {
        let oracle = Oracle::default();
        oracle.appear("a");
        oracle.accept("a", epoch);
        oracle
    }

    #[test]
    fn a_status_that_says_paused_while_a_pod_executes_is_seen() {
        let oracle = with_pod(2);
        oracle.begin("a");
        oracle.written(oracle.claim(&paused(2)), &Value::Null);
        assert!(!oracle.violations().is_empty());
        oracle.end("a");
        oracle.written(oracle.claim(&paused(2)), &Value::Null);
        assert_eq!(oracle.violations(), Vec::<String>::new());
    }

    #[test]
    fn a_status_that_says_paused_without_an_acknowledgement_is_seen() {
        let oracle = with_pod(1);
        oracle.written(oracle.claim(&paused(2)), &Value::Null);
        assert_eq!(oracle.violations().len(), 1);
    }

    #[test]
    fn a_start_after_paused_is_seen_and_one_by_a_newer_epoch_is_none() {
        let oracle = with_pod(2);
        oracle.written(oracle.claim(&paused(2)), &Value::Null);
        oracle.begin("a");
        assert_eq!(oracle.violations().len(), 1);
        oracle.end("a");
        oracle.accept("a", 3);
        oracle.begin("a");
        assert_eq!(oracle.violations(), Vec::<String>::new());
    }

    #[test]
    fn a_write_of_the_operator_to_the_spec_is_seen() {
        let oracle = Oracle::default();
        assert!(oracle.forbids(&Method::PATCH, "agentruntimes", ""));
        assert!(!oracle.forbids(&Method::PATCH, "agentruntimes", "status"));
        assert!(!oracle.forbids(&Method::GET, "agentruntimes", ""));
        assert_eq!(oracle.violations().len(), 1);
    }

    #[test]
    fn conditions_that_contradict_each_other_are_seen() {
        let mut status = paused(1);
        status["conditions"][0]["status"] = json!("Unknown");
        status["conditions"].as_array_mut().unwrap().push(json!({ "type": "Stalled", "status": "False" }));
        let oracle = with_pod(1);
        let object = json!({ "metadata": { "generation": 8 }, "status": { "observedGeneration": 9 } });
        oracle.written(oracle.claim(&status), &object);
        assert_eq!(oracle.violations().len(), 2);
    }
}
