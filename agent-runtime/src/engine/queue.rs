//! What waits: by entry point, ordered by priority and age; and what is parked until a time.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use tokio::sync::mpsc;

use super::order::Order;
use super::{Waiting, is_parked};
use crate::store::{Execution, LEVEL_MILLIS};

/// Smaller comes first. As all that waits ages alike, priority is a head start that never changes.
type Rank = (i64, String);

/// Where an execution is.
#[derive(Debug)]
pub(super) enum Found {
    /// It runs, and takes orders here.
    Runs(mpsc::Sender<Order>),
    /// It rested, and has been taken out; in a shared store under this claim.
    Rests(Box<Execution>, Option<i64>),
    /// It runs in another replica.
    Elsewhere,
    /// It is not here, or is between two places.
    Nowhere,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    queued: HashMap<String, BTreeMap<Rank, Execution>>,
    parked: BTreeMap<(Timestamp, String), (Execution, i32)>,
    /// Executions of an entry point that run.
    running: HashMap<String, usize>,
    /// How to reach the executions that run, by id.
    reach: HashMap<String, mpsc::Sender<Order>>,
    /// Executions of an entry point that are parked.
    waiting: HashMap<String, usize>,
    /// Places of an entry point that are being taken: their executions are not on disk yet.
    reserved: HashMap<String, usize>,
}

impl Queue {
    /// Takes in an execution: parks it, or lets it wait for its turn.
    pub(super) fn put(&mut self, execution: Execution, priority: i32) {
        match execution.due() {
            Some(due) if is_parked(&execution, Timestamp::now()) => {
                *self.waiting.entry(execution.entry_point.clone()).or_default() += 1;
                self.parked.insert((due, execution.id.clone()), (execution, priority));
            }
            Some(_) | None => self.line_up(execution, priority),
        }
    }

    fn line_up(&mut self, execution: Execution, priority: i32) {
        let rank = execution.created.as_millisecond().saturating_sub(i64::from(priority).saturating_mul(LEVEL_MILLIS));
        let line = self.queued.entry(execution.entry_point.clone()).or_default();
        line.insert((rank, execution.id.clone()), execution);
    }

    /// Lets what is due wait for its turn.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some(first) = self.parked.first_entry().filter(|first| first.key().0 <= now) {
            let (execution, priority) = first.remove();
            decrement(&mut self.waiting, &execution.entry_point);
            self.line_up(execution, priority);
        }
    }

    /// The first entry point and execution that may start under the limits.
    pub(super) fn head(&self, limit: impl Fn(&str) -> usize) -> Option<(String, String)> {
        let free =
            self.queued.iter().filter(|(entry, _)| self.running.get(*entry).copied().unwrap_or(0) < limit(entry));
        let heads = free.filter_map(|(entry, line)| Some((line.first_key_value()?.0, entry)));
        heads.min().map(|((_, id), entry)| (entry.clone(), id.clone()))
    }

    /// Takes out the first execution of an entry point, which now runs and is reached through `orders`.
    pub(super) fn start(&mut self, entry: &str, orders: mpsc::Sender<Order>) -> Option<Execution> {
        let (_, execution) = self.queued.get_mut(entry)?.pop_first()?;
        *self.running.entry(entry.to_owned()).or_default() += 1;
        self.reach.insert(execution.id.clone(), orders);
        Some(execution)
    }

    /// An execution that was never in this queue runs, and is reached through `orders`.
    pub(super) fn runs(&mut self, entry: &str, id: &str, orders: mpsc::Sender<Order>) {
        *self.running.entry(entry.to_owned()).or_default() += 1;
        self.reach.insert(id.to_owned(), orders);
    }

    /// One of an entry point's executions does not run any more.
    pub(super) fn ended(&mut self, entry: &str, id: &str) {
        decrement(&mut self.running, entry);
        self.reach.remove(id);
    }

    /// Finds an execution. One that rests is taken out.
    pub(super) fn find(&mut self, id: &str) -> Found {
        if let Some(orders) = self.reach.get(id) {
            return Found::Runs(orders.clone());
        }
        for line in self.queued.values_mut() {
            if let Some(rank) = line.keys().find(|(_, queued)| queued == id).cloned()
                && let Some(execution) = line.remove(&rank)
            {
                return Found::Rests(Box::new(execution), None);
            }
        }
        if let Some(key) = self.parked.keys().find(|(_, parked)| parked == id).cloned()
            && let Some((execution, _)) = self.parked.remove(&key)
        {
            decrement(&mut self.waiting, &execution.entry_point);
            return Found::Rests(Box::new(execution), None);
        }
        Found::Nowhere
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
        let asks = self.parked.values().filter(|(execution, _)| execution.asks()).count();
        Waiting { queued: self.queued.values().map(BTreeMap::len).sum(), parked: self.parked.len(), asks }
    }
}

