//! Faults that stay: in the spec, in the namespace, and at the door of the API server.

use serde_json::{Value, json};

use crate::freeze::{Freeze, label, named};
use crate::law::{BRAKE, Fault, Installed, pods_say, serving};
use crate::space::{Space, attempt, condition, eventually, merge, runtime};

/// A fault, how it comes about and how it goes away.
struct Case {
    reason: &'static str,
    names: &'static str,
    /// Objects that it concerns; `demo` is the first, and runs.
    runtimes: &'static [&'static str],
    begin: fn(&Space) -> Vec<Installed>,
    end: fn(&Space),
}

impl Case {
    /// The law, with an object that was Ready before.
    fn hold(&self, space: &Space) {
        let fault = |runtime| Fault { space, runtime, reason: self.reason, names: self.names };
        let installed = (self.begin)(space);
        self.runtimes.iter().for_each(|runtime| fault(runtime).is_named());
        fault("demo").lets_brakes_through();
        fault("demo").ends(self.runtimes, || {
            drop(installed);
            (self.end)(space);
        });
    }
}

/// A limit of memory by a unit that there is not.
fn typo() -> Value {
    let resources = json!({ "limits": { "memory": "512MB" } });
    json!({ "template": { "spec": { "containers": [{ "name": "agent", "resources": resources }] } } })
}

fn misspell(space: &Space) -> Vec<Installed> {
    space.patch("demo", &typo());
    Vec::new()
}

fn spell(space: &Space) {
    space.patch("demo", &json!({ "template": null }));
}

/// A quota acts a moment after it was made.
fn allow_one_service(space: &Space) -> Vec<Installed> {
    space.kubectl(&["create", "quota", "few", "--hard=count/services=1"]);
    let probe = ["-n", &space.name, "create", "service", "clusterip", "probe", "--tcp=80", "--dry-run=server"];
    let refused = || attempt(&probe, None).is_err_and(|error| error.contains("exceeded quota"));
    eventually("the quota acts", refused, || space.kubectl(&["get", "quota", "few", "-o", "yaml"]));
    space.kubectl(&["delete", "service", "demo"]);
    Vec::new()
}

fn allow_all_services(space: &Space) {
    space.kubectl(&["delete", "quota", "few"]);
}

/// Somebody makes a child their own.
fn disown_service(space: &Space) -> Vec<Installed> {
    let patch = json!({ "metadata": { "ownerReferences": null } }).to_string();
    space.kubectl(&["patch", "service", "demo", "--type=merge", "--patch", &patch]);
    Vec::new()
}

fn delete_service(space: &Space) {
    space.kubectl(&["delete", "service", "demo"]);
}

#[test]
fn a_child_that_cannot_be_applied_holds_up_no_brake_and_ends_by_itself() {
    let space = Space::new("lasting");
    space.start(&runtime("demo", 1, &json!({})));
    for case in [
        Case { reason: "InvalidTemplate", names: "spec.template", runtimes: &["demo"], begin: misspell, end: spell },
        Case {
            reason: "QuotaExceeded",
            names: "few",
            runtimes: &["demo"],
            begin: allow_one_service,
            end: allow_all_services,
        },
        Case {
            reason: "NameTaken",
            names: "Service demo",
            runtimes: &["demo"],
            begin: disown_service,
            end: delete_service,
        },
    ] {
        case.hold(&space);
    }
}

/// What the API server says to a Deployment in the namespace; none if it would take one.
fn refusal(space: &Space) -> Option<String> {
    let image = "--image=registry.invalid/none";
    attempt(&["-n", &space.name, "create", "deployment", "probe", image, "--dry-run=server"], None).err()
}

/// What guards the door is obeyed a moment after it was made, and a moment after it is gone.
fn is_closed(space: &Space, because: &str) {
    let closed = || refusal(space).is_some_and(|refusal| refusal.contains(because));
    eventually("Deployments are refused", closed, || format!("{:?}", refusal(space)));
}

fn is_open(space: &Space) {
    eventually("Deployments are taken", || refusal(space).is_none(), || format!("{:?}", refusal(space)));
}

/// Has the operator write a Deployment without another pod, and make one for a new object.
fn need_deployments(space: &Space, fresh: &str, progress_deadline: u32) {
    space.apply(&runtime(fresh, 1, &json!({ "desiredState": "stopped" }))).unwrap();
    space.patch("demo", &json!({ "progressDeadlineSeconds": progress_deadline }));
}

fn deployments_here(space: &Space) -> Value {
    json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": space.name } },
        "rules": [{ "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
            "resources": ["deployments"] }],
    })
}

fn forbid_by_policy(space: &Space) -> Vec<Installed> {
    let here = deployments_here(space);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": space.name },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "namespaceSelector": here["namespaceSelector"], "resourceRules": here["rules"] },
            "validations": [{ "expression": "false", "message": "no Deployments today" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": space.name },
        "spec": { "policyName": space.name, "validationActions": ["Deny"] },
    });
    let installed = vec![Installed::apply(&binding), Installed::apply(&policy)];
    is_closed(space, "no Deployments today");
    need_deployments(space, "by-policy", 601);
    installed
}

/// A webhook whose Service is gone, as after the removal of another product.
fn forget_webhook(space: &Space) -> Vec<Installed> {
    let mut webhook = json!({
        "name": "nobody.e2e.example.com", "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 1,
        "admissionReviewVersions": ["v1"],
        "clientConfig": { "service": { "namespace": space.name, "name": "nobody" } },
    });
    merge(&mut webhook, &deployments_here(space));
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": space.name }, "webhooks": [webhook],
    });
    let installed = vec![Installed::apply(&configuration)];
    is_closed(space, "failed calling webhook");
    need_deployments(space, "by-webhook", 602);
    installed
}

