//! What waits: by entry point, ordered by priority and age; and what is parked until a time. Of each only its name and
//! what its place depends on are kept: its record is read when it begins.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use tokio::sync::mpsc;

use super::order::Order;
use super::orders::Taken;
use super::{Waiting, is_parked};
use crate::store::{Execution, LEVEL_MILLIS};

/// Smaller comes first. As all that waits ages alike, priority is a head start that never changes.
type Rank = (i64, String);

/// An execution that waits, without what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) id: String,
    pub(super) entry_point: String,
    rank: i64,
    /// It rests until then.
    until: Option<Timestamp>,
    /// It waits for a person.
    asks: bool,
}

impl Waits {
    pub(super) fn of(execution: &Execution, priority: i32, now: Timestamp) -> Self {
        let rank = execution.created.as_millisecond().saturating_sub(i64::from(priority).saturating_mul(LEVEL_MILLIS));
        let until = execution.due().filter(|_| is_parked(execution, now));
        let asks = until.is_some() && execution.asks();
        Self { id: execution.id.clone(), entry_point: execution.entry_point.clone(), rank, until, asks }
    }

    /// The same, but not before a time.
    pub(super) fn not_before(self, at: Timestamp) -> Self {
        Self { until: Some(self.until.map_or(at, |until| until.max(at))), ..self }
    }
}

/// Where an execution is.
#[derive(Debug)]
pub(super) enum Found {
    /// It runs, and takes orders here.
    Runs(mpsc::Sender<Order>),
    /// It rested, and has been taken out.
    Rests(Taken),
    /// It runs in another replica.
    Elsewhere,
    /// It is not here, or is between two places.
    Nowhere,
}

/// Where an execution is in this process.
#[derive(Debug)]
pub(super) enum Here {
    /// It runs, and takes orders.
    Runs(mpsc::Sender<Order>),
    /// It rested, and has been taken out.
    Rests(Waits),
    /// Not here, or between two places.
    Nowhere,
}

/// The place of one that waits.
#[derive(Clone, Debug)]
enum Place {
    Line(String, Rank),
    Parked(Timestamp),
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    queued: HashMap<String, BTreeMap<Rank, Waits>>,
    parked: BTreeMap<(Timestamp, String), Waits>,
    /// Where each that waits is, by id.
    places: HashMap<String, Place>,
    /// Of those that are parked, how many wait for a person.
    asks: usize,
    /// Executions of an entry point that run.
    running: HashMap<String, usize>,
    /// How to reach the executions that run, by id, with the number of the run.
    reach: HashMap<String, (u64, mpsc::Sender<Order>)>,
    /// Runs so far.
    runs: u64,
    /// Executions of an entry point that are parked.
    waiting: HashMap<String, usize>,
    /// Places of an entry point that are being taken: their executions are not on disk yet.
    reserved: HashMap<String, usize>,
}

impl Queue {
    /// Takes in an execution: parks it, or lets it wait for its turn. One that is here already stays where it is.
    pub(super) fn put(&mut self, waits: Waits) {
        if self.places.contains_key(&waits.id) {
            return;
        }
        match waits.until {
            Some(until) => {
                *self.waiting.entry(waits.entry_point.clone()).or_default() += 1;
                self.asks += usize::from(waits.asks);
                self.places.insert(waits.id.clone(), Place::Parked(until));
                self.parked.insert((until, waits.id.clone()), waits);
            }
            None => self.line_up(waits),
        }
    }

    fn line_up(&mut self, waits: Waits) {
        let rank = (waits.rank, waits.id.clone());
        self.places.insert(waits.id.clone(), Place::Line(waits.entry_point.clone(), rank.clone()));
        self.queued.entry(waits.entry_point.clone()).or_default().insert(rank, waits);
    }

