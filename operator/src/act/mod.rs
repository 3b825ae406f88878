//! Carries out a plan: writes to the API server. It decides nothing; the plan's order is kept.

pub mod dispatch;
pub mod events;
mod exec;
pub mod keys;
mod lists;
mod metadata;
mod said;
mod slots;
mod store;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use crds::{AgentFreeze, AgentFreezeStatus, AgentRuntime};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::{Value, json};
use tracing::{Instrument as _, Span};

use self::events::Announcer;
use self::lists::Lists;
use crate::lease::Tenure;
use crate::observe::memory::{Memory, SeenChild};
use crate::observe::{BootConfigMap, ChildKey, ChildKind, Observed, Refusal};
use crate::plan::{BootWrite, Child, HASH_ANNOTATION, Plan, Scale};
use crate::text::cut;
use crate::trace;

/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "agentruntime-operator";

/// No call to the API server takes longer, or a half-open connection would hold up an object for ever.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// As much as is told of what the API server says, in bytes.
const MESSAGE: usize = 512;

/// Why a plan could not be carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else wrote first: observe and plan again.
    #[error("{what} was changed meanwhile")]
    Conflict {
        /// What was to be written, or was planned from.
        what: String,
    },
    /// Another replica may act meanwhile, from a newer picture.
    #[error("the Lease has run out since it was renewed last")]
    Deposed,
    /// The API server refused or was out of reach.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// What came back.
        source: kube::Error,
    },
    /// No answer in time.
    #[error("{what}: no answer from the API server within {} s", CALL_DEADLINE.as_secs())]
    Timeout {
        /// What was tried.
        what: String,
    },
    /// A signing key could not be made.
    #[error("{what}: {source}")]
    Key {
        /// What it was for.
        what: String,
        /// What is wrong.
        source: lifecycle::signature::KeyError,
    },
    /// A manifest that is not an object of its kind: a defect of the plan.
    #[error("{what}: {source}")]
    Manifest {
        /// Which object.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Error {
    /// A short stable word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Deposed => "deposed",
            Self::Api { .. } => "api",
            Self::Timeout { .. } => "timeout",
            Self::Key { .. } => "key",
            Self::Manifest { .. } => "manifest",
        }
    }
}

/// Writes to the API server.
#[derive(Clone)]
pub struct Actor {
    client: Client,
    announcer: Announcer,
    lists: Arc<Lists>,
    tenure: Tenure,
}

impl Actor {
    /// An actor that writes by this client, but for Events, while its tenure lasts.
    #[must_use]
    pub fn new(client: Client, announcer: Announcer, tenure: Tenure) -> Self {
        Self { client, announcer, lists: Arc::default(), tenure }
    }

    /// Carries out the writes of a plan and notes them. Calls to pods are the dispatcher's.
    ///
    /// # Errors
    /// The first write that failed; what comes after it in the plan was not tried.
    pub async fn carry_out(&self, seen: &Observed, plan: &Plan, memory: &mut Memory) -> Result<(), Error> {
        let namespace = seen.runtime.namespace().unwrap_or_default();
        if let Some(boot) = &plan.boot {
            if let Some(confirm) = boot.confirm {
                self.confirm(seen, confirm).await?;
            }
            let span = memory.transition.request("write boot file");
            traced(span, self.write_boot(&namespace, boot, memory)).await?;
        }
        if let Some(confirm) = plan.confirm {
            self.confirm(seen, confirm).await?;
        }
        for child in &plan.apply {
            self.still_leads()?;
            self.apply(&namespace, seen, child, memory).await?;
        }
        if let Some(scale) = &plan.scale {
            self.still_leads()?;
            self.scale(&namespace, scale).await?;
        }
        for key in &plan.delete {
            self.still_leads()?;
            self.delete(&namespace, key).await?;
            memory.deleted(key);
        }
        Ok(())
    }

    /// Boot file and status are compared and swapped; children are not, and a replica that was stopped for longer than
    /// its Lease would put back what its successor has changed.
    fn still_leads(&self) -> Result<(), Error> {
        if self.tenure.lasts() { Ok(()) } else { Err(Error::Deposed) }
    }

