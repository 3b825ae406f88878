//! validate: whether a file of objects or an agent's definition is right, before anybody applies it.

use std::path::Path;

use agent_runtime::definition;
use serde_json::Value;

use crate::arguments::Validate;
use crate::error::Error;
use crate::kubernetes::{Kubernetes, Place};

/// One document of the file.
#[derive(Debug)]
enum Document {
    /// An AgentRuntime or AgentFreeze, with its kind and name.
    Object { kind: String, name: String, namespace: Option<String>, object: Value },
    /// An agent's definition: the file is that alone.
    Agent,
}

/// Checks the file: agents by the runtime's own rules, objects by the API server's, which keeps nothing of them.
pub(crate) async fn run(place: &Place, task: &Validate) -> Result<(), Error> {
    let file = &task.file;
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::Input(format!("{} cannot be read: {error}", file.display())))?;
    let mut faults = 0;
    let mut said = |what: String, outcome: Result<String, String>| match outcome {
        Ok(note) => println!("ok     {what}{note}"),
        Err(fault) => {
            faults += 1;
            println!("WRONG  {what}: {fault}");
        }
    };
    for document in documents(file, &text)? {
        match document {
            Document::Agent => said(format!("agent {}", file.display()), agent(&file.display().to_string(), &text)),
            Document::Object { kind, name, namespace, object } => {
                if let Some(inline) = object.pointer("/spec/agent/inline") {
                    let outcome = crds::yaml::text(inline).map_err(|error| error.to_string());
                    let within = format!("spec.agent.inline of {name}");
                    said(format!("{kind} {name}, its agent"), outcome.and_then(|text| agent(&within, &text)));
                }
                if task.offline {
                    continue;
                }
                let cluster = Kubernetes::connect(place).await?;
                let outcome = cluster.try_out(&kind, &name, namespace.as_deref(), &object).await;
                said(format!("{kind} {name}"), outcome.map(|()| String::new()).map_err(|error| error.to_string()));
            }
        }
    }
    if task.offline {
        println!("objects were not shown to an API server (--offline)");
    }
    if faults == 0 { Ok(()) } else { Err(Error::Unwell(faults)) }
}

fn agent(file: &str, text: &str) -> Result<String, String> {
    let loaded = definition::parse(file, text).map_err(|error| error.to_string())?;
    let warnings: String = loaded.warnings.iter().map(|warning| format!("\n       warning: {warning}")).collect();
    Ok(format!(", {} nodes{warnings}", loaded.agent.nodes.len()))
}

/// What the file holds. Anything without an apiVersion is taken for an agent.
fn documents(file: &Path, text: &str) -> Result<Vec<Document>, Error> {
    let broken = |reason: String| Error::Input(format!("{}: {reason}", file.display()));
    let values = crds::yaml::documents(text).map_err(|error| broken(error.to_string()))?;
    if !values.iter().any(|value| value.get("apiVersion").is_some()) {
        return Ok(vec![Document::Agent]);
    }
    let ours = |value: &Value| {
        let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        version.split('/').next() == Some(crds::GROUP)
    };
    let objects: Vec<Document> = values.into_iter().filter(ours).map(object).collect();
    if objects.is_empty() {
        return Err(broken(format!("it holds no object of {}", crds::GROUP)));
    }
    Ok(objects)
}

fn object(object: Value) -> Document {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Document::Object {
        kind: text("/kind").unwrap_or_default(),
        name: text("/metadata/name").unwrap_or_default(),
        namespace: text("/metadata/namespace"),
        object,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Document>, Error> {
        documents(Path::new("f.yaml"), text)
    }

    #[test]
    fn a_file_without_objects_is_an_agent() {
        let found = read("agent: {id: a}\n").unwrap();
        assert!(matches!(found.as_slice(), [Document::Agent]), "{found:?}");
    }

    #[test]
    fn objects_of_others_are_left_alone() {
        let both = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\n\
            apiVersion: agents.hive.dev/v1alpha1\nkind: AgentFreeze\nmetadata: {name: f}\nspec: {}\n";
        let found = read(both).unwrap();
        assert!(
            matches!(found.as_slice(), [Document::Object { kind, name, .. }] if kind == "AgentFreeze" && name == "f")
        );
        assert!(read("apiVersion: v1\nkind: Namespace\n").unwrap_err().to_string().contains("agents.hive.dev"));
        assert!(read("a: [").unwrap_err().to_string().starts_with("f.yaml: "));
    }

    #[test]
    fn an_agent_is_judged_by_the_runtimes_own_rules() {
        assert!(agent("f", "graph: {nodes: [{id: a, node_type: nothing}]}").unwrap_err().contains("nothing"));
    }
}
