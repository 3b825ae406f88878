//! Every status that is ever written during the run, as a watch shows it, and what must be true of each.

use std::collections::HashMap;
use std::io::BufReader;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::api;
use crate::space::{attempt, cluster, condition, eventually, probe};

/// A pod that does not answer within this time says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(|| {
    std::thread::spawn(follow);
    Mutex::default()
});

#[derive(Default)]
struct Seen {
    /// The last object of each UID.
    last: HashMap<String, Value>,
    /// The newest version shown of each namespace and name.
    versions: HashMap<(String, String), u64>,
    /// What was wrong, by namespace.
    wrong: HashMap<String, Vec<String>>,
    looked_at: usize,
}

fn lock() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to look, once.
pub(crate) fn begin() {
    drop(lock());
}

/// Waits until everything written so far in a namespace has been looked at, and fails if anything was wrong.
pub(crate) fn check(namespace: &str) {
    for object in &api::list(namespace, "agentruntimes", "").unwrap() {
        let key = (namespace.to_owned(), text(&object["metadata"]["name"]));
        let version = version(object);
        eventually(
            "the watch has shown the last status",
            || lock().versions.get(&key).is_some_and(|seen| *seen >= version),
            || format!("{key:?} {version}"),
        );
    }
    let (wrong, looked_at) = {
        let seen = lock();
        (seen.wrong.get(namespace).cloned().unwrap_or_default(), seen.looked_at)
    };
    assert!(wrong.is_empty(), "of {looked_at} statuses these were untrue:\n{}", wrong.join("\n"));
}

/// The same program, which ends with this process: one that watches would stay behind and hold what it was given.
pub(crate) fn bound(program: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "TERM"]).arg(program.get_program()).args(program.get_args());
    bound.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bound
}

