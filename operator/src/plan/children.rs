//! The children made by server-side apply, and which of them are to be applied or deleted now.

use crds::{AgentRuntime, VolumeClaim, WhenDeleted};
use lifecycle::Desired;
use serde_json::{Value, json};

use super::blueprint::Drawing;
use super::manifest::finish;
use super::names::{claim_name, deployment_name, name_of};
use super::pods::Standing;
use super::policy::Policy;
use super::protection::{PROTECTED_SINCE, Protection};
use super::settings::Settings;
use super::sketch::{Drawn, Sketch};
use super::steps::Child;
use super::{manifest, rollout, template};
use crate::observe::{ChildKey, ChildKind, Observed};

/// Holds the rollout strategy that was applied: `surge`, `replace` or `recreate`.
pub const STRATEGY_ANNOTATION: &str = "agents.hive.dev/rollout-strategy";

/// Holds the hash of the pod template alone.
pub const TEMPLATE_ANNOTATION: &str = "agents.hive.dev/template-hash";

/// What is to be done about children, and how many pods are wanted.
pub(super) struct Wanted {
    pub(super) apply: Vec<Child>,
    pub(super) delete: Vec<ChildKey>,
    pub(super) replicas: i32,
    /// What is wrong with the spec, though the API server would take it: a reason and a sentence.
    pub(super) fault: Option<(&'static str, String)>,
    /// Children are kept back: the agent is missing, or what would be applied cannot work.
    pub(super) withheld: bool,
}

impl Wanted {
    /// Nothing can be applied: only the number of pods is known.
    pub(super) fn withheld(replicas: i32) -> Self {
        Self { apply: Vec::new(), delete: Vec::new(), replicas, fault: None, withheld: true }
    }

