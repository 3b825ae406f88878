//! The runtime alone, as examples/kubernetes/deployment.yaml deploys it.

use serde_json::{Value, json};

use crate::space::{Space, attempt, eventually, http, runtime_image};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kubernetes/deployment.yaml");
const LABEL: &str = "app.kubernetes.io/name=hello";

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[test]
fn the_example_of_the_deployment_guide_pauses_resumes_and_rolls() {
    let space = Space::new("standalone");
    space.kubectl(&["create", "secret", "generic", "hello-token", "--from-literal=token=secret"]);
    let example = std::fs::read_to_string(EXAMPLE).unwrap().replace("agent-runtime:0.1.0", &runtime_image());
    attempt(&["-n", &space.name, "apply", "-f", "-"], Some(&example)).unwrap();
    space.kubectl(&["rollout", "status", "deployment/hello", "--timeout=120s"]);
    let pod = space.list("pods", LABEL).remove(0);
    let (code, _) = http(&pod, "POST", "/api/v1/lifecycle/pause", "");
    assert_eq!(code, 401, "a change needs the token");
    let name = pod["metadata"]["name"].as_str().unwrap();
    let ask = |verb: &str| crate::space::bearer(&pod, "secret", &format!("/api/v1/lifecycle/{verb}"));
    assert_eq!(ask("pause").1["state"], "paused");
    let ready = || is_ready(&space.get("pod", name));
    eventually("a paused pod is taken out of the Service", || !ready(), String::new);
    assert_eq!(ask("resume").1["state"], "running");
    eventually("it is back", ready, String::new);
    space.kubectl(&["rollout", "restart", "deployment/hello"]);
    space.kubectl(&["rollout", "status", "deployment/hello", "--timeout=180s"]);
    eventually("the old pods are gone", || space.list("pods", LABEL).len() == 2, String::new);
    let budget = space.get("poddisruptionbudget", "hello");
    assert_eq!(budget["spec"]["maxUnavailable"], json!(1));
}
