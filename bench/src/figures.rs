//! Figures out of many measurements: quantiles of one run, and the least, middle and most of several runs.

use std::time::Duration;

/// The value below which the given share of the sorted values lies; 0 of nothing.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    // In range: the share is between 0 and 1.
    let index = (last * share).ceil() as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// A time in milliseconds.
pub(crate) fn millisecond(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Times in milliseconds, sorted.
pub(crate) fn milliseconds(times: impl IntoIterator<Item = Duration>) -> Vec<f64> {
    let mut all: Vec<f64> = times.into_iter().map(millisecond).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The same figure out of several runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Runs(Vec<f64>);

impl Runs {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or(0.0)
    }

    pub(crate) fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }

    /// The middle one; of an even number the mean of the two.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        let at = |index: usize| self.0.get(index).copied().unwrap_or(0.0);
        if self.0.len().is_multiple_of(2) { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 } else { at(middle) }
    }
}

impl FromIterator<f64> for Runs {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut runs = Self::default();
        values.into_iter().for_each(|value| runs.push(value));
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99), quantile(&sorted, 1.0)), (51.0, 100.0, 100.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        let runs: Runs = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!((runs.least(), runs.median(), runs.most()), (1.0, 2.5, 4.0));
        assert_eq!([7.0].into_iter().collect::<Runs>().median(), 7.0);
    }
}