#[test]
fn a_deployment_refused_at_admission_holds_up_no_brake_and_is_tried_again() {
    let space = Space::new("refusing");
    space.start(&runtime("demo", 1, &json!({})));
    for case in [
        Case {
            reason: "Forbidden",
            names: "no Deployments today",
            runtimes: &["demo", "by-policy"],
            begin: forbid_by_policy,
            end: is_open,
        },
        Case {
            reason: "WebhookFailed",
            names: "nobody.e2e.example.com",
            runtimes: &["demo", "by-webhook"],
            begin: forget_webhook,
            end: is_open,
        },
    ] {
        case.hold(&space);
    }
}

#[test]
fn a_stop_beside_a_template_that_is_refused_takes_the_pods_away() {
    let space = Space::new("stop-refused");
    space.start(&runtime("demo", 1, &json!({})));
    let fault = Fault { space: &space, runtime: "demo", reason: "InvalidTemplate", names: "spec.template" };
    misspell(&space);
    fault.is_named();
    space.patch("demo", &json!({ "desiredState": "stopped" }));
    eventually("the pods are gone", || space.pods("demo").is_empty(), || space.describe("demo"));
    assert_eq!(space.get("deployment", "demo")["spec"]["replicas"], 0);
    fault.is_told("stopped", |status| status["state"] == "stopped");
    fault.ends(&["demo"], || spell(&space));
    assert_eq!(condition(&space.get("agentruntime", "demo")["status"], "Ready").1, "Stopped");
}

#[test]
fn a_freeze_that_never_ends_holds_whom_it_selects_and_nobody_else() {
    let space = Space::new("freeze-far");
    space.start(&runtime("demo", 1, &json!({})));
    let pods = serving(&space, "demo");
    let far = json!({ "expiresAt": "9999-12-31T23:59:59Z" });
    let name = named(&space);
    let nobody = Freeze::apply(&format!("{name}-nobody"), &format!("{name}-nobody"), &far);
    assert_eq!(nobody.ready()["matched"], 0);
    // One that begins, and one that goes on, are those that an unknown freeze would hold.
    space.start(&runtime("fresh", 1, &json!({})));
    space.patch("demo", &json!({ "desiredState": "paused" }));
    pods_say(&pods, "paused", BRAKE);
    space.patch("demo", &json!({ "desiredState": "running" }));
    assert_eq!(space.ready("demo")["status"]["source"], "Spec");

    label(&space, &name);
    let freeze = Freeze::apply(&name, &name, &far);
    pods_say(&pods, "paused", BRAKE);
    assert_eq!(freeze.ready()["reached"], 2);
    drop(freeze);
    let running = |status: &Value| status["source"] == "Spec" && condition(status, "Ready").1 == "Running";
    space.wait("demo", "running again", running);
    space.wait("fresh", "running again", running);
}

#[test]
fn a_freeze_holds_and_counts_what_is_deleted_behind_a_finalizer() {
    let space = Space::new("freeze-deleted");
    let mut object = runtime("demo", 1, &json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    space.start(&object);
    let pods = serving(&space, "demo");
    let name = named(&space);
    label(&space, &name);
    space.kubectl(&["delete", "agentruntime", "demo", "--wait=false"]);
    assert!(space.get("agentruntime", "demo")["metadata"]["deletionTimestamp"].is_string());
    let freeze = Freeze::apply(&name, &name, &json!({ "mode": "cancel" }));
    pods_say(&pods, "paused", BRAKE);
    let status = freeze.ready();
    assert_eq!((&status["matched"], &status["reached"]), (&json!(1), &json!(1)));
    drop(freeze);
    let patch = json!({ "metadata": { "finalizers": null } }).to_string();
    space.kubectl(&["patch", "agentruntime", "demo", "--type=merge", "--patch", &patch]);
    let gone = || space.list("agentruntimes", "").is_empty() && space.pods("demo").is_empty();
    eventually("it is gone with its pods", gone, || space.kubectl(&["get", "pods", "-o", "yaml"]));
}

/// Ways to spoil the boot ConfigMap of a runtime: the first two hide it from who looks for it by its labels.
const SPOILED: [&str; 3] = [
    r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}}}"#,
    r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":null}}}"#,
    r#"{"immutable":true}"#,
];

#[test]
fn a_boot_file_that_somebody_spoils_is_mended_and_the_pause_obeyed() {
    let space = Space::new("spoiled");
    space.start(&runtime("demo", 1, &json!({})));
    let pods = serving(&space, "demo");
    for patch in SPOILED {
        space.kubectl(&["patch", "configmap", "demo-boot", "--type=merge", "--patch", patch]);
        space.patch("demo", &json!({ "desiredState": "paused" }));
        pods_say(&pods, "paused", BRAKE);
        assert_eq!(space.ready("demo")["status"]["state"], "paused", "{patch}");
        let boot = space.get("configmap", "demo-boot");
        let managed_by = &boot["metadata"]["labels"]["app.kubernetes.io/managed-by"];
        assert_eq!((managed_by, &boot["immutable"]), (&json!("agentruntime-operator"), &Value::Null), "{patch}");
        space.patch("demo", &json!({ "desiredState": "running" }));
        space.ready("demo");
    }
}
