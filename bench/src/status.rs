//! The status endpoint: how often one core answers it, and how soon at a moderate rate.

use std::time::Instant;

use crate::contender::{Arena, Contender, Work};
use crate::http;
use crate::load::{Load, Outcome};
use crate::plan::Plan;
use crate::table::{Row, Samples, Target};

/// The row that tells whether the server was what limited the rate.
pub(crate) const BUSY: &str = "  its core busy at that rate, %";
const CONNECTIONS: usize = 16;
/// The share of its own highest rate at which a server's latency is measured.
const MODERATE: f64 = 0.3;
/// The peer answers at most an eighth as often.
const TIMES_PEER: f64 = 8.0;
/// Milliseconds within which 99 of 100 are answered.
const SOON: f64 = 1.0;

pub(crate) fn measure(arena: &Arena, plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let (mut rate, mut busy) = (Samples::default(), Samples::default());
    let (mut p50, mut p99) = (Samples::default(), Samples::default());
    for run in 1..=plan.runs {
        for contender in arena.contenders() {
            let (full, share, moderate) = once(arena, plan, contender)?;
            rate.push(contender, full.rate);
            busy.push(contender, share * 100.0);
            p50.push(contender, moderate.quantile(0.5));
            p99.push(contender, moderate.quantile(0.99));
            eprintln!(
                "status, run {run}, {contender}: {:.0}/s with {:.0} % of its core; at {:.0}/s p50 {:.3} ms, p99 {:.3} ms",
                full.rate,
                share * 100.0,
                moderate.rate,
                moderate.quantile(0.5),
                moderate.quantile(0.99)
            );
        }
    }
    Ok(vec![
        rate.row("GET status, requests/s", Target::TimesPeer(TIMES_PEER), "raw hyper"),
        busy.row(BUSY, Target::None, "raw hyper"),
        p50.row("GET status at 30 % of its rate, p50 ms", Target::None, "raw hyper"),
        p99.row("GET status at 30 % of its rate, p99 ms", Target::AtMost(SOON), "raw hyper"),
    ])
}

/// The full rate, the share of its core that the server then used, and the moderate rate.
fn once(arena: &Arena, plan: &Plan, contender: Contender) -> anyhow::Result<(Outcome, f64, Outcome)> {
    let server = arena.start(contender, &Work::Idle)?;
    let request = http::request("GET", "/api/v1/status", "");
    let load = Load { address: server.address, request, connections: CONNECTIONS, expect: 200 };
    let (before, begun) = (server.busy()?, Instant::now());
    let full = load.closed(plan.warm_up, plan.load)?;
    let share = (server.busy()? - before) / begun.elapsed().as_secs_f64();
    let moderate = load.open(full.rate * MODERATE, plan.load)?;
    Ok((full, share, moderate))
}
