//! The watches of pods and children, what each keeps of an object, and what they show of one owner.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};

use crate::merged;
use crate::observe::child::{Held, Whose};
use crate::observe::decoded::{Decoded, Salvage};
use crate::observe::index::{Index, Named, Owner};
use crate::observe::memory::SeenChild;
use crate::observe::pod::SlimPod;
use crate::observe::{BootConfigMap, ChildKey, ChildKind, DeploymentFacts, PodFacts};
use crate::plan::{
    MANAGED_BY, PROTECTED_SINCE, STRATEGY_ANNOTATION, TEMPLATE_ANNOTATION, boot_name, claim_name, deployment_name,
};
use crate::queue::Queue;

/// What the watches of pods and children have shown.
#[derive(Default)]
pub(crate) struct Watches {
    /// Pods may have loopback addresses, as simulated ones do.
    loopback_pods: bool,
    pods: Index<PodFacts>,
    deployments: Index<Held<DeploymentFacts>>,
    config_maps: Index<Held<Option<BootConfigMap>>>,
    services: Index<Held<()>>,
    accounts: Index<Held<()>>,
    claims: Index<Held<Option<String>>>,
    budgets: Index<Held<Option<Timestamp>>>,
    policies: Index<Held<()>>,
}

/// The children of an object, and what bears the name of one and is not.
#[derive(Debug, Default)]
pub(crate) struct Children {
    pub(crate) own: HashMap<ChildKey, SeenChild>,
    pub(crate) foreign: BTreeMap<ChildKey, String>,
}

impl Watches {
    /// Nothing has been shown yet.
    pub(crate) fn new(loopback_pods: bool) -> Self {
        Self { loopback_pods, ..Self::default() }
    }

    /// Follows every kind, and has everybody looked at whose objects change: `queue` for any, and `brakes` for what brakes
    /// are planned from. `gone` gets the UID of each pod that has left its owner.
    pub(crate) async fn follow(
        &self,
        (client, namespaces): (&Client, &[String]),
        (queue, brakes): (&Queue, &Queue),
        gone: impl Fn(&str),
    ) {
        let from = (client, namespaces);
        let only = |owner: Owner| queue.wake(owner);
        let both = |owner: Owner| {
            brakes.wake(owner.clone());
            queue.wake(owner);
        };
        let facts =
            |owner: &Owner, pod: Decoded<SlimPod>| read_pod(pod, &deployment_name(&owner.name), self.loopback_pods);
        let pod_gone = |pod: &PodFacts| gone(&pod.uid);
        let pods = follow(from, &both, &self.pods, facts, pod_gone);
        let deployments = follow(from, &only, &self.deployments, |_, o| Held::of(o, read_deployment), |_| {});
        let config_maps = follow(from, &both, &self.config_maps, |_, o| Held::of(o, read_boot), |_| {});
        let services = follow(from, &only, &self.services, |_, o| Held::of(o, |_: &Service| ()), |_| {});
        let accounts = follow(from, &only, &self.accounts, |_, o| Held::of(o, bare::<ServiceAccount>), |_| {});
        let claims = follow(from, &only, &self.claims, |_, o| Held::of(o, claim_size), |_| {});
        let budgets = follow(from, &only, &self.budgets, |_, o| Held::of(o, protected_since), |_| {});
        let policies = follow(from, &only, &self.policies, |_, o| Held::of(o, bare::<NetworkPolicy>), |_| {});
        tokio::join!(pods, deployments, config_maps, services, accounts, claims, budgets, policies);
    }

    /// Waits until the first lists of pods and ConfigMaps are complete: commands need no other.
    pub(crate) async fn safety_synced(&self) {
        tokio::join!(self.pods.synced(), self.config_maps.synced());
    }

    /// The kinds of children whose first list is not complete.
    pub(crate) fn unsynced(&self) -> Option<&'static str> {
        let kinds = [
            (self.deployments.is_synced(), "Deployments"),
            (self.services.is_synced(), "Services"),
            (self.accounts.is_synced(), "ServiceAccounts"),
            (self.claims.is_synced(), "PersistentVolumeClaims"),
            (self.budgets.is_synced(), "PodDisruptionBudgets"),
            (self.policies.is_synced(), "NetworkPolicies"),
        ];
        kinds.into_iter().find(|(synced, _)| !synced).map(|(_, kind)| kind)
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

    /// Everybody who has a pod.
    pub(crate) fn pod_owners(&self) -> Vec<Owner> {
        self.pods.owners()
    }

    /// The UID of every pod that is known.
    pub(crate) fn pod_uids(&self) -> Vec<String> {
        let owners = self.pods.owners();
        owners.iter().flat_map(|owner| self.pods.of(owner)).map(|pod| pod.uid.clone()).collect()
    }

    /// Whether it has a pod that has not ended.
    pub(crate) fn has_pods(&self, owner: &Owner) -> bool {
        self.pods.of(owner).iter().any(|pod| !pod.ended)
    }

    /// Its boot ConfigMap.
    pub(crate) fn boot(&self, owner: &Owner, runtime_uid: &str) -> Option<BootConfigMap> {
        let held = own(&self.config_maps, owner, &boot_name(&owner.name), runtime_uid)?;
        held.facts.clone()
    }

    /// What its Deployment says.
    pub(crate) fn deployment(&self, owner: &Owner, runtime_uid: &str) -> Option<DeploymentFacts> {
        own(&self.deployments, owner, &deployment_name(&owner.name), runtime_uid).map(|held| held.facts.clone())
    }

