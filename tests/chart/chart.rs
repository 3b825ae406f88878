//! Owns the rendering of the chart.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use cluster::Silent;
use serde_json::Value;

static HELM: LazyLock<PathBuf> = LazyLock::new(|| cluster::helm(&Silent).expect("Helm, which Go builds"));

/// Everything that can be switched on.
pub(crate) const EVERYTHING: [&str; 7] = [
    "networkPolicy.enabled=true",
    "serviceMonitor.enabled=true",
    "podMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "dashboards.enabled=true",
    "dashboard.enabled=true",
    "crds.install=true",
];

pub(crate) fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What Helm makes of the chart with values set as on the command line, without the definitions unless they are asked for.
pub(crate) fn render(set: &[&str]) -> Result<String, String> {
    render_json(set, &[])
}

/// As [`render`], with values as JSON too.
pub(crate) fn render_json(set: &[&str], json: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(&*HELM);
    helm.args(["template", "hive", "charts/agentruntime-operator", "--namespace", "system"]);
    helm.current_dir(root("")).args(["--set", "crds.install=false"]);
    helm.args(set.iter().map(|value| format!("--set={value}")));
    helm.args(json.iter().map(|value| format!("--set-json={value}")));
    let output = helm.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The objects of a rendered chart, in order.
pub(crate) fn objects(rendered: &str) -> Vec<Value> {
    let documents = rendered.split("\n---\n").map(|text| text.strip_prefix("---\n").unwrap_or(text));
    let parsed = documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}\n{text}")));
    parsed.filter(|object| !object.is_null()).collect()
}

/// The objects with these values.
pub(crate) fn with(set: &[&str]) -> Vec<Value> {
    objects(&render(set).unwrap())
}

/// The only object of a kind whose name has this end.
pub(crate) fn one<'a>(objects: &'a [Value], kind: &str, end: &str) -> &'a Value {
    let found: Vec<&Value> = objects
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"].as_str().unwrap().ends_with(end))
        .collect();
    assert_eq!(found.len(), 1, "one {kind} that ends in {end}");
    found[0]
}

pub(crate) fn none(objects: &[Value], kind: &str) {
    assert!(objects.iter().all(|object| object["kind"] != kind), "no {kind}");
}
