//! How much is measured.

use std::time::Duration;

/// Sizes of one round; every figure is taken `runs` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) runs: usize,
    /// Starts whose median is one figure.
    pub(crate) starts: usize,
    pub(crate) warm_up: Duration,
    /// The length of each load.
    pub(crate) load: Duration,
    /// The length of each measurement of the disk.
    pub(crate) disk: Duration,
    /// Pauses whose quantiles are one figure.
    pub(crate) pauses: usize,
}

impl Plan {
    pub(crate) fn new(runs: usize, quick: bool) -> Self {
        let millis = Duration::from_millis;
        if quick {
            let (warm_up, load, disk) = (millis(200), millis(800), millis(400));
            return Self { runs, starts: 1, warm_up, load, disk, pauses: 40 };
        }
        Self { runs, starts: 3, warm_up: millis(500), load: millis(3000), disk: millis(1000), pauses: 1000 }
    }

    /// How it is told in a report.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} runs; {} starts, {:.1} s of each load after {:.1} s of warm-up and {} pauses in each",
            self.runs,
            self.starts,
            self.load.as_secs_f64(),
            self.warm_up.as_secs_f64(),
            self.pauses
        )
    }
}
