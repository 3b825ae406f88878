//! Pods as they come in by the watch: only the fields are decoded that the facts of a plan are made from.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::observe::PodFacts;

/// The container that runs the agent.
pub const AGENT_CONTAINER: &str = "agent";

/// The name of the port that commands are sent to.
pub const LIFECYCLE_PORT: &str = "lifecycle";

/// A pod, decoded straight from the watch into few fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SlimPod {
    /// The metadata.
    pub metadata: ObjectMeta,
    /// The spec's few fields.
    #[serde(default)]
    pub spec: SlimSpec,
    /// The status' few fields.
    #[serde(default)]
    pub status: SlimStatus,
}

/// The fields of a pod's spec that decide whether it may be pushed to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimSpec {
    /// Shares the node's network: its address is not its own.
    #[serde(default)]
    pub host_network: bool,
    #[serde(default)]
    containers: Vec<SlimSpecContainer>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SlimSpecContainer {
    name: String,
    #[serde(default)]
    ports: Vec<SlimPort>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimPort {
    name: String,
    container_port: u16,
}

/// The fields of a pod's status that are read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlimStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    conditions: Vec<SlimCondition>,
    container_statuses: Vec<SlimContainer>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SlimCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimContainer {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    state: SlimState,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SlimState {
    running: Option<SlimRunning>,
    waiting: Option<SlimWaiting>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimRunning {
    started_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SlimWaiting {
    reason: String,
    message: String,
}

impl kube::Resource for SlimPod {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl SlimPod {
    /// The facts that a plan reads. `deployment` is the child that the pod must descend from; `loopback` lets it
    /// have a loopback address, as simulated pods do.
    #[must_use]
    pub fn facts(&self, deployment: &str, loopback: bool) -> PodFacts {
        let agent = self.status.container_statuses.iter().find(|c| c.name == AGENT_CONTAINER);
        let running = agent.and_then(|c| c.state.running.as_ref());
        let waiting = agent.and_then(|c| c.state.waiting.as_ref());
        let unsafe_target = self.unsafe_target(deployment, loopback);
        let address = self.status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        PodFacts {
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            address: address.filter(|_| unsafe_target.is_none()),
            terminating: self.metadata.deletion_timestamp.is_some(),
            ended: matches!(self.status.phase.as_str(), "Succeeded" | "Failed"),
            ready: self.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True"),
            container: running.and(agent).and_then(|c| c.container_id.as_deref()).map(Into::into),
            port: self.port(),
            created: self.metadata.creation_timestamp.as_ref().map(|time| time.0),
            started: running.and_then(|r| r.started_at),
            waiting: waiting.map(|w| format!("{}: {}", w.reason, w.message).trim_end_matches(": ").to_owned()),
            unsafe_target,
        }
    }

    fn port(&self) -> Option<u16> {
        let agent = self.spec.containers.iter().find(|container| container.name == AGENT_CONTAINER)?;
        agent.ports.iter().find(|port| port.name == LIFECYCLE_PORT).map(|port| port.container_port)
    }

    /// The facts of a pod of which only the metadata can be decoded: something may run in it.
    #[must_use]
    pub fn unreadable(self, why: String) -> PodFacts {
        let terminating = self.metadata.deletion_timestamp.is_some();
        PodFacts {
            name: self.metadata.name.unwrap_or_default(),
            uid: self.metadata.uid.unwrap_or_default(),
            address: None,
            terminating,
            ended: false,
            ready: false,
            port: None,
            container: Some("unknown".into()),
            created: None,
            started: None,
            waiting: None,
            unsafe_target: Some(format!("it cannot be decoded: {why}")),
        }
    }

    /// Why the operator must not push to this pod. Whoever may create pods could otherwise
    /// have the operator call any address.
    fn unsafe_target(&self, deployment: &str, loopback: bool) -> Option<String> {
        if self.spec.host_network {
            return Some("it uses the node's network: remove hostNetwork from spec.template".to_owned());
        }
        if self.status.pod_ip.is_some() && self.status.pod_ip == self.status.host_ip {
            return Some("its address is the node's".to_owned());
        }
        if let Some(why) = self.status.pod_ip.as_deref().and_then(|ip| foreign_address(ip, loopback)) {
            return Some(why);
        }
        let hash = self.metadata.labels.as_ref().and_then(|l| l.get("pod-template-hash"));
        let parent = hash.map(|hash| format!("{deployment}-{hash}"));
        let owned = self.metadata.owner_references.iter().flatten().any(|owner| {
            let replica_set = owner.api_version == "apps/v1" && owner.kind == "ReplicaSet";
            owner.controller == Some(true) && replica_set && Some(&owner.name) == parent.as_ref()
        });
        (!owned).then(|| format!("it does not belong to the Deployment {deployment}: remove its labels"))
    }
}

/// Why an address cannot be a pod's own. A pod network never gives these out, so whoever wrote one into a
/// pod's status wants the operator to call something else, such as a node's metadata service.
fn foreign_address(text: &str, loopback: bool) -> Option<String> {
    let Ok(address) = text.parse::<IpAddr>() else { return Some(format!("{text:?} is no address")) };
    let kind = match address.to_canonical() {
        ip if ip.is_loopback() && loopback => return None,
        ip if ip.is_loopback() => "a loopback",
        ip if ip.is_unspecified() => "an unspecified",
        ip if ip.is_multicast() => "a multicast",
        IpAddr::V4(ip) if ip.is_link_local() => "a link-local",
        IpAddr::V4(ip) if ip.is_broadcast() => "a broadcast",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local",
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(format!("{address} is {kind} address and cannot be its own"))
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
