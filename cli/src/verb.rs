//! pause, resume, stop, start and restart: what each writes, to which runtimes, and when it may not.

use crds::{AgentRuntime, DesiredState};
use serde_json::{Value, json};

use crate::arguments::Change;
use crate::error::Error;
use crate::kubernetes::{Kubernetes, identity};
use crate::{confirm, owner, wait};

const REASON: &str = "agents.hive.dev/reason";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Pause,
    Resume,
    Stop,
    Start,
    Restart,
}

impl Verb {
    pub(crate) const ALL: [Self; 5] = [Self::Pause, Self::Resume, Self::Stop, Self::Start, Self::Restart];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }

    /// The field of spec that it writes.
    fn field(self) -> &'static str {
        match self {
            Self::Restart => "restartNonce",
            Self::Pause | Self::Resume | Self::Stop | Self::Start => "desiredState",
        }
    }
}

/// What goes with a verb.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Why, kept as an annotation.
    pub(crate) reason: Option<String>,
    /// Also where a GitOps tool owns the field.
    pub(crate) force: bool,
    /// What a restart writes.
    pub(crate) nonce: String,
}

/// What is written; an error where the verb does not fit.
pub(crate) fn plan(verb: Verb, runtime: &AgentRuntime, wish: &Wish) -> Result<Value, Error> {
    let (namespace, name) = identity(runtime);
    if !wish.force
        && let Some(tool) = owner::gitops(runtime, verb.field())
    {
        return Err(Error::NotConfirmed(format!(
            "{tool} owns spec.{} of {namespace}/{name} and may put a change back. Nothing was changed.\n\
             Commit the change instead, or give --force to write it all the same",
            verb.field()
        )));
    }
    let spec = match (verb, runtime.spec.desired_state) {
        (Verb::Resume, DesiredState::Stopped) => {
            return Err(Error::Input(format!(
                "{namespace}/{name} is to be stopped, not paused: use kubectl hive start"
            )));
        }
        (Verb::Start, DesiredState::Paused) => {
            return Err(Error::Input(format!(
                "{namespace}/{name} is to be paused, not stopped: use kubectl hive resume"
            )));
        }
        (Verb::Pause, DesiredState::Stopped) => {
            return Err(Error::Input(format!(
                "{namespace}/{name} is to be stopped, which is more than paused: a pause would start its pods"
            )));
        }
        (Verb::Resume | Verb::Start, DesiredState::Running | DesiredState::Paused | DesiredState::Stopped) => {
            json!({"desiredState": "running"})
        }
        (Verb::Pause, DesiredState::Running | DesiredState::Paused) => json!({"desiredState": "paused"}),
        (Verb::Stop, _) => json!({"desiredState": "stopped"}),
        (Verb::Restart, _) => json!({"restartNonce": wish.nonce}),
    };
    // An old reason would explain what it does not belong to.
    Ok(json!({"metadata": {"annotations": {REASON: wish.reason}}, "spec": spec}))
}

/// Why it would change nothing, for pages that offer every verb.
pub(crate) fn redundant(verb: Verb, runtime: &AgentRuntime) -> Option<&'static str> {
    match (verb, runtime.spec.desired_state) {
        (Verb::Pause, DesiredState::Paused) => Some("its spec says paused already"),
        (Verb::Resume | Verb::Start, DesiredState::Running) => Some("its spec says running already"),
        (Verb::Stop, DesiredState::Stopped) => Some("its spec says stopped already"),
        _ => None,
    }
}

