//! Faults that stay: a request that is answered in the same way for as long as the fault lasts. Whatever it is, pause and
//! freeze reach the pods, status says within seconds what fails, and the object recovers by itself when the cause goes.
//!
//! HIVE_FAULTS_SEED repeats a choice, HIVE_LASTING=all takes every request with every answer (half an hour), and
//! HIVE_LASTING=text those that have the text in their name.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hyper::Method;
use lifecycle::State;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::api::Api;
use crate::oracle::is;
use crate::plane::{Plane, text};
use crate::scenario::{self, Scenario};
use crate::world::{NAME, World};
use crate::{operator, run};

/// Cases at once, each in a world of its own.
const AT_ONCE: usize = 6;
/// How long a demand may take to reach a pod.
const REACHES: Duration = Duration::from_secs(5);
/// How long what fails may be unknown.
const TOLD: Duration = Duration::from_secs(10);
/// How long the object may take once the cause is gone.
const RECOVERS: Duration = Duration::from_secs(35);

/// How a request is answered for as long as the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With this code.
    Code(u16),
    /// The connection is cut.
    Reset,
    /// Never.
    Silence,
}

/// A fault that stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lasting {
    /// How the request is named, or its beginning.
    pub(crate) site: &'static str,
    pub(crate) answer: Answer,
}

impl std::fmt::Display for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.site, self.answer)
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A child alone needs it.
    Child,
    /// Nothing may be called paused without it.
    Fence,
    /// The status itself.
    Status,
}

const SITES: [(&str, Use); 13] = [
    ("PATCH deployments demo", Use::Child),
    ("PATCH services demo", Use::Child),
    ("PATCH serviceaccounts demo", Use::Child),
    ("PATCH poddisruptionbudgets demo", Use::Child),
    ("PATCH networkpolicies demo", Use::Child),
    ("PATCH configmaps demo-agent", Use::Child),
    ("list services", Use::Child),
    ("list serviceaccounts", Use::Child),
    ("list poddisruptionbudgets", Use::Child),
    ("list networkpolicies", Use::Child),
    ("PUT configmaps demo-boot", Use::Fence),
    ("barrier pods", Use::Fence),
    ("PUT agentruntimes demo status", Use::Status),
];

const ANSWERS: [Answer; 13] = [
    Answer::Code(400),
    Answer::Code(403),
    Answer::Code(404),
    Answer::Code(409),
    Answer::Code(410),
    Answer::Code(413),
    Answer::Code(422),
    Answer::Code(429),
    Answer::Code(500),
    Answer::Code(503),
    Answer::Code(504),
    Answer::Reset,
    Answer::Silence,
];

