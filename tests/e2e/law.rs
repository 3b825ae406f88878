//! What holds for every fault that stays: it is named, brakes reach the pods all the same, and its end is noticed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::freeze::{Freeze, label, named};
use crate::space::{Space, attempt, condition, eventually, probe, within};

/// In this time a brake is at the pods, whatever is wrong elsewhere.
pub(crate) const BRAKE: Duration = Duration::from_secs(5);
/// In this time a condition names what is wrong.
pub(crate) const NAMED: Duration = Duration::from_secs(10);
/// In this time the end of a fault is noticed: what fails is tried again after 25 seconds at most.
const MENDED: Duration = Duration::from_secs(35);
/// A pod that does not answer within this time says nothing.
const ANSWER: Duration = Duration::from_secs(2);

/// Something that is wrong with an object, as its condition Stalled names it.
pub(crate) struct Fault<'a> {
    pub(crate) space: &'a Space,
    pub(crate) runtime: &'a str,
    pub(crate) reason: &'a str,
    /// What the message names.
    pub(crate) names: &'a str,
}

impl Fault<'_> {
    /// Waits until the condition names it.
    pub(crate) fn is_named(&self) {
        self.is_told("the fault is named", |_| true);
    }

    /// Waits until the condition names it in a status of the present spec that is as wanted.
    pub(crate) fn is_told(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let told = || {
            let object = self.space.get("agentruntime", self.runtime);
            let status = &object["status"];
            status["observedGeneration"] == object["metadata"]["generation"] && self.stands_in(status) && wanted(status)
        };
        within(NAMED, what, told, || self.space.describe(self.runtime));
    }

    fn stands_in(&self, status: &Value) -> bool {
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let message = all.iter().find(|condition| condition["type"] == "Stalled").map(|c| c["message"].to_string());
        condition(status, "Stalled") == ("True".to_owned(), self.reason.to_owned())
            && message.is_some_and(|message| message.contains(self.names))
    }

    /// A pause, and then a freeze, is at the pods in time; status says so, and goes on to name the fault.
    pub(crate) fn lets_brakes_through(&self) {
        let (space, runtime) = (self.space, self.runtime);
        let pods = serving(space, runtime);
        space.patch(runtime, &json!({ "desiredState": "paused" }));
        pods_say(&pods, "paused", BRAKE);
        self.is_told("paused by its spec", |status| status["state"] == "paused" && status["source"] == "Spec");
        space.patch(runtime, &json!({ "desiredState": "running" }));
        self.goes_on(&pods);

        let name = named(space);
        label(space, &name);
        let freeze = Freeze::apply(&name, &name, &json!({}));
        pods_say(&pods, "paused", BRAKE);
        let source = format!("Freeze {name}");
        self.is_told("frozen", |status| status["state"] == "paused" && status["source"] == source.as_str());
        drop(freeze);
        self.goes_on(&pods);
    }

    /// A resume is promised for no time.
    fn goes_on(&self, pods: &[Value]) {
        eventually("the pods run", || all_say(pods, "running"), || self.space.describe(self.runtime));
    }

    /// Takes the fault away, after which these objects are Ready in time. What is changed for it is done by `end`: nobody
    /// touches their specs after that.
    pub(crate) fn ends(&self, runtimes: &[&str], end: impl FnOnce()) {
        end();
        let object = |runtime: &str| self.space.get("agentruntime", runtime);
        let generation = |runtime: &&str| object(runtime)["metadata"]["generation"].clone();
        let before: Vec<Value> = runtimes.iter().map(generation).collect();
        let ready = |runtime: &&str| {
            let object = object(runtime);
            let status = &object["status"];
            status["observedGeneration"] == object["metadata"]["generation"] && condition(status, "Ready").0 == "True"
        };
        let tell = || runtimes.iter().map(|runtime| self.space.describe(runtime)).collect();
        within(MENDED, "Ready by itself", || runtimes.iter().all(ready), tell);
        assert_eq!(runtimes.iter().map(generation).collect::<Vec<Value>>(), before, "nobody has changed a spec");
    }
}

/// The pods that can be asked.
pub(crate) fn serving(space: &Space, runtime: &str) -> Vec<Value> {
    let mut pods = space.pods(runtime);
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["podIP"].is_string());
    assert!(!pods.is_empty(), "a pod serves\n{}", space.describe(runtime));
    pods
}

/// Waits until each of these pods says this of itself.
pub(crate) fn pods_say(pods: &[Value], state: &str, limit: Duration) {
    let tell = || pods.iter().map(|pod| said(pod).to_string()).collect();
    within(limit, &format!("the pods say {state}"), || all_say(pods, state), tell);
}

fn all_say(pods: &[Value], state: &str) -> bool {
    pods.iter().all(|pod| said(pod)["state"] == state)
}

/// What a pod says of itself; nothing if it does not answer.
pub(crate) fn said(pod: &Value) -> Value {
    probe(pod, "/api/v1/status", ANSWER).1
}

/// Objects in one apply.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// An object outside of all namespaces that goes with the test.
pub(crate) struct Installed {
    kind: String,
    name: String,
}

impl Installed {
    pub(crate) fn apply(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let installed = Self { kind: text(&object["kind"]).to_lowercase(), name: text(&object["metadata"]["name"]) };
        attempt(&["apply", "-f", "-"], Some(&object.to_string())).unwrap();
        installed
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = attempt(&["delete", &self.kind, &self.name, "--ignore-not-found"], None);
    }
}
