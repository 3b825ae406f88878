//! The report: the table with all that is needed to judge and to repeat it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::table::{self, Row};
use crate::{status, triggers};

const METHOD: &str = "\
`ours` is the binary of the image `agent-runtime`. `peer` is `bench/peers/fastapi`: the same API on FastAPI,
uvicorn, uvloop and httptools, with SQLite in WAL mode and synchronous=FULL. `null` is hyper with answers of
the same length and a writer that only appends; it is the limit of what a server on this core can reach.
One process each, on 127.0.0.1, one core for the server and the other for the client. The contenders
alternate within every run, each time as a new process over an empty folder. Ratios are those of medians.

- **exec to ready**: from the start of the process to its first 200 of `GET /health/ready`, with the program
  in the page cache and an empty data folder; the median of several starts is one figure.
- **idle memory**: VmRSS, two seconds after ready and once it is stable.
- **GET status**: 16 kept connections, each asking again when it is answered. The latency is measured at
  30 % of the server's own rate, in an open loop: it counts from when a request was due. The client spins,
  so that no timer of its own is in a latency.
- **durable triggers**: 64 kept connections; a 202 means on disk. Ours and the peer are paused and accept
  for later, so that acceptance alone is measured. `group commit` is one thread that writes the records of
  all 64 waiters into a file of fixed size, syncs once and answers all, without any HTTP; `null server` is
  that thread behind hyper.
- **fdatasync**: as many pages as one commit of the runtime writes, apart from each other, into a file of
  fixed size. Before what writes is measured, the disk is let settle: while a sync takes half as long again
  as it did at best, others keep the disk busy, and the measurement waits for up to 20 s.
- **pause excess**: 8 executions at once, each a request of 5 ms to a site in the client; more wait. The
  time at which a pause is acknowledged, in its answer or by the long poll that follows, minus the time at
  which the site answered last. Until the next resume the site counts what begins or had not ended. Ours
  and the peer commit an execution's end before it counts as ended; ours commits the pause as well.
";

/// A server that has less of its core was held up by something else.
const WHOLE_CORE: f64 = 90.0;
/// A disk whose syncs differ more between runs was not ours alone.
const STEADY: f64 = 1.5;

/// Why the figures may not be the contenders' own, if something says so.
pub(crate) fn doubts(rows: &[Row]) -> Vec<String> {
    let find = |name| rows.iter().find(|row: &&Row| row.name == name);
    let mut doubts = Vec::new();
    if let Some(row) = find(status::BUSY).filter(|row| row.ours.least() < WHOLE_CORE) {
        doubts.push(format!(
            "under full load the runtime had only {:.0} % of its core: the machine was busy, or the client was the limit",
            row.ours.least()
        ));
    }
    if let Some(row) = find(triggers::SYNCS).filter(|row| row.limit.most() > STEADY * row.limit.least()) {
        doubts.push(format!(
            "the disk did {:.0} to {:.0} fdatasync/s: others wrote, or it is throttled",
            row.limit.least(),
            row.limit.most()
        ));
    }
    doubts
}

/// Says which targets are missed, and what makes the figures doubtful.
pub(crate) fn tell(missed: &[&str], doubts: &[String]) {
    if missed.is_empty() {
        println!("every target is met");
    } else {
        println!("{} targets are missed: {}", missed.len(), missed.join("; "));
    }
    doubts.iter().for_each(|doubt| println!("doubtful: {doubt}"));
}

const OPENING: &str = "\
# Benchmarks

Written by `cargo xtask bench runtime`. Absolute figures are of one machine and drift with it:
ratios that were measured together count. Those of the operator are in
[BENCHMARKS_OPERATOR.md](BENCHMARKS_OPERATOR.md).
";

const USAGE: &str = "    cargo xtask bench runtime            # about a quarter of an hour
    cargo xtask bench runtime --quick    # a minute, for a look

It needs Rust and, for the peer, Python 3 with venv and pip. Nothing else should run meanwhile.
";

/// Writes the report into a file.
pub(crate) fn write(path: &Path, rows: &[Row], facts: &[(&str, String)]) -> anyhow::Result<()> {
    Page { opening: OPENING, table: table::markdown(rows), method: METHOD, usage: USAGE }.write(path, facts)
}

/// What a report consists of, besides the facts of its run.
pub(crate) struct Page {
    /// The heading, and what the reader is to know first.
    pub(crate) opening: &'static str,
    /// In Markdown.
    pub(crate) table: String,
    pub(crate) method: &'static str,
    /// How to run it.
    pub(crate) usage: &'static str,
}

impl Page {
    /// Writes the page into a file, whose folder is made if it is not there.
    pub(crate) fn write(&self, path: &Path, facts: &[(&str, String)]) -> anyhow::Result<()> {
        let Self { opening, table, method, usage } = self;
        let mut text = format!("{opening}\n{table}\n## Method\n\n{method}\n## This run\n\n| | |\n|---|---|\n");
        for (name, value) in facts {
            writeln!(text, "| {name} | {value} |")?;
        }
        write!(text, "\n## How to run it\n\n{usage}")?;
        let parent = path.parent().context("a file has a folder")?;
        std::fs::create_dir_all(parent)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }
}
