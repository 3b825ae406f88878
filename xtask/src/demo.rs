//! Owns the task `demo`: the whole product on a real cluster, step by step, with the commands that a user would type.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ::cluster::{Cluster, Target};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::build_times::PAUSED;
use crate::cluster::Up;
use crate::images::{Build, Profile};
use crate::progress::Terminal;
use crate::{chart, images, workspace};

/// No step waits longer.
const PATIENCE: Duration = Duration::from_secs(120);
const NAME: &str = "site-watch";

#[derive(Debug, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    up: Up,
}

/// Runs the demonstration and leaves the cluster up.
pub(crate) fn run(task: &Demo) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let target = task.up.target();
    println!(
        "This brings up a Kubernetes cluster ({target}), builds the images, installs the chart and runs an agent."
    );
    if target == Target::Host {
        println!(
            "It needs root and Go, and installs containerd, runc, CNI plugins and buildah from Debian if they are missing."
        );
    }
    if target == Target::Host && !rustix::process::geteuid().is_root() {
        bail!("the cluster on this machine needs root; use --kind or --context NAME without");
    }
    let terminal = Terminal::new();
    // What one of them leaves idle, while it links or waits for the network, the other takes.
    let build = Build::start(Profile::Quick)?;
    let cluster = Cluster::up(&target, &terminal)?;
    let binaries = build.wait(&terminal)?;
    let stage = Stage { cluster };
    stage.install(&binaries)?;
    stage.apply()?;
    stage.pause()?;
    println!("{PAUSED} {:.0} s after the start.", begun.elapsed().as_secs_f32());
    stage.resume()?;
    stage.update()?;
    stage.stop()?;
    stage.delete()?;
    println!("\nThe demonstration took {:.0} s. The cluster stays up:", begun.elapsed().as_secs_f32());
    println!("  export KUBECONFIG={}", stage.cluster.kubeconfig().display());
    println!("  {} get agentruntimes -A", stage.cluster.kubectl().get_program().display());
    println!("  cargo xtask cluster down    # removes it");
    Ok(ExitCode::SUCCESS)
}

/// The cluster, with the words of the demonstration.
struct Stage {
    cluster: Cluster,
}

impl Stage {
    fn install(&self, binaries: &[PathBuf]) -> anyhow::Result<()> {
        title("Load the images and install the chart");
        let images = images::load(&self.cluster, binaries)?;
        shown("helm", &chart::install_arguments(&images).iter().map(String::as_str).collect::<Vec<_>>());
        chart::install(&self.cluster, &images)?;
        let site = site(&images.tag);
        self.apply_object(&site)?;
        self.quietly(&["rollout", "status", "deployment/sample-site", "--timeout=120s"]).map(drop)
    }

    fn apply(&self) -> anyhow::Result<()> {
        title("Apply an agent: it watches two sites on a timer, and reports on request");
        let path = workspace::root().join("examples/agents/site-watch.yaml");
        let agent = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let agent: Value = serde_saphyr::from_str(&agent)?;
        let object = json!({
            "apiVersion": "agents.hive.dev/v1alpha1",
            "kind": "AgentRuntime",
            "metadata": { "name": NAME },
            "spec": { "agent": { "inline": agent } },
        });
        shown("kubectl", &["apply", "-f", "site-watch.yaml"]);
        self.apply_object(&object)?;
        self.follow(|status| is(status, "running"))?;
        self.show()
    }

    fn pause(&self) -> anyhow::Result<()> {
        title("Pause with work in flight: a report takes five seconds, and the pause waits for it");
        self.report()?;
        self.patch("paused")?;
        self.follow(|status| is(status, "paused"))?;
        self.show()?;
        let before = self.executions()?;
        println!("Timers are due every two seconds. For six seconds nothing may start:");
        thread::sleep(Duration::from_secs(6));
        let after = self.executions()?;
        println!("  executions before: {before}, after: {after}");
        if before != after {
            bail!("an execution started while the status said paused");
        }
        Ok(())
    }

    fn resume(&self) -> anyhow::Result<()> {
        title("Resume");
        self.patch("running")?;
        self.follow(|status| is(status, "running"))?;
        self.show()
    }

    fn update(&self) -> anyhow::Result<()> {
        title("Roll out a change: the old pod finishes its work, the new one asks before it runs");
        let patch =
            json!({ "spec": { "template": { "metadata": { "annotations": { "version": "2" } } } } }).to_string();
        self.run_shown(&["patch", "agentruntime", NAME, "--type", "merge", "--patch", &patch])?;
        self.follow(|status| is(status, "running"))?;
        self.show()
    }

    fn stop(&self) -> anyhow::Result<()> {
        title("Stop with work in flight: drained, then scaled to zero");
        self.report()?;
        self.patch("stopped")?;
        self.follow(|status| is(status, "stopped"))?;
        self.show()
    }

