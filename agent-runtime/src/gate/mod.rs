//! The gate: who may execute. Its mode and its counts change under one lock, so closing it is linearizable:
//! once `transition` has returned with a mode that is not open, no execution begins.

mod core;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifecycle::machine::GateMode;
use lifecycle::wire::Holder;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use core::State;

/// The ids of permits that are not an execution's yet begin so.
const UNBOUND: char = '?';

/// Gives out permits to executions and to their steps.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State<Held>>,
    /// Counts changes, so that waiters look again.
    changed: watch::Sender<u64>,
    /// Permits that were given out before it was known for what.
    claims: AtomicU64,
}

/// What an execution with a permit is doing.
#[derive(Debug)]
struct Held {
    entry_point: Arc<str>,
    node: Arc<str>,
    interrupt: CancellationToken,
}

impl Default for Gate {
    /// Closed: nothing runs before something says so.
    fn default() -> Self {
        Self { state: Mutex::new(State::closed()), changed: watch::Sender::new(0), claims: AtomicU64::new(0) }
    }
}

/// Held from admission until the execution has ended or is parked.
#[derive(Debug)]
pub struct ExecutionPermit {
    gate: Arc<Gate>,
    execution: Arc<str>,
    interrupt: CancellationToken,
}

/// Held during one program or request; given back when its effect has ended.
#[derive(Debug)]
pub struct StepPermit<'a> {
    _execution: &'a ExecutionPermit,
}

impl Gate {
    /// Admits an execution, if the gate is open.
    #[must_use]
    pub fn admit(self: &Arc<Self>, execution: &str, entry_point: &str) -> Option<ExecutionPermit> {
        let execution: Arc<str> = execution.into();
        let interrupt = CancellationToken::new();
        let held = Held { entry_point: entry_point.into(), node: "".into(), interrupt: interrupt.clone() };
        if !self.lock().admit(&execution, held) {
            return None;
        }
        self.wake();
        Some(ExecutionPermit { gate: Arc::clone(self), execution, interrupt })
    }

    /// Admits an execution of an entry point before it is known which, if the gate is open. Until the permit is bound
    /// it counts as in flight.
    #[must_use]
    pub fn admit_any(self: &Arc<Self>, entry_point: &str) -> Option<ExecutionPermit> {
        // No execution has such an id.
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        self.admit(&format!("{UNBOUND}{number}"), entry_point)
    }

    /// Decides the mode anew under the lock. `decide` is told whether no permit is held.
    pub fn transition<T>(&self, decide: impl FnOnce(bool) -> (GateMode, T)) -> T {
        let value = self.lock().transition(decide);
        self.wake();
        value
    }

    /// Aborts the step under way of every execution: it is no failure of theirs.
    pub fn interrupt(&self) {
        self.lock().held().values().for_each(|held| held.interrupt.cancel());
    }

    /// How many executions hold a permit.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().held().len()
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> GateMode {
        self.lock().mode()
    }

    /// Executions with a permit, by entry point.
    #[must_use]
    pub fn streams(&self) -> HashMap<String, usize> {
        let mut streams = HashMap::new();
        for held in self.lock().held().values() {
            *streams.entry(held.entry_point.to_string()).or_default() += 1;
        }
        streams
    }

    /// Who holds permits, at most `most`.
    #[must_use]
    pub fn holders(&self, most: usize) -> Vec<Holder> {
        let state = self.lock();
        let holder = |(id, held): (&Arc<str>, &Held)| Holder { execution: id.to_string(), node: held.node.to_string() };
        let bound = state.held().iter().filter(|(id, _)| !id.starts_with(UNBOUND));
        let mut all: Vec<Holder> = bound.map(holder).collect();
        all.sort_by(|a, b| a.execution.cmp(&b.execution));
        all.truncate(most);
        all
    }

