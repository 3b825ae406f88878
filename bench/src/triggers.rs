//! Durable triggers: how many are accepted in a second, next to what the disk allows.

use anyhow::Context as _;

use crate::contender::{Arena, Contender, Server, Work};
use crate::disk::Disk;
use crate::figures::{self, Runs};
use crate::group_commit;
use crate::http::{self, Connection};
use crate::load::{Load, Outcome};
use crate::plan::Plan;
use crate::table::{Row, Samples, Target};

/// The row of the disk alone.
pub(crate) const SYNCS: &str = "fdatasync/s at the size of a commit";
const CLIENTS: usize = 64;
/// Triggers, one after the other, whose commits are weighed.
const WEIGHED: u64 = 200;
const PATH: &str = "/api/v1/entry-points/main/trigger";
const BODY: &str = r#"{"customer":"4711","reason":"nightly report"}"#;
/// The share of the limit that the runtime is to reach.
const OF_LIMIT: f64 = 0.8;

/// Milliseconds of one write and fdatasync at the size of a commit, for others to compare with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Syncs {
    pub(crate) p50: Runs,
    pub(crate) p99: Runs,
    pub(crate) most: Runs,
}

pub(crate) fn measure(arena: &Arena, plan: &Plan) -> anyhow::Result<(Vec<Row>, Disk, Syncs)> {
    let size = commit_size(arena)?;
    eprintln!("triggers: one commit of the runtime writes {size} bytes");
    let mut disk = Disk::new(&arena.folder, size)?;
    let mut times = Syncs::default();
    let (mut rate, mut p50, mut p99) = (Samples::default(), Samples::default(), Samples::default());
    let (mut syncs, mut group) = (Runs::default(), Runs::default());
    for run in 1..=plan.runs {
        disk.settle()?;
        let sorted = disk.sync_times(plan.disk)?;
        times.p50.push(figures::quantile(&sorted, 0.5));
        times.p99.push(figures::quantile(&sorted, 0.99));
        times.most.push(figures::quantile(&sorted, 1.0));
        let syncs_per_second = sorted.len() as f64 / plan.disk.as_secs_f64();
        let records_per_second = group_commit::rate(&arena.folder, arena.cores.server, CLIENTS, plan.disk)?;
        eprintln!("disk, run {run}: {syncs_per_second:.0} fdatasync/s, {records_per_second:.0} records/s in groups");
        syncs.push(syncs_per_second);
        group.push(records_per_second);
        for contender in arena.contenders() {
            disk.settle()?;
            let outcome = once(arena, plan, contender)?;
            rate.push(contender, outcome.rate);
            p50.push(contender, outcome.quantile(0.5));
            p99.push(contender, outcome.quantile(0.99));
            eprintln!(
                "triggers, run {run}, {contender}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
                outcome.rate,
                outcome.quantile(0.5),
                outcome.quantile(0.99)
            );
        }
    }
    let rows = vec![
        Row::of_limit(SYNCS, syncs),
        rate.clone()
            .row("durable triggers/s, 64 clients", Target::OfLimit(OF_LIMIT), "")
            .against(group, "group commit"),
        rate.row("  against group commit behind hyper", Target::OfLimit(OF_LIMIT), "null server"),
        p50.row("durable trigger, 64 clients, p50 ms", Target::None, "null server"),
        p99.row("durable trigger, 64 clients, p99 ms", Target::None, "null server"),
    ];
    Ok((rows, disk, times))
}

/// A server that accepts and does not execute, so that only acceptance is measured.
fn paused(arena: &Arena, contender: Contender) -> anyhow::Result<Server> {
    let server = arena.start(contender, &Work::Accept)?;
    Connection::open(server.address)?.demand("POST", "/api/v1/lifecycle/pause", "")?;
    Ok(server)
}

fn once(arena: &Arena, plan: &Plan, contender: Contender) -> anyhow::Result<Outcome> {
    let server = paused(arena, contender)?;
    let request = http::request("POST", PATH, BODY);
    let load = Load { address: server.address, request, connections: CLIENTS, expect: 202 };
    load.closed(plan.warm_up, plan.load).with_context(|| format!("{contender}"))
}

/// Bytes that one commit of the runtime writes.
fn commit_size(arena: &Arena) -> anyhow::Result<u64> {
    let server = paused(arena, Contender::Ours)?;
    let mut connection = Connection::open(server.address)?;
    let before = server.written()?;
    for _ in 0..WEIGHED {
        connection.demand("POST", PATH, BODY)?;
    }
    Ok(server.written()?.saturating_sub(before).div_ceil(WEIGHED).max(1))
}
