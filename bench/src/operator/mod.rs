//! Measures our operator next to two peers and a null operator; run as `cargo xtask bench operator`.

mod contender;
mod counters;
mod failover;
mod field;
mod many;
mod null;
mod objects;
mod observer;
mod peers;
mod plan;
mod plane;
pub(crate) mod pods;
mod report;
mod table;
mod transitions;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use crds::DesiredState;
use tokio::signal::unix::{SignalKind, signal};

use contender::{Arena, Contender, LEASE_SECONDS, SimulatedPods};
use field::{Field, Nursery};
use objects::Crowd;
use observer::Observer;
use plan::Plan;
use plane::Plane;
use table::Row;

use crate::{machine, table as text};

/// Pods that still run though status says that the object is paused.
const LATE: &str = "  pods not paused when acknowledged";
/// Objects and pods of a field are there by then.
const PATIENCE: Duration = Duration::from_secs(600);
/// A leader that holds its Lease for so long is replaced soon enough for a mere check.
const SHORT_LEASE: u16 = 5;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    /// The operator to measure, which may push to loopback addresses
    #[arg(long)]
    binary: PathBuf,
    /// The folder of the peers
    #[arg(long)]
    peers: PathBuf,
    /// The folder in which the API server keeps what it stores
    #[arg(long)]
    folder: PathBuf,
    /// The report's file; none is written without it
    #[arg(long)]
    report: Option<PathBuf>,
    /// How often each figure is taken
    #[arg(long)]
    runs: usize,
    /// Few pods and objects
    #[arg(long)]
    quick: bool,
    /// Only see that everything still works, and fail unless the figures make sense
    #[arg(long)]
    check: bool,
    /// Measure one part alone
    #[arg(long, conflicts_with_all = ["report", "check"])]
    only: Option<Part>,
    /// Without the peers
    #[arg(long, requires = "only")]
    alone: bool,
    /// So many objects with one pod each, once and after all else; none if 0
    #[arg(long)]
    crowd: usize,
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One object with one pod
    One,
    /// Objects with many pods
    Many,
    /// Many objects with one pod each
    Objects,
    /// A leader that is killed
    Failover,
}

/// The namespaces of all contenders.
struct Fields {
    one: Vec<(Contender, Field)>,
    many: Vec<(Contender, Vec<Field>)>,
    objects: Crowd,
    null_one: Field,
    null_many: Vec<Field>,
    null_objects: Field,
}

/// What was measured.
struct Measured {
    rows: Vec<Row>,
    /// Why the last part was not: what came before it is not lost with it.
    failed: Option<anyhow::Error>,
}

/// What the report tells besides figures, and where it goes.
struct Account<'a> {
    path: Option<&'a PathBuf>,
    facts: Vec<(&'static str, String)>,
}

impl Account<'_> {
    /// Writes the report, if one is wanted. `missing` is what was not measured, and why.
    fn write(&self, rows: &[Row], missing: Option<String>) -> anyhow::Result<()> {
        let Some(path) = self.path else { return Ok(()) };
        let mut facts = self.facts.clone();
        facts.extend(report::doubts(rows).into_iter().map(|doubt| ("doubtful", doubt)));
        facts.extend(missing.map(|missing| ("not measured", missing)));
        report::write(path, rows, &facts)?;
        println!("wrote {}", path.display());
        Ok(())
    }
}