/// Every request with every answer, or each of both once.
fn cases() -> Vec<(Lasting, Use)> {
    let wanted = std::env::var("HIVE_LASTING").unwrap_or_default();
    let seed = std::env::var("HIVE_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("seed {seed}");
    let shift = StdRng::seed_from_u64(seed).random_range(0..ANSWERS.len());
    let place = |site: usize, answer: usize| {
        let ((name, used), answer) = (SITES[site], ANSWERS[answer]);
        (Lasting { site: name, answer }, used)
    };
    let every = (0..SITES.len()).flat_map(|site| (0..ANSWERS.len()).map(move |answer| (site, answer)));
    let every = every.map(|(site, answer)| place(site, answer));
    match wanted.as_str() {
        "" => (0..SITES.len()).map(|site| place(site, (site + shift) % ANSWERS.len())).collect(),
        "all" => every.collect(),
        wanted => every.filter(|(case, _)| case.to_string().contains(wanted)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_stays_holds_up_no_brake_and_is_told_and_recovers() {
    operator::check();
    let (plane, folder) = (Plane::start().await, tempfile::tempdir().unwrap());
    let cases = cases();
    let count = cases.len();
    let all = cases.into_iter().enumerate().map(|(number, (lasting, used))| {
        let (api, folder) = (plane.api.clone(), folder.path().to_owned());
        async move {
            let begun = std::time::Instant::now();
            let wrong = one(&api, &format!("lasting-{number}"), &folder, lasting, used).await;
            println!(
                "{:5.1} s {lasting}: {}",
                begun.elapsed().as_secs_f32(),
                if wrong.is_empty() { "ok" } else { "FAILED" }
            );
            wrong.into_iter().map(|wrong| format!("{lasting}: {wrong}")).collect::<Vec<_>>()
        }
    });
    let wrong: Vec<String> = futures::stream::iter(all).buffer_unordered(AT_ONCE).concat().await;
    println!("{count} faults that stay were tried");
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// Says what is wrong.
async fn one(api: &Api, name: &str, folder: &std::path::Path, lasting: Lasting, used: Use) -> Vec<String> {
    let world = World::new(api, name, folder).await;
    let applied = run::run(&world, Scenario::Apply, Vec::new(), None).await;
    let mut wrong = applied.wrong;
    if wrong.is_empty() {
        world.stay(Some(lasting));
        spoil(&world).await;
        wrong.extend(with_it(&world, used).await);
        world.stay(None);
        wrong.extend(
            world
                .shows("it recovers", RECOVERS, |status| {
                    is(status, "Ready", "True") && !is(status, "Stalled", "True") && text(status, "/state") == "running"
                })
                .await,
        );
        wrong.extend(world.oracle.violations().into_iter().map(|violation| format!("PROMISE: {violation}")));
    }
    if !wrong.is_empty() {
        println!("{lasting}:\n{}\n{}", world.operators[0].log(), world.seen.borrow().runtime["status"]);
    }
    world.end().await;
    wrong
}

/// Has every child be applied again: those that a spec cannot change are deleted.
async fn spoil(world: &Arc<World>) {
    for kind in ["services", "serviceaccounts", "poddisruptionbudgets", "networkpolicies"] {
        let path = format!("{}/{NAME}", world.path(kind));
        assert_eq!(world.write(Method::DELETE, &path, None).await.0, 200, "{path}");
    }
    let changed = json!({ "spec": {
        "restartNonce": "2",
        "agent": { "inline": { "agent": { "id": "demo", "name": "Another" } } },
    } });
    scenario::patch(world, changed).await;
}

/// What is wrong while the fault lasts. It ends with the object running as its spec asks for.
async fn with_it(world: &Arc<World>, used: Use) -> Vec<String> {
    let mut wrong = Vec::new();
    let desired = |word: &str| json!({ "spec": { "desiredState": word } });
    scenario::patch(world, desired("paused")).await;
    if used != Use::Fence {
        wrong.extend(world.pods_are("paused", |state| state == State::Paused).await);
    }
    match used {
        Use::Child => {
            let both = |status: &Value| text(status, "/state") == "paused" && is(status, "Stalled", "True");
            wrong.extend(world.shows("status says paused and what fails", TOLD, both).await);
        }
        Use::Fence => {
            let told = |status: &Value| is(status, "Stalled", "True") && text(status, "/state") != "paused";
            wrong.extend(world.shows("status says what fails and not paused", TOLD, told).await);
        }
        Use::Status => {}
    }
    scenario::patch(world, desired("running")).await;
    if used != Use::Fence {
        wrong.extend(world.pods_are("running", |state| state == State::Running).await);
        Scenario::Freeze.act(world).await;
        wrong.extend(world.pods_are("frozen", |state| state == State::Paused).await);
        Scenario::Unfreeze.act(world).await;
    }
    wrong
}

impl World {
    /// Waits until every pod is so; what is wrong if none of it comes.
    async fn pods_are(&self, what: &str, so: impl Fn(State) -> bool) -> Option<String> {
        let there = async {
            loop {
                let pods = self.pods();
                if !pods.is_empty() && pods.iter().all(|pod| so(pod.state())) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let states = || self.pods().iter().map(|pod| format!("{:?}", pod.state())).collect::<Vec<_>>();
        tokio::time::timeout(REACHES, there).await.err().map(|_| format!("the pods are not {what}: {:?}", states()))
    }

    /// Waits until the object's status is so.
    async fn shows(&self, what: &str, limit: Duration, so: impl Fn(&Value) -> bool) -> Option<String> {
        let mut seen = self.seen.subscribe();
        let shown = seen.wait_for(|seen| so(&seen.runtime["status"]));
        let shown = tokio::time::timeout(limit, shown).await.map(drop);
        shown.err().map(|_| format!("never: {what}"))
    }
}
