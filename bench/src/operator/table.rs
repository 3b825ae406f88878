//! The table: one row for each figure, with the peers, the limit, the target and whether that was met.

use super::contender::Contender;
use crate::figures::Runs;
use crate::table::{number, ratio, three};

/// One figure of every contender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    ours: Runs,
    controller_runtime: Runs,
    kopf: Runs,
    limit: Runs,
}

impl Samples {
    pub(crate) fn push(&mut self, contender: Contender, value: f64) {
        match contender {
            Contender::Ours => self.ours.push(value),
            Contender::ControllerRuntime => self.controller_runtime.push(value),
            Contender::Kopf => self.kopf.push(value),
        }
    }

    pub(crate) fn push_limit(&mut self, value: f64) {
        self.limit.push(value);
    }

    /// The row of this figure.
    pub(crate) fn row(self, name: impl Into<String>, target: Target, limit: &'static str) -> Row {
        Row { name: name.into(), samples: self, of: limit, target }
    }
}

/// What is aimed at. Less is better in every row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Nothing: the figure is for information.
    None,
    /// This or less.
    AtMost(f64),
    /// At most so many times the limit.
    TimesLimit(f64),
    /// At most so many times the limit, and less than either peer.
    TimesLimitAndFirst(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) samples: Samples,
    /// What the limit is.
    of: &'static str,
    target: Target,
}

const HEAD: [&str; 10] = [
    "metric",
    "ours min/median/max",
    "controller-runtime",
    "kopf",
    "limit",
    "ours/limit",
    "c-r/ours",
    "kopf/ours",
    "target",
    "met",
];

impl Row {
    pub(crate) fn ours(&self) -> &Runs {
        &self.samples.ours
    }

    pub(crate) fn limit(&self) -> &Runs {
        &self.samples.limit
    }

    /// A figure is of the limit alone.
    pub(crate) fn is_of_limit(&self) -> bool {
        self.samples.ours.is_empty() && self.samples.controller_runtime.is_empty() && self.samples.kopf.is_empty()
    }

    /// Whether the target is met; none without a target or without what it is measured by.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let Samples { ours, controller_runtime, kopf, limit } = &self.samples;
        let within = |times: f64| (!limit.is_empty()).then(|| ours.median() <= times * limit.median());
        match self.target {
            _ if ours.is_empty() => None,
            Target::None => None,
            Target::AtMost(most) => Some(ours.median() <= most),
            Target::TimesLimit(times) => within(times),
            Target::TimesLimitAndFirst(times) => {
                let mut peers = [controller_runtime, kopf].into_iter().filter(|peer| !peer.is_empty());
                within(times).map(|within| within && peers.all(|peer| ours.median() < peer.median()))
            }
        }
    }

    fn cells(&self) -> Vec<String> {
        let Samples { ours, controller_runtime, kopf, limit } = &self.samples;
        let bound = if limit.is_empty() { "-".to_owned() } else { format!("{} ({})", number(limit.median()), self.of) };
        let target = match self.target {
            Target::None => "-".to_owned(),
            Target::AtMost(most) => format!("<= {}", number(most)),
            Target::TimesLimit(times) => format!("<= {}x limit", number(times)),
            Target::TimesLimitAndFirst(times) => format!("<= {}x limit, first", number(times)),
        };
        vec![
            self.name.clone(),
            three(ours),
            three(controller_runtime),
            three(kopf),
            bound,
            ratio(ours, limit),
            ratio(controller_runtime, ours),
            ratio(kopf, ours),
            target,
            self.is_met().map_or("-", |met| if met { "yes" } else { "NO" }).to_owned(),
        ]
    }
}

/// The head, and a line for each row.
pub(crate) fn lines(rows: &[Row]) -> Vec<Vec<String>> {
    let head = HEAD.map(str::to_owned).to_vec();
    std::iter::once(head).chain(rows.iter().map(Row::cells)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ours: f64, peers: [Option<f64>; 2], limit: f64) -> Samples {
        let mut samples = Samples::default();
        samples.push(Contender::Ours, ours);
        for (contender, figure) in [Contender::ControllerRuntime, Contender::Kopf].into_iter().zip(peers) {
            figure.into_iter().for_each(|figure| samples.push(contender, figure));
        }
        samples.push_limit(limit);
        samples
    }

    #[test]
    fn targets_are_judged_by_what_they_are_measured_by() {
        let met = |peers, target| samples(15.0, peers, 10.0).row("x", target, "null").is_met();
        let none = [None, None];
        assert_eq!(met(none, Target::None), None);
        assert_eq!(met(none, Target::AtMost(15.0)), Some(true));
        assert_eq!(met(none, Target::AtMost(14.9)), Some(false));
        assert_eq!(met(none, Target::TimesLimit(1.5)), Some(true));
        assert_eq!(met(none, Target::TimesLimit(1.4)), Some(false));
        assert_eq!(met(none, Target::TimesLimitAndFirst(1.5)), Some(true));
        assert_eq!(met([Some(16.0), Some(15.0)], Target::TimesLimitAndFirst(1.5)), Some(false), "no faster than one");
        assert_eq!(met([Some(16.0), Some(15.1)], Target::TimesLimitAndFirst(1.5)), Some(true));
    }

    #[test]
    fn each_line_has_a_cell_for_each_column() {
        let lines = lines(&[samples(2.0, [Some(4.0), None], 1.0).row("x", Target::TimesLimit(1.5), "null")]);
        assert!(lines.iter().all(|line| line.len() == HEAD.len()));
        assert_eq!(lines[1][4..], ["1.00 (null)", "2.00", "2.00", "-", "<= 1.50x limit", "NO"]);
    }
}
