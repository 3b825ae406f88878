//! The operator as a process: what it serves, exports and leaves behind, without any fault.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use otlp::collector::{Collector, Span};
use serde_json::{Value, json};

use crate::oracle::is;
use crate::plane::{Plane, text};
use crate::scenario::Scenario;
use crate::world::{self, World};
use crate::{operator, run};

/// How long anything may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

async fn begin(plane: &Plane, name: &str, folder: &tempfile::TempDir) -> Arc<World> {
    operator::check();
    World::new(&plane.api, name, folder.path()).await
}

async fn go(world: &Arc<World>, scenario: Scenario) {
    let outcome = run::run(world, scenario, Vec::new(), None).await;
    assert_eq!(outcome.wrong, Vec::<String>::new());
}

/// Waits until the object's status is so.
async fn shows(world: &World, what: &str, so: impl Fn(&Value) -> bool) {
    let mut seen = world.seen.subscribe();
    let shown = seen.wait_for(|seen| so(&seen.runtime["status"]));
    let shown = tokio::time::timeout(PATIENCE, shown).await.map(drop);
    assert!(shown.is_ok(), "never: {what}: {}", world.seen.borrow().runtime);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_one_trace_from_the_change_over_each_pod_to_the_status() {
    let (plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let collector = Collector::start().await;
    let world = begin(&plane, "traced", &folder).await;
    world.operators[0].set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    world.operators[0].set("OTEL_BSP_SCHEDULE_DELAY", "20");
    go(&world, Scenario::Apply).await;
    go(&world, Scenario::Pause).await;
    let arrived = tokio::time::timeout(PATIENCE, collector.arrived("transition to paused")).await;
    arrived.expect("the trace is exported");
    let pause = collector.one("transition to paused");
    let said = |name: &str| pause.attributes.get(name).map(String::as_str);
    assert_eq!((said("service.name"), said("hive.outcome")), (Some("agentruntime-operator"), Some("reached")));
    assert_eq!((said("k8s.namespace.name"), said("hive.runtime.name")), (Some("traced"), Some(world::NAME)));
    assert_eq!(pause.parent, "", "the change is where it begins");
    let all = collector.all();
    let steps: Vec<&Span> = all.iter().filter(|span| span.parent == pause.id).collect();
    for step in &steps {
        assert_eq!((step.trace.as_str(), step.kind, step.failed), (pause.trace.as_str(), 3, false), "{step:?}");
    }
    let names: Vec<&str> = steps.iter().map(|span| span.name.as_str()).collect();
    let pods: Vec<String> = world.pods().iter().map(|pod| format!("pause {}", pod.name)).collect();
    let wanted = ["list pods", "write boot file", "write status"].into_iter().chain(pods.iter().map(String::as_str));
    let missing: Vec<&str> = wanted.filter(|name| !names.contains(name)).collect();
    assert!(!pods.is_empty() && missing.is_empty(), "{missing:?} are missing in {names:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_told_to_end_gives_its_lease_back_and_is_alive_until_then() {
    let (plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let world = begin(&plane, "leaving", &folder).await;
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let operator = &world.operators[0];
    operator.set("OPERATOR_LISTEN", &address.to_string());
    let (alive, why) = operator.ask("healthcheck").await;
    assert!(!alive && why.starts_with("not alive: "), "{why}");
    go(&world, Scenario::Apply).await;
    assert_eq!(operator.ask("healthcheck").await, (true, String::new()));
    lifecycle::probe::check(address.port(), "/readyz").unwrap();
    let mut metrics = TcpStream::connect(address).unwrap();
    metrics.write_all(b"GET /metrics HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n").unwrap();
    let mut shown = String::new();
    metrics.read_to_string(&mut shown).unwrap();
    assert!(shown.lines().any(|line| line == "agentruntime_leading 1"), "{shown}");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/leaving/leases/agentruntime-operator";
    let holder = async || text(&world.api.call(Method::GET, lease, None).await.1, "/spec/holderIdentity").to_owned();
    assert_eq!(holder().await, "operator");
    operator.finish().await;
    assert_eq!(holder().await, "", "another may lead at once");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_in_a_config_map_is_named_until_it_is_there_and_used_then() {
    let (plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let world = begin(&plane, "referring", &folder).await;
    go(&world, Scenario::Apply).await;
    let by =
        json!({ "spec": { "agent": { "inline": null, "configMapRef": { "name": "mine", "key": "agent.yaml" } } } });
    let (code, answer) = world.write(Method::PATCH, &world.object(), Some(&by)).await;
    assert_eq!(code, 200, "{answer}");
    let stalled = |word: &'static str| {
        move |status: &Value| is(status, "Stalled", "True") && status["conditions"].to_string().contains(word)
    };
    shows(&world, "the ConfigMap is missing", stalled("spec.agent.configMapRef: there is no ConfigMap mine")).await;
    let maps = "/api/v1/namespaces/referring/configmaps";
    let other = json!({ "metadata": { "name": "mine" }, "data": { "other.yaml": "" } });
    assert_eq!(world.write(Method::POST, maps, Some(&other)).await.0, 201);
    shows(&world, "its key is missing", stalled("spec.agent.configMapRef: ConfigMap mine has no key agent.yaml")).await;
    let right =
        json!({ "data": { "agent.yaml": "agent: {id: a}\ngraph: {nodes: [{id: n, node_type: sleep, seconds: 1}]}" } });
    assert_eq!(world.write(Method::PATCH, &format!("{maps}/mine"), Some(&right)).await.0, 200);
    shows(&world, "the definition is used", |status| !is(status, "Stalled", "True")).await;
    world.end().await;
}
