//! The gate's own rules under loom: every interleaving of those who ask for permits and the one who closes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../src/gate/core.rs"]
#[expect(dead_code, reason = "the runtime uses the rest")]
mod core;

use std::sync::Arc as StdArc;

use core::State;
use lifecycle::machine::GateMode;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The gate as the runtime has it, with loom's lock.
struct Gate {
    state: Mutex<State<()>>,
    /// Executions that run.
    running: AtomicUsize,
    /// Somebody was told that nothing runs and nothing will start.
    acknowledged: AtomicBool,
}

impl Gate {
    fn open() -> Arc<Self> {
        let mut state = State::closed();
        state.transition(|_| (GateMode::Open, ()));
        Arc::new(Self { state: Mutex::new(state), running: AtomicUsize::new(0), acknowledged: AtomicBool::new(false) })
    }

    /// An execution of two steps, as the engine runs one.
    fn execute(&self, id: &str) {
        let id: StdArc<str> = id.into();
        if self.state.lock().unwrap().admit(&id, ()) {
            self.run(&id);
        }
    }

    /// The same where it is known only under the permit which execution it is.
    fn claim(&self, permit: &str, id: &str) {
        let (permit, id): (StdArc<str>, StdArc<str>) = (permit.into(), id.into());
        if !self.state.lock().unwrap().admit(&permit, ()) {
            return;
        }
        let bound = self.state.lock().unwrap().bind(&permit, &id);
        if bound {
            assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "it runs twice at once");
            assert!(!self.acknowledged.load(Ordering::SeqCst), "it began after the acknowledgement");
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
        // Unbound, it is given back under its own name.
        self.state.lock().unwrap().release(if bound { &id } else { &permit });
    }

    fn run(&self, id: &StdArc<str>) {
        assert!(!self.acknowledged.load(Ordering::SeqCst), "it began after the acknowledgement");
        self.running.fetch_add(1, Ordering::SeqCst);
        for _ in 0..2 {
            if self.state.lock().unwrap().step(id).is_none() {
                break;
            }
            assert!(!self.acknowledged.load(Ordering::SeqCst), "a step began after the acknowledgement");
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.state.lock().unwrap().release(id);
    }

    /// A pause: the mode is changed, and what it is told of the permits decides the answer.
    fn close(&self, mode: GateMode) -> bool {
        let idle = self.state.lock().unwrap().transition(|idle| (mode, idle));
        if idle {
            assert_eq!(self.running.load(Ordering::SeqCst), 0, "told idle while something runs");
            self.acknowledged.store(true, Ordering::SeqCst);
        }
        idle
    }
}

fn every_interleaving(mode: GateMode) {
    loom::model(move || {
        let gate = Gate::open();
        let workers = ["a", "b"].map(|id| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.execute(id))
        });
        gate.close(mode);
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(gate.close(mode), "once all are back, the pause is reached");
        gate.execute("late");
    });
}

#[test]
fn nothing_begins_after_a_drain_was_acknowledged() {
    every_interleaving(GateMode::Draining);
}

#[test]
fn nothing_begins_and_no_step_is_taken_after_a_close_was_acknowledged() {
    every_interleaving(GateMode::Closed);
}

/// Two claims of one execution, as a replica may make them after a stall: one is bound, and neither begins late.
#[test]
fn a_claim_begins_nothing_after_an_acknowledgement_and_one_execution_runs_once() {
    for mode in [GateMode::Draining, GateMode::Closed] {
        loom::model(move || {
            let gate = Gate::open();
            let workers = ["?1", "?2"].map(|permit| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || gate.claim(permit, "a"))
            });
            gate.close(mode);
            for worker in workers {
                worker.join().unwrap();
            }
            assert!(gate.close(mode), "once all are back, the pause is reached");
            gate.claim("?3", "late");
        });
    }
}
