//! Counts what happens, and strikes at the places where a run is to be disturbed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Fault, Layer, Place};

#[derive(Debug, Default)]
pub(crate) struct Places {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    armed: bool,
    counts: HashMap<(Layer, String), usize>,
    passed: Vec<Place>,
    targets: Vec<(Place, Fault)>,
    struck: Vec<Fault>,
    api_away: Option<Instant>,
    pods_away: Option<Instant>,
}

impl Places {
    /// Begins to count, and waits for the places.
    pub(crate) fn arm(&self, targets: Vec<(Place, Fault)>) {
        *self.lock() = State { armed: true, targets, ..State::default() };
    }

    /// Ends the run: what was passed, what struck, and whether that is every fault.
    pub(crate) fn disarm(&self) -> (Vec<Place>, Vec<Fault>, bool) {
        let state = std::mem::take(&mut *self.lock());
        let all = state.all_struck();
        (state.passed, state.struck, all)
    }

    /// This happens now. Gives the fault that is to strike here.
    pub(crate) fn pass(&self, layer: Layer, site: &str) -> Option<Fault> {
        let mut state = self.lock();
        if !state.armed {
            return None;
        }
        let count = state.counts.entry((layer, site.to_owned())).or_default();
        let place = Place { layer, site: site.to_owned(), nth: *count };
        *count += 1;
        state.passed.push(place.clone());
        let at = state.targets.iter().position(|(at, _)| *at == place)?;
        let (_, fault) = state.targets.swap_remove(at);
        state.struck.push(fault);
        Some(fault)
    }

    /// Whether every fault struck.
    pub(crate) fn struck(&self) -> bool {
        self.lock().all_struck()
    }

    /// Nobody reaches the API server for so long.
    pub(crate) fn part_api(&self, time: Duration) {
        self.lock().api_away = Some(Instant::now() + time);
    }

    /// Nobody reaches a pod for so long.
    pub(crate) fn part_pods(&self, time: Duration) {
        self.lock().pods_away = Some(Instant::now() + time);
    }

    pub(crate) fn api_away(&self) -> bool {
        self.lock().api_away.is_some_and(|until| until > Instant::now())
    }

    /// How much longer no pod can be reached.
    pub(crate) fn pods_away(&self) -> Option<Duration> {
        self.lock()
            .pods_away
            .map(|until| until.saturating_duration_since(Instant::now()))
            .filter(|left| !left.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn all_struck(&self) -> bool {
        self.targets.is_empty() && !self.struck.is_empty()
    }
}
