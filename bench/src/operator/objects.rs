//! Many objects with one pod each: how long until all have acknowledged a pause.

use anyhow::Context as _;
use crds::DesiredState;

use super::LATE;
use super::contender::{Arena, Contender, Process};
use super::field::Field;
use super::null::write_rate;
use super::observer::Observer;
use super::plan::Plan;
use super::table::{Row, Samples, Target};
use super::transitions::{PATIENCE, turn};
use crate::figures;

/// The user's patch, the boot ConfigMap and the status.
const WRITES: f64 = 3.0;
/// The share of the limit within which all have acknowledged.
const OF_LIMIT: f64 = 1.3;

/// As many objects for each contender, with one pod each.
pub(crate) struct Crowd {
    pub(crate) count: usize,
    pub(crate) fields: Vec<(Contender, Field)>,
}

#[derive(Default)]
struct Figures {
    pauses: Samples,
    late: Samples,
    rates: Samples,
}

pub(crate) async fn measure(
    arena: &Arena,
    plan: &Plan,
    idle: &Field,
    crowd: &Crowd,
    runs: usize,
) -> anyhow::Result<Vec<Row>> {
    let mut figures = Figures::default();
    for run in 1..=runs {
        once(arena, plan, idle, crowd, run, &mut figures).await?;
    }
    let Figures { pauses, late, rates } = figures;
    Ok(vec![
        rates.row("status writes/s, 64 at once", Target::None, "API server"),
        pauses.row(
            format!("{} objects with one pod each, ms", crowd.count),
            Target::TimesLimit(OF_LIMIT),
            "3 writes each",
        ),
        late.row(LATE, Target::AtMost(0.0), ""),
    ])
}

async fn once(
    arena: &Arena,
    plan: &Plan,
    idle: &Field,
    crowd: &Crowd,
    run: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let count = crowd.count;
    let rate = write_rate(&arena.plane.client, idle, plan.writes).await?;
    figures.rates.push_limit(rate);
    figures.pauses.push_limit(WRITES * count as f64 / rate * 1000.0);
    eprintln!("{count} objects, run {run}: {rate:.0} status writes/s");
    for (contender, field) in &crowd.fields {
        let process = arena.start(*contender, &field.namespace, "a", false)?;
        let measured = paused(arena, field, &process).await;
        let (took, late, told) =
            measured.with_context(|| format!("{contender}:\n{}", arena.log(*contender, &field.namespace, "a")))?;
        figures.pauses.push(*contender, took);
        figures.late.push(*contender, late as f64);
        eprintln!("{count} objects, run {run}, {contender}: {told}");
    }
    Ok(())
}

/// How many milliseconds a pause of all took, how many pods had not obeyed by then, and both as they are told.
async fn paused(arena: &Arena, field: &Field, process: &Process) -> anyhow::Result<(f64, usize, String)> {
    let observer = Observer::new(&arena.plane.client, &field.namespace);
    observer.reached(DesiredState::Running, &field.names, PATIENCE).await?;
    // What status said before this process began proves nothing of it.
    turn(field, &observer, DesiredState::Paused).await?;
    turn(field, &observer, DesiredState::Running).await?;
    let took = figures::millisecond(turn(field, &observer, DesiredState::Paused).await?);
    let late = arena.pods.unpaused(field.first, field.size())?;
    let told = format!("{took:.0} ms, {:.1} MB", process.resident()?);
    turn(field, &observer, DesiredState::Running).await?;
    Ok((took, late, told))
}