/// Begun again when it ends: a change of the definition ends every watch.
fn follow() {
    loop {
        let mut kubectl = cluster().kubectl();
        kubectl.args(["get", "agentruntimes", "--all-namespaces", "--watch", "--output-watch-events", "-o", "json"]);
        let mut child = bound(&kubectl).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("kubectl starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        for event in serde_json::Deserializer::from_reader(output).into_iter::<Value>().map_while(Result::ok) {
            look(&event["object"], event["type"].as_str().unwrap_or_default());
        }
        let _ = child.wait();
        // Not a synchronization: while there is no definition, every attempt ends at once.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A watch that begins shows objects as added, and versions in between may be missing.
fn look(object: &Value, event: &str) {
    let gone = event == "DELETED";
    let uid = text(&object["metadata"]["uid"]);
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let before = lock().last.get(&uid).cloned();
    let written = before.as_ref().is_none_or(|before| before["status"] != object["status"]);
    let mut wrong = Vec::new();
    if written && !gone {
        wrong = judge(object, before.as_ref().filter(|_| event == "MODIFIED"));
        // Where there is no pod nobody can be asked.
        if object["status"]["state"] == "paused" && object["status"]["replicas"] != 0 {
            wrong.extend(witness(object, &namespace, &name));
        }
    }
    let mut seen = lock();
    seen.looked_at += usize::from(written);
    if gone {
        seen.last.remove(&uid);
    } else {
        seen.last.insert(uid, object.clone());
    }
    seen.versions.insert((namespace.clone(), name), version(object));
    let told = wrong.into_iter().map(|what| format!("{what}: {object}"));
    seen.wrong.entry(namespace).or_default().extend(told);
}

/// What the status itself gives away.
fn judge(object: &Value, before: Option<&Value>) -> Vec<String> {
    let status = &object["status"];
    let mut wrong = Vec::new();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let generation = number(&object["metadata"]["generation"]);
    let observed = number(&status["observedGeneration"]);
    demand(observed <= generation, "observedGeneration is ahead of the spec");
    // As the API server fills it in, before anybody has written one.
    if observed == -1 && status["conditions"].as_array().is_none_or(Vec::is_empty) {
        return wrong;
    }
    let left_alone = object["metadata"]["annotations"]["agents.hive.dev/reconcile"] == "disabled";
    let own = before.is_none() || left_alone || observed == generation;
    demand(own, "a status was written that answers an older spec");
    let earlier = before.map_or(&Value::Null, |before| &before["status"]);
    demand(observed >= earlier["observedGeneration"].as_i64().unwrap_or(-1), "observedGeneration fell");
    demand(number(&status["epoch"]) >= number(&earlier["epoch"]), "the epoch fell");
    let (ready, reason) = condition(status, "Ready");
    let (reconciling, stalled) = (condition(status, "Reconciling").0, condition(status, "Stalled").0);
    demand(matches!(reconciling.as_str(), "" | "True"), "Reconciling stands there without being true");
    demand(matches!(stalled.as_str(), "" | "True"), "Stalled stands there without being true");
    demand(reconciling.is_empty() || stalled.is_empty(), "Reconciling and Stalled at once");
    demand((ready == "True") == (reconciling.is_empty() && stalled.is_empty()), "Ready contradicts the others");
    demand(status["reason"] == reason.as_str(), "reason is not that of Ready");
    for kind in ["Ready", "Serving", "Drained"] {
        demand(!condition(status, kind).0.is_empty(), "a condition is missing");
    }
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    demand(
        all.iter().all(|c| c["observedGeneration"] == status["observedGeneration"]),
        "a condition is of another spec",
    );
    let pods = status["pods"].as_array().cloned().unwrap_or_default();
    let acknowledged = status["acknowledgedReplicas"] == status["replicas"]
        && pods.iter().all(|pod| number(&pod["acknowledgedEpoch"]) >= number(&status["epoch"]));
    let paused = status["state"] == "paused";
    demand(ready != "True" || acknowledged, "Ready without every acknowledgement");
    // Pods that hold themselves have acknowledged what they do not do.
    demand(!paused || acknowledged, "paused without every acknowledgement");
    // One on its way out has acknowledged, and stops answering.
    let idle = |pod: &Value| matches!(pod["state"].as_str(), Some("paused" | "stopped" | "stopping"));
    demand(!paused || pods.iter().all(idle), "paused with a pod that is not");
    let busy = status["desiredState"] == "paused" && number(&status["inFlight"]) != 0;
    demand(!(paused && busy), "paused with work in flight");
    wrong
}

/// What the pods themselves say of a status that says paused, unless a newer epoch has come meanwhile.
fn witness(object: &Value, namespace: &str, name: &str) -> Vec<String> {
    let selector = format!("agents.hive.dev/runtime={name}");
    let Ok(list) = attempt(&["-n", namespace, "get", "pods", "-l", &selector, "-o", "json"], None) else {
        return Vec::new();
    };
    let list: Value = serde_json::from_str(&list).unwrap();
    let epoch = object["status"]["epoch"].as_i64().unwrap_or(0);
    let mut wrong = Vec::new();
    for pod in list["items"].as_array().into_iter().flatten().filter(|pod| pod["status"]["podIP"].is_string()) {
        let (200, said) = probe(pod, "/api/v1/status", PATIENCE) else { continue };
        // Another pod may have its address by now, and other images may tell less.
        let own = said["pod_uid"] == pod["metadata"]["uid"];
        let at_work = matches!(said["state"].as_str(), Some("running" | "pausing")) || said["in_flight"] != 0;
        if own && at_work && said["epoch"].as_i64().is_some_and(|held| held <= epoch) {
            wrong.push(format!("paused at {epoch}, and pod {} says {said}", pod["metadata"]["name"]));
        }
    }
    wrong
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The checker itself: statuses that lie are found.
#[test]
fn a_status_that_lies_is_found() {
    let truth = serde_json::json!({
        "metadata": { "generation": 3, "name": "demo" },
        "status": {
            "observedGeneration": 3, "epoch": 4, "reason": "Paused", "state": "paused", "desiredState": "paused",
            "replicas": 1, "acknowledgedReplicas": 1, "inFlight": 0,
            "pods": [{ "state": "paused", "acknowledgedEpoch": 4 }],
            "conditions": [
                { "type": "Ready", "status": "True", "reason": "Paused", "observedGeneration": 3 },
                { "type": "Serving", "status": "False", "reason": "Paused", "observedGeneration": 3 },
                { "type": "Drained", "status": "True", "reason": "NothingInFlight", "observedGeneration": 3 },
            ],
        },
    });
    assert_eq!(judge(&truth, None), Vec::<String>::new());
    for (path, lie) in [
        ("/status/observedGeneration", serde_json::json!(4)),
        ("/status/acknowledgedReplicas", serde_json::json!(0)),
        ("/status/inFlight", serde_json::json!(1)),
        ("/status/pods/0/state", serde_json::json!("pausing")),
        ("/status/pods/0/acknowledgedEpoch", serde_json::json!(3)),
        ("/status/conditions/0/status", serde_json::json!("False")),
        ("/status/conditions/1/type", serde_json::json!("Stalled")),
        ("/status/reason", serde_json::json!("Running")),
    ] {
        let mut object = truth.clone();
        *object.pointer_mut(path).unwrap() = lie;
        assert_ne!(judge(&object, None), Vec::<String>::new(), "{path}");
    }
    let mut before = truth.clone();
    before["status"]["epoch"] = serde_json::json!(5);
    assert_eq!(judge(&truth, Some(&before)), ["the epoch fell"]);
    let mut newer = truth.clone();
    newer["metadata"]["generation"] = serde_json::json!(4);
    assert_eq!(judge(&newer, Some(&truth)), ["a status was written that answers an older spec"]);
}
