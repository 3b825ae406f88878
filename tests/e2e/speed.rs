//! Speed and the number of writes, as the API server counts them. Times are printed and not asserted.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Proxy;
use crate::space::{Space, cluster, condition, runtime};

/// The audit log from here on.
struct Audit {
    from: u64,
}

impl Audit {
    fn begin() -> Self {
        Self { from: std::fs::metadata(cluster().audit_log().unwrap()).unwrap().len() }
    }

    /// Writes of the operator in a namespace since, as verb and resource.
    fn writes(&self, space: &Space) -> Vec<String> {
        let mut file = std::fs::File::open(cluster().audit_log().unwrap()).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let ours = events.filter(|event| {
            let user = event["user"]["username"].as_str().unwrap_or_default();
            user.contains("agentruntime-operator") && event["stage"] == "ResponseComplete"
        });
        let writes = ours.filter(|event| {
            !matches!(event["verb"].as_str(), Some("get" | "list" | "watch"))
                && event["objectRef"]["namespace"] == space.name.as_str()
        });
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        writes
            .map(|event| {
                let object = &event["objectRef"];
                format!(
                    "{} {} {} {}",
                    word(&event["verb"]),
                    word(&object["resource"]),
                    word(&object["subresource"]),
                    word(&object["name"])
                )
            })
            .collect()
    }
}

#[test]
fn a_transition_is_two_writes_and_an_idle_minute_none() {
    let space = Space::alone("writes");
    space.start(&runtime("demo", 1, &json!({})));
    std::thread::sleep(Duration::from_secs(3));
    for (state, word) in [("paused", "Paused"), ("running", "Running")] {
        let audit = Audit::begin();
        space.patch("demo", &json!({ "desiredState": state }));
        space.wait("demo", word, |status| condition(status, "Ready") == ("True".to_owned(), word.to_owned()));
        // Not a synchronization: late writes would come in this time.
        std::thread::sleep(Duration::from_secs(4));
        let (events, writes): (Vec<_>, Vec<_>) =
            audit.writes(&space).into_iter().partition(|write| write.contains(" events "));
        println!("to {state}: {} writes {writes:?}, {} Events", writes.len(), events.len());
        assert!(
            writes.len() <= 3,
            "boot ConfigMap and status, and one status more if it takes over a second: {writes:?}"
        );
    }
    let audit = Audit::begin();
    std::thread::sleep(Duration::from_secs(60));
    assert_eq!(audit.writes(&space), Vec::<String>::new(), "an idle minute has no write but the Lease's");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// One command after the other over one kubectl process each would measure kubectl: these go over a proxy's one connection.
#[test]
fn patch_to_acknowledged_against_its_parts() {
    let space = Space::alone("speed");
    space.start(&runtime("demo", 1, &json!({})));
    space.kubectl(&["create", "configmap", "bare"]);
    let proxy = Proxy::start();
    let object = format!("/apis/agents.hive.dev/v1alpha1/namespaces/{}/agentruntimes/demo", space.name);
    let config_map = format!("/api/v1/namespaces/{}/configmaps/bare", space.name);
    let bare = Bare::start(18_100);
    let (mut whole, mut map, mut push, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..20 {
        let state = if round % 2 == 0 { "paused" } else { "running" };
        let begun = Instant::now();
        let patched = proxy.patch(&object, &json!({ "spec": { "desiredState": state } }));
        let generation = patched["metadata"]["generation"].clone();
        eventually_quick(|| {
            let now = proxy.get(&object);
            now["status"]["observedGeneration"] == generation && condition(&now["status"], "Ready").0 == "True"
        });
        whole.push(begun.elapsed());
        let begun = Instant::now();
        proxy.patch(&config_map, &json!({ "data": { "round": round.to_string() } }));
        map.push(begun.elapsed());
        push.push(bare.push(state));
        let begun = Instant::now();
        proxy.patch(&format!("{object}/status"), &json!({ "metadata": { "annotations": null } }));
        status.push(begun.elapsed());
    }
    let (whole, parts) = (median(whole), median(map) + median(push) + median(status));
    println!(
        "patch to acknowledged: p50 {:.1} ms; a bare ConfigMap write, push and status write: {:.1} ms; ratio {:.2}",
        whole.as_secs_f64() * 1e3,
        parts.as_secs_f64() * 1e3,
        whole.as_secs_f64() / parts.as_secs_f64()
    );
}

/// The release binary on this machine, for a push without an operator.
struct Bare {
    child: std::process::Child,
    folder: std::path::PathBuf,
    port: u16,
}

impl Bare {
    fn start(port: u16) -> Self {
        let binary = concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/agent-runtime");
        let agent = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agents/site-watch.yaml");
        let folder = std::env::temp_dir().join(format!("bare-{}-{port}", std::process::id()));
        let child = std::process::Command::new(binary)
            .args(["serve", agent, "--lifecycle-enabled", "true", "--host", "127.0.0.1", "--port", &port.to_string()])
            .arg("--data-dir")
            .arg(&folder)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let bare = Self { child, folder, port };
        eventually_quick(|| bare.call("GET /health/ready").starts_with("HTTP/1.1 200"));
        bare
    }

    /// The time of one verb, with its record on disk.
    fn push(&self, state: &str) -> Duration {
        let verb = if state == "paused" { "pause" } else { "resume" };
        let begun = Instant::now();
        let answer = self.call(&format!("POST /api/v1/lifecycle/{verb}"));
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        begun.elapsed()
    }

    fn call(&self, what: &str) -> String {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else { return String::new() };
        let mut answer = String::new();
        let head = format!("{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        answer
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn eventually_quick(mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not acknowledged");
    }
}

/// From exec to the first 200 of the readiness probe.
#[test]
fn exec_to_ready() {
    let times = (0..15).map(|round| {
        let begun = Instant::now();
        let _bare = Bare::start(18_200 + round);
        begun.elapsed()
    });
    let times = times.collect();
    println!("exec to ready of the runtime: p50 {:.1} ms", median(times).as_secs_f64() * 1e3);
}
