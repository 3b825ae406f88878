//! Agents as Hive exports them, unchanged: with a scripted model, real MCP servers, a person who
//! answers, and a crash in the middle.

use std::path::PathBuf;

use lifecycle::State;
use serde_json::{Value, json};

use crate::graph::until;
use crate::llm_server::{LlmServer, Reply};
use crate::process::{Home, Runtime, eventually};
use crate::tools::{mcp_server, over_http};

/// The folder of exported agents, which are not part of this repository.
fn exports() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/hive");
    std::env::var_os("HIVE_EXPORTS").map_or_else(|| PathBuf::from(beside), PathBuf::from)
}

fn export(name: &str) -> Option<String> {
    let path = exports().join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("skipped: {} is not there; HIVE_EXPORTS names the folder of exported agents", path.display());
    }
    text
}

/// What the model sees of the node that it is at.
struct Seen<'a> {
    keys: Vec<&'a str>,
    since: &'a [Value],
}

impl<'a> Seen<'a> {
    fn of(body: &'a Value) -> Self {
        let none: &[Value] = &[];
        let messages = body["messages"].as_array().map_or(none, Vec::as_slice);
        let task = |message: &Value| message["content"].as_str().is_some_and(|text| text.starts_with("Task: "));
        let begin = messages.iter().rposition(task).unwrap_or(0);
        let tools = body["tools"].as_array().map_or(none, Vec::as_slice);
        let set = tools.iter().find(|tool| tool["function"]["name"] == "set_output");
        let keys = set.and_then(|tool| tool["function"]["parameters"]["properties"]["key"]["enum"].as_array());
        let keys = keys.map_or(none, Vec::as_slice).iter().filter_map(Value::as_str).collect();
        Self { keys, since: &messages[begin..] }
    }

    /// What the person said, if they have been asked.
    fn said(&self) -> Option<String> {
        let answer = |message: &&Value| {
            let asked =
                message["tool_call_id"].as_str().is_some_and(|id| self.called("ask_user").contains(&id.to_owned()));
            message["role"] == "user" || asked
        };
        self.since.iter().skip(1).filter(answer).filter_map(|m| m["content"].as_str()).next_back().map(str::to_owned)
    }

    fn calls(&self) -> impl Iterator<Item = &'a Value> {
        self.since.iter().filter_map(|message| message["tool_calls"].as_array()).flatten()
    }

    fn called(&self, tool: &str) -> Vec<String> {
        let of_tool = self.calls().filter(|call| call["function"]["name"] == tool);
        of_tool.filter_map(|call| call["id"].as_str()).map(str::to_owned).collect()
    }

    /// The first output that is not set.
    fn missing(&self) -> Option<&'a str> {
        let set: String = self.calls().filter_map(|call| call["function"]["arguments"].as_str()).collect();
        self.keys.iter().copied().find(|key| !set.contains(&format!("\"key\":\"{key}\"")))
    }
}

/// A model that works through every node of both agents: it searches, saves, asks, and hands in.
fn work(body: &Value) -> Reply {
    let seen = Seen::of(body);
    let offers =
        |name: &str| body["tools"].as_array().is_some_and(|all| all.iter().any(|t| t["function"]["name"] == name));
    if offers("web_search") && seen.called("web_search").is_empty() {
        let search = |query: &str| ("web_search".to_owned(), json!({"query": query}));
        let scrape = ("web_scrape".to_owned(), json!({"url": "https://example.org/a"}));
        return Reply::Calls(String::new(), vec![search("a"), search("b"), scrape]);
    }
    if offers("serve_file_to_user") && seen.called("save_data").is_empty() {
        return Reply::call("save_data", json!({"filename": "report.html", "data": "<h1>Report</h1>"}));
    }
    if offers("serve_file_to_user") && seen.called("serve_file_to_user").is_empty() {
        return Reply::call("serve_file_to_user", json!({"filename": "report.html", "label": "Report"}));
    }
    if offers("ask_user") && seen.said().is_none() {
        // Both ways in which a model asks.
        let text = format!("Is it good? ({})", seen.keys.join(", "));
        return if body["messages"].as_array().map_or(0, Vec::len).is_multiple_of(2) {
            Reply::Text(text)
        } else {
            Reply::call("ask_user", json!({"question": text}))
        };
    }
    match seen.missing() {
        Some("needs_more_research") => {
            let more = seen.said().is_some_and(|said| said.contains("more"));
            Reply::set("needs_more_research", if more { "true" } else { "false" })
        }
        Some(key) => Reply::set(key, &format!("the {key}")),
        None => Reply::text("Done."),
    }
}

