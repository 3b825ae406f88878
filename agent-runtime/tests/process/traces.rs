//! Traces: one from the trigger over a crash to each call, and nothing that waits for its collector.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lifecycle::State;
use otlp::collector::Collector;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::graph::until;
use crate::llm_server::{LlmServer, Reply};
use crate::postgres_server::Server;
use crate::process::{Home, PATIENCE, eventually};
use crate::tools::mcp_server;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";
const TRIGGER: &str = "/api/v1/entry-points/slow/trigger";

fn parent() -> String {
    format!("00-{TRACE}-{SENDER}-01")
}

/// The span that a traceparent names, if it is of the test's trace.
fn span_of(traceparent: &str) -> &str {
    traceparent.strip_prefix(&format!("00-{TRACE}-")).and_then(|rest| rest.strip_suffix("-01")).unwrap_or_default()
}

#[tokio::test]
async fn one_trace_leads_from_the_trigger_over_a_crash_to_each_call() {
    let collector = Collector::start().await;
    let model = LlmServer::start(|_, number| match number {
        0 => Reply::call("echo", json!({"text": "a"})),
        1 => Reply::set("said", "a"),
        _ => Reply::text("done"),
    })
    .await;
    let url = collector.url();
    let agent = format!(
        r#"
agent: {{id: tracer, name: Tracer}}
graph:
  entry_points: {{slow: talk}}
  nodes:
    - {{id: talk, node_type: event_loop, tools: [echo], output_keys: [said]}}
    - {{id: fetch, node_type: http, url: "{url}/page?token=secret"}}
    - {{id: work, node_type: exec, command: [/bin/sh, -c, "echo $TRACEPARENT >> started; while [ ! -e go ] && [ -e started ]; do sleep 0.02; done"]}}
  edges:
    - {{source: talk, target: fetch}}
    - {{source: fetch, target: work}}
"#
    );
    let home = Home::new(&agent)
        .with("HIVE_LLM_BASE_URL", &model.url())
        .with("HIVE_LLM_MODEL", "tiny")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .with("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .with("OTEL_BSP_SCHEDULE_DELAY", "20");
    let servers = json!({"web": {"command": mcp_server(), "env": {"MCP_TRACE_FILE": home.path("tools")}}});
    std::fs::write(home.path("mcp_servers.json"), servers.to_string()).unwrap();
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let (code, begun) = runtime.post(TRIGGER, &[("traceparent", &parent())], "{}").await;
    assert_eq!(code, 202, "{begun}");
    let id = begun["execution"].as_str().unwrap().to_owned();
    home.wait_for_lines("started", 1).await;
    eventually("the first process's spans", || async { !collector.named("node fetch").is_empty() }).await;
    runtime.kill().await;

    home.let_go();
    // Now only the end hands anything over.
    let home = home.with("OTEL_BSP_SCHEDULE_DELAY", "600000");
    let mut runtime = home.start().await;
    until(&runtime, &id, "succeeded").await;
    runtime.signal(Signal::INT);
    assert_eq!(runtime.exit_code().await, Some(0));

    assert!(collector.all().iter().all(|span| span.trace == TRACE), "{:?}", collector.all());
    let trigger = collector.one("POST /api/v1/entry-points/{id}/trigger");
    assert_eq!((trigger.parent.as_str(), trigger.kind), (SENDER, 2));
    assert_eq!(
        (&trigger.attributes["http.response.status_code"], &trigger.attributes["hive.execution.id"]),
        (&"202".to_owned(), &id)
    );
    assert_eq!(
        (trigger.attributes["service.name"].as_str(), trigger.attributes["deployment.environment.name"].as_str()),
        ("agent-runtime", "test")
    );
    // The first process was killed before this span of its own had ended.
    let execution = collector.one("invoke_agent Tracer");
    assert_eq!(execution.parent, trigger.id);
    assert_eq!(execution.attributes["hive.execution.state"], "succeeded");
    let (talk, fetch, work) = (collector.one("node talk"), collector.one("node fetch"), collector.one("node work"));
    assert_eq!((&talk.parent, &work.parent), (&fetch.parent, &execution.id));
    assert_ne!(talk.parent, execution.id);

    let chats = collector.named("chat tiny");
    assert!(chats.len() == 3 && chats.iter().all(|chat| chat.parent == talk.id && chat.kind == 3), "{chats:?}");
    let said = |name: &str| chats[0].attributes[name].as_str();
    assert_eq!((said("gen_ai.operation.name"), said("gen_ai.provider.name")), ("chat", "openai"));
    assert_eq!((said("gen_ai.usage.input_tokens"), said("gen_ai.usage.output_tokens")), ("10", "5"));
    let told: Vec<String> = model
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|(headers, _)| headers["traceparent"].to_str().unwrap().to_owned())
        .collect();
    assert!(told.iter().all(|parent| chats.iter().any(|chat| chat.id == span_of(parent))), "{told:?}");
    let tool = collector.one("execute_tool echo");
    assert_eq!((&tool.parent, tool.failed), (&talk.id, false));
    assert_eq!(home.lines("tools"), [format!("echo 00-{TRACE}-{}-01", tool.id)]);

    let request = collector.one("GET");
    assert_eq!(
        (&request.parent, request.kind, request.attributes["http.response.status_code"].as_str()),
        (&fetch.id, 3, "200")
    );
    assert_eq!(request.attributes["url.full"], format!("{url}/page"));
    let asked = collector.others.lock().unwrap()[0]["traceparent"].to_str().unwrap().to_owned();
    assert_eq!(span_of(&asked), request.id);
    let started = home.lines("started");
    assert_eq!((started.len(), span_of(&started[1])), (2, work.id.as_str()));
    assert!(!span_of(&started[0]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_begins_a_trace_of_its_own_in_a_store_of_one_replica_and_in_a_shared_one() {
    let text = r#"
agent: {id: ticker, name: Ticker}
graph:
  async_entry_points:
    - {id: tick, entry_node: n, trigger_type: timer, trigger_config: {interval_seconds: 0.5}}
  nodes: [{id: n, node_type: exec, command: [/bin/true]}]
"#;
    let server = Server::start();
    let shared = server.as_ref().map(|server| server.database("runtime"));
    for store in [None, shared] {
        let collector = Collector::start().await;
        let home = || {
            let home = Home::new(text)
                .with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
                .with("OTEL_BSP_SCHEDULE_DELAY", "20");
            store.iter().fold(home, |home, url| home.with("HIVE_STORE_URL", url))
        };
        let (one, other) = (home(), home());
        let _runtimes = [one.start().await, other.start().await];
        let ticks = || {
            let all = collector.named("timer tick").into_iter();
            all.filter(|tick| tick.attributes.contains_key("hive.execution.id")).collect::<Vec<_>>()
        };
        eventually("four executions", || async { collector.named("invoke_agent Ticker").len() >= 4 }).await;
        for execution in collector.named("invoke_agent Ticker").into_iter().take(4) {
            let id = &execution.attributes["hive.execution.id"];
            eventually("its tick", || async { ticks().iter().any(|t| t.attributes["hive.execution.id"] == *id) }).await;
            let tick = ticks().into_iter().find(|tick| tick.attributes["hive.execution.id"] == *id).unwrap();
            assert_eq!((&execution.trace, &execution.parent), (&tick.trace, &tick.id), "{execution:?}");
            assert!(tick.parent.is_empty() && tick.attributes.contains_key("hive.timer.due"), "{tick:?}");
        }
        let ids: Vec<String> = ticks().into_iter().map(|tick| tick.attributes["hive.execution.id"].clone()).collect();
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "one span for each: {ids:?}");
    }
}

#[tokio::test]
async fn what_fails_is_marked_and_an_unsampled_trace_is_not_exported() {
    let collector = Collector::start().await;
    let agent =
        "graph: {entry_points: {slow: n}, nodes: [{id: n, node_type: exec, command: [/bin/false], max_retries: 0}]}";
    let home = Home::new(agent)
        .with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{}/v1/traces", collector.url()))
        .with("OTEL_BSP_SCHEDULE_DELAY", "20");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let path = format!("{TRIGGER}?wait=20");
    let unsampled = parent().replace("-01", "-00");
    let (_, ended) = runtime.post(&path, &[("traceparent", &unsampled)], "{}").await;
    let kept = ended["trace"]["traceparent"].as_str().unwrap();
    assert!(kept.starts_with(&format!("00-{TRACE}-")) && kept.ends_with("-00"), "{kept}");
    let (_, ended) = runtime.post(&path, &[("traceparent", "nonsense")], "{}").await;
    assert_eq!(ended["state"], "failed", "{ended}");
    let (code, _) = runtime.post("/api/v1/entry-points/none/trigger", &[], "{}").await;
    assert_eq!(code, 404);
    let all = || collector.named("POST /api/v1/entry-points/{id}/trigger");
    eventually("both triggers", || async { all().len() == 2 }).await;
    assert!(collector.all().iter().all(|span| span.trace != TRACE), "{:?}", collector.all());
    let (execution, node) = (collector.one("invoke_agent"), collector.one("node n"));
    assert!(execution.failed && node.failed);
    assert_eq!((execution.attributes["error.type"].as_str(), node.attributes["error.type"].as_str()), ("node", "exit"));
    assert!(all()[0].parent.is_empty(), "a trace of its own");
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_away_slows_and_stops_nothing() {
    let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = hangs.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = hangs.accept().await {
            held.push(connection);
        }
    });
    for address in [address, away] {
        let agent = "graph: {entry_points: {slow: n}, nodes: [{id: n, node_type: exec, command: [/bin/true]}]}";
        let home = Home::new(agent)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"))
            .with("OTEL_BSP_SCHEDULE_DELAY", "1")
            .with("OTEL_BSP_MAX_QUEUE_SIZE", "4");
        let mut runtime = home.start().await;
        runtime.reach(State::Running).await;
        let begun = Instant::now();
        for _ in 0..40 {
            let (_, ended) = runtime.post(&format!("{TRIGGER}?wait=20"), &[], "{}").await;
            assert_eq!(ended["state"], "succeeded", "{ended}");
        }
        // One export that is waited for takes ten seconds here.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let begun = Instant::now();
        runtime.signal(Signal::INT);
        assert_eq!(runtime.exit_code().await, Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn log_lines_name_their_execution_whether_there_are_traces_or_not() {
    let collector = Collector::start().await;
    for endpoint in [String::new(), collector.url()] {
        let agent = r#"graph: {entry_points: {slow: n}, nodes: [{id: n, node_type: exec, command: [/bin/sh, -c, "echo $TRACEPARENT >> parents; echo heard >&2"]}]}"#;
        let home = Home::new(agent).with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        let mut child = home.spawn();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut next = async || -> Value {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
            serde_json::from_str(&line).unwrap()
        };
        let address = loop {
            let line = next().await;
            if let Some(address) = line["fields"]["address"].as_str() {
                break address.parse().unwrap();
            }
        };
        let runtime = crate::process::Runtime { child, address, client: lifecycle::client::Client::default() };
        runtime.reach(State::Running).await;
        let (_, begun) = runtime.post(TRIGGER, &[("traceparent", &parent())], "{}").await;
        let line = loop {
            let line = next().await;
            if line["fields"]["message"] == "heard" {
                break line;
            }
        };
        assert_eq!(
            (&line["span"]["name"], &line["span"]["execution"]),
            (&"execution".into(), &begun["execution"]),
            "{line}"
        );
        home.wait_for_lines("parents", 1).await;
        // Without traces the sender's own place is handed on.
        let parents = home.lines("parents");
        assert_eq!(span_of(&parents[0]) == SENDER, endpoint.is_empty(), "{parents:?}");
    }
}
