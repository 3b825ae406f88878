//! GitOps with Flux: its own kustomize-controller, built from its module, applies commits of gitops/kustomize.
//!
//! The source-controller is not among what can be built here. In its place the test makes the GitRepository, serves
//! each commit as a tarball, and writes the artifact into the status, which is all that kustomize-controller reads.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use cluster::Silent;
use serde_json::{Value, json};

use crate::space::{Space, attempt, cluster, condition, eventually, kubectl};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Tests beside each other make them once.
static DEFINITIONS: Once = Once::new();

/// A repository of which each commit is a folder, and the controller that follows it.
struct Flux<'a> {
    space: &'a Space,
    folder: tempfile::TempDir,
    address: String,
    commits: u32,
    controller: Child,
}

impl Drop for Flux<'_> {
    fn drop(&mut self) {
        let _ = self.controller.kill();
        let _ = self.controller.wait();
        // What it manages goes first: without a controller nothing takes its finalizer away.
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        let name = self.space.name.as_str();
        let _ = attempt(
            &[
                "-n",
                name,
                "patch",
                "kustomization.kustomize.toolkit.fluxcd.io",
                "agents",
                "--type=merge",
                "--patch",
                patch,
            ],
            None,
        );
    }
}

impl<'a> Flux<'a> {
    fn start(space: &'a Space) -> Self {
        DEFINITIONS.call_once(definitions);
        let folder = tempfile::tempdir().unwrap();
        let address = serve(folder.path().to_owned());
        let log = std::fs::File::create(folder.path().join("controller.log")).unwrap();
        let program = cluster::kustomize_controller(&Silent).expect("kustomize-controller, which Go builds");
        let mut command = Command::new(program);
        command.env("KUBECONFIG", cluster().kubeconfig()).env("RUNTIME_NAMESPACE", &space.name);
        command.args(["--watch-all-namespaces=false", "--metrics-addr=127.0.0.1:0", "--health-addr=127.0.0.1:0"]);
        command.args(["--interval-jitter-percentage=0", "--no-remote-bases"]);
        let controller = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { space, folder, address, commits: 0, controller }
    }

    /// Copies the tree of the repository, changes it, and makes it the newest commit; gives its revision.
    fn commit(&mut self, change: impl FnOnce(&Path)) -> String {
        self.commits += 1;
        let tree = self.folder.path().join("tree");
        if !tree.exists() {
            std::fs::create_dir(&tree).unwrap();
            run(Command::new("cp").arg("-r").arg(format!("{ROOT}/gitops")).arg(&tree));
            edit(&tree.join("gitops/kustomize/overlays/production/kustomization.yaml"), |text| {
                text.replace("namespace: agents", &format!("namespace: {}", self.space.name))
            });
        }
        change(&tree.join("gitops/kustomize"));
        let file = format!("{}.tar.gz", self.commits);
        let archive = self.folder.path().join(&file);
        run(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&tree).arg("gitops"));
        let sum = run(Command::new("sha256sum").arg(&archive));
        let sum = sum.split_whitespace().next().unwrap().to_owned();
        let revision = format!("main@sha1:{:040x}", self.commits);
        let source = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
            "metadata": { "name": "agents" },
            "spec": { "interval": "1h", "url": "https://git.example.com/agents.git" },
        });
        self.space.apply(&source).unwrap();
        let artifact = json!({ "status": {
            "observedGeneration": 1,
            "artifact": {
                "path": file, "url": format!("http://{}/{file}", self.address), "revision": revision,
                "digest": format!("sha256:{sum}"), "lastUpdateTime": "2026-01-01T00:00:00Z", "size": 1000,
            },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored",
                "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        }});
        let kind = "gitrepository.source.toolkit.fluxcd.io";
        let patch = artifact.to_string();
        self.space.kubectl(&["patch", kind, "agents", "--subresource=status", "--type=merge", "--patch", &patch]);
        revision
    }

    /// The first Kustomization of gitops/flux/runtimes.yaml, quicker, in the test's own namespace.
    fn follow(&self) {
        let text = std::fs::read_to_string(format!("{ROOT}/gitops/flux/runtimes.yaml")).unwrap();
        let first = text.split("\n---\n").next().unwrap();
        let mut object: Value = serde_saphyr::from_str(first).unwrap();
        assert_eq!((&object["spec"]["wait"], &object["spec"]["prune"]), (&json!(true), &json!(true)));
        object["metadata"]["namespace"] = json!(self.space.name);
        object["spec"].as_object_mut().unwrap().remove("dependsOn");
        for (field, value) in [("interval", "10s"), ("retryInterval", "2s"), ("timeout", "60s")] {
            object["spec"][field] = json!(value);
        }
        self.space.apply(&object).unwrap();
    }

    fn kustomization(&self) -> Value {
        self.space.get("kustomization.kustomize.toolkit.fluxcd.io", "agents")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("controller.log")).unwrap_or_default()
    }

    fn tell(&self) -> String {
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(8).collect();
        format!("{}\n{}", self.kustomization()["status"], tail.join("\n"))
    }

    /// Waits until the commit is applied and everything in it is healthy; gives the state of the runtime then.
    fn green(&self, revision: &str) -> Value {
        let is = || {
            let status = self.kustomization()["status"].clone();
            status["lastAppliedRevision"] == revision && condition(&status, "Ready").0 == "True"
        };
        eventually(&format!("{revision} is green"), is, || self.tell());
        self.space.get("agentruntime", "hello")["status"].clone()
    }

    /// Has it look again, and waits until it has.
    fn again(&self, word: &str) {
        let annotation = format!("reconcile.fluxcd.io/requestedAt={word}");
        let kind = "kustomization.kustomize.toolkit.fluxcd.io";
        self.space.kubectl(&["annotate", "--overwrite", kind, "agents", &annotation]);
        let handled = || {
            let status = self.kustomization()["status"].clone();
            status["lastHandledReconcileAt"] == word && condition(&status, "Reconciling").0 != "True"
        };
        eventually("it has looked again", handled, || self.tell());
    }
}

