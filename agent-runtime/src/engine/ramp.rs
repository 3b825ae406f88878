//! The gradual resume: what had queued up while the gate was shut begins at a bounded rate, not all at once.

use std::time::{Duration, Instant};

/// Counts starts from each opening of the gate until the queue has been empty once.
#[derive(Debug)]
pub(super) struct Ramp {
    /// Between two starts; none for no bound.
    gap: Option<Duration>,
    /// What had queued up is still being worked off.
    working_off: bool,
    /// The next start.
    free_at: Option<Instant>,
}

impl Ramp {
    /// At most `rate` starts each second after a resume. A process that starts takes up what its store holds in the same way.
    pub(super) fn new(rate: Option<u32>) -> Self {
        let gap = rate.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(1) / rate);
        Self { gap, working_off: true, free_at: None }
    }

    /// The gate is shut: what comes now queues up.
    pub(super) fn shut(&mut self) {
        self.working_off = true;
        self.free_at = None;
    }

    /// Nothing waits any more: from now on all begins as it comes.
    pub(super) fn worked_off(&mut self) {
        self.working_off = false;
    }

    /// How long the next start has to wait.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let free_at = self.free_at.filter(|_| self.working_off)?;
        Some(free_at.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// One has begun.
    pub(super) fn started(&mut self, now: Instant) {
        self.free_at = self.gap.map(|gap| self.free_at.map_or(now, |at| at.max(now)) + gap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts all that may start in `millis` milliseconds.
    fn starts(ramp: &mut Ramp, begun: Instant, millis: std::ops::Range<u64>) -> usize {
        let mut count = 0;
        for at in millis.map(|millis| begun + Duration::from_millis(millis)) {
            while ramp.wait(at).is_none() && count < 1000 {
                ramp.started(at);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_backlog_begins_at_the_rate_and_what_comes_later_at_once() {
        let begun = Instant::now();
        let mut ramp = Ramp::new(Some(10));
        assert_eq!(starts(&mut ramp, begun, 0..1000), 10);
        ramp.worked_off();
        assert_eq!(starts(&mut ramp, begun, 1000..1001), 1000);
        ramp.shut();
        assert_eq!(starts(&mut ramp, begun, 2000..2500), 5);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let begun = Instant::now();
        assert_eq!(starts(&mut Ramp::new(None), begun, 0..1), 1000);
    }
}
