//! Carries out the steps of plans: writes to the API server. It decides nothing.

mod barrier;
pub(crate) mod boot;
mod children;
mod confirm;
pub mod dispatch;
pub mod events;
mod exec;
pub(crate) mod fault;
pub mod keys;
mod lists;
mod metadata;
mod said;
mod slots;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use crds::{AgentFreeze, AgentFreezeStatus, AgentRuntime, AgentRuntimeStatus};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, Request};
use kube::{Client, Resource as _, ResourceExt as _};
use serde::Serialize;
use tracing::{Instrument as _, Span};

use self::boot::Swapped;
use self::confirm::LastFreezes;
use self::events::Announcer;
use self::lists::Lists;
use crate::lease::Tenure;
use crate::observe::Observed;
use crate::observe::decoded::{Decoded, Salvage};
use crate::plan::{Announcement, BootWrite};
use crate::text::cut;
use crate::trace;

/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "agentruntime-operator";

/// No call to the API server takes longer, or a half-open connection would hold up an object for ever.
/// What fails by it is told within ten seconds.
const CALL_DEADLINE: Duration = Duration::from_secs(6);

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
    /// An object of that name is somebody else's, and is left as it is.
    #[error("{what}: {whose}")]
    NameTaken {
        /// What was to be written.
        what: String,
        /// Whose it is.
        whose: String,
    },
    /// The clocks differ: a freeze does not end before the API server's clock says so.
    #[error("AgentFreeze {freeze} has not ended by the API server's clock: set this node's clock right")]
    NotEnded {
        /// Which freeze.
        freeze: String,
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
            Self::NameTaken { .. } => "name_taken",
            Self::NotEnded { .. } => "not_ended",
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
    freezes: Arc<LastFreezes>,
    tenure: Tenure,
}

impl Actor {
    /// An actor that writes by this client, but for Events, while its tenure lasts.
    #[must_use]
    pub fn new(client: Client, announcer: Announcer, tenure: Tenure) -> Self {
        Self { client, announcer, lists: Arc::default(), freezes: Arc::default(), tenure }
    }

    /// Writes the boot ConfigMap, once the store shows what the write is planned from. Gives what stands there then.
    ///
    /// # Errors
    /// A conflict when somebody else wrote first, or the store shows something else; or what the API server answered.
    pub async fn swap_boot(&self, seen: &Observed, boot: &BootWrite) -> Result<Swapped, Error> {
        if let Some(confirm) = boot.confirm {
            self.confirm(seen, confirm).await?;
        }
        self.still_leads()?;
        let runtime = seen.runtime.as_ref();
        let (namespace, uid) = (runtime.namespace().unwrap_or_default(), runtime.uid().unwrap_or_default());
        self.write_boot(&namespace, &uid, boot).await
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

    /// Writes the status, and gives the object as it then stands.
    ///
    /// # Errors
    /// A conflict when the object is newer than what was planned from.
    pub async fn report(&self, runtime: &AgentRuntime, status: &AgentRuntimeStatus) -> Result<AgentRuntime, Error> {
        let name = runtime.name_any();
        let path = AgentRuntime::url_path(&(), runtime.namespace().as_deref());
        let object = AgentRuntime { status: Some(status.clone()), ..runtime.clone() };
        let written: Decoded<AgentRuntime> = self.replace_status("the status", path, &name, &object).await?;
        let mut written = written.into_runtime();
        written.metadata.managed_fields = None;
        Ok(written)
    }

    /// Replaces a status. The answer may be of any depth, as what is stored may be.
    async fn replace_status<K: Salvage>(
        &self,
        what: &str,
        path: String,
        name: &str,
        object: &impl Serialize,
    ) -> Result<Decoded<K>, Error> {
        let manifest = |source| Error::Manifest { what: what.to_owned(), source };
        let body = serde_json::to_vec(object).map_err(manifest)?;
        let request = Request::new(path).replace_subresource("status", name, &posted(), body);
        let request = request.map_err(kube::Error::BuildRequest);
        let request = request.map_err(|source| Error::Api { what: what.to_owned(), source })?;
        within(what, self.client.request(request)).await
    }

    /// Hands on what a plan announces.
    pub fn announce(&self, runtime: &AgentRuntime, announcements: &[Announcement]) {
        announcements.iter().for_each(|announcement| self.announcer.announce(runtime, announcement));
    }

    /// Writes the status of a freeze.
    ///
    /// # Errors
    /// A conflict when the freeze is newer than what was planned from.
    pub async fn report_freeze(&self, freeze: &AgentFreeze, status: &AgentFreezeStatus) -> Result<AgentFreeze, Error> {
        let path = AgentFreeze::url_path(&(), None);
        let object = AgentFreeze { status: Some(status.clone()), ..freeze.clone() };
        let written: Decoded<AgentFreeze> =
            self.replace_status("the status of the freeze", path, &freeze.name_any(), &object).await?;
        // One that cannot be read as a whole stands as it was written.
        let mut shown = written.object.unwrap_or(object);
        (shown.metadata, shown.status) = (written.metadata, Some(status.clone()));
        Ok(shown)
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
    use serde_json::json;

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
}
