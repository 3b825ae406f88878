//! Many objects with one pod each: how long until all have acknowledged a pause.

use anyhow::Context as _;
use crds::DesiredState;

use super::contender::Arena;
use super::null::write_rate;
use super::observer::Observer;
use super::plan::Plan;
use super::table::{Row, Samples, Target};
use super::transitions::{PATIENCE, turn};
use super::{Fields, LATE};
use crate::figures;

/// The user's patch, the boot ConfigMap and the status.
const WRITES: f64 = 3.0;
/// The share of the limit within which all have acknowledged.
const OF_LIMIT: f64 = 1.3;

pub(crate) async fn measure(arena: &Arena, plan: &Plan, fields: &Fields) -> anyhow::Result<Vec<Row>> {
    let (mut pauses, mut late, mut rates) = (Samples::default(), Samples::default(), Samples::default());
    for run in 1..=plan.runs {
        let rate = write_rate(&arena.plane.client, &fields.null_objects, plan.writes).await?;
        rates.push_limit(rate);
        pauses.push_limit(WRITES * plan.objects as f64 / rate * 1000.0);
        eprintln!("many objects, run {run}: {rate:.0} status writes/s");
        for (contender, field) in &fields.objects {
            let process = arena.start(*contender, &field.namespace, "a", false)?;
            let observer = Observer::new(&arena.plane.client, &field.namespace);
            let measured = async {
                observer.reached(DesiredState::Running, &field.names, PATIENCE).await?;
                turn(field, &observer, DesiredState::Paused).await?;
                turn(field, &observer, DesiredState::Running).await?;
                let took = figures::millisecond(turn(field, &observer, DesiredState::Paused).await?);
                late.push(*contender, arena.pods.unpaused(field.first, field.size())? as f64);
                turn(field, &observer, DesiredState::Running).await?;
                anyhow::Ok(took)
            };
            let took = measured
                .await
                .with_context(|| format!("{contender}:\n{}", arena.log(*contender, &field.namespace, "a")))?;
            pauses.push(*contender, took);
            eprintln!("many objects, run {run}, {contender}: {took:.0} ms, {:.1} MB", process.resident()?);
        }
    }
    let name = format!("{} objects with one pod each, ms", plan.objects);
    Ok(vec![
        rates.row("status writes/s, 64 at once", Target::None, "API server"),
        pauses.row(name, Target::TimesLimit(OF_LIMIT), "3 writes each"),
        late.row(LATE, Target::AtMost(0.0), ""),
    ])
}
