//! Events for people: published one after another, in no transition's way.

mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::AgentRuntime;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use self::waiting::{Entry, Waiting};
use super::{CALL_DEADLINE, FIELD_MANAGER};
use crate::plan::Announcement;
use crate::telemetry::Telemetry;
use crate::text::cut;

/// Events that wait: those of a freeze over the largest fleet. What is on top of it and least important is lost.
const WAITING: usize = 16_384;
/// What waits when the operator ends is published for no longer than this.
const LAST: Duration = Duration::from_secs(2);
/// Losses are told no more often.
const TELL: Duration = Duration::from_secs(10);

/// The longest note, in bytes, that the API server takes.
const NOTE: usize = 1024;
/// The longest reason and action.
const WORD: usize = 128;

/// Takes Events in, and never waits.
#[derive(Clone)]
pub struct Announcer {
    shared: Arc<Shared>,
}

/// Publishes what an announcer takes in. One at a time: a fleet that changes as a whole needs the API server for
/// its transitions first.
pub struct Publisher {
    shared: Arc<Shared>,
    recorder: Recorder,
    told: Option<Instant>,
}

struct Shared {
    inner: Mutex<Inner>,
    came: Notify,
    telemetry: Arc<Telemetry>,
}

#[derive(Default)]
struct Inner {
    waiting: Waiting,
    /// How many were lost since that was told last, and what is to be told of the last of them.
    lost: u64,
    last: Option<Loss>,
}

/// An Event that did not reach the API server.
struct Loss {
    namespace: String,
    name: String,
    reason: String,
    why: String,
}

/// Both ends.
#[must_use]
pub fn channel(client: &Client, telemetry: Arc<Telemetry>) -> (Announcer, Publisher) {
    let shared = Arc::new(Shared { inner: Mutex::default(), came: Notify::new(), telemetry });
    let recorder = Recorder::new(client.clone(), FIELD_MANAGER.into());
    (Announcer { shared: Arc::clone(&shared) }, Publisher { shared, recorder, told: None })
}

impl Announcer {
    /// Takes in what a plan announces of an object.
    pub fn announce(&self, runtime: &AgentRuntime, announcement: &Announcement) {
        let event = Event {
            type_: if announcement.warning { EventType::Warning } else { EventType::Normal },
            reason: cut(&announcement.reason, WORD),
            note: Some(cut(&announcement.note, NOTE)),
            action: cut("Reconcile", WORD),
            secondary: None,
        };
        let important = announcement.warning || announcement.freeze;
        let dropped =
            self.shared.lock().waiting.put(Entry { about: runtime.object_ref(&()), event, important }, WAITING);
        match dropped {
            Some(dropped) => self.shared.lose(&dropped, "overflow", format!("{WAITING} wait")),
            None => self.shared.came.notify_one(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, entry: &Entry, label: &'static str, why: String) {
        self.telemetry.lost_event(label);
        let (namespace, name) = (entry.about.namespace.clone(), entry.about.name.clone());
        let mut inner = self.lock();
        inner.lost = inner.lost.saturating_add(1);
        inner.last = Some(Loss {
            namespace: namespace.unwrap_or_default(),
            name: name.unwrap_or_default(),
            reason: entry.event.reason.clone(),
            why,
        });
    }
}

impl Publisher {
    /// Publishes for ever.
    pub async fn run(&mut self) {
        loop {
            let next = self.shared.lock().waiting.take();
            match next {
                Some(entry) => self.publish(entry).await,
                // Losses are told though nothing comes after them.
                None => drop(timeout(TELL, self.shared.came.notified()).await),
            }
            self.tell(Instant::now());
        }
    }

    /// Publishes what waits.
    pub async fn finish(mut self) {
        let rest = async {
            loop {
                let next = self.shared.lock().waiting.take();
                let Some(entry) = next else { break };
                self.publish(entry).await;
            }
        };
        if timeout(LAST, rest).await.is_err() {
            tracing::warn!("Events were lost: the operator ends");
        }
        self.told = None;
        self.tell(Instant::now());
    }

    async fn publish(&self, entry: Entry) {
        // An Event is for people: a lost one is said, and no more.
        match timeout(CALL_DEADLINE, self.recorder.publish(&entry.event, &entry.about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.shared.lose(&entry, "refused", cut(&error.to_string(), NOTE)),
            Err(_) => self.shared.lose(&entry, "timeout", "no answer from the API server".to_owned()),
        }
    }

    /// Says how many were lost, in one line: where one is lost, thousands may be.
    fn tell(&mut self, now: Instant) {
        if self.told.is_some_and(|told| now.duration_since(told) < TELL) {
            return;
        }
        let mut inner = self.shared.lock();
        let Some(Loss { namespace, name, reason, why }) = inner.last.take() else { return };
        let lost = std::mem::take(&mut inner.lost);
        drop(inner);
        self.told = Some(now);
        tracing::warn!(lost, namespace, name, reason, why, "Events were lost, the last of them this one");
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
