//! Following status: until a change is reached, with a progress bar, and `status` itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use crds::AgentRuntime;
use crds::decoded::Decoded;
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use kube::api::{Api, Resource};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watch_object, watcher};
use serde::de::DeserializeOwned;

use crate::arguments::Status;
use crate::error::Error;
use crate::kubernetes::{Kubernetes, identity};
use crate::show;
use crate::values::Output;

/// Whether the operator has answered this generation of the spec and every pod has acknowledged it.
pub(crate) fn is_reached(runtime: &AgentRuntime, generation: i64) -> bool {
    runtime.status.as_ref().is_some_and(|status| {
        status.observed_generation >= generation
            && status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    })
}

/// Waits until each has reached what was asked; the time is for all together.
pub(crate) async fn reached(cluster: &Kubernetes, runtimes: &[AgentRuntime], timeout: Duration) -> Result<(), Error> {
    let bar = spinner();
    let end = tokio::time::Instant::now() + timeout;
    for runtime in runtimes {
        let mut last = show::progress(runtime);
        let (namespace, name) = identity(runtime);
        let generation = runtime.metadata.generation.unwrap_or(0);
        let what = format!("agentruntime {namespace}/{name}");
        let objects = cluster.of(namespace);
        let stands = |now: &Decoded<AgentRuntime>| {
            let now = now.clone().into_runtime();
            (show::progress(&now), is_reached(&now, generation))
        };
        let followed = follow(&objects, (&what, name), &bar, &mut last, stands);
        match tokio::time::timeout_at(end, followed).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                bar.finish_and_clear();
                let seconds = timeout.as_secs();
                return Err(Error::TimedOut(format!(
                    "not reached within {seconds} s: {last}\nIt stays asked for. See kubectl hive explain-state"
                )));
            }
        }
        bar.suspend(|| println!("{what}: {last}"));
    }
    bar.finish_and_clear();
    Ok(())
}

/// What moves while something is waited for.
pub(crate) fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Follows one object, called `what` in errors, until `look` says that it has reached what is waited for. What
/// `look` says of it is shown, and kept in `last`.
pub(crate) async fn follow<K>(
    objects: &Api<K>,
    (what, name): (&str, &str),
    bar: &ProgressBar,
    last: &mut String,
    look: impl Fn(&K) -> (String, bool),
) -> Result<(), Error>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut changes = watch_object(objects.clone(), name).default_backoff().boxed();
    while let Some(change) = changes.next().await {
        match change {
            Ok(Some(now)) => {
                let reached;
                (*last, reached) = look(&now);
                bar.set_message(format!("{name}: {last}"));
                if reached {
                    return Ok(());
                }
            }
            Ok(None) => return Err(Error::Input(format!("{what} was deleted meanwhile"))),
            // The watch begins again by itself.
            Err(error) => bar.set_message(format!("{name}: {error}")),
        }
    }
    Err(Error::Input(format!("the watch of {what} ended")))
}

/// `status`: once, at each change, or until all is reached.
pub(crate) async fn status(cluster: &Kubernetes, task: &Status) -> Result<(), Error> {
    match (task.watch, task.timeout) {
        (false, None) => {
            let found = match &task.name {
                Some(name) => vec![cluster.get(name).await?],
                None => cluster.list(task.selector.as_deref()).await?,
            };
            print!("{}", rendered(&found, task.output)?);
            Ok(())
        }
        (_, None) => watch(cluster, task, false).await,
        (_, Some(timeout)) => match tokio::time::timeout(timeout, watch(cluster, task, true)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Error::TimedOut(format!("not every desired state was reached within {} s", timeout.as_secs())))
            }
        },
    }
}

async fn watch(cluster: &Kubernetes, task: &Status, until_reached: bool) -> Result<(), Error> {
    let mut config = watcher::Config::default();
    if let Some(selector) = &task.selector {
        config = config.labels(selector);
    }
    if let Some(name) = &task.name {
        cluster.get(name).await?;
        config = config.fields(&format!("metadata.name={name}"));
    }
    let mut seen: BTreeMap<String, AgentRuntime> = BTreeMap::new();
    let mut shown = String::new();
    let mut listed = false;
    let mut events = watcher(cluster.runtimes(), config).default_backoff().boxed();
    while let Some(event) = events
        .try_next()
        .await
        .map_err(|e| Error::Api { what: "agentruntimes cannot be watched".to_owned(), reason: e.to_string() })?
    {
        match event {
            Event::Init => seen.clear(),
            Event::InitApply(runtime) | Event::Apply(runtime) => {
                let runtime = runtime.into_runtime();
                seen.insert(key(&runtime), runtime);
            }
            Event::Delete(runtime) => {
                seen.remove(&key(&runtime.into_runtime()));
            }
            Event::InitDone => listed = true,
        }
        if !listed {
            continue;
        }
        let all: Vec<AgentRuntime> = seen.values().cloned().collect();
        let text = rendered(&all, task.output)?;
        if text != shown {
            println!("{text}");
            shown = text;
        }
        if until_reached && all.iter().all(|runtime| is_reached(runtime, runtime.metadata.generation.unwrap_or(0))) {
            return Ok(());
        }
    }
    Ok(())
}

fn key(runtime: &AgentRuntime) -> String {
    let (namespace, name) = identity(runtime);
    format!("{namespace}/{name}")
}

fn rendered(runtimes: &[AgentRuntime], output: Output) -> Result<String, Error> {
    let broken = |error: &dyn std::fmt::Display| Error::Input(format!("the objects cannot be written: {error}"));
    match output {
        Output::Table => Ok(show::tree(runtimes, false)),
        Output::Wide => Ok(show::tree(runtimes, true)),
        Output::Json | Output::Yaml => {
            let items = serde_json::to_value(runtimes).map_err(|e| broken(&e))?;
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
            if output == Output::Yaml {
                return crds::yaml::text(&list).map_err(|e| broken(&e));
            }
            serde_json::to_string_pretty(&list).map(|text| format!("{text}\n")).map_err(|e| broken(&e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::pausing;

    #[test]
    fn reached_is_ready_at_the_generation_that_was_asked_for() {
        let mut runtime = pausing();
        assert!(!is_reached(&runtime, 4), "it still drains");
        if let Some(status) = &mut runtime.status {
            status.conditions.iter_mut().for_each(|condition| "True".clone_into(&mut condition.status));
        }
        assert!(is_reached(&runtime, 4));
        assert!(!is_reached(&runtime, 5), "an answer to an older spec is none");
        runtime.status = None;
        assert!(!is_reached(&runtime, 0));
    }
}
