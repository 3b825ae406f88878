//! Many objects with one pod each: how long until all have acknowledged a pause.

use anyhow::Context as _;
use crds::DesiredState;

use super::contender::{Arena, Contender, Process};
use super::field::Field;
use super::null::write_rate;
use super::observer::Observer;
use super::plan::{ONCE, Plan};
use super::table::{Row, Samples, Target};
use super::transitions::{PATIENCE, turn};
use super::{Fields, LATE};
use crate::figures;

/// The user's patch, the boot ConfigMap and the status.
const WRITES: f64 = 3.0;
/// The share of the limit within which all have acknowledged.
const OF_LIMIT: f64 = 1.3;

/// kopf needs minutes for so many, and would make the benchmark half as long again.
pub(crate) fn takes_part(contender: Contender, count: usize) -> bool {
    contender != Contender::Kopf || count < ONCE
}

#[derive(Default)]
struct Figures {
    /// By number of objects.
    pauses: Vec<Samples>,
    late: Samples,
    rates: Samples,
}

pub(crate) async fn measure(arena: &Arena, plan: &Plan, fields: &Fields) -> anyhow::Result<Vec<Row>> {
    let mut figures = Figures { pauses: vec![Samples::default(); plan.objects.len()], ..Figures::default() };
    for run in 1..=plan.runs {
        for (place, count) in plan.objects.iter().enumerate().filter(|(_, count)| run == 1 || **count < ONCE) {
            once(arena, plan, fields, (run, place, *count), &mut figures).await?;
        }
    }
    let Figures { pauses, late, rates } = figures;
    let mut rows = vec![rates.row("status writes/s, 64 at once", Target::None, "API server")];
    rows.extend(plan.objects.iter().zip(pauses).map(|(count, samples)| {
        let name = format!("{count} objects with one pod each, ms");
        samples.row(name, Target::TimesLimit(OF_LIMIT), "3 writes each")
    }));
    rows.push(late.row(LATE, Target::AtMost(0.0), ""));
    Ok(rows)
}

async fn once(
    arena: &Arena,
    plan: &Plan,
    fields: &Fields,
    (run, place, count): (usize, usize, usize),
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let Some(pauses) = figures.pauses.get_mut(place) else { return Ok(()) };
    let rate = write_rate(&arena.plane.client, &fields.null_objects, plan.writes).await?;
    figures.rates.push_limit(rate);
    pauses.push_limit(WRITES * count as f64 / rate * 1000.0);
    eprintln!("{count} objects, run {run}: {rate:.0} status writes/s");
    for (contender, fields) in &fields.objects {
        let Some(field) = fields.get(place) else {
            eprintln!("{count} objects, run {run}, {contender} is left out: it needs minutes for each pause");
            continue;
        };
        let process = arena.start(*contender, &field.namespace, "a", false)?;
        let measured = paused(arena, field, &process).await;
        let (took, late, told) =
            measured.with_context(|| format!("{contender}:\n{}", arena.log(*contender, &field.namespace, "a")))?;
        pauses.push(*contender, took);
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