    /// Lets what is due wait for its turn.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(first) = self.parked.first_entry().filter(|first| first.key().0 <= now) {
            let waits = first.remove();
            self.unparked(&waits);
            self.line_up(Waits { until: None, asks: false, ..waits });
        }
    }

    fn unparked(&mut self, waits: &Waits) {
        decrement(&mut self.waiting, &waits.entry_point);
        self.asks = self.asks.saturating_sub(usize::from(waits.asks));
    }

    /// The first entry point and execution that may start under the limits.
    pub(super) fn head(&self, limit: impl Fn(&str) -> usize) -> Option<(String, String)> {
        let free =
            self.queued.iter().filter(|(entry, _)| self.running.get(*entry).copied().unwrap_or(0) < limit(entry));
        let heads = free.filter_map(|(entry, line)| Some((line.first_key_value()?.0, entry)));
        heads.min().map(|((_, id), entry)| (entry.clone(), id.clone()))
    }

    /// Takes out the first execution of an entry point, which now runs and is reached through `orders`. Gives it with
    /// the number of its run.
    pub(super) fn start(&mut self, entry: &str, orders: mpsc::Sender<Order>) -> Option<(Waits, u64)> {
        let (_, waits) = self.queued.get_mut(entry)?.pop_first()?;
        self.places.remove(&waits.id);
        let run = self.runs(entry, &waits.id, orders);
        Some((waits, run))
    }

    /// An execution runs, and is reached through `orders`. Gives the number of its run.
    pub(super) fn runs(&mut self, entry: &str, id: &str, orders: mpsc::Sender<Order>) -> u64 {
        self.runs += 1;
        *self.running.entry(entry.to_owned()).or_default() += 1;
        self.reach.insert(id.to_owned(), (self.runs, orders));
        self.runs
    }

    /// One of an entry point's executions does not run any more. Another run of it may have begun meanwhile.
    pub(super) fn ended(&mut self, entry: &str, id: &str, run: u64) {
        decrement(&mut self.running, entry);
        if self.reach.get(id).is_some_and(|(now, _)| *now == run) {
            self.reach.remove(id);
        }
    }

    /// Finds an execution. One that rests is taken out.
    pub(super) fn find(&mut self, id: &str) -> Here {
        if let Some((_, orders)) = self.reach.get(id) {
            return Here::Runs(orders.clone());
        }
        let found = match self.places.remove(id) {
            Some(Place::Line(entry, rank)) => self.queued.get_mut(&entry).and_then(|line| line.remove(&rank)),
            Some(Place::Parked(until)) => {
                let waits = self.parked.remove(&(until, id.to_owned()));
                waits.inspect(|waits| self.unparked(waits))
            }
            None => None,
        };
        found.map_or(Here::Nowhere, Here::Rests)
    }

    /// Takes a place in an entry point's line; false when it is full.
    pub(super) fn reserve(&mut self, entry: &str, most: usize) -> bool {
        let queued = self.queued.get(entry).map_or(0, BTreeMap::len);
        let reserved = self.reserved.entry(entry.to_owned()).or_default();
        let free = queued + *reserved < most;
        *reserved += usize::from(free);
        free
    }

    /// Gives a place back: the execution is in the line now, or was not accepted.
    pub(super) fn unreserve(&mut self, entry: &str) {
        decrement(&mut self.reserved, entry);
    }

    /// Executions of an entry point that have not ended.
    pub(super) fn active(&self, entry: &str) -> usize {
        let count = |map: &HashMap<String, usize>| map.get(entry).copied().unwrap_or(0);
        self.queued.get(entry).map_or(0, BTreeMap::len) + count(&self.running) + count(&self.waiting)
    }

    /// Whether nothing waits for its turn.
    pub(super) fn is_empty(&self) -> bool {
        self.queued.values().all(BTreeMap::is_empty)
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.parked.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting { queued: self.queued.values().map(BTreeMap::len).sum(), parked: self.parked.len(), asks: self.asks }
    }
}

