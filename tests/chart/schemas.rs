//! Owns the schemas that kubeconform reads: Kubernetes' own, from the module of the version that is tested, and ours.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Writes a schema for each kind, named as kubeconform looks for it; closed, so that an unknown field is found.
pub(crate) fn write(folder: &Path, openapi: &Value, definitions: &[Value]) {
    let all = openapi["definitions"].as_object().unwrap();
    for (name, definition) in all {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |field: &str| kind[field].as_str().unwrap().to_owned();
            let mut schema = json!({ "$ref": format!("#/definitions/{name}") });
            schema["definitions"] = Value::Object(closure(all, name));
            save(folder, &text("kind"), &text("group"), &text("version"), &schema);
        }
    }
    for definition in definitions {
        let spec = &definition["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            // What every object has, and a definition does not repeat.
            for field in ["apiVersion", "kind"] {
                schema["properties"][field] = json!({ "type": "string" });
            }
            schema["properties"]["metadata"] = json!({ "type": "object" });
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            save(folder, &text(&spec["names"]["kind"]), &text(&spec["group"]), &text(&version["name"]), &close(schema));
        }
    }
}

fn save(folder: &Path, kind: &str, group: &str, version: &str, schema: &Value) {
    let head = group.split('.').next().filter(|head| !head.is_empty());
    let suffix = head.map_or_else(|| version.to_owned(), |head| format!("{head}-{version}"));
    let file = format!("{}-{suffix}.json", kind.to_lowercase());
    std::fs::write(folder.join(file), serde_json::to_string(schema).unwrap()).unwrap();
}

/// A definition and all that it refers to.
fn closure(all: &Map<String, Value>, name: &str) -> Map<String, Value> {
    let mut found = Map::new();
    let mut wanted = BTreeSet::from([name.to_owned()]);
    while let Some(name) = wanted.pop_first() {
        if found.contains_key(&name) {
            continue;
        }
        let definition = &all[&name];
        for reference in references(definition) {
            wanted.insert(reference);
        }
        found.insert(name, close(definition.clone()));
    }
    found
}

fn references(node: &Value) -> Vec<String> {
    match node {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, inner)| match inner.as_str().filter(|_| key == "$ref") {
                Some(to) => vec![to.trim_start_matches("#/definitions/").to_owned()],
                None => references(inner),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// Closes every object whose fields are listed, and says in JSON Schema what OpenAPI has words of its own for.
fn close(mut node: Value) -> Value {
    match &mut node {
        Value::Object(fields) => {
            let open = fields.get("x-kubernetes-preserve-unknown-fields").is_some_and(|open| *open == true);
            if fields.get("properties").is_some_and(Value::is_object)
                && !open
                && !fields.contains_key("additionalProperties")
            {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            if fields.get("format").is_some_and(|format| *format == "int-or-string") {
                fields.insert("type".to_owned(), json!(["string", "integer"]));
            }
            // A quantity may be a number; the API server takes both.
            if fields.get("description").and_then(Value::as_str).is_some_and(|text| text.starts_with("Quantity is")) {
                fields.insert("type".to_owned(), json!(["string", "number"]));
            }
            // A field may be called so too, and then it is no string.
            if fields.get("format").is_some_and(Value::is_string) {
                fields.remove("format");
            }
            for inner in fields.values_mut() {
                *inner = close(inner.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| *inner = close(inner.take())),
        _ => {}
    }
    node
}