    /// How large its claim is asked to be.
    pub(crate) fn claim_size(&self, owner: &Owner) -> Option<String> {
        let name = claim_name(&owner.name);
        self.claims.of(owner).iter().find(|held| held.name() == name)?.facts.clone()
    }

    /// Since when its pods are protected from eviction.
    pub(crate) fn protected_since(&self, owner: &Owner, runtime_uid: &str) -> Option<Timestamp> {
        let budgets = self.budgets.of(owner);
        budgets.iter().filter(|held| held.whose(runtime_uid) == Whose::Own).find_map(|held| held.facts)
    }

    /// Its children that are made by server-side apply.
    pub(crate) fn children(&self, owner: &Owner, runtime_uid: &str) -> Children {
        let boot = boot_name(&owner.name);
        let mut all = Children::default();
        let config_maps = self.config_maps.of(owner);
        all.note(ChildKind::ConfigMap, config_maps.iter().filter(|held| held.name() != boot), runtime_uid);
        all.note(ChildKind::Service, self.services.of(owner).iter(), runtime_uid);
        all.note(ChildKind::ServiceAccount, self.accounts.of(owner).iter(), runtime_uid);
        all.note(ChildKind::PersistentVolumeClaim, self.claims.of(owner).iter(), runtime_uid);
        all.note(ChildKind::PodDisruptionBudget, self.budgets.of(owner).iter(), runtime_uid);
        all.note(ChildKind::NetworkPolicy, self.policies.of(owner).iter(), runtime_uid);
        all.note(ChildKind::Deployment, self.deployments.of(owner).iter(), runtime_uid);
        all
    }
}

impl Children {
    fn note<'a, T: 'a>(&mut self, kind: ChildKind, objects: impl Iterator<Item = &'a Arc<Held<T>>>, runtime_uid: &str) {
        for held in objects {
            let key = ChildKey { kind, name: held.name().to_owned() };
            match held.whose(runtime_uid) {
                Whose::Own => drop(self.own.insert(key, held.seen.clone())),
                // A claim that was kept is found again by the next object of the name.
                Whose::Nobody if kind == ChildKind::PersistentVolumeClaim => {
                    self.own.insert(key, held.seen.clone());
                }
                Whose::Nobody => drop(self.foreign.insert(key, "it has no controller".to_owned())),
                Whose::Other(whose) => drop(self.foreign.insert(key, whose)),
            }
        }
    }
}

/// The object of a name, if its controller is this one.
fn own<T>(index: &Index<Held<T>>, owner: &Owner, name: &str, runtime_uid: &str) -> Option<Arc<Held<T>>> {
    let held = index.of(owner).into_iter().find(|held| held.name() == name)?;
    (held.whose(runtime_uid) == Whose::Own).then_some(held)
}

async fn follow<K, V>(
    (client, namespaces): (&Client, &[String]),
    wake: &impl Fn(Owner),
    index: &Index<V>,
    keep: impl Fn(&Owner, Decoded<K>) -> V,
    gone: impl Fn(&V),
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Salvage + Clone + Debug + Send + Sync + 'static,
    V: Named,
{
    let filter = format!("app.kubernetes.io/managed-by={MANAGED_BY}");
    let config = watcher::Config::default().labels(&filter);
    let mut events = std::pin::pin!(merged::watch::<Decoded<K>>(client, namespaces, config));
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch_failed");
                continue;
            }
        };
        let change = index.take_in(event, &keep);
        change.gone.iter().for_each(|object| gone(object));
        change.touched.into_iter().for_each(wake);
    }
}

/// One that cannot be decoded is not known to be harmless.
fn read_pod(pod: Decoded<SlimPod>, deployment: &str, loopback: bool) -> PodFacts {
    let Decoded { metadata, object, error } = pod;
    match object {
        Some(pod) => pod.facts(deployment, loopback),
        None => SlimPod { metadata, ..SlimPod::default() }.unreadable(error.unwrap_or_default()),
    }
}

/// Only a boot file is planned from; definitions can be large.
fn read_boot(config_map: &ConfigMap) -> Option<BootConfigMap> {
    config_map.data.as_ref()?.get("boot.json").is_some().then(|| BootConfigMap::read(config_map))
}

fn read_deployment(deployment: &Deployment) -> DeploymentFacts {
    let status = deployment.status.clone().unwrap_or_default();
    let spec = deployment.spec.as_ref();
    let failing = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing" && c.status == "False");
    DeploymentFacts {
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        observed: status.observed_generation >= deployment.metadata.generation,
        replicas: status.replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        paused: spec.and_then(|spec| spec.paused).unwrap_or(false),
        failing: failing.map(|c| c.message.clone().unwrap_or_default()),
        strategy: deployment.annotations().get(STRATEGY_ANNOTATION).cloned().unwrap_or_default(),
        template: deployment.annotations().get(TEMPLATE_ANNOTATION).cloned().unwrap_or_default(),
    }
}

fn protected_since(budget: &PartialObjectMeta<PodDisruptionBudget>) -> Option<Timestamp> {
    budget.annotations().get(PROTECTED_SINCE)?.parse().ok()
}

fn claim_size(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").map(|size| size.0.clone())
}

fn bare<K>(_: &PartialObjectMeta<K>) {}
