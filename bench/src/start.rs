//! From exec to ready, and the memory that an idle process holds.

use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Arena, Server, Work};
use crate::figures::{self, Runs};
use crate::plan::Plan;
use crate::table::{Row, Samples, Target};

/// An idle process is looked at after this long.
const IDLE: Duration = Duration::from_secs(2);
/// And again until its memory is the same twice, or for this long.
const UNTIL_STABLE: Duration = Duration::from_secs(5);

/// Milliseconds within which a start is ready.
const READY: f64 = 10.0;
/// MB that an idle process has in use at most.
const IDLE_MEMORY: f64 = 15.0;

/// Starts each contender over an empty folder; its program and packages are in the page cache by then.
pub(crate) fn measure(arena: &Arena, plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let (mut ready, mut memory) = (Samples::default(), Samples::default());
    for contender in arena.contenders() {
        arena.start(contender, &Work::Idle)?;
    }
    for run in 1..=plan.runs {
        for contender in arena.contenders() {
            let mut times = Runs::default();
            for _ in 1..plan.starts {
                times.push(figures::millisecond(arena.start(contender, &Work::Idle)?.ready_after));
            }
            let server = arena.start(contender, &Work::Idle)?;
            times.push(figures::millisecond(server.ready_after));
            ready.push(contender, times.median());
            let resident = stable_memory(&server)?;
            memory.push(contender, resident);
            eprintln!("start, run {run}, {contender}: ready after {:.1} ms, {resident:.1} MB", times.median());
        }
    }
    Ok(vec![
        ready.row("exec to ready, ms", Target::AtMost(READY), "null server"),
        memory.row("idle memory (VmRSS), MB", Target::AtMost(IDLE_MEMORY), "null server"),
    ])
}

fn stable_memory(server: &Server) -> anyhow::Result<f64> {
    thread::sleep(IDLE);
    let begun = Instant::now();
    let mut before = server.resident()?;
    loop {
        thread::sleep(Duration::from_millis(250));
        let now = server.resident()?;
        if now == before || begun.elapsed() > UNTIL_STABLE {
            return Ok(now);
        }
        before = now;
    }
}
