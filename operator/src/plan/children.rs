//! The children made by server-side apply, and which of them are to be applied or deleted now.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::{AgentRuntime, CommandAuth, VolumeClaim, WhenDeleted};
use jiff::Timestamp;
use lifecycle::Desired;
use serde_json::{Value, json};

use super::blueprint::{Blueprint, Drawing};
use super::effective::Effective;
use super::manifest::finish;
use super::names::{claim_name, deployment_name, name_of};
use super::pods::Standing;
use super::policy::Policy;
use super::protection::{PROTECTED_SINCE, Protection};
use super::settings::Settings;
use super::sketch::{Drawn, Sketch};
use super::steps::{Child, ChildrenPlan, Confirm, DeleteChild};
use super::{agent, faults, manifest, quantity, template};
use crate::observe::{AgentText, ChildKey, ChildKind, Observed};

/// Holds the rollout strategy that was applied: `surge`, `replace` or `recreate`.
pub const STRATEGY_ANNOTATION: &str = "agents.hive.dev/rollout-strategy";

/// Holds the hash of the pod template alone.
pub const TEMPLATE_ANNOTATION: &str = "agents.hive.dev/template-hash";

/// Keeps Argo CD from taking away a claim that is not in Git.
const KEPT_BY_ARGO: (&str, &str) = ("argocd.argoproj.io/sync-options", "Prune=false");

/// What is to be done about children, and how many pods are wanted.
pub(super) struct Wanted {
    pub(super) apply: Vec<Child>,
    pub(super) delete: Vec<DeleteChild>,
    pub(super) replicas: i32,
    /// What is wrong with the spec, though the API server would take it: a reason and a sentence.
    pub(super) fault: Option<(&'static str, String)>,
    /// The Deployment is to be another, whether it is applied now or waits: then no rollout is complete.
    pub(super) changes_pods: bool,
    /// Children that are to be applied or deleted, now or later.
    pub(super) outstanding: BTreeSet<ChildKey>,
    /// When what failed is tried again.
    pub(super) again: Option<Duration>,
}

impl Wanted {
    /// Nothing can be applied: only the number of pods is known.
    pub(super) fn withheld(replicas: i32) -> Self {
        Self {
            apply: Vec::new(),
            delete: Vec::new(),
            replicas,
            fault: None,
            changes_pods: false,
            outstanding: BTreeSet::new(),
            again: None,
        }
    }
}

/// What the pods wait for and are given, but for their number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// Others may take their place now.
    pub(super) replaced: bool,
    /// They are to be drained first, once the API server has taken the Deployment as a trial.
    pub(super) trial: bool,
    /// The boot file in the store asks for what is wanted.
    pub(super) stored: bool,
    /// What their disruption budget is to say.
    pub(super) protection: Protection,
}

