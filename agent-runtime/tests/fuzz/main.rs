//! The fuzz targets on stable: their seeds, changed at random for a few seconds each. `HIVE_FUZZ_SECONDS` sets
//! how long, `HIVE_FUZZ_TARGET` names one; `cargo xtask fuzz` runs each for a minute.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../fuzz/targets.rs"]
mod targets;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// What makes up the inputs: words that lead further in than bytes by chance do.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    ":",
    ",",
    "\n",
    "- ",
    "&a",
    "*a",
    "<<",
    "!!",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "9223372036854775808",
    "\u{0}",
    "\\u0000",
    "sha256=",
    " in ",
    " is not ",
    " and ",
    " if ",
    " else ",
    "(",
    ")",
    "**",
    "*",
    "%",
    "len",
    "sum",
    "range",
    "x",
    "s",
    "nodes",
    "edges",
    "graph",
    "node_type",
    "condition",
    "epoch",
    "state",
    "running",
    "paused",
    "branches",
    "phase",
    "event",
    "at",
    "ä",
    "\u{10ffff}",
];

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    Word(usize, usize),
    Cut(usize, usize),
    Repeat(usize, usize, u8),
    End(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<usize>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (place(), 0..WORDS.len()).prop_map(|(at, word)| Change::Word(at, word)),
        (place(), 1..20usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (place(), 1..30usize, 2..40u8).prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        place().prop_map(Change::End),
    ]
}

fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for change in changes {
        let within = |at: usize| at % (bytes.len() + 1);
        match *change {
            Change::Byte(at, byte) => {
                let at = within(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            Change::Word(at, word) => {
                let (at, word) = (within(at), WORDS.get(word).copied().unwrap_or_default());
                drop(bytes.splice(at..at, word.bytes()));
            }
            Change::Cut(at, length) => {
                let at = within(at);
                let end = (at + length).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            Change::Repeat(at, length, times) => {
                let at = within(at);
                let end = (at + length).min(bytes.len());
                let piece = bytes.get(at..end).unwrap_or_default().repeat(usize::from(times));
                drop(bytes.splice(end..end, piece));
            }
            Change::End(at) => bytes.truncate(within(at)),
        }
    }
    bytes
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn seconds() -> u64 {
    std::env::var("HIVE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2)
}

#[test]
fn no_input_of_any_parser_makes_it_panic() {
    let only = std::env::var("HIVE_FUZZ_TARGET").ok();
    let mut ran = 0;
    for (name, target) in targets::ALL.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has seeds");
        let end = Instant::now() + Duration::from_secs(seconds());
        let inputs = (0..seeds.len(), prop::collection::vec(change(), 0..8));
        let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
        let mut runs = 0;
        loop {
            let outcome = TestRunner::new(config.clone()).run(&inputs, |(seed, changes)| {
                target(&changed(&seeds[seed], &changes));
                Ok(())
            });
            if let Err(error) = outcome {
                panic!("{name}: {error}");
            }
            runs += config.cases;
            if Instant::now() >= end {
                break;
            }
        }
        eprintln!("{name}: {runs} inputs");
        ran += 1;
    }
    assert!(ran > 0, "HIVE_FUZZ_TARGET is one of {:?}", targets::ALL.iter().map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn an_input_is_changed_and_no_change_leaves_it() {
    let seed = b"graph: {nodes: []}";
    assert_eq!(changed(seed, &[]), seed);
    assert_eq!(changed(seed, &[Change::End(5), Change::Word(5, 0)]), b"graph{");
    assert_eq!(changed(b"ab", &[Change::Repeat(0, 1, 3), Change::Cut(0, 1), Change::Byte(0, b'x')]), b"xaab");
}
