//! A namespace of a test's own, and what tests do in it.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Once};
use std::time::{Duration, Instant};

use cluster::{Cluster, Signal};
use serde_json::{Value, json};

use crate::admission::Admission;
use crate::{api, statuses};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Where the operator runs.
pub(crate) const SYSTEM: &str = "agentruntime-system";
pub(crate) const RELEASE: &str = "agentruntime-operator";

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::attach().expect("a cluster: cargo xtask cluster up"));
static SITE: Once = Once::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A namespace that goes with the test.
pub(crate) struct Space {
    pub(crate) name: String,
    test: String,
    admitted: Instant,
    admission: Admission,
}

pub(crate) fn cluster() -> &'static Cluster {
    &CLUSTER
}

impl Space {
    /// A test that needs the operator.
    pub(crate) fn new(test: &str) -> Self {
        Self::with(test, Admission::shared())
    }

    /// Another namespace of the same test.
    pub(crate) fn beside(&self, test: &str) -> Self {
        Self::with(test, Admission::Beside)
    }

    /// A test that takes the operator away.
    pub(crate) fn alone(test: &str) -> Self {
        Self::with(test, Admission::alone())
    }

    fn with(test: &str, admission: Admission) -> Self {
        let admitted = Instant::now();
        statuses::begin();
        let name = format!("e2e-{test}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        kubectl(&["create", "namespace", &name]);
        Self { name, test: test.to_owned(), admitted, admission }
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend_from_slice(arguments);
        kubectl(&all)
    }

    /// As `kubectl apply -f -` of a user.
    pub(crate) fn apply(&self, object: &Value) -> Result<String, String> {
        attempt(&["--namespace", &self.name, "apply", "-f", "-"], Some(&object.to_string()))
    }

    /// Applies a runtime and waits until its desired state is reached.
    pub(crate) fn start(&self, runtime: &Value) -> Value {
        self.apply(runtime).unwrap();
        self.ready(runtime["metadata"]["name"].as_str().unwrap())
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        api::get(&self.name, kind, name)
            .unwrap_or_else(|| serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])).unwrap())
    }

    /// All objects of a kind, by a label selector.
    pub(crate) fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        if let Some(items) = api::list(&self.name, kind, selector) {
            return items;
        }
        let text = self.kubectl(&["get", kind, "-l", selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    pub(crate) fn pods(&self, runtime: &str) -> Vec<Value> {
        self.list("pods", &format!("agents.hive.dev/runtime={runtime}"))
    }

    /// The only pod of a runtime.
    pub(crate) fn pod(&self, runtime: &str) -> Value {
        let mut pods = self.pods(runtime);
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        assert_eq!(pods.len(), 1, "one pod");
        pods.remove(0)
    }

    pub(crate) fn patch(&self, runtime: &str, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch", "agentruntime", runtime, "--type", "merge", "--patch", &patch]);
    }

    /// Waits until the status is as wanted, and gives the object.
    pub(crate) fn wait(&self, runtime: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        eventually(
            what,
            || {
                last = self.get("agentruntime", runtime);
                wanted(&last["status"])
            },
            || self.describe(runtime),
        );
        last
    }

    /// Waits for Ready=True at the present generation.
    pub(crate) fn ready(&self, runtime: &str) -> Value {
        let generation = self.get("agentruntime", runtime)["metadata"]["generation"].clone();
        self.wait(runtime, "Ready", |status| {
            status["observedGeneration"] == generation && condition(status, "Ready").0 == "True"
        })
    }

    pub(crate) fn describe(&self, runtime: &str) -> String {
        let one = |arguments: &[&str]| attempt(arguments, None).unwrap_or_else(|error| error);
        let selector = format!("agents.hive.dev/runtime={runtime}");
        let (space, operator) = (self.name.as_str(), format!("deployment/{RELEASE}"));
        [
            one(&["-n", space, "get", "agentruntime", runtime, "-o", "yaml"]),
            one(&["-n", space, "get", "pods", "-l", &selector, "-o", "wide"]),
            one(&["-n", space, "logs", "-l", &selector, "--tail=20"]),
            one(&["-n", SYSTEM, "logs", &operator, "--all-pods=true", "--tail=20"]),
        ]
        .join("\n---\n")
    }

    /// Everything that a pod writes until its end.
    pub(crate) fn follow(&self, pod: &Value) -> Child {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let mut kubectl = cluster().kubectl();
        kubectl.args(["--namespace", &self.name, "logs", "--follow", name]).stdout(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn signal(&self, pod: &Value, signal: Signal) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        cluster().signal_container(&self.name, name, "agent", signal).unwrap();
    }

    /// Begins an execution and gives its id.
    pub(crate) fn trigger(&self, pod: &Value, entry_point: &str) -> String {
        let (code, answer) = http(pod, "POST", &format!("/api/v1/entry-points/{entry_point}/trigger"), "{}");
        assert_eq!(code, 202, "{answer}");
        answer["execution"].as_str().unwrap().to_owned()
    }

    /// Begins an execution and waits until it is in flight.
    pub(crate) fn work(&self, pod: &Value, entry_point: &str) -> String {
        let id = self.trigger(pod, entry_point);
        let look = || http(pod, "GET", "/api/v1/status/streams", "").1.to_string().contains(entry_point);
        eventually("work in flight", look, String::new);
        id
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !matches!(self.admission, Admission::Beside) {
            // The harness counts the wait for the admission too.
            println!("took {:.1} s: e2e {}", self.admitted.elapsed().as_secs_f64(), self.test);
        }
        // A failed test leaves its namespace for a look.
        if !std::thread::panicking() {
            statuses::check(&self.name);
            kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}

/// A runtime whose entry point `slow` takes `seconds`, with a timer that is due every second unless there are several
/// pods with a store each.
pub(crate) fn runtime(name: &str, seconds: u32, spec: &Value) -> Value {
    site();
    let url = |path: &str| format!("http://sample-site.e2e-site.svc.cluster.local{path}");
    let agent = json!({
        "agent": { "id": "e2e" },
        "graph": {
            "async_entry_points": [
                { "id": "slow", "entry_node": "slow", "trigger_type": "api" },
                { "id": "quick", "entry_node": "quick", "trigger_type": "api" },
                { "id": "tick", "entry_node": "quick", "trigger_type": "timer", "trigger_config": { "interval_seconds": 1 } },
            ],
            "nodes": [
                { "id": "slow", "node_type": "http", "url": url(&format!("/slow?seconds={seconds}")), "timeout_seconds": 90, "max_retries": 0 },
                { "id": "quick", "node_type": "http", "url": url("/"), "timeout_seconds": 10, "max_retries": 0 },
            ],
        },
    });
    let mut object = json!({
        "apiVersion": "agents.hive.dev/v1alpha1",
        "kind": "AgentRuntime",
        "metadata": { "name": name },
        "spec": { "agent": { "inline": agent }, "lifecycle": { "bootHoldSeconds": 5 } },
    });
    merge(&mut object["spec"], spec);
    if object["spec"]["replicas"].as_i64() > Some(1) && object["spec"]["storage"]["postgres"].is_null() {
        // A timer would come due in each pod, which is refused.
        let entries = &mut object["spec"]["agent"]["inline"]["graph"]["async_entry_points"];
        if let Some(entries) = entries.as_array_mut() {
            entries.retain(|entry| entry["trigger_type"] != "timer");
        }
    }
    object
}

pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// The image of the runtime that the operator was installed with.
pub(crate) fn runtime_image() -> String {
    let path = "jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"AGENT_RUNTIME_IMAGE\")].value}";
    kubectl(&["-n", SYSTEM, "get", "deployment", RELEASE, "-o", path])
}

/// The site that the agents of all tests ask; made once.
fn site() {
    SITE.call_once(|| {
        let pod = json!({
            "containers": [{ "name": "site", "image": runtime_image(), "args": ["sample-site"],
                "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 } }],
        });
        let labels = json!({ "app": "sample-site" });
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "e2e-site" } },
            { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "sample-site", "namespace": "e2e-site" },
              "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": pod } } },
            { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "sample-site", "namespace": "e2e-site" },
              "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] } },
        ]});
        attempt(&["apply", "-f", "-"], Some(&objects.to_string())).unwrap();
        kubectl(&["-n", "e2e-site", "rollout", "status", "deployment/sample-site", "--timeout=120s"]);
    });
}