async fn begin(agent: &str, topic: &str) -> (Home, LlmServer, Runtime, String) {
    let model = LlmServer::start(|body, _| work(body)).await;
    let home = Home::new("graph: {nodes: []}")
        .file("agent.json")
        .with("HIVE_LLM_BASE_URL", &model.url())
        .with("HIVE_LLM_IDLE_TIMEOUT_SECONDS", "5");
    std::fs::write(home.path("agent.json"), agent).unwrap();
    let servers = json!({"web": {"command": mcp_server(), "env": {"MCP_COUNT_FILE": home.path("count")}}});
    std::fs::write(home.path("mcp_servers.json"), servers.to_string()).unwrap();
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let body = json!({"topic": topic}).to_string();
    let (code, begun) = runtime.post("/api/v1/entry-points/start/trigger", &[], &body).await;
    assert_eq!(code, 202, "{begun}");
    let id = begun["execution"].as_str().unwrap().to_owned();
    (home, model, runtime, id)
}

/// Waits for a question about an output and answers it.
async fn answer(runtime: &Runtime, id: &str, about: &str, value: &str) {
    let path = format!("/api/v1/executions/{id}");
    let asked = || async {
        let execution = runtime.get(&path).await.1;
        assert!(!execution["ended"].is_string(), "it ended: {execution}");
        execution["branches"]["main"]["question"].as_str().is_some_and(|question| question.contains(about))
    };
    eventually(&format!("a question about {about}"), asked).await;
    let body = json!({"value": value}).to_string();
    assert_eq!(runtime.post(&format!("{path}/input"), &[], &body).await.0, 202);
}

#[tokio::test]
async fn the_research_agent_takes_its_feedback_loop_survives_a_crash_and_delivers() {
    let Some(agent) = export("deep_research_agent.json") else { return };
    let (home, model, runtime, id) = begin(&agent, "bees").await;
    answer(&runtime, &id, "research_brief", "go on").await;
    answer(&runtime, &id, "needs_more_research", "more, please").await;
    // In the middle of the second round of research.
    home.wait_for_lines("count", 4).await;
    runtime.kill().await;
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    answer(&runtime, &id, "needs_more_research", "enough").await;
    let status = runtime.status().await;
    assert_eq!(status.health.llm.as_str(), "healthy");
    answer(&runtime, &id, "delivery_status", "thanks").await;
    let execution = until(&runtime, &id, "succeeded").await;
    assert_eq!((&execution["visits"]["research"], &execution["visits"]["report"]), (&json!(2), &json!(1)));
    assert_eq!(execution["memory"]["delivery_status"], "the delivery_status");
    assert!(execution["tokens"].as_i64() > Some(100), "{execution}");
    let report = home.path(&format!(".hive/files/{id}/report.html"));
    assert_eq!(std::fs::read_to_string(report).unwrap(), "<h1>Report</h1>");
    let mut calls = home.lines("count");
    let all = calls.len();
    calls.sort();
    calls.dedup();
    assert!(calls.len() == 6 && all <= 9, "two rounds of three calls, and at most one step repeated: {all}");
    // A conversation goes on from node to node: the model at the end has seen the beginning.
    let requests = model.requests.lock().unwrap();
    let (_, last) = requests.last().unwrap();
    assert!(last["messages"].to_string().contains("Task: intake"), "conversation_mode is continuous");
}

#[tokio::test]
async fn the_news_agent_runs_to_its_end_over_a_remote_server() {
    let Some(agent) = export("tech_news_reporter.json") else { return };
    let (home, _model, runtime, id) = begin(&agent, "news").await;
    runtime.kill().await;
    let (_server, url) = over_http(&home.path("remote")).await;
    let servers = json!({"web": {"transport": "http", "url": url}});
    std::fs::write(home.path("mcp_servers.json"), servers.to_string()).unwrap();
    let runtime = home.start().await;
    answer(&runtime, &id, "research_brief", "everything").await;
    until(&runtime, &id, "succeeded").await;
    assert_eq!(home.lines("remote").len(), 3);
}

