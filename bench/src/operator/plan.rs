//! How much of the operators is measured.

use std::time::Duration;

use super::Part;

/// The time between two pauses. The API server brings its cache of pods up to date for a LIST at once, but only every
/// 100 ms: pauses in a row would measure that rhythm.
pub(crate) const APART: Duration = Duration::from_millis(120);

/// So many objects are measured in the first run only: each pause takes about a minute.
pub(crate) const ONCE: usize = 10_000;

/// Sizes of one round; every figure is taken `runs` times unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) runs: usize,
    /// Pauses of one pod whose quantiles are one figure.
    pub(crate) pauses: usize,
    /// Pods of each object that has many.
    pub(crate) sizes: Vec<usize>,
    /// How many objects with one pod each.
    pub(crate) objects: Vec<usize>,
    /// How long an idle operator is looked at: ours asks each pod once in it.
    pub(crate) idle: Duration,
    /// How long the rate of writes is measured.
    pub(crate) writes: Duration,
    /// How often a leader is killed, over all runs.
    pub(crate) failovers: usize,
}

impl Plan {
    /// What `cargo xtask bench operator` measures, with or without `--quick`.
    pub(crate) fn new(runs: usize, quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            let sizes = vec![100, 1000];
            return Self {
                runs,
                pauses: 40,
                sizes,
                objects: vec![200],
                idle: seconds(35),
                writes: seconds(1),
                failovers: 1,
            };
        }
        let sizes = vec![100, 1000, 10_000];
        Self {
            runs,
            pauses: 100,
            sizes,
            objects: vec![1000, ONCE],
            idle: seconds(35),
            writes: seconds(3),
            failovers: 2,
        }
    }

    /// Only to see that everything still works.
    pub(crate) fn check() -> Self {
        Self {
            runs: 1,
            pauses: 5,
            sizes: vec![20],
            objects: vec![10],
            idle: Duration::from_secs(1),
            writes: Duration::from_millis(300),
            failovers: 1,
        }
    }

    /// Nothing is made that this part does not measure.
    pub(crate) fn narrowed(self, part: Part) -> Self {
        let sizes = if part == Part::Many { self.sizes } else { Vec::new() };
        let objects = if part == Part::Objects { self.objects } else { Vec::new() };
        Self { sizes, objects, ..self }
    }

    /// All pods of the objects that have many.
    pub(crate) fn many(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// How it is told in a report.
    pub(crate) fn told(&self) -> String {
        let listed = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        format!(
            "{} runs; {} pauses of one pod, objects with {} pods, {} objects with one pod each, {:.0} s of idling and \
             {} failovers; {ONCE} objects in the first run only",
            self.runs,
            self.pauses,
            listed(&self.sizes),
            listed(&self.objects),
            self.idle.as_secs_f64(),
            self.failovers
        )
    }
}
