//! Which calls are under way: one to each pod and a brake beside it, and when their answers wake an owner.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::observe::index::Owner;

/// While other pods of an owner are still called, the answers of this time wake it once: each plan looks at all pods.
const GATHER: Duration = Duration::from_millis(100);
/// Where so many are called at once, that is the time for each of them, so that plans take a small share of it.
const GATHER_EACH: Duration = Duration::from_micros(100);

/// The calls under way, by pod UID.
#[derive(Default)]
pub(super) struct Slots {
    slots: HashMap<String, Slot>,
    /// The brakes under way, by pod UID.
    brakes: HashMap<String, Brake>,
    /// Calls under way to the pods of each owner.
    calls: HashMap<Owner, usize>,
    /// Owners that are woken within `GATHER`.
    waking: HashSet<Owner>,
    last: u64,
}

/// The one call under way to a pod.
struct Slot {
    owner: Owner,
    id: u64,
    rank: Rank,
    /// A plan has asked for the same meanwhile, from what it had seen since this call began.
    asked_again: bool,
    task: AbortHandle,
}

/// The one brake under way to a pod.
struct Brake {
    owner: Owner,
    number: u64,
    /// What it is released by.
    id: String,
    task: AbortHandle,
}

/// Whether an ended call speaks for its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It does; a plan that wanted another call to the pod meanwhile is to be made anew.
    Current { asked_again: bool },
    /// Another took its place.
    Replaced,
}

/// What a call is, in the order in which one takes another's place; with its epoch. What holds a pod is not ended by what
/// lets it run: that waits until the call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Ask,
    Hook(i64),
    Loosening(Option<i64>),
    Command(Option<i64>),
}

impl Rank {
    /// Whether a brake ends it, and it is not begun beside one.
    fn yields(self) -> bool {
        matches!(self, Self::Ask | Self::Loosening(_))
    }
}

impl Slots {
    /// Begins a call, by its number, unless the one under way to the pod serves as well; one that it outranks ends.
    pub(super) fn begin(&mut self, pod: &str, owner: &Owner, rank: Rank, call: impl FnOnce(u64) -> AbortHandle) {
        if let Some(slot) = self.slots.get_mut(pod).filter(|slot| rank <= slot.rank) {
            slot.asked_again = true;
            return;
        }
        if rank.yields() && self.brakes.contains_key(pod) {
            // Its answer has a plan made anew.
            return;
        }
        self.end(pod);
        self.last += 1;
        let id = self.last;
        *self.calls.entry(owner.clone()).or_default() += 1;
        self.slots.insert(pod.to_owned(), Slot { owner: owner.clone(), id, rank, asked_again: false, task: call(id) });
    }

    /// Notes that a call has ended.
    pub(super) fn ended(&mut self, pod: &str, id: u64) -> Ended {
        if self.slots.get(pod).is_none_or(|slot| slot.id != id) {
            return Ended::Replaced;
        }
        let asked_again = self.vacate(pod).is_some_and(|slot| slot.asked_again);
        Ended::Current { asked_again }
    }

    /// Begins a brake, by its number, unless that very one is under way to the pod. Another one ends.
    pub(super) fn brake(&mut self, pod: &str, owner: &Owner, id: &str, call: impl FnOnce(u64) -> AbortHandle) {
        if self.brakes.get(pod).is_some_and(|brake| brake.id == id) {
            return;
        }
        self.end_brake(pod);
        if self.slots.get(pod).is_some_and(|slot| slot.rank.yields()) {
            self.end(pod);
        }
        self.last += 1;
        let number = self.last;
        *self.calls.entry(owner.clone()).or_default() += 1;
        let brake = Brake { owner: owner.clone(), number, id: id.to_owned(), task: call(number) };
        self.brakes.insert(pod.to_owned(), brake);
    }

    /// Notes that a brake has ended.
    pub(super) fn braked(&mut self, pod: &str, number: u64) -> Ended {
        if self.brakes.get(pod).is_none_or(|brake| brake.number != number) {
            return Ended::Replaced;
        }
        if let Some(brake) = self.brakes.remove(pod) {
            self.count_down(&brake.owner);
        }
        Ended::Current { asked_again: false }
    }

    /// Ends every call to a pod that is gone.
    pub(super) fn forget(&mut self, pod: &str) {
        self.end(pod);
        self.end_brake(pod);
    }