/// A condition's status and reason.
pub(crate) fn condition(status: &Value, kind: &str) -> (String, String) {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|condition| condition["type"] == kind);
    let field = |name: &str| found.and_then(|c| c[name].as_str()).unwrap_or_default().to_owned();
    (field("status"), field("reason"))
}

pub(crate) fn kubectl(arguments: &[&str]) -> String {
    attempt(arguments, None).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
}

/// Runs kubectl; the error is what it prints.
pub(crate) fn attempt(arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    let mut kubectl = cluster().kubectl();
    kubectl.args(arguments);
    run(kubectl, input)
}

pub(crate) fn helm(arguments: &[&str]) -> Result<String, String> {
    let mut helm = cluster().helm();
    helm.args(arguments);
    run(helm, None)
}

fn run(mut command: Command, input: Option<&str>) -> Result<String, String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Looks until something is so.
pub(crate) fn eventually(what: &str, look: impl FnMut() -> bool, tell: impl Fn() -> String) {
    within(PATIENCE, what, look, tell);
}

/// Looks until something is so, which is promised for this time.
pub(crate) fn within(limit: Duration, what: &str, mut look: impl FnMut() -> bool, tell: impl Fn() -> String) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}\n{}", tell());
        std::thread::sleep(Duration::from_millis(150));
    }
}

/// One request to a pod, past its Service.
pub(crate) fn http(pod: &Value, method: &str, path: &str, body: &str) -> (u16, Value) {
    exchange(pod, method, path, "", body, PATIENCE)
}

/// A read that gives up early: code 0.
pub(crate) fn probe(pod: &Value, path: &str, patience: Duration) -> (u16, Value) {
    exchange(pod, "GET", path, "", "", patience)
}

/// A change that a token allows.
pub(crate) fn bearer(pod: &Value, token: &str, path: &str) -> (u16, Value) {
    exchange(pod, "POST", path, &format!("Authorization: Bearer {token}\r\n"), "", PATIENCE)
}

fn exchange(pod: &Value, method: &str, path: &str, headers: &str, body: &str, patience: Duration) -> (u16, Value) {
    use std::io::Read as _;
    let address = format!("{}:8080", pod["status"]["podIP"].as_str().expect("it has an address"));
    let Ok(mut stream) = TcpStream::connect_timeout(&address.parse().expect("an address"), patience) else {
        return (0, Value::Null);
    };
    stream.set_read_timeout(Some(patience)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses early may have closed before all is written.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (code, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

/// An execution, as its pod's store has it.
pub(crate) fn execution(pod: &Value, id: &str) -> Value {
    http(pod, "GET", &format!("/api/v1/executions/{id}"), "").1
}
