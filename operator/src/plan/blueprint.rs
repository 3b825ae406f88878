//! The pods as the spec wants them: their template with the agent's definition, and what is wrong with either.

use crds::AgentRuntime;
use serde_json::{Value, json};

use super::manifest::{finish, short_hash};
use super::names::name_of;
use super::settings::Settings;
use super::steps::Child;
use super::{agent, hooks, manifest, template};
use crate::observe::{AgentText, ChildKey, ChildKind, Observed};

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

impl Blueprint {
    /// None while the agent's definition is missing.
    pub(super) fn of(seen: &Observed, settings: &Settings) -> Option<Self> {
        let runtime = seen.runtime.as_ref();
        let Drawing { agent, template } = Drawing::of(seen, settings)?;
        let fault = timers(runtime, &seen.agent)
            .or_else(|| hooks::fault(runtime, settings))
            .or_else(|| template::fault(runtime, &template));
        let hash = short_hash(template.to_string().as_bytes());
        Some(Self { agent: agent.map(|child| child.key), hash, fault })
    }
}

/// A blueprint with what it is of: the ConfigMap and the pod template.
pub(super) struct Drawing {
    pub(super) agent: Option<Child>,
    pub(super) template: Value,
}

impl Drawing {
    /// None while the agent's definition is missing.
    pub(super) fn of(seen: &Observed, settings: &Settings) -> Option<Self> {
        let runtime = seen.runtime.as_ref();
        let (agent, file) = match &seen.agent {
            AgentText::Found { text, file } => (Some(agent_config_map(runtime, text, file)), file.as_str()),
            AgentText::Builtin => (None, ""),
            AgentText::Missing(_) | AgentText::Unknown => return None,
        };
        let mount = agent.as_ref().map(|child| (child.key.name.as_str(), file));
        let template = template::pod_template(runtime, settings, mount);
        Some(Self { agent, template })
    }
}

/// The ConfigMap of the agent's definition, named by content.
fn agent_config_map(runtime: &AgentRuntime, text: &str, file: &str) -> Child {
    let name = format!("{}-agent-{}", name_of(runtime), short_hash(text.as_bytes()));
    let mut object = manifest::object(runtime, "v1", "ConfigMap", &name);
    manifest::set(&mut object, "immutable", json!(true));
    manifest::set(&mut object, "data", json!({ file: text }));
    finish(ChildKind::ConfigMap, name, object, &[])
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
