//! Events for people: published one after another, in no transition's way.

use std::time::Duration;

use crds::AgentRuntime;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{CALL_DEADLINE, FIELD_MANAGER};
use crate::plan::Announcement;

/// Events that wait; what comes on top is lost.
const WAITING: usize = 4096;
/// What waits when the operator ends is published for no longer than this.
const LAST: Duration = Duration::from_secs(2);

type Waiting = (ObjectReference, Event);

/// Takes Events in, and never waits.
#[derive(Clone, Debug)]
pub struct Announcer {
    queue: mpsc::Sender<Waiting>,
}

/// Publishes what an announcer takes in. One at a time: a fleet that changes as a whole needs the API server for
/// its transitions first.
pub struct Publisher {
    queue: mpsc::Receiver<Waiting>,
    recorder: Recorder,
}

/// Both ends.
#[must_use]
pub fn channel(client: &Client) -> (Announcer, Publisher) {
    let (sender, queue) = mpsc::channel(WAITING);
    (Announcer { queue: sender }, Publisher { queue, recorder: Recorder::new(client.clone(), FIELD_MANAGER.into()) })
}

impl Announcer {
    /// Takes in what a plan announces of an object.
    pub fn announce(&self, runtime: &AgentRuntime, announcement: &Announcement) {
        let event = Event {
            type_: if announcement.warning { EventType::Warning } else { EventType::Normal },
            reason: announcement.reason.clone(),
            note: Some(announcement.note.clone()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if self.queue.try_send((runtime.object_ref(&()), event)).is_err() {
            tracing::warn!(reason = %announcement.reason, "an Event was lost: {WAITING} wait");
        }
    }
}

impl Publisher {
    /// Publishes for as long as there is an announcer.
    pub async fn run(&mut self) {
        while let Some(waiting) = self.queue.recv().await {
            self.publish(waiting).await;
        }
    }

    /// Publishes what waits.
    pub async fn finish(mut self) {
        let rest = async {
            while let Ok(waiting) = self.queue.try_recv() {
                self.publish(waiting).await;
            }
        };
        if timeout(LAST, rest).await.is_err() {
            tracing::warn!("Events were lost: the operator ends");
        }
    }

    async fn publish(&self, (about, event): Waiting) {
        // An Event is for people: a lost one is said, and no more.
        match timeout(CALL_DEADLINE, self.recorder.publish(&event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(reason = %event.reason, %error, "an Event was lost"),
            Err(_) => tracing::warn!(reason = %event.reason, "an Event was lost: no answer from the API server"),
        }
    }
}
