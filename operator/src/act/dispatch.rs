//! Calls to pods: bounded, one at a time for each pod, with deadline, backoff and jitter. Answers wake the owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifecycle::client::{Client, Error};
use lifecycle::wire::Status;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::act::backoff;
use crate::act::keys::Keyring;
use crate::observe::index::Owner;
use crate::observe::{Contact, Heard};
use crate::plan::{Call, Order};
use crate::telemetry::Telemetry;

/// A pod answers a command from memory and one fsync; more means that it hangs.
const DEADLINE: Duration = Duration::from_secs(3);
/// The first pause after a failed call; it doubles up to `BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Runs the calls that plans ask for.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    commands: Semaphore,
    polls: Semaphore,
    state: Mutex<State>,
    wake: mpsc::Sender<Owner>,
    telemetry: Arc<Telemetry>,
    keyring: Arc<Keyring>,
}

#[derive(Default)]
struct State {
    slots: HashMap<String, Slot>,
    contacts: HashMap<String, Contact>,
    next: u64,
}

/// The one call under way to a pod.
struct Slot {
    id: u64,
    /// The epoch of a command; none for a status request.
    epoch: Option<i64>,
    task: AbortHandle,
}

impl Dispatcher {
    /// At most `commands` and `polls` calls at once; owners of answers are sent to `wake`.
    #[must_use]
    pub fn new(
        commands: usize,
        polls: usize,
        wake: mpsc::Sender<Owner>,
        telemetry: Arc<Telemetry>,
        keyring: Arc<Keyring>,
    ) -> Self {
        let inner = Inner {
            client: Client::default(),
            commands: Semaphore::new(commands),
            polls: Semaphore::new(polls),
            state: Mutex::default(),
            wake,
            telemetry,
            keyring,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What was heard from these pods.
    #[must_use]
    pub fn contacts<'a>(&self, pods: impl Iterator<Item = &'a str>) -> HashMap<String, Contact> {
        let state = self.inner.lock();
        pods.filter_map(|uid| Some((uid.to_owned(), state.contacts.get(uid)?.clone()))).collect()
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        let mut state = self.inner.lock();
        state.contacts.remove(uid);
        if let Some(slot) = state.slots.remove(uid) {
            slot.task.abort();
        }
    }

    /// Starts a call unless the one under way serves as well: a command ends a status request,
    /// and a higher epoch a lower one.
    pub fn submit(&self, owner: &Owner, order: Order) {
        let epoch = match &order.call {
            Call::Command { body, .. } => body.epoch,
            Call::Ask { .. } => None,
        };
        let mut state = self.inner.lock();
        match state.slots.get(&order.pod) {
            Some(slot) if epoch <= slot.epoch => return,
            Some(slot) => slot.task.abort(),
            None => {}
        }
        state.next += 1;
        let id = state.next;
        let pod = order.pod.clone();
        let inner = Arc::clone(&self.inner);
        let owner = owner.clone();
        let task = tokio::spawn(async move { inner.run(owner, order, id).await }).abort_handle();
        state.slots.insert(pod, Slot { id, epoch, task });
    }
}

impl Inner {
    async fn run(self: Arc<Self>, owner: Owner, order: Order, id: u64) {
        let limit = match order.call {
            Call::Command { .. } => &self.commands,
            Call::Ask { .. } => &self.polls,
        };
        // The semaphores are never closed.
        let Ok(_permit) = limit.acquire().await else { return };
        let begun = Instant::now();
        let (kind, outcome) = self.call(&order).await;
        let label = outcome.as_ref().map_or_else(Error::label, |_| "ok");
        self.telemetry.called(kind, label, begun.elapsed());
        if let Err(error) = &outcome {
            tracing::debug!(pod = %order.name, %error, "a call to a pod failed");
        }
        self.record(&order, id, outcome);
        // A full queue means that reconciles are behind; the owner's own timer looks again.
        if self.wake.send(owner).await.is_err() {
            tracing::debug!("nobody listens for answers any more");
        }
    }

    async fn call(&self, order: &Order) -> (&'static str, Result<Status, Error>) {
        let signer = order.signer.as_ref().and_then(|signer| Some((signer, self.keyring.find(&signer.key)?)));
        let seal = signer.as_ref().map(|(signer, key)| self.keyring.seal(key, signer, &order.pod));
        match &order.call {
            Call::Command { verb, body } => {
                let sent = match &seal {
                    Some(seal) => self.client.signed(seal).send(order.address, *verb, body, DEADLINE).await,
                    None => self.client.send(order.address, *verb, body, DEADLINE).await,
                };
                (verb.as_str(), sent.map(|answer| answer.status))
            }
            Call::Ask { after } => {
                let after = after.as_ref().map(|(version, wait)| (version.as_str(), *wait));
                let asked = self.client.status(order.address, after, DEADLINE).await;
                // Most pods let everybody read, and a signature for each poll would be work for nothing.
                let asked = match (asked, &seal) {
                    (Err(Error::Refused { code: 401, .. }), Some(seal)) => {
                        self.client.signed(seal).status(order.address, after, DEADLINE).await
                    }
                    (asked, _) => asked,
                };
                ("status", asked)
            }
        }
    }

    fn record(&self, order: &Order, id: u64, outcome: Result<Status, Error>) {
        let now = Timestamp::now();
        let mut state = self.lock();
        match state.slots.get(&order.pod) {
            Some(slot) if slot.id == id => state.slots.remove(&order.pod),
            // Replaced or forgotten meanwhile: a later call speaks for the pod.
            Some(_) | None => return,
        };
        let contact = state.contacts.entry(order.pod.clone()).or_default();
        match heard(outcome) {
            Ok(status) => {
                let forward = contact.answer.as_ref().filter(|a| a.status.boot_id == status.boot_id);
                if forward.is_some_and(|a| a.status.epoch > status.epoch) {
                    // Answers may overtake each other; an acknowledgement only moves forward.
                    return;
                }
                let heard = Heard { status, at: now, container: order.container.clone(), ready: order.ready };
                *contact = Contact { answer: Some(heard), ..Contact::default() };
            }
            Err(error) => {
                contact.failures = contact.failures.saturating_add(1);
                contact.failing_since = contact.failing_since.or(Some(now));
                contact.error = Some(error.to_string());
                contact.next_attempt = Some(now + pause(contact.failures));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A refusal that shows the pod's status is an answer too.
fn heard(outcome: Result<Status, Error>) -> Result<Status, Error> {
    match outcome {
        Err(Error::Stale { status, .. }) => Ok(*status),
        Err(Error::Refused { address, code, mut problem }) => match problem.runtime.take() {
            Some(status) if code == 409 => Ok(*status),
            runtime => {
                problem.runtime = runtime;
                Err(Error::Refused { address, code, problem })
            }
        },
        other => other,
    }
}

fn pause(failures: u32) -> SignedDuration {
    let pause = backoff(BACKOFF, BACKOFF_MAX, failures.saturating_sub(1));
    SignedDuration::try_from(pause).unwrap_or(SignedDuration::from_secs(15))
}
