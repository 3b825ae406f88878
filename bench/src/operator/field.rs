//! Where a contender works: a namespace with AgentRuntimes and their pods.
//!
//! The pods are made as a Deployment's controller and the kubelet would make them, and as large. They are the same for
//! all contenders: made from the template that our operator writes into its Deployment.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crds::{AgentRuntime, DesiredState};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::pods;

/// Requests of the measurement itself under way at once.
const AT_ONCE: usize = 64;
/// While the operator makes Deployments, one more comes at least so often. How long all take is the machine's doing.
const PATIENCE: Duration = Duration::from_secs(120);
/// What each object adds to the time that is waited for all.
const PATIENCE_EACH: Duration = Duration::from_millis(20);
/// In place of the hash of a pod template.
const HASH: &str = "simulated";

/// AgentRuntimes with the same number of pods each.
#[derive(Clone)]
pub(crate) struct Field {
    client: Client,
    pub(crate) namespace: String,
    pub(crate) names: Vec<String>,
    pub(crate) replicas: usize,
    /// The number of the first pod, by which its address goes.
    pub(crate) first: u32,
    port: u16,
}

/// Gives out the addresses of pods, and knows what a pod looks like.
pub(crate) struct Nursery {
    client: Client,
    port: u16,
    next: u32,
    template: Option<Template>,
}

/// The pod template of one object's Deployment.
#[derive(Clone, Debug)]
struct Template {
    name: String,
    text: String,
}

impl Template {
    /// The same for another object: its name stands in labels and in names of what is mounted.
    fn of(&self, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.text.replace(&self.name, name))?)
    }
}

impl Nursery {
    /// Pods listen on this port.
    pub(crate) fn new(client: &Client, port: u16) -> Self {
        Self { client: client.clone(), port, next: 0, template: None }
    }

    /// Makes a namespace if need be, and the objects in it.
    pub(crate) async fn objects(&mut self, namespace: &str, count: usize, replicas: usize) -> anyhow::Result<Field> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let body: Namespace = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
        match namespaces.create(&PostParams::default(), &body).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
        // As long as each other, so that the name of one is never a part of another's.
        let names: Vec<String> = (0..count).map(|number| format!("runtime-{replicas:05}-{number:05}")).collect();
        let field = Field {
            client: self.client.clone(),
            namespace: namespace.to_owned(),
            names,
            replicas,
            first: self.next,
            port: self.port,
        };
        self.next += u32::try_from(count * replicas)?;
        field.create().await.context("the AgentRuntimes cannot be created")?;
        Ok(field)
    }

    /// Makes the pods of objects whose Deployments our operator makes, and says that these are rolled out.
    pub(crate) async fn roll_out(&mut self, field: &Field) -> anyhow::Result<()> {
        let made = field.deployments().await?;
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &field.namespace);
        if self.template.is_none() {
            let name = field.names.first().context("a field has objects")?;
            let spec = api.get(name).await?.spec.context("a Deployment has a spec")?;
            self.template = Some(Template { name: name.clone(), text: serde_json::to_string(&spec.template)? });
        }
        self.pods(field).await?;
        let count = field.replicas;
        for_each(made, |(name, generation)| {
            let api = api.clone();
            async move {
                let status = json!({ "status": { "observedGeneration": generation,
                    "replicas": count, "updatedReplicas": count, "readyReplicas": count, "availableReplicas": count } });
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
                Ok(())
            }
        })
        .await
    }

    /// Makes the pods of objects of any contender.
    pub(crate) async fn pods(&self, field: &Field) -> anyhow::Result<()> {
        let template = self.template.as_ref().context("our operator comes first, and shows what a pod looks like")?;
        let mut bodies = Vec::new();
        for (object, name) in field.names.iter().enumerate() {
            let template = template.of(name)?;
            for replica in 0..field.replicas {
                let number = field.first + u32::try_from(object * field.replicas + replica)?;
                bodies.push((pod(name, replica, &template)?, pods::address(number)));
            }
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &field.namespace);
        for_each(bodies, |(body, address)| {
            let api = api.clone();
            async move {
                let made = api.create(&PostParams::default(), &body).await?;
                let name = made.metadata.name.unwrap_or_default();
                let status = Patch::Merge(json!({ "status": running(&name, address) }));
                api.patch_status(&name, &PatchParams::default(), &status).await?;
                Ok(())
            }
        })
        .await
        .context("the pods cannot be made")
    }
}

impl Field {
    /// All pods.
    pub(crate) fn size(&self) -> usize {
        self.names.len() * self.replicas
    }

    /// How long is waited for all objects: `least`, and more the more there are.
    pub(crate) fn patience(&self, least: Duration) -> Duration {
        least + PATIENCE_EACH.saturating_mul(u32::try_from(self.names.len()).unwrap_or(u32::MAX))
    }

