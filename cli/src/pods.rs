//! trigger and executions: requests to the pods' own API.

use crds::AgentRuntime;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::arguments::{Execution, Executions, ExecutionsTask, Trigger};
use crate::error::Error;
use crate::kubernetes::{Kubernetes, api};
use crate::show;
use crate::stream::Events;

/// Begins an execution in one of the pods and prints the answer.
pub(crate) async fn trigger(cluster: &Kubernetes, task: &Trigger) -> Result<(), Error> {
    if !serde_json::from_str::<Value>(&task.data).is_ok_and(|data| data.is_object()) {
        return Err(Error::Input("--data: give a JSON object, such as '{\"name\":\"you\"}'".to_owned()));
    }
    let runtime = cluster.get(&task.name).await?;
    let pods = cluster.some_pods(&runtime).await?;
    let mut path = format!("/api/v1/entry-points/{}/trigger", segment(&task.entry_point)?);
    if let Some(wait) = task.wait {
        path.push_str(&format!("?wait={}", wait.as_secs().min(300)));
    }
    let pod = pods.first().map(String::as_str).unwrap_or_default();
    let key = task.idempotency_key.as_deref();
    let answer = cluster.ask(&runtime, pod, (Method::POST, &path), key, &task.data).await?;
    print_json(&answer);
    Ok(())
}

/// The commands under `executions`.
pub(crate) async fn executions(cluster: &Kubernetes, task: &Executions) -> Result<(), Error> {
    match &task.task {
        ExecutionsTask::List { name, state, limit } => {
            let runtime = cluster.get(name).await?;
            let all = newest(cluster, &runtime, state.as_deref(), *limit).await?;
            print!("{}", show::executions(&all));
            Ok(())
        }
        ExecutionsTask::Get(which) => one(cluster, which, Method::GET, "", "").await,
        ExecutionsTask::Cancel(which) => one(cluster, which, Method::POST, "/cancel", "").await,
        ExecutionsTask::Events(which) => events(cluster, which).await,
        ExecutionsTask::Input { execution, value, branch } => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
            let mut body = json!({ "value": value });
            if let (Some(branch), Some(fields)) = (branch, body.as_object_mut()) {
                fields.insert("branch".to_owned(), json!(branch));
            }
            one(cluster, execution, Method::POST, "/input", &body.to_string()).await
        }
    }
}

/// The newest executions of each pod, with the pod's name.
pub(crate) async fn newest(
    cluster: &Kubernetes,
    runtime: &AgentRuntime,
    state: Option<&str>,
    limit: u16,
) -> Result<Vec<(String, Value)>, Error> {
    let mut path = format!("/api/v1/executions?limit={limit}");
    if let Some(state) = state {
        path.push_str(&format!("&state={}", segment(state)?));
    }
    let mut all = Vec::new();
    for pod in cluster.some_pods(runtime).await? {
        let mut page = cluster.ask(runtime, &pod, (Method::GET, &path), None, "").await?;
        if let Some(Value::Array(items)) = page.get_mut("executions").map(Value::take) {
            all.extend(items.into_iter().map(|execution| (pod.clone(), execution)));
        }
    }
    Ok(all)
}

/// Prints what happens in an execution as it happens, until it has ended.
async fn events(cluster: &Kubernetes, which: &Execution) -> Result<(), Error> {
    let runtime = cluster.get(&which.name).await?;
    let path = format!("/api/v1/executions/{}/events", segment(&which.id)?);
    for pod in cluster.some_pods(&runtime).await? {
        let mut body = match cluster.reach(&runtime, &pod, (Method::GET, &path), None, "").await {
            Ok(response) => response.into_body(),
            Err(Error::Pod { code: 404, .. }) => continue,
            Err(error) => return Err(error),
        };
        let mut events = Events::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| api("the stream of events broke off", &error))?;
            for event in frame.data_ref().map(|piece| events.take(piece)).unwrap_or_default() {
                println!("{}", show::event(&event));
            }
        }
        return Ok(());
    }
    Err(unknown(which))
}

/// Asks each pod until one knows the execution: each has a store of its own.
async fn one(cluster: &Kubernetes, which: &Execution, method: Method, tail: &str, body: &str) -> Result<(), Error> {
    let runtime = cluster.get(&which.name).await?;
    let path = format!("/api/v1/executions/{}{tail}", segment(&which.id)?);
    for pod in cluster.some_pods(&runtime).await? {
        match cluster.ask(&runtime, &pod, (method.clone(), &path), None, body).await {
            Ok(answer) => {
                print_json(&answer);
                return Ok(());
            }
            Err(Error::Pod { code: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(unknown(which))
}

fn unknown(which: &Execution) -> Error {
    Error::Input(format!("no pod of {} knows the execution {}: see kubectl hive executions list", which.name, which.id))
}

/// A word that goes into a URL as it is.
fn segment(word: &str) -> Result<&str, Error> {
    if !word.is_empty()
        && !word.starts_with('.')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        return Ok(word);
    }
    Err(Error::Input(format!("{word:?}: only letters, digits, - . and _ can stand here")))
}

fn print_json(value: &Value) {
    println!("{value:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_its_place_in_a_url() {
        for wrong in ["", "..", "a/b", "a?b", "a b", "%2e"] {
            assert!(segment(wrong).is_err(), "{wrong}");
        }
        assert!(segment("on-request_2.b").is_ok());
    }
}
