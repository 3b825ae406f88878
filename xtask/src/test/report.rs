//! Owns what a run of everything has counted, and how it is printed at the end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::libtest::Outcome;

/// How many of the slowest tests are named.
const SLOWEST: usize = 10;

/// The counts of a run. Parts that run beside each other share it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: Vec<String>,
    parts: Vec<Part>,
    tests: Vec<(Duration, String)>,
}

/// One part of the run.
#[derive(Debug)]
struct Part {
    name: String,
    took: Duration,
    failed: bool,
}

impl Report {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what was left out, with the reason.
    pub(crate) fn skip(&self, what: &str, why: &str) {
        self.counts().skipped.push(format!("{what}: {why}"));
    }

    /// Counts a part that passes or fails as a whole.
    pub(crate) fn step(&self, name: &str, took: Duration, passed: bool) {
        let mut counts = self.counts();
        if passed {
            counts.passed += 1;
        } else {
            counts.failed += 1;
        }
        counts.parts.push(Part { name: name.to_owned(), took, failed: !passed });
    }

    /// Counts a part whose tests are counted one by one.
    pub(crate) fn tests(&self, name: &str, took: Duration, outcome: Outcome) {
        let mut counts = self.counts();
        counts.passed += outcome.passed;
        counts.failed += outcome.failed;
        if outcome.passed + outcome.failed > 0 {
            counts.parts.push(Part { name: name.to_owned(), took, failed: outcome.failed > 0 });
        }
        counts.tests.extend(outcome.tests);
    }

    /// Whether nothing has failed.
    pub(crate) fn passed(&self) -> bool {
        self.counts().failed == 0
    }

    /// The parts with their times, the slowest tests, what was skipped and, as the last line, the counts.
    pub(crate) fn text(&self, took: Duration) -> String {
        let mut counts = self.counts();
        let mut text =
            format!("== parts, {:.0} s in all; parts in the background ran beside others\n", took.as_secs_f64());
        for part in &counts.parts {
            let failed = if part.failed { "  FAILED" } else { "" };
            text += &format!("{:>7.1} s  {}{failed}\n", part.took.as_secs_f64(), part.name);
        }
        text += "== slowest tests\n";
        counts.tests.sort_by(|one, other| other.cmp(one));
        for (took, name) in counts.tests.iter().take(SLOWEST) {
            text += &format!("{:>7.1} s  {name}\n", took.as_secs_f64());
        }
        for skipped in &counts.skipped {
            text += &format!("skipped: {skipped}\n");
        }
        text += &format!("{} passed, {} failed", counts.passed, counts.failed);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_names_parts_and_slowest_tests_and_ends_with_the_counts() {
        let report = Report::default();
        report.step("format", Duration::from_millis(1500), true);
        let tests = (1..=11).map(|n| (Duration::from_secs(n), format!("t{n}"))).collect();
        report.tests("unit", Duration::from_secs(60), Outcome { passed: 10, failed: 1, tests, ..Outcome::default() });
        report.skip("the book", "only with --all");
        let text = report.text(Duration::from_secs(62));
        assert!(text.contains("    1.5 s  format\n") && text.contains("   60.0 s  unit  FAILED\n"), "{text}");
        assert!(text.contains("   11.0 s  t11\n") && !text.contains(" t1\n"), "{text}");
        assert!(text.ends_with("skipped: the book: only with --all\n11 passed, 1 failed"), "{text}");
        assert!(!report.passed());
    }
}