    /// Told after every change of the mode or of the permits.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State<Held>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExecutionPermit {
    /// Permits one step at a node, unless the gate is closed: then the execution stops here and waits.
    #[must_use]
    pub fn step(&self, node: &str) -> Option<StepPermit<'_>> {
        if self.interrupt.is_cancelled() {
            return None;
        }
        self.gate.lock().step(&self.execution)?.node = node.into();
        Some(StepPermit { _execution: self })
    }

    /// Makes a permit of [`Gate::admit_any`] that of an execution. None if that holds one already.
    #[must_use]
    pub fn bind(mut self, execution: &str) -> Option<Self> {
        let execution: Arc<str> = execution.into();
        if !self.gate.lock().bind(&self.execution, &execution) {
            return None;
        }
        self.execution = execution;
        self.gate.wake();
        Some(self)
    }

    /// Cancelled when its steps are to be aborted; whoever cancels it aborts them.
    #[must_use]
    pub fn interrupt(&self) -> CancellationToken {
        self.interrupt.clone()
    }

    /// Aborts the steps of this execution, which gets no more of them.
    pub fn abort(&self) {
        self.interrupt.cancel();
    }

    /// Ends when the step under way is to be aborted.
    pub async fn interrupted(&self) {
        self.interrupt.cancelled().await;
    }
}

impl Drop for ExecutionPermit {
    fn drop(&mut self) {
        self.gate.lock().release(&self.execution);
        self.gate.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        gate.transition(|_| (GateMode::Open, ()));
        gate
    }

    #[test]
    fn a_new_gate_admits_nothing() {
        assert!(Arc::new(Gate::default()).admit("a", "main").is_none());
    }

    #[test]
    fn draining_gives_steps_only_to_what_was_admitted() {
        let gate = open();
        let permit = gate.admit("a", "main").expect("it is open");
        let idle = gate.transition(|idle| (GateMode::Draining, idle));
        assert!(!idle && gate.admit("b", "main").is_none());
        assert!(permit.step("n").is_some());
        assert_eq!(gate.holders(9), [Holder { execution: "a".to_owned(), node: "n".to_owned() }]);
        drop(permit);
        assert!(gate.transition(|idle| (GateMode::Closed, idle)));
    }

    #[test]
    fn closed_gives_no_step() {
        let gate = open();
        let permit = gate.admit("a", "main").expect("it is open");
        gate.transition(|_| (GateMode::Closed, ()));
        assert!(permit.step("n").is_none());
    }

    #[test]
    fn an_execution_is_admitted_once_at_a_time() {
        let gate = open();
        let _permit = gate.admit("a", "main").expect("it is open");
        assert!(gate.admit("a", "main").is_none());
    }

    #[test]
    fn a_permit_for_any_execution_counts_until_it_is_bound_and_then_is_that_executions() {
        let gate = open();
        let any = gate.admit_any("main").expect("it is open");
        assert_eq!((gate.in_flight(), gate.holders(9)), (1, Vec::new()));
        assert!(!gate.transition(|idle| (GateMode::Draining, idle)), "a claim may be under way");
        let permit = any.bind("a").expect("it is free");
        assert!(permit.step("n").is_some() && gate.admit_any("main").is_none());
        gate.transition(|_| (GateMode::Open, ()));
        assert!(gate.admit_any("main").expect("it is open").bind("a").is_none(), "one at a time");
        assert_eq!(gate.in_flight(), 1);
        drop(permit);
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn nothing_is_admitted_after_a_close_though_many_try() {
        let gate = open();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let gate = &gate;
                scope.spawn(move || {
                    for n in 0..2000 {
                        drop(gate.admit(&format!("{worker}-{n}"), "main"));
                    }
                });
            }
            loop {
                let closed = gate.transition(|idle| (if idle { GateMode::Closed } else { GateMode::Open }, idle));
                if closed {
                    break;
                }
            }
            for _ in 0..1000 {
                assert_eq!(gate.in_flight(), 0);
            }
        });
    }
}
