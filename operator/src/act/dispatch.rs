//! Calls to pods: bounded, one at a time for each pod, with deadline, backoff and jitter. Answers wake the owner.

mod brakes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifecycle::Verb;
use lifecycle::client::{Client, Error};
use lifecycle::signature::SigningKey;
use lifecycle::wire::{Command, Status};
use tracing::{Instrument as _, Span};

use crate::act::keys::Keyring;
use crate::act::said::Said;
use crate::act::slots::{Ended, Rank, Slots};
use crate::act::turns::{Turn, Turns};
use crate::act::{backoff, exec};
use crate::observe::index::Owner;
use crate::observe::{Contact, Heard, HookOutcome, HookTurn, calls_ended};
use crate::plan::{Call, Deed, Order, Signer};
use crate::queue::Queue;
use crate::telemetry::Telemetry;
use crate::text::cut;
use crate::trace;

/// A pod answers a command from memory and one fsync; more means that it hangs.
const DEADLINE: Duration = Duration::from_secs(3);
/// The first pause after a failed call; it doubles up to `BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// How often a pod is asked that there is no room to follow.
const NOW_AND_THEN: Duration = Duration::from_secs(2);
/// The longest text of a failed call that is kept: a pod may answer with any length.
const LONGEST_ERROR: usize = 512;

/// Runs the calls that plans ask for.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// Runs commands in pods; none where that is not allowed.
    exec: Option<kube::Client>,
    commands: Turns,
    /// Short questions of how pods stand.
    polls: Turns,
    /// Questions that wait for a change. They are long, and never in the way of the others.
    follows: Turns,
    /// Hooks, which pauses wait for.
    hooks: Turns,
    /// Brakes, and those to pods whose last call failed.
    brakes: Turns,
    failing: Turns,
    /// Connects within less time: it sets brakes alone.
    swift: Client,
    state: Mutex<State>,
    queue: Queue,
    /// Whose brakes are to be looked at.
    onsets: Queue,
    telemetry: Arc<Telemetry>,
    keyring: Arc<Keyring>,
}

#[derive(Default)]
struct State {
    slots: Slots,
    contacts: HashMap<String, Contact>,
    said: Said,
}

impl Dispatcher {
    /// At most `commands` at once, and `polls` of each other kind of call, half of them of one owner; owners of answers are
    /// put into the first queue, and those whose brakes are not set into the second.
    /// By `exec` commands are run in pods, which takes a client that is not cut off by silence.
    #[must_use]
    pub fn new(
        commands: u16,
        polls: u16,
        (queue, onsets): (Queue, Queue),
        telemetry: Arc<Telemetry>,
        keyring: Arc<Keyring>,
        exec: Option<kube::Client>,
    ) -> Self {
        let inner = Inner {
            client: Client::default(),
            exec,
            commands: Turns::new(commands),
            polls: Turns::new(polls),
            follows: Turns::new(polls),
            hooks: Turns::new(polls),
            brakes: Turns::new(brakes::BRAKES),
            failing: Turns::new(brakes::FAILING),
            swift: Client::new(brakes::CONNECT),
            state: Mutex::default(),
            queue,
            onsets,
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
        state.slots.forget(uid);
    }

    /// Starts a call unless the one under way serves as well: a hook ends a status request, a command both, and a
    /// higher epoch a lower one. The span tells of the call, and of its wait for its turn. False if a call to the pod has
    /// ended since the order was planned, which then is not carried out: what it asks for may have been done.
    #[must_use]
    pub fn submit(&self, owner: &Owner, order: Order, span: Span) -> bool {
        let rank = match &order.call {
            Call::Brake { .. } => return self.brake(owner, order, span),
            Call::Command { body, verb: Verb::Start | Verb::Resume } => Rank::Loosening(body.epoch),
            Call::Command { body, .. } => Rank::Command(body.epoch),
            Call::Hook { turn, .. } => Rank::Hook(turn.epoch),
            Call::Ask { .. } => Rank::Ask,
        };
        let (inner, of) = (Arc::clone(&self.inner), owner.clone());
        let planned = Instant::now();
        let pod = order.pod.clone();
        let mut state = self.inner.lock();
        if calls_ended(&state.contacts, &pod) != order.ended {
            return false;
        }
        state.slots.begin(&pod, owner, rank, |id| {
            let call = async move { inner.run(of, order, id, planned).await };
            tokio::spawn(call.instrument(span)).abort_handle()
        });
        true
    }

    /// Has an object planned anew with the answers that came while it was planned.
    pub fn replan(&self, owner: &Owner) {
        let (inner, owner) = (Arc::clone(&self.inner), owner.clone());
        tokio::spawn(async move { inner.wake(owner).await });
    }
}

impl Inner {
    async fn run(self: Arc<Self>, owner: Owner, mut order: Order, id: u64, planned: Instant) {
        let turns = match &mut order.call {
            Call::Command { .. } | Call::Brake { .. } => &self.commands,
            Call::Hook { .. } => &self.hooks,
            Call::Ask { after: None } => &self.polls,
            Call::Ask { after } => {
                if let Some(turn) = self.follows.now(&owner) {
                    return self.take(&owner, &order, id, planned, turn).await;
                }
                // So many are followed that this one is asked now and then.
                *after = None;
                tokio::time::sleep(NOW_AND_THEN).await;
                &self.polls
            }
        };
        let Some(turn) = turns.of(&owner).await else { return };
        self.take(&owner, &order, id, planned, turn).await;
    }

