//! Tools whose effect must not be repeated: what a crash, a lost server or a timeout leaves unknown is
//! a person's to settle.

use lifecycle::{State, Verb, wire::Command};
use serde_json::{Value, json};

use crate::graph::until;
use crate::llm_server::{LlmServer, Reply};
use crate::process::{Home, Runtime};
use crate::tools::mcp_server;

/// Calls `slow` and `echo` side by side, hands in what `slow` answered, and ends.
fn script(body: &Value) -> Reply {
    let messages = body["messages"].as_array().unwrap();
    let told = |name: &str| {
        let mut calls = messages.iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
        let id = calls.rfind(|call| call["function"]["name"] == name)?["id"].as_str()?;
        messages.iter().find(|message| message["tool_call_id"] == id)?["content"].as_str().map(str::to_owned)
    };
    match (told("slow"), told("set_output")) {
        (None, _) => {
            let slow = ("slow".to_owned(), json!({"seconds": 3}));
            Reply::Calls(String::new(), vec![slow, ("echo".to_owned(), json!({"text": "a"}))])
        }
        (Some(said), None) => Reply::set("said", &said),
        (Some(_), Some(_)) => Reply::text("done"),
    }
}

async fn begun(effects: &str, timeout_seconds: u32) -> (Home, LlmServer, Runtime, String) {
    let model = LlmServer::start(|body, _| script(body)).await;
    let agent = format!(
        "graph: {{entry_points: {{slow: n}}, nodes: [{{id: n, node_type: event_loop, tools: [slow, echo], {effects} output_keys: [said], max_retries: 0}}]}}"
    );
    let home = Home::new(&agent).with("HIVE_LLM_BASE_URL", &model.url());
    let server = json!({"command": mcp_server(), "timeout_seconds": timeout_seconds, "env": {"MCP_COUNT_FILE": home.path("count")}});
    std::fs::write(home.path("mcp_servers.json"), json!({"web": server}).to_string()).unwrap();
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let id = runtime.trigger().await;
    home.wait_for_lines("count", 2).await;
    (home, model, runtime, id)
}

/// The keys with which `slow` was called.
fn calls(home: &Home) -> Vec<String> {
    home.lines("count").into_iter().filter(|line| line.starts_with("slow ")).collect()
}

/// What a person is asked, once the execution waits for that.
async fn asked(home: &Home, runtime: &Runtime, id: &str) {
    let waiting = until(runtime, id, "waiting").await;
    let main = &waiting["branches"]["main"];
    assert_eq!(main["about"], "uncertain", "{waiting}");
    assert!(main["question"].as_str().unwrap().contains("the tool slow was called with {\"seconds\":3}"), "{waiting}");
    assert_eq!((calls(home).len(), runtime.status().await.waiting_for_input), (1, 1));
}

#[tokio::test]
async fn a_tool_that_must_not_be_repeated_waits_for_a_person_after_a_crash() {
    for (answer, said) in [
        (json!({"action": "use", "output": "done by hand"}), "done by hand"),
        (json!({"action": "use", "output": {"sent": 7}}), r#"{"sent":7}"#),
        (json!({"action": "retry"}), "awake"),
        (json!({"action": "fail"}), "a person said that it failed"),
    ] {
        let (home, _model, runtime, id) = begun("tool_effects: {slow: once},", 30).await;
        runtime.kill().await;
        let runtime = home.start().await;
        asked(&home, &runtime, &id).await;
        let input = format!("/api/v1/executions/{id}/input");
        assert_eq!(runtime.post(&input, &[], r#"{"value": {"action": "use"}}"#).await.0, 409);
        let body = json!({"value": answer}).to_string();
        assert_eq!(runtime.post(&input, &[], &body).await.0, 202);
        let ended = until(&runtime, &id, "succeeded").await;
        assert_eq!(ended["memory"]["said"], said, "{ended}");
        let calls = calls(&home);
        assert_eq!(calls.len(), if answer["action"] == "retry" { 2 } else { 1 });
        assert!(calls.iter().all(|key| *key == calls[0]), "{calls:?}");
    }
}

#[tokio::test]
async fn a_tool_that_may_be_repeated_is_repeated_after_a_crash_with_its_key() {
    let (home, _model, runtime, id) = begun("", 30).await;
    runtime.kill().await;
    let runtime = home.start().await;
    until(&runtime, &id, "succeeded").await;
    let calls = calls(&home);
    assert_eq!((calls.len(), &calls[0]), (2, &calls[1]));
}

#[tokio::test]
async fn a_call_without_an_answer_and_one_that_was_interrupted_are_a_persons_too() {
    let (home, _model, runtime, id) = begun("tool_effects: {slow: once, echo: repeat},", 1).await;
    asked(&home, &runtime, &id).await;
    let answer = json!({"value": {"action": "use", "output": "late"}}).to_string();
    assert_eq!(runtime.post(&format!("/api/v1/executions/{id}/input"), &[], &answer).await.0, 202);
    assert_eq!(until(&runtime, &id, "succeeded").await["memory"]["said"], "late");

    let (home, _model, runtime, id) = begun("tool_effects: {slow: once},", 60).await;
    let at_once = Command { deadline_seconds: Some(0), ..Command::default() };
    runtime.send(Verb::Stop, &at_once).await.unwrap();
    runtime.reach(State::Stopped).await;
    runtime.ask(Verb::Start).await;
    asked(&home, &runtime, &id).await;
}
