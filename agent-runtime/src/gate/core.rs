//! What the gate decides, without its lock, so that loom can try every interleaving of those who ask.

use std::collections::HashMap;
use std::sync::Arc;

use lifecycle::machine::GateMode;

/// The mode, and who holds a permit.
#[derive(Debug)]
pub(crate) struct State<T> {
    mode: GateMode,
    held: HashMap<Arc<str>, T>,
}

impl<T> State<T> {
    /// Closed: nothing runs before something says so.
    pub(crate) fn closed() -> Self {
        Self { mode: GateMode::Closed, held: HashMap::new() }
    }

    /// Admits an execution, if the gate is open and it holds no permit already.
    pub(crate) fn admit(&mut self, execution: &Arc<str>, value: T) -> bool {
        let admits = self.mode == GateMode::Open && !self.held.contains_key(execution);
        if admits {
            self.held.insert(Arc::clone(execution), value);
        }
        admits
    }

    /// Makes a permit that was given out before it was known for what the permit of an execution. False if that holds
    /// one already, and then nothing has changed.
    pub(crate) fn bind(&mut self, permit: &str, execution: &Arc<str>) -> bool {
        if self.held.contains_key(execution) {
            return false;
        }
        let Some(value) = self.held.remove(permit) else { return false };
        self.held.insert(Arc::clone(execution), value);
        true
    }

    /// Takes a permit back.
    pub(crate) fn release(&mut self, execution: &str) {
        self.held.remove(execution);
    }

    /// Decides the mode anew. `decide` is told whether no permit is held.
    pub(crate) fn transition<V>(&mut self, decide: impl FnOnce(bool) -> (GateMode, V)) -> V {
        let (mode, value) = decide(self.held.is_empty());
        self.mode = mode;
        value
    }

    /// What an execution with a permit does, if it may take another step.
    pub(crate) fn step(&mut self, execution: &str) -> Option<&mut T> {
        if self.mode == GateMode::Closed { None } else { self.held.get_mut(execution) }
    }

    /// The mode.
    pub(crate) fn mode(&self) -> GateMode {
        self.mode
    }

    /// Who holds a permit.
    pub(crate) fn held(&self) -> &HashMap<Arc<str>, T> {
        &self.held
    }
}
