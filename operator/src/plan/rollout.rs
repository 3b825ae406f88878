//! The pods as the spec wants them, and whether those that run are drained before others replace them.

use crds::AgentRuntime;
use lifecycle::Desired;
use serde_json::Value;

use super::children::{self, agent_config_map, deployment_name};
use super::epoch::Policy;
use super::pods::Standing;
use super::sketch::Sketch;
use super::{Child, Settings, agent, effective, hooks, name_of, since, template};
use crate::observe::{AgentText, ChildKey, ChildKind, DeploymentFacts, Observed};

/// The pods as the spec wants them.
#[derive(Clone, Debug)]
pub(super) struct Blueprint {
    /// The ConfigMap of the agent's definition.
    pub(super) agent: Option<ChildKey>,
    /// The hash of the template, by which a changed one is told from a changed number of pods.
    pub(super) hash: String,
    /// What is wrong with the spec, though the API server would take it: a reason and a sentence.
    pub(super) fault: Option<(&'static str, String)>,
}

/// A blueprint with what it is of: the ConfigMap and the pod template.
pub(super) struct Drawing {
    pub(super) agent: Option<Child>,
    pub(super) template: Value,
}

/// None while the agent's definition is missing.
pub(super) fn draw(seen: &Observed, settings: &Settings) -> Option<Drawing> {
    let runtime = seen.runtime.as_ref();
    let (agent, file) = match &seen.agent {
        AgentText::Found { text, file } => (Some(agent_config_map(runtime, text, file)), file.as_str()),
        AgentText::Builtin => (None, ""),
        AgentText::Missing(_) => return None,
    };
    let mount = agent.as_ref().map(|child| (child.key.name.as_str(), file));
    let template = template::pod_template(runtime, settings, mount);
    Some(Drawing { agent, template })
}

/// None while the agent's definition is missing.
pub(super) fn blueprint<'a>(seen: &Observed, settings: &Settings, sketch: &'a mut Sketch) -> Option<&'a Blueprint> {
    if sketch.blueprint.is_none() || matches!(seen.agent, AgentText::Missing(_)) {
        sketch.blueprint = None;
        let runtime = seen.runtime.as_ref();
        let Drawing { agent, template } = draw(seen, settings)?;
        let fault = timers(runtime, &seen.agent)
            .or_else(|| hooks::fault(runtime, settings))
            .or_else(|| template::fault(runtime, &template));
        let hash = children::short_hash(template.to_string().as_bytes());
        sketch.blueprint = Some(Blueprint { agent: agent.map(|child| child.key), hash, fault });
    }
    sketch.blueprint.as_ref()
}

/// Whether the children are kept back: they were refused, or would be.
pub(super) fn is_withheld(seen: &Observed, blueprint: &Blueprint) -> bool {
    let generation = seen.runtime.metadata.generation;
    blueprint.fault.is_some() || seen.refusal.as_ref().is_some_and(|refusal| Some(refusal.generation) == generation)
}

/// Pods with a store each would each run every tick; in one that they share, a tick is run once.
fn timers(runtime: &AgentRuntime, agent: &AgentText) -> Option<(&'static str, String)> {
    let AgentText::Found { text, file } = agent else { return None };
    if runtime.spec.replicas <= 1 || runtime.spec.database().is_some() {
        return None;
    }
    let timer = agent::timer(text, file)?;
    Some((
        "InvalidSpec",
        format!(
            "spec.replicas: at most 1 while the agent has a timer, which would come due in each pod: {timer}. Or set \
             spec.storage.postgres"
        ),
    ))
}

/// Whether the pods are to be idle because others replace them: from the change of the template until the last
/// old pod is told to end, so that none of them goes back to work in between.
pub(super) fn drains(seen: &Observed, blueprint: &Blueprint) -> bool {
    let runtime = seen.runtime.as_ref();
    let asked = runtime.spec.lifecycle.drain_before_restart
        && !is_withheld(seen, blueprint)
        && !effective::is_disabled(runtime);
    let Some(deployment) = seen.deployment.as_ref().filter(|_| asked) else { return false };
    let shown = is_shown(seen);
    let changed = shown && replaces(deployment, blueprint);
    let begun = effective::in_force(seen).is_some_and(|file| file.state == Desired::Paused)
        && (!shown || !deployment.observed || deployment.replicas > deployment.updated);
    deployment.replicas > 0 && (changed || begun)
}

/// Whether what the Deployment runs is not what is wanted. One that an older operator applied does not say.
fn replaces(deployment: &DeploymentFacts, blueprint: &Blueprint) -> bool {
    !deployment.template.is_empty() && deployment.template != blueprint.hash
}

fn is_shown(seen: &Observed) -> bool {
    let key = ChildKey { kind: ChildKind::Deployment, name: deployment_name(name_of(&seen.runtime)) };
    seen.children.get(&key).is_some_and(|facts| facts.shown)
}

/// Whether a pod is still waited for before the pods are replaced: it works, and its deadline has not passed.
pub(super) fn waits_for(standing: &Standing<'_>, seen: &Observed, policy: &Policy, now: jiff::Timestamp) -> bool {
    let deadline = standing.heard.and_then(|status| status.drain_deadline.as_ref()?.parse::<jiff::Timestamp>().ok());
    let patience = std::time::Duration::from_secs(u64::try_from(policy.deadline_seconds).unwrap_or(0));
    let overdue = match (deadline, seen.epoch_since) {
        (Some(deadline), _) => deadline <= now,
        // A runtime that does not say when its drain ends is given the same time by this process's clock.
        (None, Some((_, from))) => standing.acknowledged && since(now, from) >= patience,
        (None, None) => false,
    };
    !overdue && !standing.may_be_taken_away(policy.deadline_seconds)
}
