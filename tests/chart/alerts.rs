//! Alerts and dashboards speak of what is measured, and each alert has a runbook.

use serde_json::Value;

use crate::chart::{one, read, root, with};

/// The text of every source file below a folder.
fn sources(folder: &str) -> String {
    let mut all = String::new();
    let mut folders = vec![root(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                all += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    all
}

/// The names of metrics in an expression: a name before a selector, a bracket, or the end of an argument.
fn metrics(expression: &str) -> Vec<&str> {
    let prefixes = ["hive_", "agentruntime_", "controller_runtime_", "workqueue_", "rest_client_"];
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).collect()
}

/// A registered name is in the source as it is registered, without what the exposition adds to it: a unit, and a kind.
fn registered(name: &str, sources: &str) -> bool {
    let without = |name: &str, ends: &[&str]| -> Vec<String> {
        let cut = ends.iter().filter_map(|end| name.strip_suffix(end)).map(str::to_owned);
        cut.chain([name.to_owned()]).collect()
    };
    let stems = without(name, &["_total", "_bucket", "_sum", "_count"]);
    stems.iter().flat_map(|stem| without(stem, &["_seconds"])).any(|stem| {
        // The runtime's registry puts its prefix before each of its names.
        let own = stem.strip_prefix("hive_").unwrap_or(&stem);
        [stem.as_str(), own].iter().any(|name| sources.contains(&format!("\"{name}\"")))
    })
}

/// Every expression of alerts and dashboards, with its place.
pub(crate) fn expressions() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for name in ["operator.json", "agent-runtime.json"] {
        let text = read(&format!("charts/agentruntime-operator/dashboards/{name}"));
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                all.push((format!("{name} {}", panel["title"]), target["expr"].as_str().unwrap().to_owned()));
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            all.push((format!("{name} {}", variable["name"]), variable["query"].as_str().unwrap().to_owned()));
        }
    }
    all.extend(
        alerts()
            .iter()
            .map(|alert| (alert["alert"].as_str().unwrap().to_owned(), alert["expr"].as_str().unwrap().to_owned())),
    );
    all
}

fn alerts() -> Vec<Value> {
    let objects = with(&["prometheusRule.enabled=true"]);
    let groups = one(&objects, "PrometheusRule", "operator")["spec"]["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_metric_of_alerts_and_dashboards_is_measured() {
    let sources = sources("operator/src") + &sources("agent-runtime/src");
    let mut count = 0;
    for (place, expression) in expressions() {
        for name in metrics(&expression) {
            assert!(registered(name, &sources), "{place}: {name} is not measured");
            count += 1;
        }
    }
    assert!(count > 30, "{count} names were looked at");
    assert!(!registered("agentruntime_no_such_thing", &sources));
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_every_section_its_alert() {
    let runbook = read("docs/OPERATIONS.md");
    let alerts = alerts();
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(runbook.contains(&format!("\n### {name}\n")), "docs/OPERATIONS.md has no section {name}");
        let link = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(link, format!("docs/OPERATIONS.md#{}", name.to_lowercase()));
        assert!(alert["annotations"]["summary"].is_string() && alert["labels"]["severity"].is_string());
    }
    let sections = runbook.lines().filter(|line| line.starts_with("### Agent")).count();
    assert_eq!(sections, alerts.len());
}

#[test]
fn alerts_take_labels_and_can_be_left_out() {
    let set = ["prometheusRule.enabled=true", "prometheusRule.alertLabels.team=x"];
    let left_out = "prometheusRule.disabled={AgentRuntimeReconcileSlow}";
    let objects = with(&[set[0], set[1], left_out]);
    let text = one(&objects, "PrometheusRule", "operator").to_string();
    assert!(text.contains(r#""team":"x""#) && !text.contains("AgentRuntimeReconcileSlow"));
}
