//! The leader is killed: how long until another replica has carried out what was asked for just then.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use crds::DesiredState;

use super::Fields;
use super::contender::{Arena, Contender};
use super::observer::Observer;
use super::plan::Plan;
use super::table::{Row, Samples, Target};
use super::transitions::{PATIENCE, turn};
use crate::figures;

/// The second replica is up and waits by then.
const STANDBY: Duration = Duration::from_secs(2);
/// Milliseconds on top of the lease.
const ON_TOP: f64 = 1000.0;

pub(crate) async fn measure(arena: &Arena, plan: &Plan, fields: &Fields) -> anyhow::Result<Vec<Row>> {
    let mut figures = Samples::default();
    let lease = f64::from(arena.lease_seconds) * 1000.0;
    figures.push_limit(lease);
    for round in 1..=plan.failovers {
        // The Python peer has no Lease: its replicas find each other by an object of its own kind.
        for (contender, field) in fields.one.iter().filter(|(contender, _)| *contender != Contender::Kopf) {
            // The one that led last holds the Lease still: it goes on at once.
            let (leads, waits) = if round % 2 == 1 { ("a", "b") } else { ("b", "a") };
            let leader = arena.start(*contender, &field.namespace, leads, true)?;
            let observer = Observer::new(&arena.plane.client, &field.namespace);
            let measured = async {
                turn(field, &observer, DesiredState::Paused).await?;
                turn(field, &observer, DesiredState::Running).await?;
                let _standby = arena.start(*contender, &field.namespace, waits, true)?;
                tokio::time::sleep(STANDBY).await;
                drop(leader);
                let killed = Instant::now();
                field.ask(DesiredState::Paused).await?;
                let end = observer.reached(DesiredState::Paused, &field.names, PATIENCE).await?;
                turn(field, &observer, DesiredState::Running).await?;
                anyhow::Ok(figures::millisecond(end.saturating_duration_since(killed)))
            };
            let took = measured
                .await
                .with_context(|| format!("{contender}:\n{}", arena.log(*contender, &field.namespace, waits)))?;
            figures.push(*contender, took);
            eprintln!("failover {round}, {contender}: {took:.0} ms");
        }
    }
    Ok(vec![figures.row("leader killed to converged, ms", Target::AtMost(lease + ON_TOP), "the lease")])
}
