//! Calls to pods: bounded, one at a time for each pod, with deadline, backoff and jitter. Answers wake the owner.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifecycle::Verb;
use lifecycle::client::{Client, Error};
use lifecycle::signature::SigningKey;
use lifecycle::wire::{Command, Status};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tracing::{Instrument as _, Span};

use crate::act::keys::Keyring;
use crate::act::{backoff, exec};
use crate::observe::index::Owner;
use crate::observe::{Contact, Heard, HookOutcome, HookTurn};
use crate::plan::{Call, Deed, Order, Signer};
use crate::telemetry::Telemetry;
use crate::trace;

/// A pod answers a command from memory and one fsync; more means that it hangs.
const DEADLINE: Duration = Duration::from_secs(3);
/// The first pause after a failed call; it doubles up to `BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// While other pods of an owner are still called, the answers of this time wake it once: each plan looks at all pods.
const GATHER: Duration = Duration::from_millis(100);

/// Runs the calls that plans ask for.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// Runs commands in pods; none where that is not allowed.
    exec: Option<kube::Client>,
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
    /// Calls under way to the pods of each owner.
    calls: HashMap<Owner, usize>,
    /// Owners that are woken within `GATHER`.
    waking: HashSet<Owner>,
    next: u64,
}

/// The one call under way to a pod.
struct Slot {
    owner: Owner,
    id: u64,
    rank: Rank,
    task: AbortHandle,
}

/// What a call is, in the order in which one takes another's place; with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ask,
    Hook(i64),
    Command(Option<i64>),
}

impl State {
    /// Ends the call; false if it was replaced or forgotten meanwhile, and a later one speaks for the pod.
    fn is_current(&mut self, pod: &str, id: u64) -> bool {
        let current = self.slots.get(pod).is_some_and(|slot| slot.id == id);
        if current {
            self.vacate(pod);
        }
        current
    }

    fn occupy(&mut self, pod: String, slot: Slot) {
        self.vacate(&pod);
        *self.calls.entry(slot.owner.clone()).or_default() += 1;
        self.slots.insert(pod, slot);
    }

    fn vacate(&mut self, pod: &str) -> Option<Slot> {
        let slot = self.slots.remove(pod)?;
        if let Entry::Occupied(mut calls) = self.calls.entry(slot.owner.clone()) {
            *calls.get_mut() -= 1;
            if *calls.get() == 0 {
                calls.remove();
            }
        }
        Some(slot)
    }

    /// When an owner is woken by an answer; none if another answer sees to it.
    fn wake(&mut self, owner: &Owner) -> Option<Duration> {
        if self.calls.contains_key(owner) {
            return self.waking.insert(owner.clone()).then_some(GATHER);
        }
        self.waking.remove(owner);
        Some(Duration::ZERO)
    }
}

