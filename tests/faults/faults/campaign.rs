//! All runs: finds the places, tries each fault at each of them in several worlds at once, and counts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use crate::api::Api;
use crate::fault::Fault;
use crate::operator;
use crate::run::{Outcome, Targets, run};
use crate::scenario::{Scenario, Stage};
use crate::world::World;

/// What is left out without Debian's library for wrong clocks.
const LEFT_OUT: &str = "left out: steps of the operator's own clock: apt-get install faketime";

/// How often it is said how far all has come.
const PROGRESS: Duration = Duration::from_secs(60);

/// One run that is to be made: one fault at one place, or two at two.
#[derive(Clone, Debug)]
struct Job {
    scenario: Scenario,
    targets: Targets,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.scenario)?;
        self.targets.iter().try_for_each(|(place, fault)| write!(f, " / {place} / {fault:?}"))
    }
}

/// What came of all runs.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    seed: u64,
    enumerated: usize,
    took: Duration,
    /// Struck and passed, struck and failed, a place not passed this time.
    scenarios: BTreeMap<Scenario, [usize; 3]>,
    faults: BTreeMap<Fault, [usize; 3]>,
    pairs: [usize; 3],
    /// What is wrong with each run that failed.
    failures: Vec<String>,
    seen: (u64, u64),
    told: Duration,
    slowest: Vec<(Duration, String)>,
}

impl Summary {
    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty() && self.struck() > 0
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    fn fail(&mut self, name: &str, wrong: &[String]) {
        let failure = format!("FAILED {name}\n      {}", wrong.join("\n      "));
        println!("{failure}");
        self.failures.push(failure);
    }

    fn struck(&self) -> usize {
        self.scenarios.values().map(|[passed, failed, _]| passed + failed).sum()
    }

    /// Says how far it has come, unless it has just been said.
    fn tell(&mut self, took: Duration) {
        if took >= self.told + PROGRESS {
            self.told = took;
            println!(
                "{:.0} s: {} perturbations struck, {} runs failed",
                took.as_secs_f32(),
                self.struck(),
                self.failures.len()
            );
        }
    }

