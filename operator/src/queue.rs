//! Which objects are to be visited, and when: each by one visit at a time, and no more at once than are allowed.
//!
//! Namespaces take turns, so that a thousand objects of one do not hold up another's, and objects whose last visit failed
//! get a quarter of the places: each may hold its own until a deadline.
//!
//! kube's Controller does the same by a timer, which makes each visit wait for its tick: a millisecond or two for
//! every change and every answer of a pod, which is a tenth of what a pause takes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::observe::index::Owner;

/// A visit that came to no end of its own is repeated after this.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// With nothing to wait for.
const LONG: Duration = Duration::from_secs(3600);

/// When an object is visited again though nobody wakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Not before it is woken.
    Never,
    /// After this.
    In(Duration),
    /// After this, as the visit failed.
    Failed(Duration),
}

/// The queue; its clones are the same one. It holds each name once, however often it is woken.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    agenda: Mutex<Agenda>,
    changed: Notify,
}

impl Queue {
    /// Has an object visited as soon as there is room; once more if a visit is under way, which may have looked already.
    pub fn wake(&self, owner: Owner) {
        self.lock().wake(owner);
        self.shared.changed.notify_one();
    }

    /// The same for an object of which something else is asked now: its failures were of something else.
    pub fn urge(&self, owner: Owner) {
        self.lock().urge(owner);
        self.shared.changed.notify_one();
    }

    /// Objects that wait for their turn.
    #[must_use]
    pub fn depth(&self) -> usize {
        let agenda = self.lock();
        agenda.well.len() + agenda.sick.len()
    }

    /// Visits until `stop`, then waits for the visits under way.
    pub(crate) async fn run<V>(&self, concurrency: usize, stop: &CancellationToken, visit: impl Fn(Owner) -> V)
    where
        V: Future<Output = Again> + Send + 'static,
    {
        let mut visits = JoinSet::new();
        let mut visited = HashMap::new();
        loop {
            let room = concurrency.saturating_sub(visits.len());
            let (turns, next) = self.lock().turns(Instant::now(), room, concurrency.div_ceil(4));
            for owner in turns {
                visited.insert(visits.spawn(visit(owner.clone())).id(), owner);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = visits.join_next_with_id() => self.end(&mut visited, ended),
                () = self.shared.changed.notified() => {}
                () = sleep_until(next) => {}
            }
        }
        while visits.join_next().await.is_some() {}
    }