impl Dispatcher {
    /// At most `commands` and `polls` calls at once; owners of answers are sent to `wake`. By `exec` commands are run in
    /// pods, which takes a client that is not cut off by silence.
    #[must_use]
    pub fn new(
        commands: usize,
        polls: usize,
        wake: mpsc::Sender<Owner>,
        telemetry: Arc<Telemetry>,
        keyring: Arc<Keyring>,
        exec: Option<kube::Client>,
    ) -> Self {
        let inner = Inner {
            client: Client::default(),
            exec,
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

    /// When the answer that is oldest came; of a pod that never answered, since when it has not.
    #[must_use]
    pub fn oldest_answer(&self) -> Option<Timestamp> {
        let state = self.inner.lock();
        let known = |contact: &Contact| contact.answer.as_ref().map(|answer| answer.at).or(contact.failing_since);
        state.contacts.values().filter_map(known).min()
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        let mut state = self.inner.lock();
        state.contacts.remove(uid);
        if let Some(slot) = state.vacate(uid) {
            slot.task.abort();
        }
    }

    /// Starts a call unless the one under way serves as well: a hook ends a status request, a command both, and a
    /// higher epoch a lower one. The span tells of the call, and of its wait for its turn.
    pub fn submit(&self, owner: &Owner, order: Order, span: Span) {
        let rank = match &order.call {
            Call::Command { body, .. } => Rank::Command(body.epoch),
            Call::Hook { turn, .. } => Rank::Hook(turn.epoch),
            Call::Ask { .. } => Rank::Ask,
        };
        let mut state = self.inner.lock();
        match state.slots.get(&order.pod) {
            Some(slot) if rank <= slot.rank => return,
            Some(slot) => slot.task.abort(),
            None => {}
        }
        state.next += 1;
        let id = state.next;
        let pod = order.pod.clone();
        let inner = Arc::clone(&self.inner);
        let (of, owner) = (owner.clone(), owner.clone());
        let planned = Instant::now();
        let call = async move { inner.run(of, order, id, planned).await };
        let task = tokio::spawn(call.instrument(span)).abort_handle();
        state.occupy(pod, Slot { owner, id, rank, task });
    }
}

impl Inner {
    async fn run(self: Arc<Self>, owner: Owner, order: Order, id: u64, planned: Instant) {
        let limit = match order.call {
            Call::Command { .. } => &self.commands,
            Call::Hook { .. } | Call::Ask { .. } => &self.polls,
        };
        // The semaphores are never closed.
        let Ok(permit) = limit.acquire().await else { return };
        // Boxed, so that what waits for its turn is small.
        Box::pin(self.call(&owner, &order, id, planned)).await;
        drop((permit, order));
        self.wake(owner).await;
    }

    async fn call(&self, owner: &Owner, order: &Order, id: u64, planned: Instant) {
        let begun = Instant::now();
        match &order.call {
            Call::Command { verb, body } => {
                let outcome = self.command(order, *verb, body).await;
                if outcome.is_ok() {
                    self.telemetry.pushed(planned.elapsed());
                }
                self.record(order, id, begun, outcome);
            }
            Call::Hook { turn, deed, key, timeout } => {
                let outcome = self.hook(owner, order, deed, key, *timeout).await;
                self.note(order, begun, outcome.as_ref().err().map(|(label, why)| (*label, why)));
                self.record_hook(order, id, *turn, outcome.err().map(|(_, why)| why));
            }
            Call::Ask { after } => {
                let outcome = self.ask(order, after.as_ref()).await;
                self.record(order, id, begun, outcome);
            }
        }
    }

    async fn hook(
        &self,
        owner: &Owner,
        order: &Order,
        deed: &Deed,
        key: &str,
        timeout: Duration,
    ) -> Result<(), (&'static str, String)> {
        match deed {
            Deed::Post(path) => {
                let called = self.client.hook(order.address, path, key, timeout).await;
                called.map_err(|error| (error.label(), error.to_string()))
            }
            Deed::Exec { container, command } => {
                let ran = match &self.exec {
                    Some(client) => {
                        let pods = exec::pods(client, &owner.namespace);
                        exec::run(&pods, &order.name, container, command, timeout).await
                    }
                    None => Err(exec::Error::Off),
                };
                ran.map_err(|error| (error.label(), error.to_string()))
            }
        }
    }

    fn note(&self, order: &Order, begun: Instant, error: Option<(&'static str, &String)>) {
        self.telemetry.called(order.call.name(), error.map_or("ok", |(label, _)| label), begun.elapsed());
        if let Some((label, error)) = error {
            trace::failed(label);
            tracing::debug!(pod = %order.name, %error, "a call to a pod failed");
        }
    }

    async fn wake(&self, owner: Owner) {
        let Some(pause) = self.lock().wake(&owner) else { return };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
            if !self.lock().waking.remove(&owner) {
                return;
            }
        }
        // A full queue means that reconciles are behind; the owner's own timer looks again.
        if self.wake.send(owner).await.is_err() {
            tracing::debug!("nobody listens for answers any more");
        }
    }

    fn record_hook(&self, order: &Order, id: u64, turn: HookTurn, error: Option<String>) {
        let mut state = self.lock();
        if !state.is_current(&order.pod, id) {
            return;
        }
        let contact = state.contacts.entry(order.pod.clone()).or_default();
        let before = contact.hook.as_ref().filter(|before| before.turn == turn);
        let failures = before.map_or(0, |before| before.failures) + u32::from(error.is_some());
        let next_attempt = Timestamp::now() + pause(failures);
        contact.hook = Some(HookOutcome { turn, error, failures, next_attempt });
    }

    fn signer(&self, order: &Order) -> Option<(Signer, Arc<SigningKey>)> {
        let signer = order.signer.clone()?;
        let key = self.keyring.find(&signer.key)?;
        Some((signer, key))
    }

    async fn command(&self, order: &Order, verb: Verb, body: &Command) -> Result<Status, Error> {
        let sent = match self.signer(order) {
            Some((signer, key)) => {
                let seal = self.keyring.seal(&key, &signer, &order.pod);
                self.client.signed(&seal).send(order.address, verb, body, DEADLINE).await
            }
            None => self.client.send(order.address, verb, body, DEADLINE).await,
        };
        sent.map(|answer| answer.status)
    }

    async fn ask(&self, order: &Order, after: Option<&(String, Duration)>) -> Result<Status, Error> {
        let after = after.map(|(version, wait)| (version.as_str(), *wait));
        let asked = self.client.status(order.address, after, DEADLINE).await;
        // Most pods let everybody read, and a signature for each poll would be work for nothing.
        match (asked, self.signer(order)) {
            (Err(Error::Refused { code: 401, .. }), Some((signer, key))) => {
                let seal = self.keyring.seal(&key, &signer, &order.pod);
                self.client.signed(&seal).status(order.address, after, DEADLINE).await
            }
            (asked, _) => asked,
        }
    }

    fn record(&self, order: &Order, id: u64, begun: Instant, outcome: Result<Status, Error>) {
        let failure = outcome.as_ref().err().map(|error| (error.label(), error.to_string()));
        self.note(order, begun, failure.as_ref().map(|(label, why)| (*label, why)));
        let now = Timestamp::now();
        let mut state = self.lock();
        if !state.is_current(&order.pod, id) {
            return;
        }
        let contact = state.contacts.entry(order.pod.clone()).or_default();
        match heard(outcome) {
            Ok(status) => {
                let forward = contact.answer.as_ref().filter(|a| a.status.boot_id == status.boot_id);
                if forward.is_some_and(|a| a.status.epoch > status.epoch) {
                    // Answers may overtake each other; an acknowledgement only moves forward.
                    return;
                }
                let heard = Heard { status, at: now, container: order.container.clone(), ready: order.ready };
                *contact = Contact { answer: Some(Arc::new(heard)), hook: contact.hook.take(), ..Contact::default() };
            }
            Err(error) => {
                contact.failures = contact.failures.saturating_add(1);
                // One from the future was noted before the clock was put back.
                contact.failing_since = contact.failing_since.filter(|since| *since <= now).or(Some(now));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { namespace: "agents".to_owned(), name: "demo".to_owned() }
    }

    fn call(state: &mut State, pod: &str, id: u64, runtime: &tokio::runtime::Runtime) {
        let task = runtime.spawn(std::future::pending::<()>()).abort_handle();
        state.occupy(pod.to_owned(), Slot { owner: owner(), id, rank: Rank::Ask, task });
    }

    #[test]
    fn answers_of_many_pods_wake_their_owner_together_and_the_last_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut state = State::default();
        for (pod, id) in [("a", 1), ("b", 2), ("c", 3)] {
            call(&mut state, pod, id, &runtime);
        }
        assert!(state.is_current("a", 1));
        assert_eq!(state.wake(&owner()), Some(GATHER), "others may answer meanwhile");
        assert!(state.is_current("b", 2));
        assert_eq!(state.wake(&owner()), None, "the first sees to it");
        assert!(state.is_current("c", 3));
        assert_eq!(state.wake(&owner()), Some(Duration::ZERO), "nothing more is waited for");
        assert!(state.waking.is_empty() && state.calls.is_empty(), "and nothing is left behind");
    }

    #[test]
    fn a_call_that_is_replaced_or_forgotten_holds_nobody_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut state = State::default();
        call(&mut state, "a", 1, &runtime);
        call(&mut state, "a", 2, &runtime);
        call(&mut state, "b", 3, &runtime);
        assert!(!state.is_current("a", 1), "another speaks for the pod");
        assert!(state.vacate("b").is_some());
        assert!(state.is_current("a", 2));
        assert_eq!(state.wake(&owner()), Some(Duration::ZERO));
        assert!(state.calls.is_empty());
    }
}