    fn delete(&self) -> anyhow::Result<()> {
        title("Delete");
        self.run_shown(&["delete", "agentruntime", NAME, "--timeout=60s"])?;
        self.quietly(&["delete", "deployment,service", "sample-site"]).map(drop)
    }

    fn patch(&self, state: &str) -> anyhow::Result<()> {
        let patch = json!({ "spec": { "desiredState": state } }).to_string();
        self.run_shown(&["patch", "agentruntime", NAME, "--type", "merge", "--patch", &patch])
    }

    /// Begins the slow execution through the Service.
    fn report(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/default/services/{NAME}:8080/proxy/api/v1/entry-points/report/trigger");
        shown("kubectl", &["create", "--raw", &path, "-f", "/dev/null"]);
        let begun = Instant::now();
        loop {
            match self.quietly(&["create", "--raw", &path, "-f", "/dev/null"]) {
                Ok(answer) => break println!("{answer}"),
                // The Service learns of the pod a moment after the status does.
                Err(error) if begun.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(200)),
            }
        }
        Ok(())
    }

    fn executions(&self) -> anyhow::Result<i64> {
        let pod = self.quietly(&["get", "pods", "-l", "agents.hive.dev/runtime=site-watch", "-o", "name"])?;
        let pod = pod.trim().trim_start_matches("pod/").to_owned();
        let path = format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/api/v1/status");
        let status: Value = serde_json::from_str(&self.quietly(&["get", "--raw", &path])?)?;
        status.get("total_executions").and_then(Value::as_i64).context("the status has no total_executions")
    }

    /// Prints each change of the status until it is as wanted at the present generation.
    fn follow(&self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut last = String::new();
        loop {
            let text = self.quietly(&["get", "agentruntime", NAME, "-o", "json"])?;
            let object: Value = serde_json::from_str(&text)?;
            let status = object.get("status").unwrap_or(&Value::Null);
            let line = describe(status);
            if line != last {
                println!("  {:>5.1} s  {line}", begun.elapsed().as_secs_f32());
                last = line;
            }
            if status.get("observedGeneration") == object.pointer("/metadata/generation") && wanted(status) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("this took more than {} s: see `kubectl describe agentruntime {NAME}`", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn show(&self) -> anyhow::Result<()> {
        self.run_shown(&["get", "agentruntime", NAME, "-o", "wide"])
    }

    fn run_shown(&self, arguments: &[&str]) -> anyhow::Result<()> {
        shown("kubectl", arguments);
        workspace::run(self.cluster.kubectl().args(arguments))
    }

    fn quietly(&self, arguments: &[&str]) -> anyhow::Result<String> {
        workspace::read(self.cluster.kubectl().args(arguments))
    }

    fn apply_object(&self, object: &Value) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut kubectl = self.cluster.kubectl();
        let mut child = kubectl.args(["apply", "-f", "-"]).stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("a pipe was asked for")?;
        stdin.write_all(object.to_string().as_bytes())?;
        drop(stdin);
        if !child.wait()?.success() {
            bail!("kubectl apply failed");
        }
        Ok(())
    }
}

fn title(text: &str) {
    println!("\n\u{1b}[1m# {text}\u{1b}[0m");
}

/// Prints a command as a user would type it.
fn shown(program: &str, arguments: &[&str]) {
    let quoted = |word: &&str| if word.contains(['{', ' ', '"']) { format!("'{word}'") } else { (*word).to_owned() };
    println!("$ {program} {}", arguments.iter().map(quoted).collect::<Vec<_>>().join(" "));
}

fn is(status: &Value, state: &str) -> bool {
    let field = |value: &Value, key: &str, wanted: &str| value.get(key).is_some_and(|found| found == wanted);
    let conditions = status.get("conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|condition| field(condition, "type", "Ready")));
    field(status, "state", state) && ready.is_some_and(|ready| field(ready, "status", "True"))
}

fn describe(status: &Value) -> String {
    let word = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut line = format!("state {}, reason {}", word("state"), word("reason"));
    if let Some(count) = status.get("inFlight").and_then(Value::as_i64) {
        line += &format!(", in flight {count}");
    }
    if let Some(deadline) = status.get("drainDeadline").and_then(Value::as_str) {
        line += &format!(", to be drained by {deadline}");
    }
    line
}

/// The site that the agent watches.
fn site(tag: &str) -> Value {
    let labels = json!({ "app": "sample-site" });
    let pod = json!({ "containers": [{
        "name": "site", "image": format!("agent-runtime:{tag}"), "args": ["sample-site"],
        "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
    }] });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "sample-site" },
          "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": pod } } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "sample-site" },
          "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] } },
    ]})
}
