//! A HorizontalPodAutoscaler over the scale subresource, with a real metrics-server.

use std::process::{Child, Command, Stdio};

use cluster::Silent;
use serde_json::{Value, json};

use crate::space::{Space, attempt, cluster, eventually, kubectl, runtime};

/// The node's address on the network of the pods.
const NODE: &str = "10.244.0.1";
const API: &str = "v1beta1.metrics.k8s.io";

/// metrics-server as a process of this machine, behind a Service that leads to it.
struct Metrics {
    server: Child,
    folder: tempfile::TempDir,
}

impl Metrics {
    fn start(space: &Space) -> Self {
        let program = cluster::metrics_server(&Silent).expect("metrics-server, which Go builds");
        let port = std::net::TcpListener::bind((NODE, 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let kubeconfig = cluster().kubeconfig();
        let mut command = Command::new(program);
        for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
            command.arg(flag).arg(kubeconfig);
        }
        command.args([
            "--bind-address",
            NODE,
            "--secure-port",
            &port.to_string(),
            "--metric-resolution=10s",
            "--kubelet-request-timeout=5s",
        ]);
        command.args(["--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP", "--cert-dir"]);
        let server = command.arg(folder.path()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let metrics = Self { server, folder };
        let named = json!({ "name": "metrics-server", "labels": { "kubernetes.io/service-name": "metrics-server" } });
        for object in [
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": named,
                "spec": { "ports": [{ "port": 443, "targetPort": port }] } }),
            json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": named,
                "addressType": "IPv4", "ports": [{ "name": "", "port": port }], "endpoints": [{ "addresses": [NODE] }] }),
            json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": API },
                "spec": { "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                    "versionPriority": 100, "insecureSkipTLSVerify": true,
                    "service": { "name": "metrics-server", "namespace": space.name, "port": 443 } } }),
        ] {
            space.apply(&object).unwrap();
        }
        metrics
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        // An API that is announced and away keeps every namespace from being deleted.
        let _ = attempt(&["delete", "apiservice", API, "--ignore-not-found"], None);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_autoscaler_moves_the_number_of_pods_and_the_operator_does_not_fight_it() {
    let space = Space::new("hpa");
    let metrics = Metrics::start(&space);
    // With two in the spec the agent has no timer, which one pod alone may have.
    let mut object = runtime("demo", 1, &json!({ "replicas": 2 }));
    object["spec"]["replicas"] = json!(1);
    space.start(&object);
    let target = json!({ "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime", "name": "demo" });
    // Far above what idle pods use of the little that they ask for.
    let cpu = json!({ "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 5000 } });
    let scaler = |least: u32| {
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "demo" },
            "spec": { "scaleTargetRef": target, "minReplicas": least, "maxReplicas": 4,
                "metrics": [{ "type": "Resource", "resource": cpu }] } })
    };
    space.apply(&scaler(2)).unwrap();
    let tell = || format!("{}\n{}", space.kubectl(&["describe", "hpa", "demo"]), metrics.log());
    let is = |pods: u64| {
        let now = space.get("agentruntime", "demo");
        now["spec"]["replicas"] == pods && now["status"]["readyReplicas"] == pods
    };
    eventually("two pods are ready", || is(2), tell);
    let resolved = || {
        let now = space.get("hpa", "demo");
        let current = &now["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"];
        current.is_u64() && now["status"]["currentReplicas"] == 2
    };
    eventually("its target is resolved", resolved, tell);
    println!("{}", space.kubectl(&["get", "hpa", "demo"]));
    let generation = || {
        let of = |kind: &str| space.get(kind, "demo")["metadata"]["generation"].clone();
        (of("agentruntime"), of("deployment"))
    };
    let before = generation();
    // Not a synchronisation: the autoscaler looks every 15 seconds, and nobody changes anything meanwhile.
    std::thread::sleep(std::time::Duration::from_secs(20));
    assert_eq!(generation(), before);
    space.apply(&scaler(3)).unwrap();
    eventually("three pods are ready", || is(3), tell);
    let managers = |object: &Value| object["metadata"]["managedFields"].to_string();
    let object: Value =
        serde_json::from_str(&space.kubectl(&["get", "agentruntime", "demo", "-o", "json", "--show-managed-fields"]))
            .unwrap();
    assert!(managers(&object).contains("kube-controller-manager"), "the autoscaler wrote the number");
    drop(metrics);
    kubectl(&["get", "--raw", "/readyz"]);
}