    /// Whether this plan itself applies the Deployment: then no rollout is complete.
    pub(super) fn changes_pods(&self) -> bool {
        self.apply.iter().any(|child| child.key.kind == ChildKind::Deployment)
    }
}

/// What is to be done with the children. `waits` says that the pods are not to be replaced yet.
pub(super) fn plan(
    seen: &Observed,
    settings: &Settings,
    policy: &Policy,
    standings: &[Standing<'_>],
    protection: Protection,
    waits: bool,
    sketch: &mut Sketch,
) -> Wanted {
    let replicas = replicas(seen, policy, standings);
    let Some(blueprint) = sketch.blueprint(seen, settings).cloned() else { return Wanted::withheld(replicas) };
    let delete = unused(seen, blueprint.agent.as_ref());
    let withheld = rollout::is_withheld(seen, &blueprint);
    let wanted = Wanted { apply: Vec::new(), delete, replicas, fault: blueprint.fault, withheld };
    // How many pods a stop wants depends on what was applied.
    let stops = policy.desired == Desired::Stopped && replicas > 0;
    let stand = |drawn: &Drawn| drawn.is_of(replicas, protection) && all_stand(seen, policy, drawn, waits);
    if !stops && (withheld || sketch.children.as_ref().is_some_and(stand)) {
        return wanted;
    }
    let Some(Drawing { agent, template }) = Drawing::of(seen, settings) else { return wanted };
    let children = around_pods(seen, settings, agent, protection, &template);
    let (replicas, deployment) = pods_wanted(seen, policy, replicas, template, &blueprint.hash);
    sketch.children = Some(Drawn::of(replicas, protection, children.iter().chain([&deployment])));
    let mut apply: Vec<Child> = children.into_iter().filter(|child| differs(seen, &child.key, &child.hash)).collect();
    let changed = differs(seen, &deployment.key, &deployment.hash) || strategy_must_change(seen, policy, replicas);
    if !waits && changed {
        apply.push(deployment);
    }
    if withheld {
        apply.clear();
    }
    Wanted { apply, replicas, ..wanted }
}

/// All children but the Deployment.
fn around_pods(
    seen: &Observed,
    settings: &Settings,
    agent: Option<Child>,
    protection: Protection,
    template: &Value,
) -> Vec<Child> {
    let runtime = seen.runtime.as_ref();
    let mut children: Vec<Child> = agent.into_iter().collect();
    children.push(service(runtime, name_of(runtime).to_owned(), false));
    children.push(service(runtime, format!("{}-pods", name_of(runtime)), true));
    children.push(service_account(runtime));
    children.extend(runtime.spec.volume_claim().map(|claim| volume_claim(runtime, claim)));
    children.push(disruption_budget(runtime, protection));
    children.push(network_policy(runtime, settings, template));
    children
}

/// Whether nothing that was drawn is to be applied.
fn all_stand(seen: &Observed, policy: &Policy, drawn: &Drawn, waits: bool) -> bool {
    let Some(((deployment, hash), others)) = drawn.hashes.split_last() else { return false };
    others.iter().all(|(key, hash)| !differs(seen, key, hash))
        && (waits || !differs(seen, deployment, hash) && !strategy_must_change(seen, policy, drawn.replicas))
}

/// The number of pods and the Deployment that says so. A stop that takes the pods away is not taken back by a
/// picture from before: the watch may still show the Deployment of then, and a pod that was started anew since.
fn pods_wanted(seen: &Observed, policy: &Policy, replicas: i32, template: Value, hash: &str) -> (i32, Child) {
    let runtime = seen.runtime.as_ref();
    if policy.desired == Desired::Stopped && replicas > 0 {
        let none = deployment(runtime, policy, 0, template.clone(), hash);
        let applied = seen.children.get(&none.key).filter(|facts| !facts.shown);
        if applied.is_some_and(|facts| facts.hash.as_deref() == Some(none.hash.as_str())) {
            return (0, none);
        }
    }
    (replicas, deployment(runtime, policy, replicas, template, hash))
}

/// How many pods are wanted. While paused the number may fall and not rise; a stop takes the pods away
/// only when each has stopped, ended, or been out of reach for the whole drain timeout.
pub(super) fn replicas(seen: &Observed, policy: &Policy, standings: &[Standing<'_>]) -> i32 {
    let asked = seen.runtime.spec.replicas;
    let now = seen.deployment.as_ref().map(|d| d.wanted);
    match (policy.desired, now) {
        (Desired::Running, _) => asked,
        (Desired::Paused, current) => current.map_or(asked, |current| asked.min(current)),
        (Desired::Stopped, None | Some(0)) => 0,
        (Desired::Stopped, Some(_)) if standings.iter().all(|s| s.may_be_taken_away(policy.deadline_seconds)) => 0,
        (Desired::Stopped, Some(current)) => asked.min(current),
    }
}

fn differs(seen: &Observed, key: &ChildKey, hash: &str) -> bool {
    seen.children.get(key).is_none_or(|facts| facts.drifted || facts.hash.as_deref() != Some(hash))
}

/// The strategy alone is no reason to write, or each pause would write the Deployment. It matters
/// only while pods are being replaced: paused pods are not ready, and a surge would wait for them for ever.
fn strategy_must_change(seen: &Observed, policy: &Policy, replicas: i32) -> bool {
    let Some(deployment) = &seen.deployment else { return false };
    let rolling = deployment.updated < replicas || deployment.replicas > deployment.updated;
    rolling && deployment.strategy != strategy(&seen.runtime, policy)
}

fn strategy(runtime: &AgentRuntime, policy: &Policy) -> &'static str {
    match (runtime.spec.volume_claim(), policy.desired) {
        // Two pods cannot have the volume at once.
        (Some(_), _) => "recreate",
        (None, Desired::Running) => "surge",
        (None, Desired::Paused | Desired::Stopped) => "replace",
    }
}

/// ConfigMaps of earlier definitions, once no pod can need them any more.
fn unused(seen: &Observed, wanted: Option<&ChildKey>) -> Vec<ChildKey> {
    let rolled = seen.deployment.as_ref().is_some_and(|d| d.observed && d.replicas == d.updated);
    if !rolled || seen.pods.iter().any(|pod| pod.terminating) {
        return Vec::new();
    }
    let old = seen.children.keys().filter(|key| key.kind == ChildKind::ConfigMap);
    old.filter(|key| Some(*key) != wanted).cloned().collect()
}

/// `headless` publishes the addresses of pods that are not ready, paused ones for instance.
fn service(runtime: &AgentRuntime, name: String, headless: bool) -> Child {
    let port = runtime.spec.lifecycle.port;
    let mut object = manifest::object(runtime, "v1", "Service", &name);
    let mut spec = json!({
        "selector": manifest::match_labels(name_of(runtime)),
        "ports": [{ "name": "http", "port": port, "targetPort": "lifecycle", "protocol": "TCP" }],
    });
    if headless {
        template::merge(&mut spec, &json!({ "clusterIP": "None", "publishNotReadyAddresses": true }));
    }
    manifest::set(&mut object, "spec", spec);
    finish(ChildKind::Service, name, object, &[])
}

fn volume_claim(runtime: &AgentRuntime, claim: &VolumeClaim) -> Child {
    let name = claim_name(runtime);
    let mut object = manifest::object(runtime, "v1", "PersistentVolumeClaim", &name);
    if claim.when_deleted == WhenDeleted::Retain {
        manifest::disown(&mut object);
    }
    let mut spec = json!({
        "accessModes": ["ReadWriteOncePod"],
        "resources": { "requests": { "storage": claim.size } },
    });
    if let Some(class) = &claim.storage_class_name {
        template::merge(&mut spec, &json!({ "storageClassName": class }));
    }
    manifest::set(&mut object, "spec", spec);
    finish(ChildKind::PersistentVolumeClaim, name, object, &[])
}

fn service_account(runtime: &AgentRuntime) -> Child {
    let name = name_of(runtime).to_owned();
    let mut object = manifest::object(runtime, "v1", "ServiceAccount", &name);
    manifest::set(&mut object, "automountServiceAccountToken", json!(false));
    finish(ChildKind::ServiceAccount, name, object, &[])
}

/// What a node's drain may take away at once.
fn disruption_budget(runtime: &AgentRuntime, protection: Protection) -> Child {
    let name = name_of(runtime).to_owned();
    let mut object = manifest::object(runtime, "policy/v1", "PodDisruptionBudget", &name);
    let mut spec = json!({ "selector": { "matchLabels": manifest::match_labels(&name) } });
    template::merge(&mut spec, &protection.budget());
    manifest::set(&mut object, "spec", spec);
    let mut annotations = Vec::new();
    if let Some((label, since)) = protection.marks() {
        let mut labels = manifest::labels(&name);
        template::merge(&mut labels, &label);
        manifest::set_metadata(&mut object, "labels", labels);
        annotations.push((PROTECTED_SINCE, since));
    }
    let annotations: Vec<(&str, &str)> = annotations.iter().map(|(key, value)| (*key, value.as_str())).collect();
    finish(ChildKind::PodDisruptionBudget, name, object, &annotations)
}

/// Only declared ports can be reached. From everywhere unless the spec names peers, as the lifecycle port is
/// also the one that users send their triggers to; commands on it are guarded by themselves. Policies add
/// up, so no other could keep out what this one lets in. The operator is let in always.
fn network_policy(runtime: &AgentRuntime, settings: &Settings, template: &Value) -> Child {
    let name = name_of(runtime).to_owned();
    let mut object = manifest::object(runtime, "networking.k8s.io/v1", "NetworkPolicy", &name);
    let ports = template::ports(template);
    let ingress = match &runtime.spec.network_policy_peers {
        None => json!([{ "ports": ports }]),
        Some(peers) => {
            let operator = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": settings.namespace } } });
            let from: Vec<Value> = peers.iter().cloned().map(Value::Object).chain([operator]).collect();
            json!([{ "ports": ports, "from": from }])
        }
    };
    manifest::set(
        &mut object,
        "spec",
        json!({
            "podSelector": { "matchLabels": manifest::match_labels(&name) },
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        }),
    );
    finish(ChildKind::NetworkPolicy, name, object, &[])
}

fn deployment(runtime: &AgentRuntime, policy: &Policy, replicas: i32, template: Value, hash: &str) -> Child {
    let name = deployment_name(name_of(runtime));
    let mut object = manifest::object(runtime, "apps/v1", "Deployment", &name);
    manifest::set(
        &mut object,
        "spec",
        json!({
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": runtime.spec.progress_deadline_seconds,
            "selector": { "matchLabels": manifest::match_labels(name_of(runtime)) },
            "template": template,
        }),
    );
    let strategy = strategy(runtime, policy);
    let mut child =
        finish(ChildKind::Deployment, name, object, &[(STRATEGY_ANNOTATION, strategy), (TEMPLATE_ANNOTATION, hash)]);
    let rolling = |unavailable: Value, surge: Value| json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } });
    let described = match strategy {
        "surge" => rolling(json!(0), json!("25%")),
        "replace" => rolling(json!("100%"), json!(0)),
        _ => json!({ "type": "Recreate" }),
    };
    if let Some(Value::Object(spec)) = child.manifest.get_mut("spec") {
        spec.insert("strategy".to_owned(), described);
    }
    child
}