    async fn take(&self, owner: &Owner, order: &Order, id: u64, planned: Instant, turn: Turn<'_>) {
        // Boxed, so that what waits for its turn is small.
        let news = Box::pin(self.call(owner, order, id, planned)).await;
        drop(turn);
        if news {
            self.wake(owner.clone()).await;
        }
    }

    /// Says whether the owner's next plan may differ for it.
    async fn call(&self, owner: &Owner, order: &Order, id: u64, planned: Instant) -> bool {
        let begun = Instant::now();
        match &order.call {
            Call::Command { verb, body } => {
                let outcome = self.command(order, *verb, body).await;
                if outcome.is_ok() {
                    self.telemetry.pushed(planned.elapsed());
                }
                self.record(order, id, begun, outcome);
                true
            }
            Call::Hook { turn, deed, key, timeout } => {
                let outcome = self.hook(owner, order, deed, key, *timeout).await;
                self.note(order, begun, outcome.as_ref().err().map(|(label, why)| (*label, why)));
                self.record_hook(order, id, *turn, outcome.err().map(|(_, why)| why));
                true
            }
            Call::Ask { after } => {
                let outcome = self.ask(order, after.as_ref()).await;
                // What is followed is asked anew at once, whatever it said.
                self.record(order, id, begun, outcome) || after.is_some()
            }
            // They go another way.
            Call::Brake { .. } => false,
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
        let Some(pause) = self.lock().slots.wake(&owner) else { return };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
            if !self.lock().slots.gathered(&owner) {
                return;
            }
        }
        // What is heard may ask for a brake, and a visit may wait for a write.
        self.onsets.wake(owner.clone());
        self.queue.wake(owner);
    }

