//! What an option may be: labels, modes, durations, forms of output, shells.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use crds::FreezeMode;

/// Labels that must have these values: k=v, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |word: &str| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() && !key.ends_with('!') && !value.starts_with('=') => {
                Ok((key.to_owned(), value.to_owned()))
            }
            _ => Err(format!("{word:?}: give labels such as team=search,tier=1")),
        };
        text.split(',').map(pair).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&pairs.join(","))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// It finishes
    Drain,
    /// It stops at its next step and goes on afterwards
    Checkpoint,
    /// It is cancelled at once
    Cancel,
}

impl Mode {
    pub(crate) const WORDS: [&str; 3] = ["drain", "checkpoint", "cancel"];

    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::from_str(word, false).ok()
    }
}

impl From<Mode> for FreezeMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Drain => Self::Drain,
            Mode::Checkpoint => Self::Checkpoint,
            Mode::Cancel => Self::Cancel,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Whole seconds, minutes or hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b's') => (text.strip_suffix('s'), 1),
        Some(b'm') => (text.strip_suffix('m'), 60),
        Some(b'h') => (text.strip_suffix('h'), 3600),
        _ => (None, 0),
    };
    let seconds = number.and_then(|number| number.parse::<u64>().ok()).and_then(|number| number.checked_mul(factor));
    seconds.map(Duration::from_secs).ok_or_else(|| "give seconds, minutes or hours, such as 90s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        let labels: Labels = "team=search,tier=".parse().unwrap();
        assert_eq!(labels.to_string(), "team=search,tier=");
        for wrong in ["", "team", "team!=a", "team==a", "=a", "a=b,"] {
            assert!(wrong.parse::<Labels>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_whole_and_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "5", "m", "-1s", "1.5h", "99999999999999999999h", "5é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