/// What is to be done with the children.
pub(super) fn plan(
    seen: &Observed,
    settings: &Settings,
    policy: &Policy,
    standings: &[Standing<'_>],
    gate: Gate,
    sketch: &mut Sketch,
    now: Timestamp,
) -> Wanted {
    let replicas = replicas(seen, policy, standings);
    let Some(blueprint) = sketch.blueprint(seen, settings).cloned() else {
        // Pods of a definition that has not been read yet may be others than those that are there.
        return Wanted { changes_pods: seen.agent == AgentText::Unknown, ..Wanted::withheld(replicas) };
    };
    let mut wanted = Wanted { fault: blueprint.fault.clone(), ..Wanted::withheld(replicas) };
    let (open, protection) = (open_ports(seen), gate.protection);
    let stand = |drawn: &Drawn| drawn.is_of(protection, &open) && all_stand(seen, policy, drawn, replicas);
    if wanted.fault.is_some() {
        return wanted;
    }
    if !sketch.children.as_ref().is_some_and(stand) {
        let Some(Drawing { agent, template }) = Drawing::of(seen, settings) else { return wanted };
        let children = around_pods(seen, settings, agent, protection, (&template, &open));
        let deployment = deployment(&seen.runtime, policy, replicas, template, &blueprint.hash);
        sketch.children = Some(Drawn::of(protection, open, children.iter().chain([&deployment])));
        choose(seen, policy, children, deployment, gate, now, &mut wanted);
    }
    if !wanted.changes_pods && wanted.apply.is_empty() {
        let deletes = |child: &DeleteChild| faults::is_due(seen.faults.children.get(&child.key), &child.uid, now);
        wanted.delete = unused(seen, &blueprint);
        wanted.outstanding.extend(wanted.delete.iter().map(|child| child.key.clone()));
        wanted.delete.retain(deletes);
    }
    wanted
}

/// The steps of the children's lane.
pub(super) fn steps(seen: &Observed, effective: &Effective, wanted: Wanted, now: Timestamp) -> ChildrenPlan {
    let Wanted { apply, delete, again, .. } = wanted;
    let read_in = agent::read_in(seen, now).filter(|_| !effective.leaves_children(seen));
    // A spec from before one that was shown would take a rollout back.
    let touches = !apply.is_empty() || !delete.is_empty();
    let confirm = (seen.outdated && touches).then_some(Confirm { freezes: false });
    ChildrenPlan {
        confirm,
        apply,
        delete,
        read_agent: read_in.is_some_and(|left| left.is_zero()),
        after_status: false,
        again: again.into_iter().chain(read_in.filter(|left| !left.is_zero())).min(),
    }
}

/// The ports by which pods are commanded that are not to be cut off while others replace them.
fn open_ports(seen: &Observed) -> BTreeSet<u16> {
    let own = seen.runtime.spec.lifecycle.port;
    let live = seen.pods.iter().filter(|pod| !pod.ended);
    live.filter_map(|pod| pod.port).filter(|port| i32::from(*port) != own).collect()
}

/// Chooses what is to be applied now. What the pods need is there before them.
fn choose(
    seen: &Observed,
    policy: &Policy,
    children: Vec<Child>,
    deployment: Child,
    gate: Gate,
    now: Timestamp,
    wanted: &mut Wanted,
) {
    let differing: Vec<Child> = children.into_iter().filter(|child| differs(seen, &child.key, &child.hash)).collect();
    let missing = differing.iter().any(|child| is_needed_by_pods(seen, child.key.kind));
    wanted.changes_pods = pods_differ(seen, policy, &deployment.key, &deployment.hash, wanted.replicas);
    let outstanding = differing.iter().chain(Some(&deployment).filter(|_| wanted.changes_pods));
    wanted.outstanding = outstanding.map(|child| child.key.clone()).collect();
    let applies = wanted.changes_pods && (gate.replaced || gate.trial) && gate.stored && !missing;
    let pods = Some(Child { trial: gate.trial, ..deployment }).filter(|_| applies);
    for child in differing.into_iter().chain(pods) {
        let fault = seen.faults.children.get(&child.key);
        if seen.foreign.contains_key(&child.key) {
            continue;
        }
        if faults::is_due(fault, &child.hash, now) {
            let uid = seen.children.get(&child.key).and_then(|facts| facts.uid.clone());
            wanted.apply.push(Child { uid, ..child });
        } else {
            wanted.again = wanted.again.into_iter().chain(faults::retry_in(fault, now)).min();
        }
    }
}

/// Pods are not made before these are there. A policy that is the only guard of the pods' port is one of them.
fn is_needed_by_pods(seen: &Observed, kind: ChildKind) -> bool {
    match kind {
        ChildKind::ConfigMap | ChildKind::ServiceAccount | ChildKind::PersistentVolumeClaim => true,
        ChildKind::NetworkPolicy => {
            let spec = &seen.runtime.spec;
            spec.network_policy_peers.is_some() || spec.lifecycle.auth == CommandAuth::None
        }
        ChildKind::Service | ChildKind::PodDisruptionBudget | ChildKind::Deployment => false,
    }
}

/// All children but the Deployment.
fn around_pods(
    seen: &Observed,
    settings: &Settings,
    agent: Option<Child>,
    protection: Protection,
    (template, open): (&Value, &BTreeSet<u16>),
) -> Vec<Child> {
    let runtime = seen.runtime.as_ref();
    let mut children: Vec<Child> = agent.into_iter().collect();
    children.push(service(runtime, name_of(runtime).to_owned(), false));
    children.push(service(runtime, format!("{}-pods", name_of(runtime)), true));
    children.push(service_account(runtime));
    children.extend(runtime.spec.volume_claim().map(|claim| volume_claim(runtime, claim, seen.claim_size.as_deref())));
    children.push(disruption_budget(runtime, protection));
    children.push(network_policy(runtime, settings, template, open));
    children
}

/// Whether nothing that was drawn is to be applied.
fn all_stand(seen: &Observed, policy: &Policy, drawn: &Drawn, replicas: i32) -> bool {
    let Some(((deployment, hash), others)) = drawn.hashes.split_last() else { return false };
    others.iter().all(|(key, hash)| !differs(seen, key, hash)) && !pods_differ(seen, policy, deployment, hash, replicas)
}

/// Whether the Deployment is to be another. That a stop takes the pods away is no change of it: the number is changed
/// alone.
fn pods_differ(seen: &Observed, policy: &Policy, key: &ChildKey, hash: &str, replicas: i32) -> bool {
    let number = seen.deployment.as_ref().is_some_and(|deployment| deployment.wanted != replicas);
    // Another leader may have taken the pods away. What somebody changes of a Deployment without pods is put right with
    // the next start.
    let rests = policy.desired == Desired::Stopped && replicas == 0 && !number;
    let facts = seen.children.get(key);
    let differs = facts.is_none_or(|facts| (facts.drifted && !rests) || facts.hash.as_deref() != Some(hash));
    differs || strategy_must_change(seen, policy, replicas) || (number && policy.desired != Desired::Stopped)
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

/// ConfigMaps of earlier definitions, once the Deployment as it is shown and every pod use another: a pod of an older
/// one that is moved to another node mounts it again.
fn unused(seen: &Observed, blueprint: &Blueprint) -> Vec<DeleteChild> {
    let Some(deployment) = &seen.deployment else { return Vec::new() };
    let pods = i32::try_from(seen.pods.len()).unwrap_or(i32::MAX);
    let shown = seen.children.iter().any(|(key, facts)| key.kind == ChildKind::Deployment && facts.shown);
    let rolled = shown
        && deployment.observed
        && deployment.template == blueprint.hash
        && deployment.replicas == deployment.updated
        && deployment.updated == pods;
    if !rolled {
        return Vec::new();
    }
    let old = seen.children.iter().filter(|(key, _)| key.kind == ChildKind::ConfigMap);
    let old = old.filter(|(key, _)| Some(*key) != blueprint.agent.as_ref());
    old.filter_map(|(key, facts)| Some(DeleteChild { key: key.clone(), uid: facts.uid.clone()? })).collect()
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

/// A volume that somebody has made larger stays so: a smaller one would be refused.
fn volume_claim(runtime: &AgentRuntime, claim: &VolumeClaim, there: Option<&str>) -> Child {
    let name = claim_name(name_of(runtime));
    let size = there.filter(|there| quantity::is_at_least(there, &claim.size)).unwrap_or(&claim.size);
    let mut object = manifest::object(runtime, "v1", "PersistentVolumeClaim", &name);
    if claim.when_deleted == WhenDeleted::Retain {
        manifest::disown(&mut object);
    }
    let mut spec = json!({
        "accessModes": ["ReadWriteOncePod"],
        "resources": { "requests": { "storage": size } },
    });
    if let Some(class) = &claim.storage_class_name {
        template::merge(&mut spec, &json!({ "storageClassName": class }));
    }
    manifest::set(&mut object, "spec", spec);
    finish(ChildKind::PersistentVolumeClaim, name, object, &[KEPT_BY_ARGO])
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
fn network_policy(runtime: &AgentRuntime, settings: &Settings, template: &Value, open: &BTreeSet<u16>) -> Child {
    let name = name_of(runtime).to_owned();
    let mut object = manifest::object(runtime, "networking.k8s.io/v1", "NetworkPolicy", &name);
    let ports = template::ports(template, open);
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
        // No part of the hash: the number is changed alone too.
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    child
}