    fn add(&mut self, job: &Job, outcome: &Outcome) {
        let column = match (outcome.struck, outcome.wrong.is_empty()) {
            (false, true) => 2,
            (true, true) => 0,
            (_, false) => 1,
        };
        self.scenarios.entry(job.scenario).or_default()[column] += 1;
        match job.targets.as_slice() {
            [(_, fault)] => self.faults.entry(*fault).or_default()[column] += 1,
            _ => self.pairs[column] += 1,
        }
        self.slowest.push((outcome.took, job.to_string()));
        self.slowest.sort_by(|a, b| b.cmp(a));
        self.slowest.truncate(5);
        if !outcome.wrong.is_empty() {
            self.fail(&job.to_string(), &outcome.wrong);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, [passed, failed, missed]: &[usize; 3]| {
            writeln!(f, "  {name:<16} {passed:>6} {failed:>6} {missed:>6}")
        };
        writeln!(f, "  {:<16} {:>6} {:>6} {:>6}", "", "passed", "failed", "missed")?;
        for (scenario, counts) in &self.scenarios {
            line(f, &format!("{scenario:?}"), counts)?;
        }
        writeln!(f, "of these, by fault:")?;
        for (fault, counts) in &self.faults {
            line(f, &format!("{fault:?}"), counts)?;
        }
        line(f, "pairs of faults", &self.pairs)?;
        for (took, job) in &self.slowest {
            writeln!(f, "  slow: {:.1} s {job}", took.as_secs_f32())?;
        }
        if !operator::has_clock() {
            writeln!(f, "{LEFT_OUT}")?;
        }
        let (begun, statuses) = self.seen;
        writeln!(f, "the oracle saw {begun} executions and {statuses} statuses; seed {}", self.seed)?;
        let seconds = self.took.as_secs_f32();
        write!(
            f,
            "{} perturbations struck in {seconds:.0} s, of {} single ones enumerated",
            self.struck(),
            self.enumerated
        )
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Makes all runs that fit into the time: single faults in a random order, then pairs of them.
pub(crate) async fn all(api: &Api) -> Summary {
    let seed = variable("HIVE_FAULTS_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let count = variable("HIVE_FAULTS_COUNT").and_then(|count| usize::try_from(count).ok());
    let seconds = variable("HIVE_FAULTS_SECONDS").unwrap_or(if count.is_some() { 4 * 3600 } else { 360 });
    let worlds = variable("HIVE_FAULTS_WORLDS").unwrap_or(12);
    println!("seed {seed}, at most {seconds} s, {worlds} worlds");
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let likes = references(api, folder.path()).await;
    let mut singles = singles(&likes);
    if let Ok(only) = std::env::var("HIVE_FAULTS_ONLY") {
        singles.retain(|job| only.split('|').any(|only| job.to_string().contains(only)));
    }
    let enumerated = singles.len();
    println!("{enumerated} perturbations enumerated in {:.1} s", begun.elapsed().as_secs_f32());
    let mut random = StdRng::seed_from_u64(seed);
    singles.shuffle(&mut random);
    let mut queues: BTreeMap<Scenario, Vec<Job>> = BTreeMap::new();
    singles.iter().for_each(|job| queues.entry(job.scenario).or_default().push(job.clone()));
    let campaign = Arc::new(Campaign {
        api: api.clone(),
        folder: folder.path().to_owned(),
        likes,
        singles,
        queues: Mutex::new((queues, random)),
        summary: Mutex::new(Summary { seed, enumerated, ..Summary::default() }),
        worlds: AtomicUsize::new(0),
        begun,
        count,
        deadline: begun + Duration::from_secs(seconds),
    });
    let workers = (0..worlds).map(|_| tokio::spawn(Arc::clone(&campaign).work()));
    for worker in futures::future::join_all(workers).await {
        worker.expect("a worker");
    }
    let mut summary = std::mem::take(&mut *campaign.summary());
    summary.took = begun.elapsed();
    summary
}

/// How each scenario goes without a fault. Twice, as what is not the same twice cannot be compared.
async fn references(api: &Api, folder: &Path) -> BTreeMap<Scenario, Outcome> {
    let world = World::new(api, "reference", folder).await;
    let mut likes: BTreeMap<Scenario, Outcome> = BTreeMap::new();
    for _ in 0..2 {
        for scenario in Scenario::TOUR {
            let outcome = run(&world, scenario, Vec::new(), likes.get(&scenario)).await;
            let log = || world.operators[0].log();
            assert!(outcome.wrong.is_empty(), "{}\n{scenario:?} without a fault: {:#?}", log(), outcome.wrong);
            let known = likes.entry(scenario).or_insert_with(|| outcome.clone());
            for place in outcome.passed {
                if !known.passed.contains(&place) {
                    known.passed.push(place);
                }
            }
        }
    }
    for (scenario, like) in &likes {
        let (took, places, statuses) = (like.took.as_millis(), like.passed.len(), like.statuses);
        println!("  {scenario:?}: {took} ms, {places} places, {} writes, {statuses} statuses", like.writes.len());
    }
    world.end().await;
    likes
}

fn singles(likes: &BTreeMap<Scenario, Outcome>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (scenario, like) in likes {
        for place in &like.passed {
            // These come by the clock, not by the scenario; at a start they come once.
            let clock = ["leases", "secrets"].iter().any(|word| place.site.contains(word));
            if clock && (*scenario != Scenario::Apply || place.nth > 0) {
                continue;
            }
            for fault in Fault::fitting(place).iter().filter(|f| f.clock().is_none() || operator::has_clock()) {
                jobs.push(Job { scenario: *scenario, targets: vec![(place.clone(), *fault)] });
            }
        }
    }
    jobs
}

struct Campaign {
    api: Api,
    folder: PathBuf,
    likes: BTreeMap<Scenario, Outcome>,
    singles: Vec<Job>,
    queues: Mutex<(BTreeMap<Scenario, Vec<Job>>, StdRng)>,
    summary: Mutex<Summary>,
    worlds: AtomicUsize,
    begun: Instant,
    /// Enough perturbations, if there is such a number.
    count: Option<usize>,
    deadline: Instant,
}

impl Campaign {
    /// Takes jobs as they fit where its world stands, until the time is up.
    async fn work(self: Arc<Self>) {
        let mut world = self.world().await;
        let mut stage = Stage::Absent;
        while Instant::now() < self.deadline && self.count.is_none_or(|count| self.summary().struck() < count) {
            let Some(job) = self.next(stage) else { break };
            while stage != job.scenario.from() {
                let way = Scenario::towards(stage, job.scenario.from());
                let outcome = run(&world, way, Vec::new(), self.likes.get(&way)).await;
                stage = way.to();
                if !outcome.wrong.is_empty() {
                    self.summary().fail(&format!("on the way, {way:?} without a fault"), &outcome.wrong);
                    self.leave(&world).await;
                    (world, stage) = (self.world().await, Stage::Absent);
                }
            }
            world.operators[0].forget_log();
            let outcome = run(&world, job.scenario, job.targets.clone(), self.likes.get(&job.scenario)).await;
            stage = job.scenario.to();
            let failed = !outcome.wrong.is_empty();
            if failed && std::env::var_os("HIVE_FAULTS_LOG").is_some() {
                println!("{}", world.operators[0].log());
            }
            self.summary().add(&job, &outcome);
            self.summary().tell(self.begun.elapsed());
            if failed {
                self.leave(&world).await;
                (world, stage) = (self.world().await, Stage::Absent);
            }
        }
        self.leave(&world).await;
    }

    async fn world(&self) -> Arc<World> {
        let number = self.worlds.fetch_add(1, Ordering::Relaxed);
        World::new(&self.api, &format!("world-{number}"), &self.folder).await
    }

    async fn leave(&self, world: &Arc<World>) {
        world.end().await;
        let (begun, statuses) = world.oracle.seen();
        let mut summary = self.summary();
        summary.seen.0 += begun;
        summary.seen.1 += statuses;
    }

    /// A job that begins at this stage if there is one, else one of the longest queue, else two faults at once.
    fn next(&self, stage: Stage) -> Option<Job> {
        let mut locked = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let (queues, random) = &mut *locked;
        let longest = |fits: &dyn Fn(Scenario) -> bool| {
            let fitting = queues.iter().filter(|(scenario, jobs)| fits(**scenario) && !jobs.is_empty());
            fitting.max_by_key(|(_, jobs)| jobs.len()).map(|(scenario, _)| *scenario)
        };
        match longest(&|scenario| scenario.from() == stage).or_else(|| longest(&|_| true)) {
            Some(scenario) => queues.get_mut(&scenario)?.pop(),
            None => self.pair(stage, random),
        }
    }

    /// Two faults at two places of one scenario, which begins at this stage if one does.
    fn pair(&self, stage: Stage, random: &mut StdRng) -> Option<Job> {
        let here: Vec<&Job> = self.singles.iter().filter(|job| job.scenario.from() == stage).collect();
        let fitting = if here.is_empty() { self.singles.iter().collect() } else { here };
        let first = *fitting.choose(random)?;
        let other = |job: &&&Job| {
            let [(a, x)] = first.targets.as_slice() else { return false };
            let [(b, y)] = job.targets.as_slice() else { return false };
            job.scenario == first.scenario && a != b && !(x.brings_another() || y.brings_another())
        };
        let others: Vec<&Job> = fitting.iter().filter(other).copied().collect();
        let second = others.choose(random).copied().unwrap_or(first);
        let mut targets = first.targets.clone();
        targets.extend(second.targets.iter().filter(|target| !first.targets.contains(target)).cloned());
        Some(Job { scenario: first.scenario, targets })
    }

    fn summary(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
