//! The watches of pods and children, what each keeps of an object, and what they show of one owner.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, PodTemplateSpec, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::act;
use crate::merged;
use crate::observe::index::{Index, Named, Owner};
use crate::observe::memory::SeenChild;
use crate::observe::pod::SlimPod;
use crate::observe::{BootConfigMap, ChildKey, ChildKind, DeploymentFacts, PodFacts};
use crate::plan::{
    HOOKS_ANNOTATION, MANAGED_BY, PROTECTED_SINCE, STRATEGY_ANNOTATION, TEMPLATE_ANNOTATION, boot_name, deployment_name,
};
use crate::queue::Queue;

/// What the watches of pods and children have shown.
#[derive(Default)]
pub(crate) struct Watches {
    /// Pods may have loopback addresses, as simulated ones do.
    loopback_pods: bool,
    pods: Index<PodFacts>,
    deployments: Index<Deployment>,
    config_maps: Index<ConfigMap>,
    services: Index<Service>,
    accounts: Index<PartialObjectMeta<ServiceAccount>>,
    claims: Index<PartialObjectMeta<PersistentVolumeClaim>>,
    budgets: Index<PartialObjectMeta<PodDisruptionBudget>>,
    policies: Index<PartialObjectMeta<NetworkPolicy>>,
}

impl Watches {
    /// Nothing has been shown yet.
    pub(crate) fn new(loopback_pods: bool) -> Self {
        Self { loopback_pods, ..Self::default() }
    }

    /// Follows every kind, and has everybody looked at whose objects change. `gone` gets the UID of each pod that
    /// has left its owner.
    pub(crate) async fn follow(&self, client: &Client, namespaces: &[String], queue: &Queue, gone: impl Fn(&str)) {
        let from = (client, namespaces);
        let facts = |owner: &Owner, pod: SlimPod| pod.facts(&deployment_name(&owner.name), self.loopback_pods);
        let pod_gone = |pod: &PodFacts| gone(&pod.uid);
        let pods = follow(from, queue, &self.pods, facts, pod_gone);
        let deployments = follow(from, queue, &self.deployments, |_, object| pruned_deployment(object), |_| {});
        let config_maps = follow(from, queue, &self.config_maps, |_, object| pruned_config_map(object), |_| {});
        let services = follow(from, queue, &self.services, |_, object| object, |_| {});
        let accounts = follow(from, queue, &self.accounts, |_, object| object, |_| {});
        let claims = follow(from, queue, &self.claims, |_, object| object, |_| {});
        let budgets = follow(from, queue, &self.budgets, |_, object| object, |_| {});
        let policies = follow(from, queue, &self.policies, |_, object| object, |_| {});
        tokio::join!(pods, deployments, config_maps, services, accounts, claims, budgets, policies);
    }