/// Flux's own definition of Kustomization, and what its controller reads of the sources.
fn definitions() {
    let module = cluster::source_of("kustomize-controller", "github.com/fluxcd/kustomize-controller").unwrap();
    let file = module.join("config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml");
    kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    for (kind, plural) in
        [("GitRepository", "gitrepositories"), ("OCIRepository", "ocirepositories"), ("Bucket", "buckets")]
    {
        let version = json!({
            "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": open, "status": open } } },
        });
        let object = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.source.toolkit.fluxcd.io") },
            "spec": { "group": "source.toolkit.fluxcd.io", "scope": "Namespaced", "versions": [version],
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") } },
        });
        attempt(&["apply", "-f", "-"], Some(&object.to_string())).unwrap();
    }
    kubectl(&["wait", "crd", "--all", "--for=condition=Established", "--timeout=60s"]);
}

/// Serves the files of a folder to this machine, until the process ends.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &folder);
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let name = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let body = std::fs::read(folder.join(name))?;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    let before = std::fs::read_to_string(file).unwrap();
    let after = change(before.clone());
    assert_ne!(before, after, "the commit changes {}", file.display());
    std::fs::write(file, after).unwrap();
}

fn desired(tree: &Path, from: &str, to: &str) {
    edit(&tree.join("base/hello.yaml"), |text| {
        text.replace(&format!("desiredState: {from}"), &format!("desiredState: {to}"))
    });
}

