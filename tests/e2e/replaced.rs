//! What an operator that begins finds: objects that it cannot read, and children that were changed while none ran.

use serde_json::{Value, json};

use crate::boot::Away;
use crate::law::{BRAKE, NAMED, pods_say, serving};
use crate::space::{PATIENCE, SYSTEM, Space, attempt, eventually, kubectl, runtime, within};

/// Deeper than what most parsers of JSON read, also those of these tests: of such an object they ask kubectl for parts.
const LEVELS: usize = 200;
/// After `demo` by the alphabet: the watch of statuses, which begins again at what it cannot read, shows the other first.
const DEEP: &str = "nested";

/// An object that cannot be read by the tests that come after, and so goes also when this one fails.
struct Deep<'a> {
    space: &'a Space,
}

impl Deep<'_> {
    fn part(&self, path: &str) -> String {
        self.space.kubectl(&["get", "agentruntime", DEEP, "-o", &format!("jsonpath={path}")])
    }

    /// Waits until its status says what is wrong with the present spec, and this state.
    fn is_told(&self, state: &str) {
        let told = || {
            self.part("{.status.conditions[?(@.type=='Stalled')].reason}") == "InvalidSpec"
                && self.part("{.status.observedGeneration}") == self.part("{.metadata.generation}")
                && self.part("{.status.state}") == state
        };
        within(NAMED, state, told, || self.part("{.status}"));
    }
}

impl Drop for Deep<'_> {
    fn drop(&mut self) {
        let namespace = &self.space.name;
        let _ = attempt(&["-n", namespace, "delete", "agentruntime", DEEP, "--ignore-not-found"], None);
    }
}

/// The operator that leads.
fn leader() -> String {
    kubectl(&["-n", SYSTEM, "get", "leases", "-o", "jsonpath={.items[*].spec.holderIdentity}"]).trim().to_owned()
}

/// Has another operator lead, and waits until it looks after an object.
fn replace_leader(space: &Space) {
    let before = leader();
    kubectl(&["-n", SYSTEM, "delete", "pod", &before]);
    let another = || {
        let now = leader();
        !now.is_empty() && now != before
    };
    eventually("another operator leads", another, leader);
    space.patch("demo", &json!({ "progressDeadlineSeconds": 601 }));
    space.ready("demo");
}

/// Pauses both objects, sees that it is at their pods, and lets them run.
fn brake(space: &Space, deep: &Deep<'_>, pods: &[Value]) {
    let set = |state: &str| ["demo", DEEP].map(|name| space.patch(name, &json!({ "desiredState": state })));
    set("paused");
    pods_say(pods, "paused", BRAKE);
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
    deep.is_told("paused");
    set("running");
    pods_say(pods, "running", PATIENCE);
    space.ready("demo");
}

#[test]
fn an_object_too_deep_to_read_obeys_and_holds_up_nobody_nor_a_new_leader() {
    let space = Space::alone("deep");
    space.start(&runtime("demo", 1, &json!({})));
    space.start(&runtime(DEEP, 1, &json!({})));
    let pods = [serving(&space, "demo"), serving(&space, DEEP)].concat();
    let deep = Deep { space: &space };
    let nested = (0..LEVELS).fold(json!(1), |inner, _| json!({ "a": inner }));
    space.patch(DEEP, &json!({ "agent": { "inline": { "extra": nested } } }));
    deep.is_told("running");
    brake(&space, &deep, &pods);
    replace_leader(&space);
    brake(&space, &deep, &pods);
    space.patch(DEEP, &json!({ "agent": { "inline": { "extra": null } } }));
    assert_eq!(space.ready(DEEP)["status"]["state"], "running");
}

#[test]
fn a_deployment_edited_while_no_operator_runs_is_put_back() {
    let space = Space::alone("edited");
    space.start(&runtime("demo", 1, &json!({})));
    let grace = || {
        let deployment = space.get("deployment", "demo");
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone()
    };
    let before = grace();
    let away = Away::begin();
    let edit = json!({ "spec": { "template": { "spec": { "terminationGracePeriodSeconds": 7 } } } }).to_string();
    space.kubectl(&["patch", "deployment", "demo", "--type=strategic", "--patch", &edit]);
    assert_eq!(grace(), 7);
    drop(away);
    eventually("what was edited is put back", || grace() == before, || space.describe("demo"));
    space.ready("demo");
}
