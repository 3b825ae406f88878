//! Every manifest of the repository is valid for the Kubernetes that is tested, as kubeconform sees it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use cluster::Silent;
use serde_json::Value;

use crate::chart::{EVERYTHING, read, render, root};
use crate::schemas;

/// Kinds whose schemas are not to be had here: their definitions belong to the Prometheus Operator.
const WAIVED: &str = "ServiceMonitor,PodMonitor,PrometheusRule";

static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| cluster::kubeconform(&Silent).expect("kubeconform, which Go builds"));

static SCHEMAS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let source = cluster::source_of("kubernetes", "k8s.io/kubernetes").expect("the source of Kubernetes");
    let openapi = std::fs::read_to_string(source.join("api/openapi-spec/swagger.json")).unwrap();
    let definitions: Vec<Value> = ["agentruntimes", "agentfreezes"]
        .iter()
        .map(|name| serde_saphyr::from_str(&read(&format!("crds/generated/{name}.yaml"))).unwrap())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    schemas::write(folder.path(), &serde_json::from_str(&openapi).unwrap(), &definitions);
    folder
});

/// What kubeconform says; the error is its report.
fn conforms(manifests: &str) -> Result<String, String> {
    let location = SCHEMAS.path().join("{{ .ResourceKind }}{{ .KindSuffix }}.json");
    let mut command = Command::new(&*PROGRAM);
    command.args(["-strict", "-summary", "-skip", WAIVED, "-schema-location"]).arg(location);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(text) }
}

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            manifests(&path, found);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn the_chart_is_valid_with_few_and_with_all_of_its_objects() {
    for set in [&[][..], &EVERYTHING[..]] {
        let said = conforms(&render(set).unwrap()).unwrap();
        assert!(said.contains("Invalid: 0, Errors: 0"), "{said}");
    }
}

#[test]
fn the_manifests_to_install_and_the_examples_are_valid() {
    let mut files = vec![root("dist/install.yaml")];
    manifests(&root("examples/kubernetes"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        conforms(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

#[test]
fn an_unknown_field_is_found_in_objects_of_kubernetes_and_of_ours() {
    let refused = conforms("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndaata: {}\n").unwrap_err();
    assert!(refused.contains("daata"), "{refused}");
    let ours =
        "apiVersion: agents.hive.dev/v1alpha1\nkind: AgentRuntime\nmetadata: {name: a}\nspec: {desired: paused}\n";
    let refused = conforms(ours).unwrap_err();
    assert!(refused.contains("desired"), "{refused}");
}
