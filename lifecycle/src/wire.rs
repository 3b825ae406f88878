//! The JSON of the contract: commands, the status answer, problems and the boot file's neighbours.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::brake::{Brake, MAX_ID_BYTES, MAX_RELEASES, is_id};
use crate::state::{Desired, DrainMode, OnDrainTimeout, State};

/// The optional body of a verb. With `epoch` it is the operator's and declarative; without, a person's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The fence, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// UID of the AgentRuntime; 421 when it is not this pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_uid: Option<String>,
    /// UID of the pod; 421 when it is not this pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// How executions in flight are treated; default drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DrainMode>,
    /// Seconds from now to the drain deadline, 0 to 86,400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 86400)]
    pub deadline_seconds: Option<i64>,
    /// What happens at the deadline; default wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnDrainTimeout>,
    /// A pod that has accepted no epoch from this one on lets go of what it holds itself by: local and breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_epoch: Option<i64>,
    /// Brakes that no longer stand, by their ids: released if this epoch is higher than theirs. At most 8. Only for
    /// pods that list `brakes` in their status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub releases: Vec<String>,
}

/// The body of a brake: a hold that needs no epoch of its own and ends only when it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BrakeCommand {
    /// What it is released by: `<uid>.<generation>.<nonce>`. Letters, digits, `-`, `.` and `_`.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub id: String,
    /// Paused or stopped.
    pub state: Desired,
    /// How executions in flight are treated; default drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DrainMode>,
    /// Seconds from now to the drain deadline, 0 to 86,400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 86400)]
    pub deadline_seconds: Option<i64>,
    /// What happens at the deadline; default wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnDrainTimeout>,
    /// The epoch that the sender knows: 409 when the pod has accepted a higher one. It is not accepted by this.
    #[schema(minimum = 0)]
    pub epoch: i64,
    /// UID of the AgentRuntime; 421 when it is not this pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_uid: Option<String>,
    /// UID of the pod; 421 when it is not this pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// The longest drain deadline, in seconds.
pub const MAX_DEADLINE_SECONDS: i64 = 86_400;

/// A body that asks for what no pod does. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBodyError {
    /// Commands begin with epoch 1.
    #[error("epoch: at least 1")]
    EpochTooLow,
    /// A brake names the epoch that its sender knows, which may be none.
    #[error("epoch: at least 0")]
    EpochNegative,
    /// The deadline is out of range.
    #[error("deadline_seconds: 0 to {MAX_DEADLINE_SECONDS}")]
    Deadline,
    /// More names than are released at once.
    #[error("releases: at most {MAX_RELEASES} ids")]
    TooManyReleases,
    /// The id is no id.
    #[error("id: 1 to {MAX_ID_BYTES} letters, digits, '-', '.' and '_'")]
    Id,
    /// A brake that does not hold.
    #[error("state: paused or stopped")]
    State,
}

fn check_deadline(seconds: Option<i64>) -> Result<(), InvalidBodyError> {
    match seconds {
        Some(seconds) if !(0..=MAX_DEADLINE_SECONDS).contains(&seconds) => Err(InvalidBodyError::Deadline),
        Some(_) | None => Ok(()),
    }
}

impl Command {
    /// Whether its values are ones that a pod obeys.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), InvalidBodyError> {
        if self.epoch.is_some_and(|epoch| epoch < 1) {
            return Err(InvalidBodyError::EpochTooLow);
        }
        if self.releases.len() > MAX_RELEASES {
            return Err(InvalidBodyError::TooManyReleases);
        }
        check_deadline(self.deadline_seconds)
    }
}

impl BrakeCommand {
    /// The brake that it sets.
    ///
    /// # Errors
    /// The first of its values that is none of a brake.
    pub fn brake(&self) -> Result<Brake, InvalidBodyError> {
        if !is_id(&self.id) {
            return Err(InvalidBodyError::Id);
        }
        if self.state == Desired::Running {
            return Err(InvalidBodyError::State);
        }
        if self.epoch < 0 {
            return Err(InvalidBodyError::EpochNegative);
        }
        check_deadline(self.deadline_seconds)?;
        let (id, epoch, state) = (self.id.clone(), self.epoch, self.state);
        Ok(Brake { id, epoch, state, mode: self.mode.unwrap_or_default() })
    }
}

