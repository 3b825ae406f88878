//! What people do to an AgentRuntime, and what is to be so after it.

use std::sync::Arc;

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use lifecycle::State;
use serde::Serialize;
use serde_json::{Value, json};

use crate::oracle::is;
use crate::plane::{number, text};
use crate::plant::Note;
use crate::pod::PORT;
use crate::world::World;

/// Where an object stands between two scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Stage {
    Absent,
    Running,
    Paused,
    Stopped,
    Frozen,
    Windowed,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Scenario {
    /// The operator starts, and an object is created.
    Apply,
    Pause,
    Resume,
    Stop,
    Start,
    Freeze,
    Unfreeze,
    WindowBegins,
    WindowEnds,
    /// A change of the pod template while running.
    Template,
    /// The same while paused.
    PausedTemplate,
    ScaleUp,
    ScaleDown,
    Delete,
}

impl Scenario {
    /// All of them, in an order in which each begins where the one before ends.
    pub(crate) const TOUR: [Self; 14] = [
        Self::Apply,
        Self::Pause,
        Self::PausedTemplate,
        Self::Resume,
        Self::Stop,
        Self::Start,
        Self::Freeze,
        Self::Unfreeze,
        Self::WindowBegins,
        Self::WindowEnds,
        Self::Template,
        Self::ScaleUp,
        Self::ScaleDown,
        Self::Delete,
    ];

    pub(crate) fn from(self) -> Stage {
        match self {
            Self::Apply => Stage::Absent,
            Self::Resume | Self::PausedTemplate => Stage::Paused,
            Self::Start => Stage::Stopped,
            Self::Unfreeze => Stage::Frozen,
            Self::WindowEnds => Stage::Windowed,
            Self::ScaleDown => Stage::Two,
            Self::Pause
            | Self::Stop
            | Self::Freeze
            | Self::WindowBegins
            | Self::Template
            | Self::ScaleUp
            | Self::Delete => Stage::Running,
        }
    }

    pub(crate) fn to(self) -> Stage {
        match self {
            Self::Pause | Self::PausedTemplate => Stage::Paused,
            Self::Stop => Stage::Stopped,
            Self::Freeze => Stage::Frozen,
            Self::WindowBegins => Stage::Windowed,
            Self::ScaleUp => Stage::Two,
            Self::Delete => Stage::Absent,
            Self::Apply
            | Self::Resume
            | Self::Start
            | Self::Unfreeze
            | Self::WindowEnds
            | Self::Template
            | Self::ScaleDown => Stage::Running,
        }
    }

    /// Whether its end depends on what time it is.
    pub(crate) fn has_window(self) -> bool {
        matches!(self, Self::WindowBegins | Self::WindowEnds)
    }

    /// The next scenario on the way from one stage to another.
    pub(crate) fn towards(from: Stage, to: Stage) -> Self {
        match (from, to) {
            (Stage::Absent, _) => Self::Apply,
            (Stage::Paused, _) => Self::Resume,
            (Stage::Stopped, _) => Self::Start,
            (Stage::Frozen, _) => Self::Unfreeze,
            (Stage::Windowed, _) => Self::WindowEnds,
            (Stage::Two, _) => Self::ScaleDown,
            (Stage::Running, Stage::Paused) => Self::Pause,
            (Stage::Running, Stage::Stopped) => Self::Stop,
            (Stage::Running, Stage::Frozen) => Self::Freeze,
            (Stage::Running, Stage::Windowed) => Self::WindowBegins,
            (Stage::Running, Stage::Two) => Self::ScaleUp,
            (Stage::Running, Stage::Absent | Stage::Running) => Self::Delete,
        }
    }

