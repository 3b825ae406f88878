//! Owns the task `sbom`: what each published binary is made of, as CycloneDX, and under which licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::workspace;

const FOLDER: &str = "dist/sbom";

/// The packages that are published, with their binaries.
const PUBLISHED: [(&str, &str); 3] =
    [("agent-runtime", "agent-runtime"), ("operator", "agentruntime-operator"), ("cli", "kubectl-hive")];

/// Writes one SBOM for each binary, and the licences of all of them.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let metadata = metadata()?;
    let sums = sums(&fs::read_to_string(workspace::root().join("Cargo.lock"))?);
    let folder = workspace::root().join(FOLDER);
    fs::create_dir_all(&folder)?;
    let mut licences: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (package, binary) in PUBLISHED {
        let bom = bom(&metadata, &sums, package, binary)?;
        for component in array(&bom, "components") {
            let licence = component.pointer("/licenses/0/expression").and_then(Value::as_str).unwrap_or("none given");
            let named = format!("{} {}", text(component, "name"), text(component, "version"));
            licences.entry(licence.to_owned()).or_default().insert(named);
        }
        let file = format!("{binary}.cdx.json");
        fs::write(folder.join(&file), serde_json::to_string_pretty(&bom)? + "\n")?;
        println!("wrote {FOLDER}/{file}");
    }
    fs::write(folder.join("licences.md"), report(&licences))?;
    println!("wrote {FOLDER}/licences.md");
    Ok(ExitCode::SUCCESS)
}

fn metadata() -> anyhow::Result<Value> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &platform]);
    Ok(serde_json::from_str(&workspace::read(&mut cargo)?)?)
}

/// The SHA-256 of each crate's archive, from the lock file, by name and version.
fn sums(lock: &str) -> BTreeMap<(String, String), String> {
    let quoted = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let field = |name: &str| package.lines().find(|line| line.starts_with(name)).map(quoted);
        if let (Some(name), Some(version), Some(sum)) = (field("name ="), field("version ="), field("checksum =")) {
            sums.insert((name, version), sum);
        }
    }
    sums
}

fn array<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The SBOM of one binary: its package and all that it is linked or built from, without what tests alone need.
fn bom(
    metadata: &Value,
    sums: &BTreeMap<(String, String), String>,
    package: &str,
    binary: &str,
) -> anyhow::Result<Value> {
    let packages: BTreeMap<&str, &Value> = array(metadata, "packages").map(|p| (text(p, "id"), p)).collect();
    let nodes: BTreeMap<&str, &Value> =
        array(metadata.get("resolve").unwrap_or(&Value::Null), "nodes").map(|n| (text(n, "id"), n)).collect();
    let ours = |id: &str| packages.get(id).is_some_and(|p| p.get("source").is_none_or(Value::is_null));
    let root = packages.iter().find(|(id, p)| text(p, "name") == package && ours(id));
    let (root, described) = root.with_context(|| format!("the workspace has no package {package}"))?;
    let mut reached = BTreeSet::new();
    let mut ahead = vec![*root];
    while let Some(id) = ahead.pop() {
        if reached.insert(id) {
            ahead.extend(nodes.get(id).into_iter().flat_map(|node| needed(node)));
        }
    }
    let reference = |id: &str| packages.get(id).map_or_else(String::new, |p| purl(p));
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &reached {
        let Some(package) = packages.get(id) else { continue };
        let mut on: Vec<String> = nodes.get(id).into_iter().flat_map(|node| needed(node)).map(reference).collect();
        on.sort();
        dependencies.push(json!({ "ref": reference(id), "dependsOn": on }));
        if id != root {
            components.push(component(package, sums));
        }
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": purl(described), "name": binary, "version": text(described, "version"),
            "licenses": [{ "expression": text(described, "license") }],
        }},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What a package is linked with or built by; what its tests need is left out.
fn needed(node: &Value) -> impl Iterator<Item = &str> {
    array(node, "deps").filter_map(|dependency| {
        let kinds = array(dependency, "dep_kinds").any(|kind| kind.get("kind").is_none_or(|kind| *kind != "dev"));
        kinds.then(|| text(dependency, "pkg"))
    })
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"))
}

fn component(package: &Value, sums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(package, "name").to_owned(), text(package, "version").to_owned());
    let mut component = json!({
        "type": "library", "bom-ref": purl(package), "name": name, "version": version, "purl": purl(package),
        // Some older crates write a slash for OR, which is no expression of SPDX.
        "licenses": [{ "expression": text(package, "license").replace('/', " OR ") }],
    });
    if let (Some(sum), Some(fields)) = (sums.get(&(name, version)), component.as_object_mut()) {
        fields.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": sum }]));
    }
    component
}

fn report(licences: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut page = "# Licences\n\nOf everything that the published binaries are made of.\n".to_owned();
    for (licence, crates) in licences {
        let all = crates.iter().cloned().collect::<Vec<_>>().join(", ");
        page += &format!("\n## {licence}\n\n{all}\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sbom_has_what_is_linked_and_not_what_tests_need() {
        let sums = sums(&fs::read_to_string(workspace::root().join("Cargo.lock")).unwrap());
        let bom = bom(&metadata().unwrap(), &sums, "operator", "agentruntime-operator").unwrap();
        let names: Vec<&str> = array(&bom, "components").map(|component| text(component, "name")).collect();
        for linked in ["kube", "tokio", "rustls", "lifecycle", "crds", "otlp"] {
            assert!(names.contains(&linked), "{linked}");
        }
        for test in ["proptest", "insta", "stateright", "operator"] {
            assert!(!names.contains(&test), "{test}");
        }
        for component in array(&bom, "components") {
            let licence = component.pointer("/licenses/0/expression").and_then(Value::as_str).unwrap();
            assert!(!licence.is_empty() && !licence.contains('/'), "{component}");
            let own = ["lifecycle", "crds", "otlp"].contains(&text(component, "name"));
            assert_eq!(component.get("hashes").is_none(), own, "{component}");
        }
        let known: BTreeSet<&str> = array(&bom, "components").map(|component| text(component, "bom-ref")).collect();
        for dependency in array(&bom, "dependencies").flat_map(|d| array(d, "dependsOn")) {
            assert!(known.contains(dependency.as_str().unwrap()), "{dependency} is described");
        }
    }

    #[test]
    fn the_report_gathers_crates_by_licence() {
        let licences =
            BTreeMap::from([("MIT".to_owned(), BTreeSet::from(["a 1.0.0".to_owned(), "b 2.0.0".to_owned()]))]);
        assert!(report(&licences).ends_with("\n## MIT\n\na 1.0.0, b 2.0.0\n"));
    }
}