/// How well a dependency works, judged from recent calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthLevel {
    /// Recent calls succeeded.
    Healthy,
    /// Nothing is known.
    #[default]
    Unknown,
    /// Some recent calls failed.
    Degraded,
    /// Recent calls failed.
    Unhealthy,
}

impl HealthLevel {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The health of what a runtime depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The execution store.
    #[serde(default)]
    pub storage: HealthLevel,
    /// The language model.
    #[serde(default)]
    pub llm: HealthLevel,
    /// Tools, programs and requests.
    #[serde(default)]
    pub tools: HealthLevel,
}

/// An execution that keeps a drain from ending.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// The execution's id.
    pub execution: String,
    /// The node it is in.
    pub node: String,
}

/// Whether counters of several replicas are to be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CounterScope {
    /// Each pod counts its own: add them up.
    #[default]
    Pod,
    /// The pods share a store: take the largest.
    Store,
}

/// The answer to a status request and to every verb. The first seven fields are the feature
/// request's and are never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// What the runtime is doing.
    pub state: State,
    /// Seconds since the process started.
    pub uptime_seconds: i64,
    /// Entry points with an execution in flight.
    pub active_streams: i64,
    /// Executions accepted, over all restarts.
    pub total_executions: i64,
    /// Executions that failed, without cancelled ones.
    pub failed_executions: i64,
    /// The agent's entry points.
    pub entry_points: Vec<String>,
    /// The health of its dependencies.
    pub health: Health,
    /// Executions that hold a permit. Missing means unknown, and unknown means busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<i64>,
    /// Executions that wait for a person.
    #[serde(default)]
    pub waiting_for_input: i64,
    /// Executions accepted and not yet started.
    #[serde(default)]
    pub queued: i64,
    /// The highest epoch accepted durably.
    #[serde(default)]
    pub epoch: i64,
    /// Which holds are in force: operator, local, breaker, brake.
    #[serde(default)]
    pub holds: Vec<String>,
    /// The ids of the brakes in force; empty when there is none, missing when this image knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brakes: Option<Vec<String>>,
    /// What this pod understands beyond the first contract, such as `brake`. Later fields of commands and boot files
    /// are sent only to pods that announce them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// When the drain under way is to end, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<String>,
    /// Which executions hold up the drain, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<Holder>,
    /// Changes with every start of the process.
    #[serde(default)]
    pub boot_id: String,
    /// `<boot_id>.<n>`, for `?after=`.
    #[serde(default)]
    pub version: String,
    /// Whether counters are this pod's or the store's.
    #[serde(default)]
    pub counter_scope: CounterScope,
    /// UID of this pod, when it is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Whether the gate waits for the operator's confirmation after a boot.
    #[serde(default)]
    pub awaiting_confirmation: bool,
    /// The public keys by which this pod knows its operator, newest first; empty when commands are not signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Why the runtime does not run, when it is not by a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Status {
    /// Whether nothing is in flight. A missing count is not zero: a reader that took it for
    /// idle would stop busy pods.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.in_flight == Some(0)
    }

    /// Whether this pod can be sent brakes, and releases of them.
    #[must_use]
    pub fn knows_brakes(&self) -> bool {
        self.brakes.is_some()
    }

    /// Whether this pod announces a feature.
    #[must_use]
    pub fn has_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }

    /// The ids of the brakes in force; none of a pod that knows none.
    #[must_use]
    pub fn brake_ids(&self) -> &[String] {
        self.brakes.as_deref().unwrap_or_default()
    }
}

/// An error answer, RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable word for programs, such as `stale_epoch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What to do.
    pub detail: String,
    /// The status of the runtime, for answers to verbs. Under a name of its own, as `status` is the code's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Box<Status>>,
}