/// Measures, prints the table and writes the report.
pub(crate) fn run(task: &Operator) -> anyhow::Result<()> {
    let mut plan = if task.check { Plan::check() } else { Plan::new(task.runs.max(1), task.quick, task.crowd) };
    if let Some(only) = task.only {
        plan = plan.narrowed(only);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _ = std::fs::remove_dir_all(&task.folder);
    std::fs::create_dir_all(&task.folder).with_context(|| task.folder.display().to_string())?;
    let folder = task.folder.canonicalize()?;
    let peers = if task.alone { peers::Peers::default() } else { peers::find(&task.peers) };
    let mut facts = machine::described(&folder);
    facts.extend(peers.told);
    facts.push(("size", plan.told()));
    let account = Account { path: task.report.as_ref(), facts };
    let Measured { rows, failed } = runtime.block_on(async {
        let measured = async {
            let arena = Arena {
                plane: Plane::start(&folder).await?,
                ours: task.binary.clone(),
                controller_runtime: peers.controller_runtime,
                kopf: peers.kopf,
                folder: folder.clone(),
                pods: SimulatedPods::start()?,
                lease_seconds: if task.check { SHORT_LEASE } else { LEASE_SECONDS },
            };
            measure(&arena, &plan, task.only, &account).await
        };
        tokio::select! {
            measured = measured => measured,
            asked = asked_to_end() => asked.and_then(|()| bail!("it was ended before all was measured")),
        }
    })?;
    print!("{}", text::align(&table::lines(&rows)));
    let missed: Vec<&str> = rows.iter().filter(|row| row.is_met() == Some(false)).map(|row| row.name.trim()).collect();
    crate::report::tell(&missed, &report::doubts(&rows));
    account.write(&rows, failed.as_ref().map(|error| format!("{error}: {}", error.root_cause())))?;
    std::fs::remove_dir_all(&folder)?;
    match failed {
        Some(error) => Err(error),
        None if task.check => check(&rows),
        None => Ok(()),
    }
}

/// Waits until somebody wants the program to end. What was started for it ends with it then, the API server above all.
async fn asked_to_end() -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

async fn measure(arena: &Arena, plan: &Plan, only: Option<Part>, account: &Account<'_>) -> anyhow::Result<Measured> {
    let asked = |part| only.is_none_or(|only| only == part);
    let begun = Instant::now();
    let mut nursery = Nursery::new(&arena.plane.client, arena.pods.port);
    let made = prepare(arena, &mut nursery, plan).await;
    let fields = made.context("the objects and pods cannot be made")?;
    eprintln!("objects and pods are made: {:.0} s", begun.elapsed().as_secs_f32());
    let (mut rows, mut memory) = (Vec::new(), Vec::new());
    if asked(Part::One) {
        (rows, memory) = transitions::measure(arena, plan, &fields).await?;
    }
    if asked(Part::Many) {
        rows.extend(many::measure(arena, plan, &fields, &memory).await?);
    }
    if asked(Part::Objects) {
        rows.extend(objects::measure(arena, plan, &fields.null_objects, &fields.objects, plan.runs).await?);
    }
    if asked(Part::Failover) {
        rows.extend(failover::measure(arena, plan, &fields).await?);
    }
    let mut failed = None;
    if plan.crowd > 0 {
        // The part takes as long as some others together: whoever ends it has the rest.
        account.write(&rows, Some(format!("{} objects: it was ended before", plan.crowd)))?;
        match largest(arena, &mut nursery, plan, &fields.null_objects).await {
            Ok(largest) => rows.extend(largest),
            Err(error) => failed = Some(error.context(format!("{} objects", plan.crowd))),
        }
    }
    eprintln!("it took {:.0} s", begun.elapsed().as_secs_f32());
    Ok(Measured { rows, failed })
}

/// As many objects as an API server on such a machine takes at all, once.
async fn largest(arena: &Arena, nursery: &mut Nursery, plan: &Plan, idle: &Field) -> anyhow::Result<Vec<Row>> {
    eprintln!("{} objects are made, which takes some minutes; kopf would need minutes for each pause", plan.crowd);
    let able = |contender: &Contender| *contender != Contender::Kopf;
    let all = arena.contenders().into_iter().filter(able);
    let crowd = crowd(arena, nursery, all, plan.crowd).await?;
    objects::measure(arena, plan, idle, &crowd, 1).await
}

/// Makes the objects and pods of everybody. Ours come first, since the peers' pods look like them.
async fn prepare(arena: &Arena, nursery: &mut Nursery, plan: &Plan) -> anyhow::Result<Fields> {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for contender in arena.contenders() {
        let single = nursery.objects(&format!("{contender}-one"), 1, 1).await?;
        populate(arena, nursery, contender, std::slice::from_ref(&single)).await?;
        let mut large = Vec::new();
        for size in &plan.sizes {
            large.push(nursery.objects(&format!("{contender}-many"), 1, *size).await?);
        }
        populate(arena, nursery, contender, &large).await?;
        one.push((contender, single));
        many.push((contender, large));
    }
    let null_one = nursery.objects("null-one", 1, 1).await?;
    nursery.pods(&null_one).await?;
    let mut null_many = Vec::new();
    for size in &plan.sizes {
        let field = nursery.objects(&format!("null-{size}"), 1, *size).await?;
        nursery.pods(&field).await?;
        null_many.push(field);
    }
    let objects = crowd(arena, nursery, arena.contenders().into_iter(), plan.objects).await?;
    let null_objects = nursery.objects("null-objects", plan.objects, 1).await?;
    Ok(Fields { one, many, objects, null_one, null_many, null_objects })
}

/// Makes so many objects with one pod each for these contenders.
async fn crowd(
    arena: &Arena,
    nursery: &mut Nursery,
    contenders: impl Iterator<Item = Contender>,
    count: usize,
) -> anyhow::Result<Crowd> {
    let mut fields = Vec::new();
    for contender in contenders {
        let field = nursery.objects(&format!("{contender}-objects-{count}"), count, 1).await?;
        populate(arena, nursery, contender, std::slice::from_ref(&field)).await?;
        fields.push((contender, field));
    }
    Ok(Crowd { count, fields })
}

/// Makes the pods of a namespace, and waits until the contender says that all run.
async fn populate(arena: &Arena, nursery: &mut Nursery, contender: Contender, fields: &[Field]) -> anyhow::Result<()> {
    let Some(namespace) = fields.iter().find(|field| field.size() > 0).map(|field| field.namespace.clone()) else {
        return Ok(());
    };
    let observer = Observer::new(&arena.plane.client, &namespace);
    let _process = arena.start(contender, &namespace, "a", false)?;
    let made = async {
        for field in fields {
            match contender {
                Contender::Ours => nursery.roll_out(field).await?,
                Contender::ControllerRuntime | Contender::Kopf => nursery.pods(field).await?,
            }
        }
        for field in fields {
            observer.reached(DesiredState::Running, &field.names, field.patience(PATIENCE)).await?;
        }
        anyhow::Ok(())
    };
    made.await.with_context(|| format!("{contender}:\n{}", arena.log(contender, &namespace, "a")))
}

/// What must hold on every machine, however slow: figures are there, and a pause is a pause.
fn check(rows: &[Row]) -> anyhow::Result<()> {
    for row in rows.iter().filter(|row| !row.is_of_limit()) {
        if row.ours().is_empty() {
            bail!("{} has no figure", row.name);
        }
        if row.name == LATE && row.ours().most() > 0.0 {
            bail!("{}: {}", row.name.trim(), row.ours().most());
        }
        if row.name.contains("acknowledged, ") && row.ours().least() <= 0.0 {
            bail!("{} has no figure", row.name);
        }
    }
    println!("the figures make sense");
    Ok(())
}