    fn end_brake(&mut self, pod: &str) {
        if let Some(brake) = self.brakes.remove(pod) {
            self.count_down(&brake.owner);
            brake.task.abort();
        }
    }

    /// Ends the call to a pod, if there is one.
    fn end(&mut self, pod: &str) {
        if let Some(slot) = self.vacate(pod) {
            slot.task.abort();
        }
    }

    fn vacate(&mut self, pod: &str) -> Option<Slot> {
        let slot = self.slots.remove(pod)?;
        self.count_down(&slot.owner);
        Some(slot)
    }

    fn count_down(&mut self, owner: &Owner) {
        if let Entry::Occupied(mut calls) = self.calls.entry(owner.clone()) {
            *calls.get_mut() -= 1;
            if *calls.get() == 0 {
                calls.remove();
            }
        }
    }

    /// When an owner is woken by an answer; none if another answer sees to it.
    pub(super) fn wake(&mut self, owner: &Owner) -> Option<Duration> {
        if let Some(calls) = self.calls.get(owner) {
            let gather = GATHER_EACH.saturating_mul(u32::try_from(*calls).unwrap_or(u32::MAX)).max(GATHER);
            return self.waking.insert(owner.clone()).then_some(gather);
        }
        self.waking.remove(owner);
        Some(Duration::ZERO)
    }

    /// Whether an owner is still to be woken, now that its answers were gathered; it is then no more.
    pub(super) fn gathered(&mut self, owner: &Owner) -> bool {
        self.waking.remove(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { namespace: "agents".to_owned(), name: "demo".to_owned() }
    }

    fn begin(slots: &mut Slots, pod: &str, rank: Rank, runtime: &tokio::runtime::Runtime) -> Option<u64> {
        let mut begun = None;
        slots.begin(pod, &owner(), rank, |id| {
            begun = Some(id);
            runtime.spawn(std::future::pending::<()>()).abort_handle()
        });
        begun
    }

    #[test]
    fn answers_of_many_pods_wake_their_owner_together_and_the_last_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut slots = Slots::default();
        let ids = ["a", "b", "c"].map(|pod| begin(&mut slots, pod, Rank::Ask, &runtime).unwrap());
        let alone = Ended::Current { asked_again: false };
        assert_eq!(slots.ended("a", ids[0]), alone);
        assert_eq!(slots.wake(&owner()), Some(GATHER), "others may answer meanwhile");
        assert_eq!(slots.ended("b", ids[1]), alone);
        assert_eq!(slots.wake(&owner()), None, "the first sees to it");
        assert_eq!(slots.ended("c", ids[2]), alone);
        assert_eq!(slots.wake(&owner()), Some(Duration::ZERO), "nothing more is waited for");
        assert!(slots.waking.is_empty() && slots.calls.is_empty(), "and nothing is left behind");
        assert!(!slots.gathered(&owner()), "the first does not wake it once more");
    }

    #[test]
    fn the_more_pods_are_called_the_longer_answers_are_gathered() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut slots = Slots::default();
        for pod in 0..5000 {
            begin(&mut slots, &pod.to_string(), Rank::Ask, &runtime);
        }
        assert_eq!(slots.wake(&owner()), Some(Duration::from_millis(500)));
    }

    #[test]
    fn a_call_that_is_replaced_or_forgotten_holds_nobody_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut slots = Slots::default();
        let first = begin(&mut slots, "a", Rank::Hook(1), &runtime).unwrap();
        assert_eq!(begin(&mut slots, "a", Rank::Ask, &runtime), None, "a question says no more than a hook");
        let second = begin(&mut slots, "a", Rank::Command(Some(1)), &runtime).unwrap();
        assert_eq!(begin(&mut slots, "a", Rank::Command(Some(1)), &runtime), None, "once is enough");
        begin(&mut slots, "b", Rank::Ask, &runtime).unwrap();
        assert_eq!(slots.ended("a", first), Ended::Replaced, "another speaks for the pod");
        slots.end("b");
        assert_eq!(slots.ended("a", second), Ended::Current { asked_again: true });
        assert_eq!(slots.wake(&owner()), Some(Duration::ZERO));
        assert!(slots.calls.is_empty());
    }
}