fn decrement(counts: &mut HashMap<String, usize>, entry: &str) {
    if let Some(count) = counts.get_mut(entry) {
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{MAIN, Phase, State};

    fn execution(entry: &str, created: i64) -> Execution {
        let created = Timestamp::from_second(created).unwrap();
        Execution::new(entry, "h", "n", serde_json::Map::new(), created)
    }

    fn put(queue: &mut Queue, execution: &Execution, priority: i32) {
        queue.put(Waits::of(execution, priority, Timestamp::now()));
    }

    fn start(queue: &mut Queue, entry: &str) -> (Waits, u64) {
        queue.start(entry, mpsc::channel(1).0).unwrap()
    }

    #[test]
    fn higher_priority_first_and_a_level_is_gained_per_minute() {
        let mut queue = Queue::default();
        let mut created = HashMap::new();
        for (entry, second, priority) in [("low", 0, 0), ("low", 100, 0), ("high", 59, 1), ("high", 101, 1)] {
            let one = execution(entry, second);
            put(&mut queue, &one, priority);
            created.insert(one.id, second);
        }
        let mut order = Vec::new();
        while let Some((entry, _)) = queue.head(|_| usize::MAX) {
            order.push(created[&start(&mut queue, &entry).0.id]);
        }
        assert_eq!(order, [59, 0, 101, 100]);
    }

    #[test]
    fn a_full_entry_point_does_not_hold_up_another() {
        let mut queue = Queue::default();
        put(&mut queue, &execution("a", 0), 0);
        put(&mut queue, &execution("a", 1), 0);
        put(&mut queue, &execution("b", 2), 0);
        let (first, run) = start(&mut queue, "a");
        assert_eq!(queue.head(|_| 1).unwrap().0, "b");
        queue.ended("a", &first.id, run);
        assert_eq!(queue.head(|_| 1).unwrap().0, "a");
    }

    #[test]
    fn a_line_has_a_bound_that_counts_what_is_being_accepted() {
        let mut queue = Queue::default();
        assert!(queue.reserve("a", 2) && queue.reserve("a", 2) && !queue.reserve("a", 2));
        queue.unreserve("a");
        put(&mut queue, &execution("a", 0), 0);
        assert!(!queue.reserve("a", 2));
    }

    #[test]
    fn what_is_parked_lines_up_when_it_is_due() {
        let mut queue = Queue::default();
        let due = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let mut parked = Execution { state: State::Waiting, ..execution("a", 0) };
        parked.branches.get_mut(MAIN).unwrap().phase = Phase::Parked { until: due };
        put(&mut queue, &parked, 0);
        let Here::Rests(waits) = queue.find(&parked.id) else { panic!("it rests") };
        assert_eq!(queue.active("a"), 0);
        queue.put(waits);
        queue.wake(Timestamp::now());
        assert_eq!((queue.waiting(), queue.active("a")), (Waiting { queued: 0, parked: 1, asks: 0 }, 1));
        queue.wake(due);
        assert_eq!((queue.waiting(), queue.active("a")), (Waiting { queued: 1, parked: 0, asks: 0 }, 1));
    }

    #[test]
    fn the_end_of_an_earlier_run_leaves_a_later_one_within_reach() {
        let mut queue = Queue::default();
        let one = execution("a", 0);
        let first = queue.runs("a", &one.id, mpsc::channel(1).0);
        let second = queue.runs("a", &one.id, mpsc::channel(1).0);
        queue.ended("a", &one.id, first);
        assert!(matches!(queue.find(&one.id), Here::Runs(_)));
        queue.ended("a", &one.id, second);
        assert!(matches!(queue.find(&one.id), Here::Nowhere));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Put { asks: bool, seconds: Option<i64> },
        Again(usize),
        Find(usize),
        PutBack(usize),
        Start,
        End(usize),
        Wake(i64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<bool>(), prop::option::of(0i64..100)).prop_map(|(asks, seconds)| Step::Put { asks, seconds }),
            any::<usize>().prop_map(Step::Again),
            any::<usize>().prop_map(Step::Find),
            any::<usize>().prop_map(Step::PutBack),
            Just(Step::Start),
            any::<usize>().prop_map(Step::End),
            (0i64..100).prop_map(Step::Wake),
        ]
    }

    proptest! {
        /// Whatever is done in whatever order, each execution is in one place, and what is counted is what is there.
        #[test]
        fn every_execution_stays_in_one_place(steps in prop::collection::vec(any_step(), 0..60)) {
            let mut queue = Queue::default();
            let (mut put, mut taken, mut running) = (Vec::<Waits>::new(), Vec::<Waits>::new(), Vec::new());
            let at = |second: i64| Timestamp::from_second(4_000_000_000 + second).unwrap();
            for step in steps {
                match step {
                    Step::Put { asks, seconds } => {
                        let waits = Waits::of(&execution("a", 0), 0, Timestamp::now());
                        let waits = Waits { until: seconds.map(at), asks: asks && seconds.is_some(), ..waits };
                        queue.put(waits.clone());
                        put.push(waits);
                    }
                    Step::Again(n) if !put.is_empty() => {
                        let waits = put[n % put.len()].clone();
                        let here = taken.iter().all(|one| one.id != waits.id)
                            && running.iter().all(|(one, _): &(Waits, u64)| one.id != waits.id);
                        if here {
                            queue.put(waits);
                        }
                    }
                    Step::Find(n) if !put.is_empty() => {
                        if let Here::Rests(waits) = queue.find(&put[n % put.len()].id) {
                            taken.push(waits);
                        }
                    }
                    Step::PutBack(n) if !taken.is_empty() => queue.put(taken.remove(n % taken.len())),
                    Step::Start => running.extend(queue.start("a", mpsc::channel(1).0)),
                    Step::End(n) if !running.is_empty() => {
                        let (waits, run) = running.remove(n % running.len());
                        queue.ended("a", &waits.id, run);
                        put.retain(|one| one.id != waits.id);
                    }
                    Step::Wake(second) => queue.wake(at(second)),
                    Step::Again(_) | Step::Find(_) | Step::PutBack(_) | Step::End(_) => {}
                }
                let (all, waiting) = (put.len(), queue.waiting());
                prop_assert_eq!(waiting.queued + waiting.parked + taken.len() + running.len(), all);
                prop_assert_eq!(queue.active("a"), all - taken.len());
                let asks = queue.parked.values().filter(|one| one.asks).count();
                prop_assert_eq!((waiting.asks, queue.places.len()), (asks, waiting.queued + waiting.parked));
            }
        }
    }
}
