//! What the documents say is so: their commands are run, and the tests that they name exist.

use std::os::unix::fs::PermissionsExt as _;

use lifecycle::State;

use crate::process::Home;

fn document(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The code in a document's blocks of a language, in order.
fn blocks(text: &str, language: &str) -> String {
    let parts = text.split("```").skip(1).step_by(2);
    parts.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// Stands in front of curl: shows the body as curl would, and notes the status for the test.
const CURL: &str = r#"#!/bin/sh
answer=$(command -p curl --silent --show-error --max-time 40 --write-out '\n%{http_code}' "$@")
printf '%s\n' "$answer" | tail -n 1 >> codes
printf '%s\n' "$answer" | sed '$d'
"#;

#[tokio::test]
async fn every_command_of_the_lifecycle_api_is_answered_as_it_says() {
    let agent = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agents/tour.yaml")).unwrap();
    let home = Home::new(&agent).with("TOUR_SECRET", "secret");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let bin = home.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("curl"), CURL).unwrap();
    std::fs::set_permissions(bin.join("curl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = blocks(&document("LIFECYCLE_API.md"), "sh").replace("localhost:8080", &runtime.address.to_string());
    // A restart and a start are on their way when they are answered.
    let ready = format!("until command -p curl -sf {}/health/ready >/dev/null; do sleep 0.05; done\n", runtime.address);
    let mut script = String::from("set -eu\n");
    let mut wanted = Vec::new();
    for line in text.lines() {
        if let Some(code) = line.strip_prefix("# ") {
            wanted.push(code.to_owned());
        } else {
            script += line;
            script += "\n";
            if line.contains("lifecycle/restart") || line.contains("lifecycle/start") {
                script += &ready;
            }
        }
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.arg("-c").arg(&script).current_dir(home.folder.path()).env("PATH", path);
    let output = shell.output().await.unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    // A command in a loop is answered more than once: runs of its status count once.
    let mut codes = home.lines("codes");
    let looped = text
        .lines()
        .position(|line| line.starts_with("until"))
        .map(|at| text.lines().take(at).filter(|line| line.starts_with("# ")).count() - 1);
    if let Some(at) = looped {
        while codes.len() > wanted.len() && codes.get(at + 1).is_some_and(|code| code == "200") {
            codes.remove(at);
        }
    }
    assert_eq!(codes, wanted, "{script}");
    assert!(wanted.len() > 25);
}

#[test]
fn every_test_that_the_conformance_table_names_exists() {
    let text = document("LIFECYCLE_API.md");
    let table = text.split("## Conformance").nth(1).unwrap();
    let mut sources = String::new();
    for folder in ["tests/process", "src/control", "../lifecycle/src", "../lifecycle/tests", "../tests/e2e"] {
        for entry in std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            sources += &std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        }
    }
    let names: Vec<&str> = table.split('`').skip(1).step_by(2).collect();
    assert!(names.len() > 8);
    for name in names {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}

#[tokio::test]
async fn the_python_agent_runs_as_it_stands() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agents");
    let home = Home::new(&std::fs::read_to_string(format!("{folder}/python.yaml")).unwrap());
    std::fs::create_dir(home.path("python")).unwrap();
    std::fs::copy(format!("{folder}/python/word_count.py"), home.path("python/word_count.py")).unwrap();
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let path = "/api/v1/entry-points/count/trigger?wait=20";
    for (text, words, steps) in [("one two", 2, 1), ("word ".repeat(30).as_str(), 30, 2)] {
        let body = serde_json::json!({ "text": text }).to_string();
        let (_, ended) = runtime.post(path, &[], &body).await;
        assert_eq!((&ended["memory"]["words"], &ended["steps"]), (&words.into(), &steps.into()), "{ended}");
    }
}

#[tokio::test]
async fn the_agent_of_an_existing_service_calls_it_and_follows_its_failure() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut site = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent-runtime"));
    let _site = site.args(["sample-site", "--port", &port.to_string()]).kill_on_drop(true).spawn().unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/agents");
    let home = Home::new(&std::fs::read_to_string(format!("{folder}/existing-service.yaml")).unwrap());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let path = "/api/v1/entry-points/check/trigger?wait=25";
    let body = serde_json::json!({ "host": format!("127.0.0.1:{port}"), "seconds": 0 }).to_string();
    let (_, ended) = runtime.post(path, &[], &body).await;
    assert_eq!((&ended["state"], &ended["memory"]["status"]), (&"succeeded".into(), &200.into()), "{ended}");
    let (_, ended) = runtime.post(path, &[], r#"{"host": "127.0.0.1:9", "seconds": 0}"#).await;
    assert_eq!((&ended["state"], &ended["steps"]), (&"succeeded".into(), &2.into()), "{ended}");
}

#[tokio::test]
async fn every_metric_of_the_dashboard_is_one_of_the_runtimes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/agentruntime-operator/dashboards/agent-runtime.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let model = crate::llm_server::LlmServer::start(|_, _| crate::llm_server::Reply::text("done")).await;
    let agent = "graph: {entry_points: {slow: n}, nodes: [{id: n, node_type: event_loop}]}";
    let home = Home::new(agent).with("HIVE_LLM_BASE_URL", &model.url());
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let (_, ended) = runtime.post("/api/v1/entry-points/slow/trigger?wait=20", &[], "").await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let metrics = runtime.get("/metrics").await.1;
    let metrics = metrics.as_str().unwrap();
    let mut count = 0;
    for target in dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        let expression = target["expr"].as_str().unwrap();
        for name in expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if name.starts_with("hive_") {
                assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is not measured");
                count += 1;
            }
        }
    }
    assert!(count > 10);
}