    /// Asks for another state, as a user does; gives the time just before the first request.
    pub(crate) async fn ask(&self, state: DesiredState) -> anyhow::Result<Instant> {
        let api: Api<AgentRuntime> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({ "spec": { "desiredState": state } }));
        let begun = Instant::now();
        for_each(self.names.clone(), |name| {
            let (api, patch) = (api.clone(), patch.clone());
            async move {
                api.patch(&name, &PatchParams::default(), &patch).await?;
                Ok(())
            }
        })
        .await?;
        Ok(begun)
    }

    async fn create(&self) -> anyhow::Result<()> {
        let api: Api<AgentRuntime> = Api::namespaced(self.client.clone(), &self.namespace);
        for_each(self.names.clone(), |name| {
            let api = api.clone();
            async move {
                let body: AgentRuntime = serde_json::from_value(json!({
                    "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime",
                    "metadata": { "name": name },
                    "spec": { "agent": { "inline": agent() }, "replicas": self.replicas,
                        "lifecycle": { "port": self.port } },
                }))?;
                api.create(&PostParams::default(), &body).await?;
                Ok(())
            }
        })
        .await
    }

    /// The Deployments of all objects and their generations, once the operator has made them.
    async fn deployments(&self) -> anyhow::Result<Vec<(String, Option<i64>)>> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let wanted: HashSet<&String> = self.names.iter().collect();
        let (mut most, mut since) = (0, Instant::now());
        loop {
            let asked = Instant::now();
            let listed = api.list_metadata(&ListParams::default().match_any()).await?.items;
            let named = listed.into_iter().filter_map(|item| Some((item.metadata.name?, item.metadata.generation)));
            let made: Vec<_> = named.filter(|(name, _)| wanted.contains(name)).collect();
            if made.len() == wanted.len() {
                return Ok(made);
            }
            if made.len() > most {
                (most, since) = (made.len(), Instant::now());
            }
            if since.elapsed() > PATIENCE {
                bail!("{most} of {} Deployments, and none more for {} s", self.names.len(), PATIENCE.as_secs());
            }
            // A list of thousands takes the API server a while, which it needs for the operator.
            tokio::time::sleep(Duration::from_millis(250).max(asked.elapsed() * 9)).await;
        }
    }
}

/// One entry point with one node; nobody executes it.
fn agent() -> Value {
    json!({
        "agent": { "id": "bench", "name": "Bench" },
        "graph": {
            "async_entry_points": [{ "id": "work", "entry_node": "wait", "trigger_type": "api" }],
            "nodes": [{ "id": "wait", "node_type": "wait", "seconds": 1 }],
        },
    })
}

async fn for_each<T, F: Future<Output = anyhow::Result<()>>>(
    items: Vec<T>,
    work: impl FnMut(T) -> F,
) -> anyhow::Result<()> {
    stream::iter(items).map(work).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}

fn pod(runtime: &str, replica: usize, template: &Value) -> anyhow::Result<Pod> {
    let parent = format!("{runtime}-{HASH}");
    let mut body = template.clone();
    let metadata = json!({
        "name": format!("{parent}-{replica:05}"),
        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": parent,
            "uid": "00000000-0000-0000-0000-000000000000", "controller": true }],
    });
    let own = body.pointer_mut("/metadata").and_then(Value::as_object_mut).context("a template has metadata")?;
    own.extend(metadata.as_object().cloned().unwrap_or_default());
    let labels = own.get_mut("labels").and_then(Value::as_object_mut).context("a template has labels")?;
    labels.insert("pod-template-hash".to_owned(), json!(HASH));
    if let Some(spec) = body.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.insert("nodeName".to_owned(), json!("simulated"));
    }
    Ok(serde_json::from_value(body)?)
}

/// What the kubelet would say of it.
fn running(name: &str, address: Ipv4Addr) -> Value {
    let started = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": started });
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions = conditions.map(condition);
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "hostIP": "10.0.0.1",
        "hostIPs": [{ "ip": "10.0.0.1" }],
        "qosClass": "Burstable",
        "startTime": started,
        "conditions": conditions,
        "containerStatuses": [{ "name": "agent", "ready": true, "started": true, "restartCount": 0,
            "image": "agent-runtime:0.1.0", "imageID": "sha256:0", "containerID": format!("simulated://{name}"),
            "state": { "running": { "startedAt": started } } }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_of_another_object_are_made_from_the_same_template() {
        let text = r#"{"metadata":{"labels":{"agents.hive.dev/runtime":"runtime-00001-00000"}},"spec":{"containers":[],"volumes":[{"name":"boot","configMap":{"name":"runtime-00001-00000-boot"}}]}}"#;
        let template = Template { name: "runtime-00001-00000".to_owned(), text: text.to_owned() };
        let body = pod("runtime-00009-00003", 7, &template.of("runtime-00009-00003").unwrap()).unwrap();
        assert_eq!(body.metadata.name.as_deref(), Some("runtime-00009-00003-simulated-00007"));
        let labels = body.metadata.labels.clone().unwrap();
        assert_eq!(labels["agents.hive.dev/runtime"], "runtime-00009-00003");
        assert_eq!(labels["pod-template-hash"], HASH);
        assert!(!serde_json::to_string(&body).unwrap().contains("runtime-00001"));
    }
}