    fn record_hook(&self, order: &Order, id: u64, turn: HookTurn, error: Option<String>) {
        let mut state = self.lock();
        if state.slots.ended(&order.pod, id) == Ended::Replaced {
            return;
        }
        let contact = state.contacts.entry(order.pod.clone()).or_default();
        let before = contact.hook.as_ref().filter(|before| before.turn == turn);
        let failures = before.map_or(0, |before| before.failures) + u32::from(error.is_some());
        let next_attempt = Timestamp::now() + pause(failures);
        contact.hook = Some(Box::new(HookOutcome { turn, error, failures, next_attempt }));
        contact.ended += 1;
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

    /// False if it says what was known: that nothing but the time of the answer is new.
    fn record(&self, order: &Order, id: u64, begun: Instant, outcome: Result<Status, Error>) -> bool {
        let failure = outcome.as_ref().err().map(|error| (error.label(), error.to_string()));
        self.note(order, begun, failure.as_ref().map(|(label, why)| (*label, why)));
        let now = Timestamp::now();
        let mut state = self.lock();
        let Ended::Current { asked_again } = state.slots.ended(&order.pod, id) else { return true };
        if let (Err(_), Call::Command { body, .. }) = (&outcome, &order.call) {
            state.contacts.entry(order.pod.clone()).or_default().failed_epoch = body.epoch;
        }
        let failed = outcome.is_err();
        let known = state.hear(order, now, outcome);
        if failed && let Some(contact) = state.contacts.get_mut(&order.pod) {
            contact.next_attempt = contact.failing_since.map(|_| now + pause(contact.failures));
        }
        // What a plan has seen since the question may be newer than the answer.
        !known || asked_again
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes what a call to a pod came to. True if it says what was known.
    fn hear(&mut self, order: &Order, now: Timestamp, outcome: Result<Status, Error>) -> bool {
        let Self { contacts, said, .. } = self;
        let contact = contacts.entry(order.pod.clone()).or_default();
        contact.ended += 1;
        match heard(outcome) {
            Ok(status) => {
                let forward = contact.answer.as_ref().filter(|a| *a.boot_id == *status.boot_id);
                if forward.is_some_and(|a| a.status.epoch > status.epoch) {
                    // Answers may overtake each other; an acknowledgement only moves forward.
                    return false;
                }
                let mut heard = Heard::new(status, now, order.container.clone(), order.ready);
                said.share(&mut heard.status);
                let known = contact.failing_since.is_none() && contact.answer.as_ref().is_some_and(|a| a.says(&heard));
                let Contact { hook, brake, ended, .. } = std::mem::take(contact);
                *contact = Contact { answer: Some(Arc::new(heard)), hook, brake, ended, ..Contact::default() };
                known
            }
            Err(error) => {
                contact.failures = contact.failures.saturating_add(1);
                // One from the future was noted before the clock was put back.
                contact.failing_since = contact.failing_since.filter(|since| *since <= now).or(Some(now));
                contact.error = Some(cut(&error.to_string(), LONGEST_ERROR));
                false
            }
        }
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
    use std::cell::Cell;

    use super::*;

    fn dispatcher() -> Dispatcher {
        let keyring = Arc::new(Keyring::new(Arc::default()));
        Dispatcher::new(1, 1, Default::default(), Arc::default(), keyring, None)
    }

    fn owner() -> Owner {
        Owner { namespace: "agents".to_owned(), name: "demo".to_owned() }
    }

    fn question() -> Order {
        Order {
            pod: "pod-1".to_owned(),
            name: "demo-1".to_owned(),
            address: ([127, 0, 0, 1], 9).into(),
            container: Some("container-1".into()),
            ready: false,
            ended: 0,
            signer: None,
            call: Call::Ask { after: None },
        }
    }

    fn answer() -> Status {
        let text = r#"{"state": "running", "uptime_seconds": 1, "active_streams": 0, "total_executions": 1,
            "failed_executions": 0, "entry_points": [], "health": {}, "in_flight": 0, "boot_id": "boot", "version": "boot.1"}"#;
        serde_json::from_str(text).unwrap()
    }

    /// Begins a call that goes nowhere, and gives its number.
    fn begin(dispatcher: &Dispatcher, order: &Order) -> u64 {
        let number = Cell::new(0);
        dispatcher.inner.lock().slots.begin(&order.pod, &owner(), Rank::Ask, |id| {
            number.set(id);
            tokio::spawn(std::future::pending::<()>()).abort_handle()
        });
        number.get()
    }

    #[tokio::test]
    async fn an_answer_is_news_unless_it_says_what_was_known() {
        let dispatcher = dispatcher();
        let mut order = question();
        let is_news = |order: &Order, outcome: Result<Status, Error>| {
            let number = begin(&dispatcher, order);
            dispatcher.inner.record(order, number, Instant::now(), outcome)
        };
        let first = answer();
        let later = Status { uptime_seconds: 2, total_executions: 2, version: "boot.2".to_owned(), ..first.clone() };
        let busy = || Ok(Status { in_flight: Some(1), ..later.clone() });
        let away = || Err(Error::Unreachable { address: ([127, 0, 0, 1], 9).into(), reason: "it is away".to_owned() });
        assert!(is_news(&order, Ok(first)), "the first");
        assert!(!is_news(&order, Ok(later.clone())), "counters and clocks go on");
        let number = begin(&dispatcher, &order);
        begin(&dispatcher, &order);
        let outcome = Ok(later.clone());
        assert!(dispatcher.inner.record(&order, number, Instant::now(), outcome), "a plan has asked since");
        assert!(is_news(&order, busy()));
        assert!(is_news(&order, away()) && is_news(&order, away()), "each failure has its pause");
        assert!(is_news(&order, busy()), "it can be reached again");
        order.ready = true;
        assert!(is_news(&order, busy()), "it is asked for its readiness");
        order.container = Some("container-2".into());
        assert!(is_news(&order, busy()), "another process says so");
    }

    #[tokio::test]
    async fn what_was_planned_before_an_answer_came_is_not_asked_for_again() {
        let dispatcher = dispatcher();
        let planned = question();
        let number = begin(&dispatcher, &planned);
        dispatcher.inner.record(&planned, number, Instant::now(), Ok(answer()));
        assert!(!dispatcher.submit(&owner(), planned.clone(), Span::none()), "it has been done");
        let heard = dispatcher.contacts([planned.pod.as_str()].into_iter())[&planned.pod].ended;
        assert!(
            dispatcher.submit(&owner(), Order { ended: heard, ..planned }, Span::none()),
            "planned from the answer"
        );
    }
}
