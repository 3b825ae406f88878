//! How much of the operators is measured.

use std::time::Duration;

use super::Part;

/// The time between two pauses. The API server brings its cache of pods up to date for a LIST at once, but only every
/// 100 ms: pauses in a row would measure that rhythm.
pub(crate) const APART: Duration = Duration::from_millis(120);

/// Sizes of one round; every figure is taken `runs` times unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) runs: usize,
    /// Pauses of one pod whose quantiles are one figure.
    pub(crate) pauses: usize,
    /// Pods of each object that has many.
    pub(crate) sizes: Vec<usize>,
    /// Objects with one pod each.
    pub(crate) objects: usize,
    /// So many objects with one pod each are made and measured once, after all else: they slow the API server down.
    pub(crate) crowd: usize,
    /// How long an idle operator is looked at: ours asks each pod once in it.
    pub(crate) idle: Duration,
    /// How long the rate of writes is measured.
    pub(crate) writes: Duration,
    /// How often a leader is killed, over all runs.
    pub(crate) failovers: usize,
}

impl Plan {
    /// What `cargo xtask bench operator` measures, with or without `--quick`.
    pub(crate) fn new(runs: usize, quick: bool, crowd: usize) -> Self {
        let seconds = Duration::from_secs;
        let idle = seconds(35);
        if quick {
            let sizes = vec![100, 1000];
            return Self { runs, pauses: 40, sizes, objects: 200, crowd: 0, idle, writes: seconds(1), failovers: 1 };
        }
        let sizes = vec![100, 1000, 10_000];
        Self { runs, pauses: 100, sizes, objects: 1000, crowd, idle, writes: seconds(3), failovers: 2 }
    }

    /// Only to see that everything still works.
    pub(crate) fn check() -> Self {
        Self {
            runs: 1,
            pauses: 5,
            sizes: vec![20],
            objects: 10,
            crowd: 0,
            idle: Duration::from_secs(1),
            writes: Duration::from_millis(300),
            failovers: 1,
        }
    }

    /// Nothing is made that this part does not measure.
    pub(crate) fn narrowed(self, part: Part) -> Self {
        let sizes = if part == Part::Many { self.sizes } else { Vec::new() };
        let (objects, crowd) = if part == Part::Objects { (self.objects, self.crowd) } else { (0, 0) };
        Self { sizes, objects, crowd, ..self }
    }

    /// All pods of the objects that have many.
    pub(crate) fn many(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// How it is told in a report.
    pub(crate) fn told(&self) -> String {
        let sizes = self.sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let crowd = if self.crowd == 0 { String::new() } else { format!(" and once {}", self.crowd) };
        format!(
            "{} runs; {} pauses of one pod, objects with {sizes} pods, {}{crowd} objects with one pod each, {:.0} s of \
             idling and {} failovers",
            self.runs,
            self.pauses,
            self.objects,
            self.idle.as_secs_f64(),
            self.failovers
        )
    }
}
