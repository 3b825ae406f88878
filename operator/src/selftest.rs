//! Owns the self-test: a runtime of its own is made, paused, resumed and deleted, as `helm test` does in a cluster.

use std::time::{Duration, Instant};

use crds::{AgentRuntime, RuntimeState};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{Condition, await_condition, conditions};
use serde_json::json;
use tokio::time::timeout;

/// Seconds in which its own rollout must get on.
const PROGRESS_SECONDS: i32 = 600;

/// What the self-test is called and how long it may take.
#[derive(clap::Args, Clone, Debug)]
pub struct SelfTest {
    /// Name of the AgentRuntime that is made and deleted; one of this name that is there is deleted first.
    #[arg(long, default_value = "agentruntime-selftest")]
    pub name: String,

    /// Seconds for each step, from the pods' first image to the last delete.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u16).range(10..=1800))]
    pub timeout_seconds: u16,
}

/// Why the self-test fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses, or cannot be reached.
    #[error("the API server, on AgentRuntime {name}: {source}")]
    Api {
        /// The object's name.
        name: String,
        /// What it said.
        source: kube::Error,
    },
    /// The object could not be watched.
    #[error("AgentRuntime {name} cannot be watched: {source}. The role needs get, list and watch")]
    Watch {
        /// The object's name.
        name: String,
        /// What the watch said.
        source: kube::runtime::wait::Error,
    },
    /// A state was not reached.
    #[error("AgentRuntime {name} is not {step} after {seconds} s. {told}")]
    Late {
        /// The object's name.
        name: String,
        /// The state that was waited for.
        step: &'static str,
        /// Seconds that were waited.
        seconds: u64,
        /// What its status says.
        told: String,
    },
}

/// Makes a runtime, pauses it, resumes it and deletes it, and tells each step on stdout.
///
/// # Errors
/// A step is refused, or is not reached in time; the runtime is deleted either way.
pub async fn run(client: Client, namespace: &str, test: &SelfTest) -> Result<(), Error> {
    let probe = Probe {
        api: Api::namespaced(client, namespace),
        name: test.name.clone(),
        patience: Duration::from_secs(u64::from(test.timeout_seconds)),
    };
    probe.delete().await?;
    let outcome = probe.walk().await;
    let deleted = probe.delete().await;
    outcome.and(deleted)?;
    println!("passed: made, paused, resumed and deleted");
    Ok(())
}

struct Probe {
    api: Api<AgentRuntime>,
    name: String,
    patience: Duration,
}

impl Probe {
    async fn walk(&self) -> Result<(), Error> {
        let begun = Instant::now();
        let made = self.api.create(&PostParams::default(), &runtime(&self.name)).await;
        made.map_err(|source| self.refused(source))?;
        for (desired, step, state) in [
            (None, "running", RuntimeState::Running),
            (Some("paused"), "paused", RuntimeState::Paused),
            (Some("running"), "running again", RuntimeState::Running),
        ] {
            if let Some(desired) = desired {
                let patch = Patch::Merge(json!({ "spec": { "desiredState": desired } }));
                let patched = self.api.patch(&self.name, &PatchParams::default(), &patch).await;
                patched.map_err(|source| self.refused(source))?;
            }
            self.until(step, reached(state)).await?;
            println!("{step} after {:.1} s", begun.elapsed().as_secs_f32());
        }
        Ok(())
    }

    async fn delete(&self) -> Result<(), Error> {
        let Some(there) = self.api.get_opt(&self.name).await.map_err(|source| self.refused(source))? else {
            return Ok(());
        };
        match self.api.delete(&self.name, &DeleteParams::foreground()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(source) => return Err(self.refused(source)),
        }
        self.until("deleted", conditions::is_deleted(there.metadata.uid.as_deref().unwrap_or_default())).await
    }

    async fn until(&self, step: &'static str, condition: impl Condition<AgentRuntime>) -> Result<(), Error> {
        match timeout(self.patience, await_condition(self.api.clone(), &self.name, condition)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(Error::Watch { name: self.name.clone(), source }),
            Err(_) => {
                let told = self.api.get_opt(&self.name).await.ok().flatten().map_or_else(String::new, |now| tell(&now));
                Err(Error::Late { name: self.name.clone(), step, seconds: self.patience.as_secs(), told })
            }
        }
    }

    fn refused(&self, source: kube::Error) -> Error {
        Error::Api { name: self.name.clone(), source }
    }
}

/// The smallest agent: one entry point, which nobody calls.
fn runtime(name: &str) -> AgentRuntime {
    let agent = json!({
        "agent": { "id": "selftest" },
        "graph": {
            "async_entry_points": [{ "id": "probe", "entry_node": "probe", "trigger_type": "api" }],
            "nodes": [{ "id": "probe", "node_type": "wait", "seconds": 1 }],
        },
    });
    let source = crds::AgentSource { inline: agent.as_object().cloned(), ..crds::AgentSource::default() };
    AgentRuntime::new(
        name,
        crds::AgentRuntimeSpec {
            agent: Some(source),
            replicas: 1,
            progress_deadline_seconds: PROGRESS_SECONDS,
            ..Default::default()
        },
    )
}

/// It is settled in a state: at the present generation, with Ready=True.
fn reached(state: RuntimeState) -> impl Condition<AgentRuntime> {
    move |object: Option<&AgentRuntime>| {
        object.is_some_and(|object| {
            let settled = object.status.as_ref().filter(|status| {
                Some(status.observed_generation) == object.metadata.generation && status.state == Some(state)
            });
            settled.is_some_and(|status| status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        })
    }
}

fn tell(object: &AgentRuntime) -> String {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let told: Vec<String> =
        conditions.map(|c| format!("{}={}, {}: {}", c.type_, c.status, c.reason, c.message)).collect();
    if told.is_empty() { "The operator has not looked at it: is it running?".to_owned() } else { told.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(generation: i64, observed: i64, state: RuntimeState, ready: &str) -> AgentRuntime {
        let mut object = runtime("probe");
        object.metadata.generation = Some(generation);
        let conditions = json!([{ "type": "Ready", "status": ready, "reason": "Paused", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        object.status =
            serde_json::from_value(json!({ "observedGeneration": observed, "state": state, "conditions": conditions }))
                .unwrap();
        object
    }

    #[test]
    fn a_state_is_reached_at_the_present_generation_and_ready_alone() {
        let paused = reached(RuntimeState::Paused);
        assert!(paused.matches_object(Some(&object(2, 2, RuntimeState::Paused, "True"))));
        assert!(!paused.matches_object(Some(&object(3, 2, RuntimeState::Paused, "True"))));
        assert!(!paused.matches_object(Some(&object(2, 2, RuntimeState::Pausing, "True"))));
        assert!(!paused.matches_object(Some(&object(2, 2, RuntimeState::Paused, "Unknown"))));
        assert!(!paused.matches_object(None));
    }

    #[test]
    fn a_late_step_says_what_the_status_says() {
        assert!(tell(&object(1, 1, RuntimeState::Unknown, "Unknown")).contains("Ready=Unknown, Paused: m"));
        assert!(tell(&runtime("probe")).contains("is it running?"));
    }
}