    /// Waits until the first list of each kind is complete.
    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.deployments.synced(),
            self.config_maps.synced(),
            self.services.synced(),
            self.accounts.synced(),
            self.claims.synced(),
            self.budgets.synced(),
            self.policies.synced()
        );
    }

    /// Everybody who has a boot ConfigMap or an agent's.
    pub(crate) fn owners(&self) -> Vec<Owner> {
        self.config_maps.owners()
    }

    /// Its pods, terminating ones too.
    pub(crate) fn pods(&self, owner: &Owner) -> Vec<Arc<PodFacts>> {
        self.pods.of(owner)
    }

    /// Whether this pod is one of its pods.
    pub(crate) fn has_pod(&self, owner: &Owner, name: &str, uid: &str) -> bool {
        self.pods.has(owner, name, uid)
    }

    /// Its boot ConfigMap.
    pub(crate) fn boot(&self, owner: &Owner) -> Option<BootConfigMap> {
        let name = boot_name(&owner.name);
        self.config_maps.of(owner).iter().find(|c| c.name_any() == name).map(|config_map| read_boot(config_map))
    }

    /// What its Deployment says.
    pub(crate) fn deployment(&self, owner: &Owner) -> Option<DeploymentFacts> {
        let name = deployment_name(&owner.name);
        self.deployments.of(owner).iter().find(|d| d.name_any() == name).map(|d| read_deployment(d))
    }

    /// Since when its pods are protected from eviction.
    pub(crate) fn protected_since(&self, owner: &Owner) -> Option<Timestamp> {
        let budgets = self.budgets.of(owner);
        budgets.iter().find_map(|budget| budget.annotations().get(PROTECTED_SINCE)?.parse().ok())
    }

    /// Its children that are made by server-side apply.
    pub(crate) fn children(&self, owner: &Owner) -> HashMap<ChildKey, SeenChild> {
        let boot = boot_name(&owner.name);
        let mut all = HashMap::new();
        note(&mut all, ChildKind::ConfigMap, self.config_maps.of(owner).iter().filter(|c| c.name_any() != boot));
        note(&mut all, ChildKind::Service, self.services.of(owner).iter());
        note(&mut all, ChildKind::ServiceAccount, self.accounts.of(owner).iter());
        note(&mut all, ChildKind::PersistentVolumeClaim, self.claims.of(owner).iter());
        note(&mut all, ChildKind::PodDisruptionBudget, self.budgets.of(owner).iter());
        note(&mut all, ChildKind::NetworkPolicy, self.policies.of(owner).iter());
        note(&mut all, ChildKind::Deployment, self.deployments.of(owner).iter());
        all
    }
}

fn note<'a, K: Resource<DynamicType = ()> + 'a>(
    all: &mut HashMap<ChildKey, SeenChild>,
    kind: ChildKind,
    objects: impl Iterator<Item = &'a Arc<K>>,
) {
    all.extend(objects.map(|object| (ChildKey { kind, name: object.name_any() }, act::seen_child(object.as_ref()))));
}

async fn follow<K, V>(
    (client, namespaces): (&Client, &[String]),
    queue: &Queue,
    index: &Index<V>,
    keep: impl Fn(&Owner, K) -> V,
    gone: impl Fn(&V),
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    V: Named,
{
    let filter = format!("app.kubernetes.io/managed-by={MANAGED_BY}");
    let config = watcher::Config::default().labels(&filter);
    let mut events = std::pin::pin!(merged::watch::<K>(client, namespaces, config).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is begun again");
                continue;
            }
        };
        let change = index.take_in(event, &keep);
        change.gone.iter().for_each(|object| gone(object));
        change.touched.into_iter().for_each(|owner| queue.wake(owner));
    }
}

/// Only the boot file's content is planned from; definitions can be large.
fn pruned_config_map(mut config_map: ConfigMap) -> ConfigMap {
    if let Some(data) = &mut config_map.data {
        data.retain(|key, _| key == "boot.json");
    }
    config_map
}

fn pruned_deployment(mut deployment: Deployment) -> Deployment {
    if let Some(spec) = &mut deployment.spec {
        spec.template = PodTemplateSpec::default();
    }
    deployment
}

fn read_boot(config_map: &ConfigMap) -> BootConfigMap {
    let text = config_map.data.as_ref().and_then(|data| data.get("boot.json"));
    BootConfigMap {
        resource_version: config_map.resource_version().unwrap_or_default(),
        file: text.and_then(|text| serde_json::from_str(text).ok()),
        hooks: config_map.annotations().get(HOOKS_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()),
    }
}

fn read_deployment(deployment: &Deployment) -> DeploymentFacts {
    let status = deployment.status.clone().unwrap_or_default();
    let failing = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing" && c.status == "False");
    DeploymentFacts {
        wanted: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        observed: status.observed_generation >= deployment.metadata.generation,
        replicas: status.replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        failing: failing.map(|c| c.message.clone().unwrap_or_default()),
        strategy: deployment.annotations().get(STRATEGY_ANNOTATION).cloned().unwrap_or_default(),
        template: deployment.annotations().get(TEMPLATE_ANNOTATION).cloned().unwrap_or_default(),
    }
}
