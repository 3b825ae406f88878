//! The user's eyes: a watch of the AgentRuntimes of a namespace, and which of them are where their spec wants them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use crds::{AgentRuntime, DesiredState, RuntimeState};
use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What has been seen.
#[derive(Debug)]
struct Seen {
    /// The state that each object has acknowledged; none while it is on its way.
    acknowledged: HashMap<String, Option<DesiredState>>,
    running: usize,
    paused: usize,
    /// When the last event came.
    at: Instant,
}

impl Seen {
    fn take(&mut self, runtime: &AgentRuntime) {
        self.at = Instant::now();
        let now = acknowledged(runtime);
        let before = self.acknowledged.insert(runtime.name_any(), now).flatten();
        if let Some(count) = before.and_then(|state| self.count(state)) {
            *count -= 1;
        }
        if let Some(count) = now.and_then(|state| self.count(state)) {
            *count += 1;
        }
    }

    fn count(&mut self, state: DesiredState) -> Option<&mut usize> {
        match state {
            DesiredState::Running => Some(&mut self.running),
            DesiredState::Paused => Some(&mut self.paused),
            DesiredState::Stopped => None,
        }
    }
}

/// The state that the whole object has reached: status speaks of this spec, and all its pods have acknowledged.
fn acknowledged(runtime: &AgentRuntime) -> Option<DesiredState> {
    let status = runtime.status.as_ref()?;
    let wanted = runtime.spec.desired_state;
    let there = match wanted {
        DesiredState::Running => RuntimeState::Running,
        DesiredState::Paused => RuntimeState::Paused,
        DesiredState::Stopped => RuntimeState::Stopped,
    };
    let is_current = Some(status.observed_generation) == runtime.metadata.generation;
    let all = Some(status.acknowledged_replicas) == Some(runtime.spec.replicas);
    (is_current && all && status.state == Some(there)).then_some(wanted)
}

/// A watch that goes on until the value is dropped.
pub(crate) struct Observer {
    seen: watch::Sender<Seen>,
    task: JoinHandle<()>,
}

impl Observer {
    pub(crate) fn new(client: &Client, namespace: &str) -> Self {
        let seen = watch::Sender::new(Seen { acknowledged: HashMap::new(), running: 0, paused: 0, at: Instant::now() });
        let (sender, api) = (seen.clone(), Api::<AgentRuntime>::namespaced(client.clone(), namespace));
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(runtime) | Event::InitApply(runtime)) => {
                        sender.send_modify(|seen| seen.take(&runtime));
                    }
                    Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
                    Err(error) => eprintln!("the observer's watch is begun again: {error}"),
                }
            }
        });
        Self { seen, task }
    }

    /// When these objects have acknowledged this state. Several objects are all that are in the namespace.
    pub(crate) async fn reached(
        &self,
        state: DesiredState,
        names: &[String],
        patience: Duration,
    ) -> anyhow::Result<Instant> {
        let mut seen = self.seen.subscribe();
        let count = names.len();
        let there = |seen: &Seen| match (names, state) {
            ([name], _) => seen.acknowledged.get(name) == Some(&Some(state)),
            (_, DesiredState::Running) => seen.running >= count,
            (_, DesiredState::Paused) => seen.paused >= count,
            (_, DesiredState::Stopped) => false,
        };
        match tokio::time::timeout(patience, seen.wait_for(there)).await {
            Ok(Ok(seen)) => Ok(seen.at),
            Ok(Err(_)) => bail!("the watch of the AgentRuntimes ended"),
            Err(_) => {
                let seen = self.seen.borrow();
                bail!(
                    "{count} objects were to be {}, but after {} s {} run and {} are paused",
                    state.as_str(),
                    patience.as_secs(),
                    seen.running,
                    seen.paused
                )
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(generation: i64, replicas: i32, status: serde_json::Value) -> AgentRuntime {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": { "name": "a", "generation": generation },
            "spec": { "agent": { "builtin": true }, "desiredState": "paused", "replicas": replicas },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn an_object_has_acknowledged_when_status_speaks_of_this_spec_and_of_all_pods() {
        let of = |observed: i64, state: &str, count: i32| {
            let status = serde_json::json!({ "observedGeneration": observed, "state": state,
                "acknowledgedReplicas": count, "conditions": [] });
            acknowledged(&runtime(2, 3, status))
        };
        assert_eq!(of(2, "paused", 3), Some(DesiredState::Paused));
        assert_eq!(of(1, "paused", 3), None, "of the spec before");
        assert_eq!(of(2, "pausing", 3), None, "on its way");
        assert_eq!(of(2, "paused", 2), None, "a pod is missing");
    }
}