#[tokio::test]
async fn a_tool_that_no_server_offers_is_named_when_the_agent_is_loaded() {
    let agent =
        json!({"graph": {"nodes": [{"id": "n", "node_type": "event_loop", "tools": ["teleport"]}]}}).to_string();
    let model = LlmServer::start(|body, _| work(body)).await;
    let home = Home::new(&agent).with("HIVE_LLM_BASE_URL", &model.url());
    let runtime = home.start().await;
    let stopped = runtime.reach(State::Stopped).await.message.unwrap();
    assert!(
        stopped.contains("teleport") && stopped.contains("\"n\"") && stopped.contains("--allow-missing-tools"),
        "{stopped}"
    );
    let home = Home::new(&agent).with("HIVE_LLM_BASE_URL", &model.url()).with("HIVE_ALLOW_MISSING_TOOLS", "true");
    home.start().await.reach(State::Running).await;
}

#[tokio::test]
async fn without_a_model_an_agent_that_needs_one_says_what_to_set() {
    let home = Home::new("graph: {nodes: [{id: n, node_type: event_loop}]}");
    let stopped = home.start().await.reach(State::Stopped).await.message.unwrap();
    assert!(stopped.contains("HIVE_LLM_API_KEY"), "{stopped}");
}

#[tokio::test]
async fn an_edge_may_be_the_models_to_decide() {
    let agent = r#"
graph:
  entry_points: {start: a}
  nodes:
    - {id: a, node_type: exec, command: [/bin/echo, '{"n": 1}'], output_keys: [n]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo >> b"]}
    - {id: c, node_type: exec, command: [/bin/sh, -c, "echo >> c"]}
  edges:
    - {id: to-b, source: a, target: b, condition: llm_decide, condition_expr: if it is small}
    - {id: to-c, source: a, target: c, condition: llm_decide, condition_expr: if it is large}
"#;
    let model = LlmServer::start(|_, _| Reply::call("follow", json!({"edges": ["to-c", "nowhere"]}))).await;
    let home = Home::new(agent).with("HIVE_LLM_BASE_URL", &model.url());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let (_, ended) = runtime.post("/api/v1/entry-points/start/trigger?wait=20", &[], "{}").await;
    assert_eq!((&ended["state"], home.lines("b").len(), home.lines("c").len()), (&json!("succeeded"), 0, 1), "{ended}");
    assert!(model.requests.lock().unwrap()[0].1["messages"].to_string().contains("if it is large"));
}

#[tokio::test]
async fn tokens_have_limits_of_an_execution_and_of_a_day() {
    for (limit, word) in [("tokens: 100", "limits.tokens "), ("tokens_per_day: 100", "limits.tokens_per_day")] {
        let agent = format!(
            "graph:\n  entry_points: {{start: n}}\n  limits: {{{limit}}}\n  max_tokens: 50\n  nodes: [{{id: n, node_type: event_loop, output_keys: [k], max_validation_retries: 50}}]\n"
        );
        let model = LlmServer::start(|_, n| Reply::Text(format!("thinking {n}"))).await;
        let home = Home::new(&agent).with("HIVE_LLM_BASE_URL", &model.url());
        let runtime = home.start().await;
        runtime.reach(State::Running).await;
        let (_, ended) = runtime.post("/api/v1/entry-points/start/trigger?wait=20", &[], "{}").await;
        assert_eq!((&ended["state"], &ended["reason"]), (&json!("failed"), &json!("limit")), "{ended}");
        assert!(ended["error"].as_str().unwrap().contains(word), "{ended}");
        let used = ended["tokens"].as_i64().unwrap();
        assert!((15..=100).contains(&used), "used {used}");
    }
}

/// The shape that older exporters wrote: every key of a node, with the words of then.
fn older() -> String {
    let node = |own: Value| {
        let mut node = json!({
            "name": "", "description": "", "input_keys": [], "output_keys": [], "nullable_output_keys": [],
            "input_schema": {}, "output_schema": {}, "system_prompt": null, "tools": [], "model": null,
            "function": null, "routes": {}, "max_retries": 3, "retry_on": [], "max_node_visits": 1,
            "output_model": null, "max_validation_retries": 2, "client_facing": false,
        });
        node.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        node
    };
    let edge = |source: &str, target: &str, condition: &str| {
        json!({
            "id": format!("{source}_to_{target}"), "source": source, "target": target, "condition": condition,
            "condition_expr": null, "priority": 0, "input_mapping": {}, "description": "",
        })
    };
    json!({
        "agent": {"id": "letters", "name": "Letters", "version": "1.0.0", "author": "somebody"},
        "graph": {
            "id": "letters-graph", "goal_id": "letters", "version": "1.0.0", "entry_node": "read", "entry_points": {},
            "terminal_nodes": ["send", "decline"], "pause_nodes": [], "created_by": "builder", "memory_keys": [],
            "max_steps": 20, "max_retries_per_node": 3,
            "async_entry_points": [{
                "id": "inbox", "name": "Inbox", "entry_node": "read", "trigger_type": "event", "priority": 0,
                "trigger_config": {"event_types": ["letter"]}, "isolation_level": "shared", "max_concurrent": 10,
            }],
            "nodes": [
                node(json!({"id": "read", "node_type": "llm_generate", "input_keys": ["letter"],
                    "output_keys": ["summary"], "system_prompt": "Sum up {letter} as {\"summary\": ..}."})),
                node(json!({"id": "choose", "node_type": "router", "system_prompt": "Is it for us?",
                    "routes": {"ours": "person", "not_ours": "decline"}})),
                node(json!({"id": "person", "node_type": "human_input", "input_keys": ["summary"],
                    "output_keys": ["reply"], "system_prompt": "What do we say about {summary}?"})),
                node(json!({"id": "send", "node_type": "llm_tool_use", "input_keys": ["reply"],
                    "output_keys": ["sent"], "tools": ["save_data", "set_output"]})),
                node(json!({"id": "decline", "node_type": "llm_generate", "output_keys": ["sent"]})),
            ],
            "edges": [
                edge("read", "choose", "on_success"), edge("choose", "person", "on_success"),
                edge("choose", "decline", "on_failure"), edge("person", "send", "on_success"),
            ],
        },
        "goal": {"id": "letters", "name": "Letters", "description": "", "success_criteria": [], "constraints": []},
        "required_tools": ["save_data"], "metadata": {"created_at": "", "node_count": 5, "edge_count": 4},
    })
    .to_string()
}

#[tokio::test]
async fn an_export_with_the_older_words_runs_to_its_end() {
    let model = LlmServer::start(|body, _| {
        let follows = body["tools"].as_array().is_some_and(|all| all.iter().any(|t| t["function"]["name"] == "follow"));
        // A router takes one way, whatever the model says besides.
        if follows { Reply::call("follow", json!({"edges": ["choose-ours", "choose-not_ours"]})) } else { work(body) }
    })
    .await;
    let home = Home::new("graph: {nodes: []}").file("agent.json").with("HIVE_LLM_BASE_URL", &model.url());
    std::fs::write(home.path("agent.json"), older()).unwrap();
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    assert_eq!(runtime.status().await.entry_points, ["inbox", "main"]);
    let path = "/api/v1/entry-points/main/trigger";
    let (_, begun) = runtime.post(path, &[], r#"{"letter": "letter 7"}"#).await;
    let id = begun["execution"].as_str().unwrap().to_owned();
    let asked = until(&runtime, &id, "waiting").await;
    assert_eq!(asked["branches"]["main"]["question"], "What do we say about the summary?", "{asked}");
    // The answer survives a crash as any other step.
    let input = format!("/api/v1/executions/{id}/input");
    assert_eq!(runtime.post(&input, &[], r#"{"value": "yes"}"#).await.0, 202);
    runtime.kill().await;
    let runtime = home.start().await;
    let ended = until(&runtime, &id, "succeeded").await;
    assert_eq!((&ended["memory"]["reply"], &ended["memory"]["sent"]), (&json!("yes"), &json!("the sent")), "{ended}");
    assert_eq!(ended["visits"]["decline"], Value::Null);
    let requests = model.requests.lock().unwrap();
    assert!(requests[0].1["messages"].to_string().contains("Sum up letter 7 as {"), "{}", requests[0].1);
}

#[tokio::test]
async fn a_pause_of_the_graph_asks_once_and_goes_on_at_its_resume_entry_point() {
    let agent = r#"
graph:
  entry_node: ask
  entry_points: {start: ask, ask_resume: after}
  pause_nodes: [ask]
  nodes:
    - {id: ask, node_type: human_input, system_prompt: How many?, output_keys: [count]}
    - {id: after, node_type: exec, command: [/bin/sh, -c, "echo {{count}} >> done"]}
"#;
    let home = Home::new(agent);
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let (_, begun) = runtime.post("/api/v1/entry-points/start/trigger", &[], "{}").await;
    let id = begun["execution"].as_str().unwrap().to_owned();
    until(&runtime, &id, "waiting").await;
    assert_eq!(runtime.post(&format!("/api/v1/executions/{id}/input"), &[], r#"{"value": 7}"#).await.0, 202);
    until(&runtime, &id, "succeeded").await;
    assert_eq!(home.lines("done"), ["7"]);
}
