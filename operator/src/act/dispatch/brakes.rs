//! Brakes on their way to pods. They have a pool of their own, and wait for no other call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lifecycle::client::Error;
use lifecycle::wire::{BrakeCommand, Status};
use tracing::{Instrument as _, Span};

use super::{DEADLINE, Dispatcher, Inner, pause};
use crate::act::slots::Ended;
use crate::observe::index::Owner;
use crate::observe::{BrakeOutcome, BrakeReply, Contact, calls_ended};
use crate::plan::{Call, Order};

/// First calls of brakes under way at once: a pod that hangs holds one until its deadline.
pub(super) const BRAKES: u16 = 1024;
/// The same, to pods whose last call failed.
pub(super) const FAILING: u16 = 128;
/// A pod of the cluster's network answers in a millisecond; one that has gone does not answer at all.
pub(super) const CONNECT: Duration = Duration::from_millis(500);

impl Dispatcher {
    /// Begins a brake, unless that very one is under way to the pod; another brake takes its place, which asks for more.
    /// What would let the pod run, or only asks how it stands, ends. False as for any call.
    pub(super) fn brake(&self, owner: &Owner, order: Order, span: Span) -> bool {
        let Call::Brake { body } = &order.call else { return true };
        let (inner, of, pod, id) = (Arc::clone(&self.inner), owner.clone(), order.pod.clone(), body.id.clone());
        let mut state = self.inner.lock();
        if calls_ended(&state.contacts, &pod) != order.ended {
            return false;
        }
        let failing = state.contacts.get(&pod).is_some_and(|contact| contact.failing_since.is_some());
        state.slots.brake(&pod, owner, &id, |number| {
            let call = async move { inner.set_brake(of, order, number, failing).await };
            tokio::spawn(call.instrument(span)).abort_handle()
        });
        true
    }
}

impl Inner {
    async fn set_brake(self: Arc<Self>, owner: Owner, order: Order, number: u64, failing: bool) {
        let Call::Brake { body: brake } = &order.call else { return };
        let turns = if failing { &self.failing } else { &self.brakes };
        let Some(turn) = turns.of(&owner).await else { return };
        let begun = Instant::now();
        let answer = Box::pin(self.send_brake(&order, brake)).await;
        drop(turn);
        let failure = answer.as_ref().err().map(|error| (error.label(), error.to_string()));
        self.note(&order, begun, failure.as_ref().map(|(label, why)| (*label, why)));
        let held = self.record_brake(&order, &brake.id, number, answer);
        if !held {
            // It is judged anew at once whether it is still to be set, and by which epoch.
            self.onsets.wake(owner.clone());
        }
        self.wake(owner).await;
    }

    async fn send_brake(&self, order: &Order, brake: &BrakeCommand) -> Result<Status, Error> {
        let sent = match self.signer(order) {
            Some((signer, key)) => {
                let seal = self.keyring.seal(&key, &signer, &order.pod);
                self.swift.signed(&seal).brake(order.address, brake, DEADLINE).await
            }
            None => self.swift.brake(order.address, brake, DEADLINE).await,
        };
        sent.map(|answer| answer.status)
    }

    /// Says whether nothing more is to be done for this brake.
    fn record_brake(&self, order: &Order, id: &str, number: u64, answer: Result<Status, Error>) -> bool {
        let now = Timestamp::now();
        let mut state = self.lock();
        if state.slots.braked(&order.pod, number) == Ended::Replaced {
            return true;
        }
        let reply = match &answer {
            Ok(status) if status.brake_ids().iter().any(|listed| listed == id) => BrakeReply::Held,
            Err(Error::NoBrakes { .. }) => BrakeReply::Unknown,
            Err(Error::Stale { .. }) => BrakeReply::Stale,
            Ok(_) | Err(_) => BrakeReply::Failed,
        };
        match answer {
            // It has answered, in its own words: nothing else is known of it.
            Err(Error::NoBrakes { .. }) => state.contacts.entry(order.pod.clone()).or_default().ended += 1,
            answer => drop(state.hear(order, now, answer)),
        }
        let contact = state.contacts.entry(order.pod.clone()).or_default();
        contact.brake = Some(Box::new(outcome(contact, order, id, reply, now)));
        matches!(reply, BrakeReply::Held | BrakeReply::Unknown)
    }
}

fn outcome(contact: &Contact, order: &Order, id: &str, reply: BrakeReply, now: Timestamp) -> BrakeOutcome {
    let before = contact.brake.as_deref().filter(|before| before.id == id && before.container == order.container);
    let failures = match reply {
        BrakeReply::Held | BrakeReply::Unknown => 0,
        BrakeReply::Stale | BrakeReply::Failed => before.map_or(1, |before| before.failures.saturating_add(1)),
    };
    // By the epoch that it has just told it is called at once; one that is never content is called ever more rarely.
    let next_attempt = match reply {
        BrakeReply::Stale if failures == 1 => now,
        // Answers to calls from before it may still come.
        BrakeReply::Held => now + SignedDuration::try_from(DEADLINE).unwrap_or(SignedDuration::from_secs(3)),
        _ => now + pause(failures),
    };
    BrakeOutcome { id: id.to_owned(), container: order.container.clone(), reply, failures, next_attempt }
}
