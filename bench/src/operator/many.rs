//! Objects with many pods: how fast a pause is acknowledged by all of them, and what it costs to watch them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crds::DesiredState;

use super::contender::{Arena, Contender, Process};
use super::field::Field;
use super::null::NullOperator;
use super::observer::Observer;
use super::plan::Plan;
use super::table::{Row, Samples, Target};
use super::transitions::{PATIENCE, turn};
use super::{Fields, pods};
use crate::figures::{self, Runs};

/// Pauses of the null operator whose median is the limit.
const NULL_ROUNDS: usize = 3;
/// Idle connections to pods are dropped by then.
const REST: Duration = Duration::from_secs(7);
/// The object in which a pod hangs has at most so many.
const HUNG: usize = 1000;
/// Milliseconds within which 10,000 pods are to have acknowledged.
const LARGEST: (usize, f64) = (10_000, 2000.0);
/// Bytes for each watched pod, MB and percent of a core at all of them.
const BYTES: f64 = 1024.0;
const RESIDENT: f64 = 25.0;
const BUSY: f64 = 0.1;

#[derive(Default)]
struct Figures {
    /// By size.
    pauses: Vec<Samples>,
    bytes: Samples,
    resident: Samples,
    busy: Samples,
    healthy: Samples,
    hung: Samples,
    late: Samples,
}

pub(crate) async fn measure(
    arena: &Arena,
    plan: &Plan,
    fields: &Fields,
    memory: &[(Contender, Runs)],
) -> anyhow::Result<Vec<Row>> {
    let mut figures = Figures { pauses: vec![Samples::default(); plan.sizes.len()], ..Figures::default() };
    for run in 1..=plan.runs {
        for (field, samples) in fields.null_many.iter().zip(&mut figures.pauses) {
            let operator = NullOperator::new(&arena.plane.client, field, arena.pods.port);
            let parts = operator.measure(NULL_ROUNDS).await.context("the null operator")?;
            samples.push_limit(figures::quantile(&parts.whole, 0.5));
        }
        for (contender, many) in &fields.many {
            let namespace = many.first().map(|field| field.namespace.clone()).unwrap_or_default();
            let process = arena.start(*contender, &namespace, "a", false)?;
            let before = memory.iter().find(|(who, _)| who == contender).map_or(0.0, |(_, runs)| runs.median());
            let measured = once(arena, plan, (*contender, many), &process, before, &mut figures).await;
            let log = || format!("{contender}:\n{}", arena.log(*contender, &namespace, "a"));
            match measured {
                Ok(told) => eprintln!("many pods, run {run}, {contender}: {told}"),
                // kopf has not come through 10,000 pods in its time. What a peer cannot do has no figure.
                Err(error) if *contender != Contender::Ours => {
                    eprintln!("many pods, run {run}, {contender} is left out: {error:#}");
                }
                Err(error) => return Err(error.context(log())),
            }
        }
    }
    Ok(rows(plan, figures))
}

fn rows(plan: &Plan, figures: Figures) -> Vec<Row> {
    let Figures { pauses, bytes, resident, busy, healthy, hung, late } = figures;
    let mut rows = Vec::new();
    for (size, samples) in plan.sizes.iter().zip(pauses) {
        let target = if *size == LARGEST.0 { Target::AtMost(LARGEST.1) } else { Target::None };
        rows.push(samples.row(format!("one object, {size} pods acknowledged, ms"), target, "null operator"));
    }
    let all = plan.many();
    let largest = all >= LARGEST.0;
    let only = |target| if largest { target } else { Target::None };
    let size = hung_size(plan);
    rows.extend([
        healthy.row(format!("{size} pods have obeyed, ms"), Target::None, ""),
        hung.row(format!("  the others when one of {size} hangs, ms"), Target::None, ""),
        bytes.row(format!("bytes for each of {all} watched pods"), Target::AtMost(BYTES), ""),
        resident.row(format!("memory at {all} pods, MB"), only(Target::AtMost(RESIDENT)), ""),
        busy.row(format!("busy while idle at {all} pods, % of a core"), only(Target::AtMost(BUSY)), ""),
        late.row("  pods not paused when acknowledged", Target::AtMost(0.0), ""),
    ]);
    rows
}

/// The largest object in which a pod is made to hang.
fn hung_size(plan: &Plan) -> usize {
    plan.sizes.iter().copied().filter(|size| *size <= HUNG).max().unwrap_or(0)
}

async fn once(
    arena: &Arena,
    plan: &Plan,
    (contender, many): (Contender, &[Field]),
    process: &Process,
    before: f64,
    figures: &mut Figures,
) -> anyhow::Result<String> {
    let observer = Observer::new(&arena.plane.client, &many.first().context("there are sizes")?.namespace);
    for field in many {
        observer.reached(DesiredState::Running, &field.names, PATIENCE).await?;
        // What status said before this process began proves nothing of it.
        turn(field, &observer, DesiredState::Paused).await?;
        turn(field, &observer, DesiredState::Running).await?;
    }
    let (mut late, mut times) = (0, Vec::new());
    for (field, samples) in many.iter().zip(&mut figures.pauses) {
        let took = figures::millisecond(turn(field, &observer, DesiredState::Paused).await?);
        late += arena.pods.unpaused(field.first, field.size())?;
        samples.push(contender, took);
        times.push(format!("{} in {took:.0} ms", field.size()));
        turn(field, &observer, DesiredState::Running).await?;
    }
    figures.late.push(contender, late as f64);
    let field = many.iter().find(|field| field.size() == hung_size(plan)).context("a size to hang in")?;
    let healthy = obeyed(arena, field, 0).await?;
    observer.reached(DesiredState::Paused, &field.names, PATIENCE).await?;
    turn(field, &observer, DesiredState::Running).await?;
    figures.healthy.push(contender, figures::millisecond(healthy));
    tokio::time::sleep(REST).await;
    let resident = process.resident()?;
    let busy = process.busy()?;
    tokio::time::sleep(plan.idle).await;
    let share = (process.busy()? - busy) / plan.idle.as_secs_f64() * 100.0;
    figures.resident.push(contender, resident);
    figures.busy.push(contender, share);
    let bytes = (resident - before) * 1024.0 * 1024.0 / plan.many() as f64;
    figures.bytes.push(contender, bytes);
    let hung = with_a_hung_pod(arena, field, &observer).await?;
    figures.hung.push(contender, figures::millisecond(hung));
    Ok(format!(
        "{}; {resident:.1} MB, {bytes:.0} bytes for each pod, idle {share:.2} % of a core; {:.0} ms to the pods, {:.0} ms \
         when one hangs",
        times.join(", "),
        figures::millisecond(healthy),
        figures::millisecond(hung)
    ))
}

async fn with_a_hung_pod(arena: &Arena, field: &Field, observer: &Observer) -> anyhow::Result<Duration> {
    let pod = pods::address(field.first + u32::try_from(field.size() / 2)?);
    arena.pods.hang(pod)?;
    let took = obeyed(arena, field, 1).await;
    arena.pods.heal(pod)?;
    observer.reached(DesiredState::Paused, &field.names, PATIENCE).await?;
    turn(field, observer, DesiredState::Running).await?;
    took
}

/// From the user's patch until all pods but so many are paused, as they themselves say.
async fn obeyed(arena: &Arena, field: &Field, but: usize) -> anyhow::Result<Duration> {
    let begun = field.ask(DesiredState::Paused).await?;
    while arena.pods.unpaused(field.first, field.size())? > but {
        if begun.elapsed() > PATIENCE {
            bail!("the pods have not obeyed within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(Instant::now().saturating_duration_since(begun))
}