    /// Does it, as a person would.
    pub(crate) async fn act(self, world: &Arc<World>) {
        let spec = |spec: Value| json!({ "spec": spec });
        match self {
            Self::Apply => {
                world.operators[0].start();
                create(world).await;
            }
            Self::Pause => patch(world, spec(json!({ "desiredState": "paused" }))).await,
            Self::Stop => patch(world, spec(json!({ "desiredState": "stopped" }))).await,
            Self::Resume | Self::Start => patch(world, spec(json!({ "desiredState": "running" }))).await,
            Self::Freeze => freeze(world).await,
            Self::Unfreeze => {
                let (code, answer) = world.write(Method::DELETE, &world.freeze(), None).await;
                assert_eq!(code, 200, "{answer}");
                world.show_freeze(Value::Null);
            }
            Self::WindowBegins => patch(world, spec(json!({ "maintenanceWindows": [window(1, 3600)] }))).await,
            Self::WindowEnds => patch(world, spec(json!({ "maintenanceWindows": [window(-9, 10)] }))).await,
            Self::Template | Self::PausedTemplate => {
                let revision = world.api.call(Method::GET, &world.object(), None).await.1;
                let next =
                    if text(&revision, "/spec/template/metadata/annotations/revision") == "a" { "b" } else { "a" };
                let template = json!({ "metadata": { "annotations": { "revision": next } } });
                patch(world, spec(json!({ "template": template }))).await;
            }
            Self::ScaleUp => patch(world, spec(json!({ "replicas": 2 }))).await,
            Self::ScaleDown => patch(world, spec(json!({ "replicas": 1 }))).await,
            Self::Delete => {
                let (code, answer) = world.write(Method::DELETE, &world.object(), None).await;
                assert_eq!(code, 200, "{answer}");
                world.oracle.forget();
                world.forget_runtime();
                world.note(Note::Collect);
            }
        }
    }

    /// Whether what was asked for is reached, by what is known now.
    pub(crate) fn reached(self, world: &World) -> bool {
        let pods = world.pods();
        if !world.quiet() {
            return false;
        }
        if self == Self::Delete {
            return pods.is_empty();
        }
        let (word, source, state, count) = match self.to() {
            Stage::Running => ("running", "Spec", State::Running, 1),
            Stage::Two => ("running", "Spec", State::Running, 2),
            Stage::Paused => ("paused", "Spec", State::Paused, 1),
            Stage::Stopped => ("stopped", "Spec", State::Stopped, 0),
            Stage::Frozen => ("paused", "Freeze", State::Paused, 1),
            Stage::Windowed => ("paused", "Window", State::Paused, 1),
            Stage::Absent => return false,
        };
        let seen = world.seen.borrow();
        let status = &seen.runtime["status"];
        let frozen = self != Self::Freeze || is(&seen.freeze["status"], "Ready", "True");
        is(status, "Ready", "True")
            && text(status, "/state") == word
            && text(status, "/source").starts_with(source)
            && number(status, "/observedGeneration") == number(&seen.runtime, "/metadata/generation")
            && frozen
            && pods.len() == count
            && pods.iter().all(|pod| pod.state() == state)
    }
}

async fn create(world: &Arc<World>) {
    let nodes = json!([{ "id": "pause", "node_type": "wait", "seconds": 1 }]);
    let entry = json!([{ "id": "work", "entry_node": "pause", "trigger_type": "api" }]);
    let agent = json!({ "agent": { "id": "demo", "name": "Demo" },
        "graph": { "async_entry_points": entry, "nodes": nodes } });
    let body = json!({
        "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime",
        "metadata": { "name": crate::world::NAME },
        "spec": {
            "agent": { "inline": agent },
            "template": { "metadata": { "annotations": { "revision": "a" } } },
            "lifecycle": { "port": PORT, "drainTimeoutSeconds": 10 },
        },
    });
    let (code, made) = world.write(Method::POST, &world.path("agentruntimes"), Some(&body)).await;
    assert_eq!(code, 201, "{made}");
    world.show_runtime(made);
}

async fn freeze(world: &Arc<World>) {
    let body = json!({
        "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentFreeze",
        "metadata": { "name": world.ns, "labels": { "faults": world.ns } },
        "spec": { "namespaceSelector": { "matchLabels": { "faults": world.ns } }, "state": "paused" },
    });
    let path = "/apis/agents.hive.dev/v1alpha1/agentfreezes";
    let (code, made) = world.write(Method::POST, path, Some(&body)).await;
    assert_eq!(code, 201, "{made}");
    world.show_freeze(made);
}

pub(crate) async fn patch(world: &Arc<World>, body: Value) {
    let (code, patched) = world.write(Method::PATCH, &world.object(), Some(&body)).await;
    assert_eq!(code, 200, "{patched}");
    world.show_runtime(patched);
}

/// A window that begins so many seconds from now, rounded up to a whole one.
fn window(seconds: i64, duration: i64) -> Value {
    let start = Timestamp::now() + SignedDuration::from_secs(seconds + 1);
    let start = Timestamp::from_second(start.as_second()).unwrap();
    json!({ "name": "w", "start": start.to_string(), "durationSeconds": duration, "state": "paused" })
}
