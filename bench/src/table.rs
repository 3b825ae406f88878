//! The table: one row for each figure, with its limit, its target and whether that was met.

use crate::contender::Contender;
use crate::figures::Runs;

/// One figure of every contender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    ours: Runs,
    peer: Runs,
    null: Runs,
}

impl Samples {
    pub(crate) fn push(&mut self, contender: Contender, value: f64) {
        match contender {
            Contender::Ours => self.ours.push(value),
            Contender::Peer => self.peer.push(value),
            Contender::Null => self.null.push(value),
        }
    }

    /// The row of this figure; the null server's is its limit.
    pub(crate) fn row(self, name: &'static str, target: Target, limit: &'static str) -> Row {
        Row { name, ours: self.ours, peer: self.peer, limit: self.null, of: limit, target }
    }
}

/// What is aimed at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Nothing: the figure is for information.
    None,
    /// This or less.
    AtMost(f64),
    /// So many times the peer's.
    TimesPeer(f64),
    /// This share of the limit.
    OfLimit(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) ours: Runs,
    pub(crate) peer: Runs,
    pub(crate) limit: Runs,
    /// What the limit is.
    of: &'static str,
    target: Target,
}

const HEAD: [&str; 8] =
    ["metric", "ours min/median/max", "peer min/median/max", "limit", "ours/limit", "peer/ours", "target", "met"];

impl Row {
    /// A row of the limit alone.
    pub(crate) fn of_limit(name: &'static str, limit: Runs) -> Self {
        Self { name, ours: Runs::default(), peer: Runs::default(), limit, of: "this disk", target: Target::None }
    }

    /// The same row against another limit.
    pub(crate) fn against(self, limit: Runs, of: &'static str) -> Self {
        Self { limit, of, ..self }
    }

    /// Whether the target is met; none without a target or without what it is measured by.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let ours = self.ours.median();
        match self.target {
            _ if self.ours.is_empty() => None,
            Target::None => None,
            Target::AtMost(most) => Some(ours <= most),
            Target::TimesPeer(times) => (!self.peer.is_empty()).then(|| ours >= times * self.peer.median()),
            Target::OfLimit(share) => (!self.limit.is_empty()).then(|| ours >= share * self.limit.median()),
        }
    }

    fn cells(&self) -> [String; 8] {
        let limit = if self.limit.is_empty() {
            "-".to_owned()
        } else {
            format!("{} ({})", number(self.limit.median()), self.of)
        };
        let target = match self.target {
            Target::None => "-".to_owned(),
            Target::AtMost(most) => format!("<= {}", number(most)),
            Target::TimesPeer(times) => format!(">= {times:.0}x peer"),
            Target::OfLimit(share) => format!(">= {:.0} % of limit", share * 100.0),
        };
        let met = self.is_met().map_or("-", |met| if met { "yes" } else { "NO" });
        [
            self.name.to_owned(),
            three(&self.ours),
            three(&self.peer),
            limit,
            ratio(&self.ours, &self.limit),
            ratio(&self.peer, &self.ours),
            target,
            met.to_owned(),
        ]
    }
}

pub(crate) fn three(runs: &Runs) -> String {
    if runs.is_empty() {
        return "-".to_owned();
    }
    format!("{} / {} / {}", number(runs.least()), number(runs.median()), number(runs.most()))
}

pub(crate) fn ratio(of: &Runs, to: &Runs) -> String {
    if of.is_empty() || to.is_empty() || to.median() == 0.0 {
        return "-".to_owned();
    }
    number(of.median() / to.median())
}

/// Three digits that count, and no more than a figure of this kind is worth.
pub(crate) fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if !(0.0..1.0).contains(&value) => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// The table for a terminal.
pub(crate) fn aligned(rows: &[Row]) -> String {
    align(&lines(rows))
}

/// The same table in Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    mark_down(&lines(rows))
}

fn lines(rows: &[Row]) -> Vec<Vec<String>> {
    let head = HEAD.map(str::to_owned).to_vec();
    std::iter::once(head).chain(rows.iter().map(|row| row.cells().to_vec())).collect()
}

/// Lines for a terminal: the first column to the left, the others to the right.
pub(crate) fn align(lines: &[Vec<String>]) -> String {
    let mut widths = vec![0; lines.first().map_or(0, Vec::len)];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate();
        let padded = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(&padded.collect::<Vec<_>>().join("  "));
        text.push('\n');
    }
    text
}

/// Lines in Markdown; the first one is the head.
pub(crate) fn mark_down(lines: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<&str> = line.iter().map(|cell| cell.trim()).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if number == 0 {
            text.push_str(&format!("|---|{}\n", "---:|".repeat(line.len().saturating_sub(1))));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ours: f64, peer: Option<f64>, null: f64) -> Samples {
        let mut samples = Samples::default();
        samples.push(Contender::Ours, ours);
        peer.into_iter().for_each(|peer| samples.push(Contender::Peer, peer));
        samples.push(Contender::Null, null);
        samples
    }

    #[test]
    fn targets_are_judged_by_what_they_are_measured_by() {
        let row = |peer, target| samples(80.0, peer, 100.0).row("x", target, "null").is_met();
        assert_eq!(row(Some(10.0), Target::TimesPeer(8.0)), Some(true));
        assert_eq!(row(Some(10.1), Target::TimesPeer(8.0)), Some(false));
        assert_eq!(row(None, Target::TimesPeer(8.0)), None);
        assert_eq!(row(None, Target::OfLimit(0.8)), Some(true));
        assert_eq!(row(None, Target::OfLimit(0.81)), Some(false));
        assert_eq!(row(None, Target::AtMost(79.0)), Some(false));
        assert_eq!(row(None, Target::None), None);
    }

    #[test]
    fn columns_are_aligned_and_what_is_missing_is_a_dash() {
        let rows = [
            samples(80.0, Some(10.0), 100.0).row("short", Target::OfLimit(0.9), "null"),
            samples(1234.5, None, 0.25).row("a longer name", Target::None, "null"),
        ];
        let text = aligned(&rows);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{text}");
        assert!(text.contains("NO") && text.contains("0.800") && text.contains("0.125"), "{text}");
        assert!(
            markdown(&rows).contains("| a longer name | 1234 / 1234 / 1234 | - | 0.250 (null) | 4938 | - | - | - |")
        );
    }
}