    /// Reads a ConfigMap that is not ours; none if there is no such.
    ///
    /// # Errors
    /// The API server refused or was out of reach.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        within(&format!("ConfigMap {name}"), api.get_opt(name)).await
    }

    /// Writes the status and hands on what the plan announces.
    ///
    /// # Errors
    /// A conflict when the object is newer than what was planned from.
    pub async fn report(&self, seen: &Observed, plan: &Plan, memory: &mut Memory) -> Result<(), Error> {
        let Some(status) = &plan.status else { return Ok(()) };
        let runtime = seen.runtime.as_ref();
        let name = runtime.name_any();
        let api: Api<AgentRuntime> = Api::namespaced(self.client.clone(), &runtime.namespace().unwrap_or_default());
        let (params, object) = (posted(), AgentRuntime { status: Some(status.as_ref().clone()), ..runtime.clone() });
        let written = within("the status", api.replace_status(&name, &params, &object));
        let mut written = traced(memory.transition.request("write status"), written).await?;
        written.metadata.managed_fields = None;
        memory.wrote_status(runtime.resource_version(), Arc::new(written), jiff::Timestamp::now());
        for announcement in &plan.events {
            self.announcer.announce(runtime, announcement);
        }
        Ok(())
    }

    /// Writes the status of a freeze.
    ///
    /// # Errors
    /// A conflict when the freeze is newer than what was planned from.
    pub async fn report_freeze(&self, freeze: &AgentFreeze, status: &AgentFreezeStatus) -> Result<AgentFreeze, Error> {
        let name = freeze.name_any();
        let api: Api<AgentFreeze> = Api::all(self.client.clone());
        let object = AgentFreeze { status: Some(status.clone()), ..freeze.clone() };
        within("the status of the freeze", api.replace_status(&name, &posted(), &object)).await
    }

    /// Changes the number of pods and nothing else.
    async fn scale(&self, namespace: &str, scale: &Scale) -> Result<(), Error> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource(ChildKind::Deployment));
        let patch = Patch::Merge(json!({ "spec": { "replicas": scale.replicas } }));
        within(&scale.deployment, api.patch(&scale.deployment, &params(), &patch)).await.map(drop)
    }

    async fn write_boot(&self, namespace: &str, boot: &BootWrite, memory: &mut Memory) -> Result<(), Error> {
        let what = format!("ConfigMap {}", boot.name);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let object: ConfigMap = serde_json::from_value(Value::Object(boot.manifest.clone()))
            .map_err(|source| Error::Manifest { what: what.clone(), source })?;
        let written = if boot.replaces.is_some() {
            within(&what, api.replace(&boot.name, &posted(), &object)).await?
        } else {
            within(&what, api.create(&posted(), &object)).await?
        };
        let resource_version = written.resource_version().unwrap_or_default();
        memory.wrote_boot(
            boot.replaces.clone(),
            BootConfigMap { resource_version, file: Some(boot.file.clone()), hooks: boot.hooks.clone() },
        );
        Ok(())
    }

    async fn apply(&self, namespace: &str, seen: &Observed, child: &Child, memory: &mut Memory) -> Result<(), Error> {
        let what = format!("{:?} {}", child.key.kind, child.key.name);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource(child.key.kind));
        let mut params = PatchParams::apply(FIELD_MANAGER).force();
        params.field_validation = Some(ValidationDirective::Strict);
        let patch = Patch::Apply(&child.manifest);
        match within(&what, api.patch(&child.key.name, &params, &patch)).await {
            Ok(written) => {
                let replaced = memory.seen_version(&child.key);
                memory.applied(child.key.clone(), child.hash.clone(), replaced, version_of(&written));
                Ok(())
            }
            Err(Error::Api { what, source: kube::Error::Api(status) }) if is_refusal(status.code, &status.message) => {
                // The user's template is at fault, and only the user can mend it: say so and do not retry.
                let generation = seen.runtime.metadata.generation.unwrap_or(0);
                tracing::warn!(%what, message = %status.message, "the API server refuses a child");
                memory.refusal =
                    Some(Refusal { generation, message: format!("{}: {}", child.field(), status.message) });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, namespace: &str, key: &ChildKey) -> Result<(), Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource(key.kind));
        match within(&key.name, api.delete(&key.name, &DeleteParams::background())).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A step of a transition, whose failure is part of its span.
///
/// # Errors
/// As the step.
pub async fn traced<T>(span: Span, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let step = async { step.await.inspect_err(|error| trace::failed(error.label())) };
    step.instrument(span).await
}

/// Who writes, for patches that are not applied.
fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Who writes, for objects that are sent whole. Such a write is refused unless the object is still as it was seen.
/// When a status is written so, the API server takes the status alone: what this version does not know of the spec
/// stays. It costs the API server less than a patch, which it applies to the object's text and reads again.
fn posted() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// The pause before another attempt: `first`, doubled so many times, at most `most`, a quarter less or more.
#[must_use]
pub fn backoff(first: Duration, most: Duration, doublings: u32) -> Duration {
    let doubled = first.saturating_mul(2u32.saturating_pow(doublings));
    doubled.min(most).mul_f64(rand::random_range(0.75..1.25))
}