#[test]
fn commits_pause_resume_break_and_mend_drift_is_put_back_and_a_freeze_is_not() {
    let space = Space::new("flux");
    let mut flux = Flux::start(&space);
    let first = flux.commit(|_| {});
    flux.follow();
    assert_eq!(flux.green(&first)["state"], "running");

    let pausing = flux.commit(|tree| desired(tree, "running", "paused"));
    assert_eq!(flux.green(&pausing)["state"], "paused", "green means that the pods have acknowledged it");

    let resuming = flux.commit(|tree| desired(tree, "paused", "running"));
    assert_eq!(flux.green(&resuming)["state"], "running");

    let good = std::fs::read_to_string(flux.folder.path().join("tree/gitops/kustomize/base/agent.yaml")).unwrap();
    let breaking = flux
        .commit(|tree| edit(&tree.join("base/agent.yaml"), |text| text.replace("node_type: wait", "node_type: wat")));
    let red = || {
        let status = flux.kustomization()["status"].clone();
        status["lastAttemptedRevision"] == breaking
            && condition(&status, "Ready") == ("False".to_owned(), "HealthCheckFailed".to_owned())
    };
    eventually("the broken commit is red", red, || flux.tell());
    assert_ne!(flux.kustomization()["status"]["lastAppliedRevision"], breaking.as_str());
    let stalled = space.wait("hello", "Stalled", |status| condition(status, "Stalled").0 == "True");
    assert_eq!(condition(&stalled["status"], "Stalled").1, "InvalidAgent");

    let mending = flux.commit(|tree| edit(&tree.join("base/agent.yaml"), |_| good));
    assert_eq!(flux.green(&mending)["state"], "running", "the fixing commit gets through");

    space.patch("hello", &json!({ "desiredState": "paused" }));
    flux.again("drift");
    assert_eq!(space.get("agentruntime", "hello")["spec"]["desiredState"], "running", "drift is put back");
    space.ready("hello");

    let label = format!("frozen-{}", space.name);
    kubectl(&["label", "namespace", &space.name, &format!("e2e-freeze={label}")]);
    let freeze = json!({
        "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentFreeze", "metadata": { "name": label },
        "spec": { "namespaceSelector": { "matchLabels": { "e2e-freeze": label } } },
    });
    attempt(&["apply", "-f", "-"], Some(&freeze.to_string())).unwrap();
    space.wait("hello", "frozen", |status| condition(status, "Ready") == ("True".to_owned(), "Frozen".to_owned()));
    flux.again("frozen");
    let frozen = space.get("agentruntime", "hello");
    assert_eq!((&frozen["spec"]["desiredState"], &frozen["status"]["state"]), (&json!("running"), &json!("paused")));
    assert_eq!(condition(&flux.kustomization()["status"], "Ready").0, "True", "held on purpose is healthy");
    kubectl(&["delete", "agentfreeze", &label]);
    space.wait("hello", "running again", |status| status["state"] == "running" && status["source"] == "Spec");
}

#[test]
fn an_ignored_field_keeps_what_a_person_set_and_a_commit_of_something_else_goes_through() {
    let space = Space::new("flux-ignore");
    let mut flux = Flux::start(&space);
    let first = flux.commit(|_| {});
    flux.follow();
    flux.green(&first);
    // As docs/GITOPS.md says it.
    let ignore = json!({ "spec": { "ignore": [{
        "target": { "group": "agents.hive.dev", "kind": "AgentRuntime" },
        "paths": ["/spec/desiredState", "/spec/replicas", "/spec/restartNonce"],
    }]}});
    let kind = "kustomization.kustomize.toolkit.fluxcd.io";
    space.kubectl(&["patch", kind, "agents", "--type=merge", "--patch", &ignore.to_string()]);
    flux.again("ignored");
    space.patch("hello", &json!({ "desiredState": "paused" }));
    space.ready("hello");
    let other = flux.commit(|tree| {
        edit(&tree.join("overlays/production/kustomization.yaml"), |text| text.replace("value: 120", "value: 90"));
    });
    assert_eq!(flux.green(&other)["state"], "paused", "the pause by hand stays");
    let object = space.get("agentruntime", "hello");
    assert_eq!(
        (&object["spec"]["desiredState"], &object["spec"]["lifecycle"]["drainTimeoutSeconds"]),
        (&json!("paused"), &json!(90))
    );
}

#[test]
fn the_overlay_for_maintenance_pauses_what_production_runs() {
    let folder = format!("{ROOT}/gitops/kustomize/overlays");
    let built = |overlay: &str| -> Value {
        let text = kubectl(&["kustomize", &format!("{folder}/{overlay}")]);
        let documents = text.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
        documents.into_iter().find(|object| object["kind"] == "AgentRuntime").unwrap()
    };
    let (production, maintenance) = (built("production"), built("maintenance"));
    assert_eq!(
        (&production["spec"]["desiredState"], &maintenance["spec"]["desiredState"]),
        (&json!("running"), &json!("paused"))
    );
    assert!(
        production["spec"]["agent"]["configMapRef"]["name"].as_str().unwrap().starts_with("hello-agent-"),
        "generated"
    );
    let mut paused = production;
    paused["spec"]["desiredState"] = json!("paused");
    assert_eq!(paused, maintenance, "and nothing else differs");
}
