//! What ends a node or an execution that gets nowhere: stalls, steps, and which failures are tried again.

use lifecycle::State;
use serde_json::json;

use crate::graph::until;
use crate::llm_server::{LlmServer, Reply};
use crate::process::{Home, Runtime};

async fn started(agent: &str, model: Option<&LlmServer>) -> (Home, Runtime) {
    let home = Home::new(agent);
    let home = model.iter().fold(home, |home, model| home.with("HIVE_LLM_BASE_URL", &model.url()));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    (home, runtime)
}

#[tokio::test]
async fn a_model_that_says_the_same_again_and_again_stalls_its_node() {
    let model = LlmServer::start(|_, _| Reply::call("load_data", json!({"filename": "none"}))).await;
    let text = r#"
graph:
  entry_points: {slow: n}
  loop_config: {stall_detection_threshold: 3, max_iterations: 50}
  nodes: [{id: n, node_type: event_loop, tools: [load_data], output_keys: [k], max_retries: 0}]
"#;
    let (_home, runtime) = started(text, Some(&model)).await;
    let id = runtime.trigger().await;
    let failed = until(&runtime, &id, "failed").await;
    assert!(failed["error"].as_str().unwrap().contains("the same answer 3 times running"), "{failed}");
    assert_eq!(model.count(), 3, "it is asked no more");
}

#[tokio::test]
async fn an_answer_that_differs_is_no_stall_and_the_iterations_are_bounded_too() {
    let model = LlmServer::start(|_, n| Reply::call("load_data", json!({"filename": n.to_string()}))).await;
    let text = r#"
graph:
  entry_points: {slow: n}
  loop_config: {stall_detection_threshold: 3, max_iterations: 7}
  nodes: [{id: n, node_type: event_loop, tools: [load_data], output_keys: [k], max_retries: 0}]
"#;
    let (_home, runtime) = started(text, Some(&model)).await;
    let id = runtime.trigger().await;
    let failed = until(&runtime, &id, "failed").await;
    assert!(failed["error"].as_str().unwrap().contains("7 answers of the model"), "{failed}");
    assert_eq!(model.count(), 7);
}

#[tokio::test]
async fn a_loop_without_an_end_is_ended_by_max_steps() {
    let text = r#"
graph:
  entry_points: {slow: a}
  max_steps: 9
  nodes:
    - {id: a, node_type: exec, command: [/bin/sh, -c, "echo >> started"]}
    - {id: b, node_type: exec, command: [/bin/sh, -c, "echo >> started"]}
  edges: [{source: a, target: b}, {source: b, target: a}]
"#;
    let (home, runtime) = started(text, None).await;
    let id = runtime.trigger().await;
    let failed = until(&runtime, &id, "failed").await;
    assert_eq!(failed["reason"], "limit", "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("max_steps"), "{failed}");
    assert_eq!(home.lines("started").len(), 9, "every step is taken, and none more");
}

#[tokio::test]
async fn only_the_failures_that_retry_on_names_are_tried_again() {
    for (retry_on, tries) in [("[timeout]", 1), ("[exit]", 2), ("[TIMEOUT, exit]", 2), ("[status: 3]", 2), ("[]", 2)] {
        let text = format!(
            r#"
graph:
  entry_points: {{slow: a}}
  nodes: [{{id: a, node_type: exec, max_retries: 1, retry_on: {retry_on}, command: [/bin/sh, -c, "echo >> started; exit 3"]}}]
"#
        );
        let text = text.replace("[status: 3]", "['status: 3']");
        let (home, runtime) = started(&text, None).await;
        let id = runtime.trigger().await;
        until(&runtime, &id, "failed").await;
        assert_eq!(home.lines("started").len(), tries, "{retry_on}");
    }
}
