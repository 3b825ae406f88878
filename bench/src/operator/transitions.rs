//! One object with one pod: how long a pause takes from the user's patch to the status, and what it writes.

use std::time::Duration;

use anyhow::Context as _;
use crds::DesiredState;

use super::contender::{Arena, Contender, Process};
use super::field::Field;
use super::null::NullOperator;
use super::observer::Observer;
use super::plan::{APART, Plan};
use super::table::{Row, Samples, Target};
use super::{Fields, LATE};
use crate::figures::{self, Runs};

/// An operator that has not come so far by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Pauses before the first that counts.
const WARM_UP: usize = 3;
/// The share of the limit within which a pause is acknowledged.
const OF_BARE: f64 = 1.5;
/// The boot ConfigMap and the status.
const WRITES: f64 = 2.0;

#[derive(Default)]
struct Figures {
    p50: Samples,
    p99: Samples,
    resume: Samples,
    chain: Samples,
    parts: [Samples; 5],
    writes: Samples,
    events: Samples,
    idle: Samples,
    late: Samples,
}

const PARTS: [&str; 5] = [
    "  patch to watch event, ms",
    "  ConfigMap write, ms",
    "  push to the pod, ms",
    "  barrier LIST, ms",
    "  status write, ms",
];

/// The rows, and the memory of each contender with one pod, in MB.
pub(crate) async fn measure(
    arena: &Arena,
    plan: &Plan,
    fields: &Fields,
) -> anyhow::Result<(Vec<Row>, Vec<(Contender, Runs)>)> {
    let mut figures = Figures::default();
    let mut memory: Vec<_> = fields.one.iter().map(|(contender, _)| (*contender, Runs::default())).collect();
    for run in 1..=plan.runs {
        null(arena, plan, fields, &mut figures, run).await?;
        for ((contender, field), (_, memory)) in fields.one.iter().zip(&mut memory) {
            let process = arena.start(*contender, &field.namespace, "a", false)?;
            let measured = once(arena, plan, *contender, field, &process, &mut figures).await;
            let told =
                measured.with_context(|| format!("{contender}:\n{}", arena.log(*contender, &field.namespace, "a")))?;
            memory.push(process.resident()?);
            eprintln!("one pod, run {run}, {contender}: {told}");
        }
    }
    let Figures { p50, p99, resume, chain, parts, writes, events, idle, late } = figures;
    let bare = "ConfigMap + push + status";
    let mut rows = vec![
        p50.row("patch to acknowledged, one pod, p50 ms", Target::TimesLimitAndFirst(OF_BARE), bare),
        p99.row("patch to acknowledged, one pod, p99 ms", Target::None, bare),
        chain.row("  p50 against the null operator, ms", Target::None, "with watches and LIST"),
        resume.row("resume to acknowledged, one pod, p50 ms", Target::None, ""),
    ];
    rows.extend(PARTS.into_iter().zip(parts).map(|(name, part)| part.row(name, Target::None, "null operator")));
    rows.extend([
        writes.row("API writes for each transition", Target::AtMost(WRITES), "ConfigMap and status"),
        events.row("  Events on top", Target::None, ""),
        idle.row("API writes while idle, Leases aside", Target::AtMost(0.0), ""),
        late.row(LATE, Target::AtMost(0.0), ""),
    ]);
    Ok((rows, memory))
}

async fn null(arena: &Arena, plan: &Plan, fields: &Fields, figures: &mut Figures, run: usize) -> anyhow::Result<()> {
    let operator = NullOperator::new(&arena.plane.client, &fields.null_one, arena.pods.port);
    let parts = operator.measure(plan.pauses).await.context("the null operator")?;
    let half = |times: &[f64]| figures::quantile(times, 0.5);
    figures.p50.push_limit(parts.bare(0.5));
    figures.p99.push_limit(parts.bare(0.99));
    figures.chain.push_limit(half(&parts.whole));
    figures.writes.push_limit(WRITES);
    let all = [&parts.watch, &parts.config_map, &parts.push, &parts.list, &parts.status];
    figures.parts.iter_mut().zip(all).for_each(|(samples, times)| samples.push_limit(half(times)));
    eprintln!(
        "one pod, run {run}, null operator: ConfigMap, push and status {:.2} ms, the whole way {:.2} ms",
        parts.bare(0.5),
        half(&parts.whole)
    );
    Ok(())
}

async fn once(
    arena: &Arena,
    plan: &Plan,
    contender: Contender,
    field: &Field,
    process: &Process,
    figures: &mut Figures,
) -> anyhow::Result<String> {
    let observer = Observer::new(&arena.plane.client, &field.namespace);
    for _ in 0..WARM_UP {
        turn(field, &observer, DesiredState::Paused).await?;
        turn(field, &observer, DesiredState::Running).await?;
    }
    let before = arena.plane.writes().await?;
    let (mut pauses, mut resumes, mut late) = (Vec::new(), Vec::new(), 0);
    for _ in 0..plan.pauses {
        tokio::time::sleep(APART).await;
        pauses.push(turn(field, &observer, DesiredState::Paused).await?);
        late += arena.pods.unpaused(field.first, 1)?;
        resumes.push(turn(field, &observer, DesiredState::Running).await?);
    }
    // Events are written after the status; what follows a transition counts as its own.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = arena.plane.writes().await?.since(&before);
    let asked = plan.pauses as u64 * 2;
    let each = |count: u64| count as f64 / asked as f64;
    let rested = arena.plane.writes().await?;
    let busy = process.busy()?;
    tokio::time::sleep(plan.idle).await;
    let idle = arena.plane.writes().await?.since(&rested);
    let share = (process.busy()? - busy) / plan.idle.as_secs_f64() * 100.0;
    let (pauses, resumes) = (figures::milliseconds(pauses), figures::milliseconds(resumes));
    let (half, most) = (figures::quantile(&pauses, 0.5), figures::quantile(&pauses, 0.99));
    figures.p50.push(contender, half);
    figures.chain.push(contender, half);
    figures.p99.push(contender, most);
    figures.resume.push(contender, figures::quantile(&resumes, 0.5));
    // The user's patches are no doing of the operator.
    figures.writes.push(contender, each(writes.others().saturating_sub(asked)));
    figures.events.push(contender, each(writes.events()));
    figures.idle.push(contender, idle.others() as f64);
    figures.late.push(contender, late as f64);
    Ok(format!(
        "p50 {half:.2} ms, p99 {most:.2} ms; idle {share:.2} % of a core; {asked} transitions wrote {}",
        writes.told()
    ))
}

/// Asks for a state and waits until status says that it is reached.
pub(crate) async fn turn(field: &Field, observer: &Observer, state: DesiredState) -> anyhow::Result<Duration> {
    let begun = field.ask(state).await?;
    let end = observer.reached(state, &field.names, field.patience(PATIENCE)).await?;
    Ok(end.saturating_duration_since(begun))
}