fn decrement(counts: &mut HashMap<String, usize>, entry: &str) {
    if let Some(count) = counts.get_mut(entry) {
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MAIN, Phase, State};

    fn execution(entry: &str, created: i64) -> Execution {
        let created = Timestamp::from_second(created).unwrap();
        Execution::new(entry, "h", "n", serde_json::Map::new(), created)
    }

    fn start(queue: &mut Queue, entry: &str) -> Execution {
        queue.start(entry, mpsc::channel(1).0).unwrap()
    }

    fn order(queue: &mut Queue) -> Vec<i64> {
        let mut order = Vec::new();
        while let Some((entry, _)) = queue.head(|_| usize::MAX) {
            order.push(start(queue, &entry).created.as_second());
        }
        order
    }

    #[test]
    fn higher_priority_first_and_a_level_is_gained_per_minute() {
        let mut queue = Queue::default();
        queue.put(execution("low", 0), 0);
        queue.put(execution("low", 100), 0);
        queue.put(execution("high", 59), 1);
        queue.put(execution("high", 101), 1);
        assert_eq!(order(&mut queue), [59, 0, 101, 100]);
    }

    #[test]
    fn a_full_entry_point_does_not_hold_up_another() {
        let mut queue = Queue::default();
        queue.put(execution("a", 0), 0);
        queue.put(execution("a", 1), 0);
        queue.put(execution("b", 2), 0);
        let first = start(&mut queue, "a");
        assert_eq!(queue.head(|_| 1).unwrap().0, "b");
        queue.ended("a", &first.id);
        assert_eq!(queue.head(|_| 1).unwrap().0, "a");
    }

    #[test]
    fn a_line_has_a_bound_that_counts_what_is_being_accepted() {
        let mut queue = Queue::default();
        assert!(queue.reserve("a", 2) && queue.reserve("a", 2) && !queue.reserve("a", 2));
        queue.unreserve("a");
        queue.put(execution("a", 0), 0);
        assert!(!queue.reserve("a", 2));
    }

    #[test]
    fn what_is_parked_lines_up_when_it_is_due() {
        let mut queue = Queue::default();
        let due = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let mut parked = Execution { state: State::Waiting, ..execution("a", 0) };
        parked.branches.get_mut(MAIN).unwrap().phase = Phase::Parked { until: due };
        let id = parked.id.clone();
        queue.put(parked, 0);
        let Found::Rests(parked, None) = queue.find(&id) else { panic!("it rests") };
        assert_eq!(queue.active("a"), 0);
        queue.put(*parked, 0);
        queue.wake(Timestamp::now());
        assert_eq!((queue.waiting(), queue.active("a")), (Waiting { queued: 0, parked: 1, asks: 0 }, 1));
        queue.wake(due);
        assert_eq!((queue.waiting(), queue.active("a")), (Waiting { queued: 1, parked: 0, asks: 0 }, 1));
    }
}
