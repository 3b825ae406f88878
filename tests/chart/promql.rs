//! Alerts and dashboards as Prometheus' own parser reads them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use cluster::Silent;
use serde_json::json;

use crate::alerts::expressions;
use crate::chart::{one, with};

static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| cluster::promql(&Silent).expect("Prometheus' parser, which Go builds"));

/// What Prometheus says; the error is what it would not take.
fn taken(rules: &str, expressions: &BTreeMap<String, String>) -> Result<String, String> {
    let asked = json!({ "rules": rules, "expressions": expressions }).to_string();
    let mut child = Command::new(&*PROGRAM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// As Grafana sends it: its variables filled in, and of its own `label_values` the selector.
fn sent(expression: &str) -> String {
    let filled = expression.replace("$__rate_interval", "5m").replace("$namespace", "shop").replace("$pod", "demo-1");
    let inner = filled.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(", ")).map(|(inner, _)| inner);
    inner.map_or_else(|| filled.clone(), str::to_owned)
}

#[test]
fn prometheus_takes_every_rule_and_every_expression() {
    let objects = with(&["prometheusRule.enabled=true"]);
    // JSON is YAML.
    let rules = one(&objects, "PrometheusRule", "operator")["spec"].to_string();
    let mut asked = BTreeMap::new();
    for (number, (place, expression)) in expressions().into_iter().enumerate() {
        // The source of data is no expression.
        if expression != "prometheus" {
            assert!(!sent(&expression).contains('$'), "{place}: a variable that is not known here: {expression}");
            asked.insert(format!("{number} {place}"), sent(&expression));
        }
    }
    let said = taken(&rules, &asked).unwrap_or_else(|faults| panic!("{faults}"));
    let number = |word: usize| -> usize { said.split(' ').nth(word).unwrap().parse().unwrap() };
    assert!(number(0) >= 8 && number(2) > 30, "{said}");
}

#[test]
fn what_prometheus_would_not_take_is_named() {
    let rules =
        |expr: &str, more: &str| format!("groups: [{{name: a, rules: [{{alert: B, expr: '{expr}', for: 5m{more}}}]}}]");
    assert!(taken(&rules("up == 0", ""), &BTreeMap::new()).is_ok());
    for (rule, said) in [
        (rules("up ==", ""), "parse error"),
        (rules("up == 0", ", fro: 5m"), "fro"),
        (rules("up == 0", ", annotations: {summary: '{{ $labels.pod'}"), "summary"),
    ] {
        let refused = taken(&rule, &BTreeMap::new()).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
    let wrong = BTreeMap::from([("a panel".to_owned(), "rate(hive_gate_open)".to_owned())]);
    let refused = taken("groups: []", &wrong).unwrap_err();
    assert!(refused.contains("a panel") && refused.contains("range vector"), "{refused}");
}