/// Plans all, so that nothing is written when one does not fit; then writes, then waits.
pub(crate) async fn run(cluster: &Kubernetes, verb: Verb, change: &Change) -> Result<(), Error> {
    let targets = targets(cluster, change).await?;
    let nonce = jiff::Timestamp::now().to_string();
    let wish = Wish { reason: change.reason.clone(), force: change.force, nonce };
    let many = change.names.is_empty();
    let mut plans = Vec::new();
    for runtime in targets {
        match plan(verb, &runtime, &wish) {
            Ok(patch) => plans.push((runtime, patch)),
            Err(error @ Error::Input(_)) if many => eprintln!("left out: {error}"),
            Err(error) => return Err(error),
        }
    }
    if plans.is_empty() {
        return Err(Error::Input(format!("there is no runtime to {}", verb.word())));
    }
    if many {
        confirm::number(verb.word(), plans.len(), change.yes)?;
    }
    let mut patched = Vec::new();
    for (runtime, patch) in &plans {
        let after = cluster.patch(runtime, patch).await?;
        let (namespace, name) = identity(&after);
        println!("agentruntime {namespace}/{name}: {} asked for", verb.word());
        patched.push(after);
    }
    if change.wait {
        wait::reached(cluster, &patched, change.timeout).await?;
    }
    Ok(())
}

async fn targets(cluster: &Kubernetes, change: &Change) -> Result<Vec<AgentRuntime>, Error> {
    if change.names.is_empty() {
        return cluster.list(change.selector.as_deref()).await;
    }
    let mut found = Vec::new();
    for name in &change.names {
        found.push(cluster.get(name).await?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { nonce: "now".to_owned(), ..Wish::default() }
    }

    fn planned(verb: Verb, desired: &str) -> Result<Value, Error> {
        let object = json!({"apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": {"name": "a", "namespace": "n"}, "spec": {"desiredState": desired}});
        plan(verb, &serde_json::from_value(object).unwrap(), &wish())
    }

    #[test]
    fn each_verb_writes_its_field_or_says_which_verb_fits() {
        let fits = |verb, desired| planned(verb, desired).map_err(|error| error.to_string()).map(|p| p["spec"].clone());
        let state = |word: &str| Ok(json!({"desiredState": word}));
        for desired in ["running", "paused", "stopped"] {
            assert_eq!(fits(Verb::Stop, desired), state("stopped"));
            assert_eq!(fits(Verb::Restart, desired), Ok(json!({"restartNonce": "now"})));
        }
        assert_eq!(fits(Verb::Pause, "running"), state("paused"));
        assert_eq!(fits(Verb::Resume, "paused"), state("running"));
        assert_eq!(fits(Verb::Start, "stopped"), state("running"));
        assert!(fits(Verb::Resume, "stopped").unwrap_err().contains("kubectl hive start"));
        assert!(fits(Verb::Start, "paused").unwrap_err().contains("kubectl hive resume"));
        assert!(fits(Verb::Pause, "stopped").unwrap_err().contains("would start its pods"));
    }

    #[test]
    fn a_verb_that_changes_nothing_says_so() {
        let told = |verb, desired: &str| {
            let object = json!({"apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime",
                "metadata": {"name": "a"}, "spec": {"desiredState": desired}});
            redundant(verb, &serde_json::from_value(object).unwrap())
        };
        assert_eq!(told(Verb::Resume, "running"), Some("its spec says running already"));
        assert_eq!(told(Verb::Pause, "running"), None);
        assert_eq!(told(Verb::Restart, "paused"), None);
    }

    #[test]
    fn an_old_reason_is_taken_away_when_none_is_given() {
        assert_eq!(planned(Verb::Pause, "running").unwrap()["metadata"]["annotations"][REASON], Value::Null);
    }

    #[test]
    fn what_a_gitops_tool_owns_is_written_only_by_force() {
        let object = json!({"apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime", "spec": {},
            "metadata": {"name": "a", "managedFields": [{"manager": "kustomize-controller", "fieldsV1": {"f:spec": {"f:desiredState": {}}}}]}});
        let runtime: AgentRuntime = serde_json::from_value(object).unwrap();
        let refused = plan(Verb::Pause, &runtime, &wish()).unwrap_err();
        assert!(matches!(&refused, Error::NotConfirmed(text) if text.contains("Flux")), "{refused}");
        let forced = Wish { force: true, ..wish() };
        assert!(plan(Verb::Pause, &runtime, &forced).is_ok());
    }
}