    fn end(&self, visited: &mut HashMap<task::Id, Owner>, ended: Result<(task::Id, Again), JoinError>) {
        let (id, again) = ended.unwrap_or_else(|error| {
            tracing::error!(%error, "visit_panicked");
            (error.id(), Again::Failed(AFTER_PANIC))
        });
        if let Some(owner) = visited.remove(&id) {
            self.lock().end(owner, again, Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Agenda> {
        self.shared.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits, who is visited, and who is visited later.
#[derive(Debug, Default)]
struct Agenda {
    well: Waiting,
    /// Those whose last visit failed.
    sick: Waiting,
    /// Visits under way to such.
    sick_visits: usize,
    /// Turns given.
    given: usize,
    /// The number of the last place.
    last: u64,
    later: BTreeSet<(Instant, Owner)>,
    known: HashMap<Owner, Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// Woken since its last visit began.
    woken: bool,
    visited: bool,
    /// Its last visit failed.
    sick: bool,
    /// Something else has been asked of it since its visit began.
    urged: bool,
    /// The number of its place among those that wait.
    place: u64,
    /// When it is visited though nobody wakes it.
    at: Option<Instant>,
}

impl Standing {
    fn waits(&self) -> bool {
        self.woken && !self.visited
    }
}

/// Who waits: each namespace in turn, and within it who came first. An object has one place at most, by its number.
#[derive(Debug, Default)]
struct Waiting {
    spaces: VecDeque<String>,
    owners: HashMap<String, BTreeMap<u64, Owner>>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.owners.values().map(BTreeMap::len).sum()
    }

    fn push(&mut self, place: u64, owner: Owner) {
        let owners = self.owners.entry(owner.namespace.clone()).or_default();
        if owners.is_empty() {
            self.spaces.push_back(owner.namespace.clone());
        }
        owners.insert(place, owner);
    }

    fn remove(&mut self, place: u64, owner: &Owner) {
        let Some(owners) = self.owners.get_mut(&owner.namespace) else { return };
        owners.remove(&place);
        if owners.is_empty() {
            self.owners.remove(&owner.namespace);
            self.spaces.retain(|space| *space != owner.namespace);
        }
    }

    fn pop(&mut self) -> Option<Owner> {
        let space = self.spaces.pop_front()?;
        let owners = self.owners.get_mut(&space)?;
        let owner = owners.pop_first().map(|(_, owner)| owner);
        if owners.is_empty() {
            self.owners.remove(&space);
        } else {
            self.spaces.push_back(space);
        }
        owner
    }
}

impl Agenda {
    fn wake(&mut self, owner: Owner) {
        let standing = self.known.entry(owner.clone()).or_default();
        if std::mem::replace(&mut standing.woken, true) {
            return;
        }
        if let Some(at) = standing.at.take() {
            self.later.remove(&(at, owner.clone()));
        }
        if !standing.visited {
            let sick = standing.sick;
            self.waits(owner, sick);
        }
    }

    fn urge(&mut self, owner: Owner) {
        if let Some(standing) = self.known.get_mut(&owner) {
            standing.urged = standing.visited;
            let waits = standing.waits() && standing.sick;
            standing.sick &= standing.visited;
            if waits {
                let place = standing.place;
                self.sick.remove(place, &owner);
                return self.waits(owner, false);
            }
        }
        self.wake(owner);
    }

    fn waits(&mut self, owner: Owner, sick: bool) {
        self.last += 1;
        if let Some(standing) = self.known.get_mut(&owner) {
            standing.place = self.last;
        }
        if sick { self.sick.push(self.last, owner) } else { self.well.push(self.last, owner) }
    }

    /// The next one, and whether it is one of those that failed. They do not come before all others, nor after them.
    fn next(&mut self, share: usize) -> Option<(Owner, bool)> {
        let allowed = self.sick_visits < share;
        if allowed
            && self.given % 4 == 3
            && let Some(owner) = self.sick.pop()
        {
            return Some((owner, true));
        }
        if let Some(owner) = self.well.pop() {
            return Some((owner, false));
        }
        let owner = allowed.then(|| self.sick.pop()).flatten()?;
        Some((owner, true))
    }

    /// Who is visited now, at most so many, and of those that failed no more than a share; and when to look again though
    /// nobody is woken.
    fn turns(&mut self, now: Instant, room: usize, share: usize) -> (Vec<Owner>, Instant) {
        while let Some((_, owner)) = self.later.first().filter(|(at, _)| *at <= now) {
            let owner = owner.clone();
            self.wake(owner);
        }
        let mut turns = Vec::new();
        while turns.len() < room {
            let Some((owner, sick)) = self.next(share) else { break };
            self.given = self.given.wrapping_add(1);
            self.sick_visits += usize::from(sick);
            if let Some(standing) = self.known.get_mut(&owner) {
                *standing = Standing { visited: true, sick, ..Standing::default() };
            }
            turns.push(owner);
        }
        (turns, self.later.first().map_or(now + LONG, |(at, _)| *at))
    }

    fn end(&mut self, owner: Owner, again: Again, now: Instant) {
        let Some(standing) = self.known.get_mut(&owner) else { return };
        self.sick_visits = self.sick_visits.saturating_sub(usize::from(standing.sick));
        standing.visited = false;
        // What it failed at is not what is asked now.
        standing.sick = matches!(again, Again::Failed(_)) && !standing.urged;
        match again {
            _ if standing.woken => {
                let sick = standing.sick;
                self.waits(owner, sick);
            }
            Again::In(pause) | Again::Failed(pause) => {
                let at = now + pause;
                standing.at = Some(at);
                self.later.insert((at, owner));
            }
            Again::Never => drop(self.known.remove(&owner)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use tokio::sync::Barrier;

    use super::*;

    fn owner(number: usize) -> Owner {
        Owner { namespace: format!("space-{}", number % 2), name: number.to_string() }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wake(usize),
        Urge(usize),
        /// So many seconds pass and so many visits have room.
        Turns(u64, usize),
        /// One of those under way ends, to be visited again after so many seconds, and failed or not.
        End(usize, Option<u64>, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_usize).prop_map(Step::Wake),
            (0..4_usize).prop_map(Step::Urge),
            (0..4_u64, 0..3_usize).prop_map(|(seconds, room)| Step::Turns(seconds, room)),
            (0..4_usize, proptest::option::of(0..5_u64), any::<bool>())
                .prop_map(|(which, again, failed)| Step::End(which, again, failed)),
        ]
    }

    proptest! {
        /// Each who was woken, or whose time has come, is visited after that and by one visit at a time; nobody else is.
        #[test]
        fn nobody_is_forgotten_and_nobody_is_visited_twice_at_once(steps in proptest::collection::vec(step(), 0..60)) {
            let (mut agenda, mut now) = (Agenda::default(), Instant::now());
            let mut wanted: HashMap<Owner, Instant> = HashMap::new();
            let mut under_way: Vec<Owner> = Vec::new();
            let end = || Step::End(0, None, false);
            let ends = [end(), end(), end(), end(), Step::Turns(9, 9)];
            for step in steps.into_iter().chain(ends) {
                match step {
                    Step::Wake(number) => {
                        wanted.insert(owner(number), now);
                        agenda.wake(owner(number));
                    }
                    Step::Urge(number) => {
                        wanted.insert(owner(number), now);
                        agenda.urge(owner(number));
                    }
                    Step::Turns(seconds, room) => {
                        now += Duration::from_secs(seconds);
                        let due: Vec<Owner> = wanted.iter().filter(|(_, at)| **at <= now).map(|(who, _)| who.clone()).collect();
                        let free = due.iter().filter(|who| !under_way.contains(who)).count();
                        let (turns, next) = agenda.turns(now, room, 9);
                        prop_assert_eq!(turns.len(), room.min(free));
                        prop_assert!(next > now);
                        let ahead = wanted.iter().filter(|(who, at)| **at > now && !under_way.contains(who)).map(|(_, at)| *at);
                        prop_assert_eq!(ahead.min().unwrap_or(now + LONG), next);
                        for who in turns {
                            prop_assert!(due.contains(&who) && !under_way.contains(&who));
                            wanted.remove(&who);
                            under_way.push(who);
                        }
                    }
                    Step::End(which, again, failed) if which < under_way.len() => {
                        let who = under_way.swap_remove(which);
                        let again = again.map(Duration::from_secs);
                        if let Some(again) = again {
                            wanted.entry(who.clone()).or_insert(now + again);
                        }
                        let again = match again {
                            None => Again::Never,
                            Some(again) if failed => Again::Failed(again),
                            Some(again) => Again::In(again),
                        };
                        agenda.end(who, again, now);
                    }
                    Step::End(..) => {}
                }
                let waiting = agenda.known.values().filter(|standing| standing.waits()).count();
                let places = agenda.well.len() + agenda.sick.len();
                prop_assert_eq!(places, waiting, "an object has one place, however often it is urged and fails");
            }
            prop_assert!(wanted.is_empty());
            prop_assert!(agenda.well.spaces.is_empty() && agenda.later.is_empty(), "{:?}", agenda);
            prop_assert!(agenda.well.owners.is_empty() && agenda.sick_visits <= under_way.len(), "{:?}", agenda);
            prop_assert_eq!(agenda.known.len(), under_way.len(), "who is gone leaves nothing behind");
        }
    }

    #[tokio::test]
    async fn a_visit_that_panics_is_made_again_and_a_stop_waits_for_those_under_way() {
        let (queue, stop, ended) = (Queue::default(), CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        queue.wake(owner(1));
        queue.wake(owner(1));
        let count = AtomicUsize::new(0);
        let visit = |_| {
            let (first, stop, ended) = (count.fetch_add(1, Ordering::SeqCst) == 0, stop.clone(), Arc::clone(&ended));
            async move {
                assert!(!first, "the first visit is to panic");
                stop.cancel();
                // The queue has its turn, and must not end for it.
                task::yield_now().await;
                ended.fetch_add(1, Ordering::SeqCst);
                Again::Never
            }
        };
        queue.run(2, &stop, visit).await;
        assert_eq!(count.load(Ordering::SeqCst), 2, "two wakes before a visit are one");
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn objects_that_fail_get_a_share_and_namespaces_take_turns() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let all: Vec<Owner> = (0..8).map(owner).collect();
        all.iter().for_each(|owner| agenda.wake(owner.clone()));
        let (turns, _) = agenda.turns(now, 8, 2);
        let spaces: Vec<&str> = turns.iter().map(|owner| owner.namespace.as_str()).collect();
        assert_eq!(spaces, ["space-0", "space-1"].repeat(4), "one after the other");
        turns.into_iter().for_each(|owner| agenda.end(owner, Again::Failed(Duration::ZERO), now));
        assert_eq!(agenda.turns(now, 8, 2).0.len(), 2, "no more hold a place until their deadline");
        agenda.urge(all[7].clone());
        assert_eq!(agenda.turns(now, 8, 2).0, [all[7].clone()], "what is asked again does not wait for the others");
        agenda.wake(Owner { namespace: "well".to_owned(), name: "well".to_owned() });
        let (turns, _) = agenda.turns(now, 8, 2);
        assert_eq!(turns.len(), 1, "who is well is visited all the same");
        assert_eq!(turns[0].name, "well");
    }

    #[tokio::test]
    async fn as_many_are_visited_at_once_as_allowed_and_no_more() {
        let (queue, stop) = (Queue::default(), CancellationToken::new());
        (0..21).for_each(|number| queue.wake(owner(number)));
        assert_eq!(queue.depth(), 21);
        let (now, most, all) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0), AtomicUsize::new(0));
        let three = Arc::new(Barrier::new(3));
        let visit = |_| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            if all.fetch_add(1, Ordering::SeqCst) == 20 {
                stop.cancel();
            }
            let (now, three) = (Arc::clone(&now), Arc::clone(&three));
            async move {
                three.wait().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Again::Never
            }
        };
        queue.run(3, &stop, visit).await;
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(now.load(Ordering::SeqCst), 0);
    }
}