/// Whether the API server will never take this manifest. A field that the schema does not know comes as
/// a 500 from server-side apply, with nothing but its text to tell it from a passing failure; a volume that cannot
/// grow, as a 403, which elsewhere is a right that may come yet.
fn is_refusal(code: u16, message: &str) -> bool {
    match code {
        400 | 422 => true,
        403 => message.contains("pvc can be resized"),
        500 => message.starts_with("failed to create typed patch object"),
        _ => false,
    }
}

/// What a watch shows of a child, for `Memory`.
pub fn seen_child<K: Resource>(object: &K) -> SeenChild {
    SeenChild { hash: object.annotations().get(HASH_ANNOTATION).cloned(), version: version_of(object) }
}

/// The generation where the kind has one, since its resourceVersion changes with each status; else the resourceVersion.
fn version_of<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    meta.generation
        .map_or_else(|| meta.resource_version.clone().unwrap_or_default(), |generation| generation.to_string())
}

fn resource(kind: ChildKind) -> ApiResource {
    match kind {
        ChildKind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
        ChildKind::Service => ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&()),
        ChildKind::ServiceAccount => ApiResource::erase::<k8s_openapi::api::core::v1::ServiceAccount>(&()),
        ChildKind::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
        ChildKind::PodDisruptionBudget => ApiResource::erase::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(&()),
        ChildKind::NetworkPolicy => ApiResource::erase::<k8s_openapi::api::networking::v1::NetworkPolicy>(&()),
        ChildKind::Deployment => ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&()),
    }
}

async fn within<T>(what: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Error::Conflict { what: what.to_owned() }),
        Ok(Err(source)) => Err(Error::Api { what: what.to_owned(), source: shortened(source) }),
        Err(_) => Err(Error::Timeout { what: what.to_owned() }),
    }
}

/// An error whose text can stand in a status, an Event and a log: the API server quotes what it refuses, which may be a
/// whole template.
fn shortened(mut error: kube::Error) -> kube::Error {
    if let kube::Error::Api(status) = &mut error {
        status.message = cut(&status.message, MESSAGE);
        status.details = None;
    }
    error
}

#[cfg(test)]
mod actor_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_ever_later_and_for_ever() {
        let (first, most) = (Duration::from_millis(250), Duration::from_secs(15));
        for (failures, wanted) in [(0, 250), (1, 500), (3, 2000), (6, 15_000), (40, 15_000), (u32::MAX, 15_000)] {
            let pauses: Vec<Duration> = (0..50).map(|_| backoff(first, most, failures)).collect();
            let wanted = Duration::from_millis(wanted);
            let around = wanted.mul_f64(0.75)..=wanted.mul_f64(1.25);
            assert!(pauses.iter().all(|pause| around.contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "those that failed together do not come together");
        }
    }

    /// Whatever is refused, what is told of it has an end, and quotes no part of the object but that.
    #[tokio::test]
    async fn what_the_api_server_says_is_cut_before_it_is_told() {
        for (length, code) in [(10, 422), (513, 422), (1 << 20, 500)] {
            let cause = json!([{ "message": "x".repeat(length) }]);
            let status = serde_json::from_value(json!({
                "status": "Failure", "code": code, "reason": "Invalid", "message": "€".repeat(length), "details": { "causes": cause },
            }));
            let refused: Result<(), _> = Err(kube::Error::Api(status.unwrap()));
            let error = within("Deployment demo", std::future::ready(refused)).await.unwrap_err();
            assert!(error.to_string().len() < 3 * MESSAGE, "{}", error.to_string().len());
            let Error::Api { source: kube::Error::Api(status), .. } = error else { panic!("{error}") };
            assert!(status.message.len() <= MESSAGE && status.message.starts_with("€€"));
        }
    }

    #[test]
    fn what_only_the_user_can_mend_is_told_from_what_passes() {
        let resize = "persistentvolumeclaims \"demo-data\" is forbidden: only dynamically provisioned pvc can be resized \
                      and the storageclass that provisions the pvc must support resize";
        for (code, message) in [(422, "invalid"), (403, resize), (500, "failed to create typed patch object (x)")] {
            assert!(is_refusal(code, message), "{code} {message}");
        }
        for (code, message) in [(403, "cannot patch resource"), (500, "etcdserver: timeout"), (429, "slow down")] {
            assert!(!is_refusal(code, message), "{code} {message}");
        }
    }
}
