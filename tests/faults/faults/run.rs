//! One run: a scenario, at most one fault, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::fault::{Fault, Place};
use crate::plane::{number, text};
use crate::plant::Note;
use crate::scenario::{Scenario, Stage};
use crate::world::{NAME, World};

/// A run that has not ended as it should by then has failed.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long a watch that missed something may be left to itself.
const RELIST_AFTER: Duration = Duration::from_millis(1200);
/// How often children without an owner are looked for.
const COLLECT: Duration = Duration::from_millis(300);
/// By then a window has begun, or ended, by the right clock.
const WINDOW: Duration = Duration::from_secs(3);
/// How long nothing more may happen once all is reached, to see what comes too late.
const REST: Duration = Duration::from_millis(40);

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) passed: Vec<Place>,
    pub(crate) struck: bool,
    /// The end, without what differs from run to run.
    pub(crate) end: Value,
    /// Writes of the operator that changed something, by place; statuses apart.
    pub(crate) writes: BTreeMap<String, usize>,
    pub(crate) statuses: usize,
    pub(crate) took: Duration,
    /// What is wrong; empty when nothing is.
    pub(crate) wrong: Vec<String>,
}

/// What goes wrong in a run, and where.
pub(crate) type Targets = Vec<(Place, Fault)>;

/// Runs a scenario in a world that stands where it begins. With `like`, it is to end in the same way.
pub(crate) async fn run(world: &Arc<World>, scenario: Scenario, targets: Targets, like: Option<&Outcome>) -> Outcome {
    let begun = Instant::now();
    let any = |is: fn(Fault) -> bool| targets.iter().any(|(_, fault)| is(*fault));
    let (needs_list, zombie) = (any(Fault::needs_list), any(|fault| fault == Fault::Zombie));
    let wrong_clock = any(|fault| fault.clock().is_some());
    let wrong_window = scenario.has_window() && wrong_clock;
    // Nothing is loosened while freezes cannot be read: a new object may begin paused, and that is an epoch more.
    let hidden = scenario == Scenario::Apply && targets.iter().any(|(place, fault)| fault.hides_freezes(place));
    // By a wrong clock a window begins or ends at another time, which is put right when the clock is: epochs more.
    let held_back = hidden || wrong_window;
    if scenario == Scenario::Apply {
        world.operators[0].stop().await;
        world.operators[0].forget_log();
    }
    let before = epoch(world).await;
    drop(world.effective());
    world.places.arm(targets);
    scenario.act(world).await;
    let mut wrong = Vec::new();
    let deadline = begun + PATIENCE;
    let mut collect_at = begun + COLLECT;
    let mut relist_at = needs_list.then(|| begun + RELIST_AFTER);
    if !wait(world, scenario, (&mut relist_at, &mut collect_at), deadline).await {
        wrong.push("not reached in time".to_owned());
    }
    if zombie && world.places.struck() {
        world.released.send_replace(true);
        tokio::time::sleep(REST).await;
        wait(world, scenario, (&mut relist_at, &mut collect_at), deadline).await;
    }
    if wrong_clock {
        // What was reached by a wrong clock is to be so by the right one.
        world.right_clock().await;
        if wrong_window {
            tokio::time::sleep_until((begun + WINDOW).into()).await;
        }
        tokio::time::sleep(REST).await;
        if !wait(world, scenario, (&mut relist_at, &mut collect_at), deadline).await {
            wrong.push("not reached in time after the clock was right again".to_owned());
        }
    }
    tokio::time::sleep(REST).await;
    let mut end = end(world, scenario, before, held_back).await;
    let like_end = like.map(|like| if held_back { strip(like.end.clone(), 0, true) } else { like.end.clone() });
    while like_end.as_ref().is_some_and(|like| *like != end) && Instant::now() < deadline {
        relist(world, &mut relist_at);
        collect(world, scenario, &mut collect_at);
        tokio::time::sleep(REST).await;
        end = self::end(world, scenario, before, held_back).await;
    }
    wrong.extend(like_end.iter().flat_map(|like| differences("", like, &end)));
    let mut writes = BTreeMap::new();
    let mut statuses = 0;
    for site in world.effective() {
        if site.ends_with("status") {
            statuses += 1;
        } else if !site.contains("events") && !site.contains("leases") && !site.contains("secrets") {
            *writes.entry(site).or_default() += 1;
        }
    }
    if let Some(like) = like.filter(|like| like.writes != writes && !held_back && scenario != Scenario::Delete) {
        wrong.push(format!("effective writes: {writes:?} instead of {:?}", like.writes));
    }
    wrong.extend(world.oracle.violations().into_iter().map(|violation| format!("PROMISE: {violation}")));
    let (passed, faults, struck) = world.places.disarm();
    let took = begun.elapsed();
    // One of a pair lingers though the other has not struck.
    let lingers = faults.into_iter().any(Fault::lingers) || (wrong_window && struck);
    tidy(world, lingers, wrong_window, scenario).await;
    Outcome { passed, struck, end, writes, statuses, took, wrong }
}

/// Waits for the end that the scenario asks for.
async fn wait(
    world: &World,
    scenario: Scenario,
    (relist_at, collect_at): (&mut Option<Instant>, &mut Instant),
    deadline: Instant,
) -> bool {
    let mut seen = world.seen.subscribe();
    while !scenario.reached(world) {
        if Instant::now() > deadline {
            return false;
        }
        relist(world, relist_at);
        collect(world, scenario, collect_at);
        let _ = tokio::time::timeout(Duration::from_millis(20), seen.changed()).await;
    }
    true
}

/// Has watches that missed something listed anew, whenever it is time: one may miss it after another fault.
fn relist(world: &World, at: &mut Option<Instant>) {
    if at.is_some_and(|at| at < Instant::now()) {
        *at = Some(Instant::now() + RELIST_AFTER);
        world.relist.send_modify(|relist| *relist += 1);
    }
}

/// An operator that has not heard of the end of its object makes children again, which a cluster collects again.
fn collect(world: &World, scenario: Scenario, at: &mut Instant) {
    if scenario == Scenario::Delete && *at < Instant::now() {
        *at = Instant::now() + COLLECT;
        world.note(Note::Collect);
    }
}

/// Leaves the world as the next run is to find it.
async fn tidy(world: &World, lingers: bool, wrong_window: bool, scenario: Scenario) {
    world.released.send_replace(true);
    world.operators[1].stop().await;
    world.right_clock().await;
    if scenario == Scenario::Delete {
        world.operators[0].stop().await;
        let _ = tokio::time::timeout(PATIENCE, clear(world)).await;
        return;
    }
    if lingers {
        world.crash(0).await;
    }
    world.watched().await;
    if wrong_window {
        // A status that is reached may be of the epoch before the one that a wrong clock began.
        let _ = tokio::time::timeout(PATIENCE, told(world)).await;
    }
}

/// Waits until the status tells of the epoch that the boot file has.
async fn told(world: &World) {
    let boot = format!("{}/{NAME}-boot", world.path("configmaps"));
    loop {
        let (_, found) = world.api.call(Method::GET, &boot, None).await;
        let file: Value = serde_json::from_str(text(&found, "/data/boot.json")).unwrap_or_default();
        if number(&file, "/epoch") == epoch(world).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes away what a stopped operator has made since for an object that is gone: the next of the name begins anew.
async fn clear(world: &World) {
    while !world.quiet() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.note(Note::Collect);
    while !Scenario::Delete.reached(world) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn epoch(world: &World) -> i64 {
    let runtime = world.api.call(Method::GET, &world.object(), None).await.1;
    number(&runtime, "/status/epoch")
}

/// All that is left at the end, without names and numbers that differ from run to run.
async fn end(world: &World, scenario: Scenario, before: i64, held_back: bool) -> Value {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut pods = world.pods();
    // As the status lists them.
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    for (number, pod) in pods.iter().enumerate() {
        names.push((pod.uid.clone(), format!("POD-UID-{number}")));
        names.push((pod.name.clone(), format!("POD-{number}")));
    }
    let (code, runtime) = world.api.call(Method::GET, &world.object(), None).await;
    let runtime = if code == 200 { runtime } else { json!({}) };
    names.push((text(&runtime, "/metadata/uid").to_owned(), "UID".to_owned()));
    names.push((world.ns.clone(), "WORLD".to_owned()));
    let observed = number(&runtime, "/metadata/generation") == number(&runtime, "/status/observedGeneration");
    let mut status = runtime.get("status").cloned().unwrap_or_else(|| json!({}));
    status["observedGeneration"] = json!(if observed { "current" } else { "behind" });
    let mut children = BTreeMap::new();
    for (path, items) in world.listed().await {
        for item in items {
            children.insert(format!("{path}/{}", text(&item, "/metadata/name")), child(&item));
        }
    }
    let pods: Vec<Value> = pods.iter().map(|pod| json!(pod.state().to_string())).collect();
    let mut end = json!({ "status": status, "children": children, "pods": pods });
    if scenario.to() == Stage::Absent {
        end["status"] = Value::Null;
    }
    let mut end = strip(end, before, held_back);
    let mut shown = end.to_string();
    for (name, with) in names.iter().filter(|(name, _)| !name.is_empty()) {
        shown = shown.replace(name, with);
    }
    if let Ok(read) = serde_json::from_str(&shown) {
        end = read;
    }
    end
}

fn child(item: &Value) -> Value {
    let mut data = item.get("data").cloned().unwrap_or_default();
    let boot: Option<Value> = data.get("boot.json").and_then(Value::as_str).and_then(|t| serde_json::from_str(t).ok());
    if let Some(boot) = boot {
        data["boot.json"] = boot;
    }
    json!({ "labels": item.pointer("/metadata/labels"), "spec": item.get("spec"), "data": data })
}

/// What differs from run to run.
const OTHER: [&str; 10] = [
    "lastTransitionTime",
    "keys",
    "keys_version",
    "clusterIP",
    "clusterIPs",
    "revision",
    "strategy",
    "release_epoch",
    "releases",
    "observedGeneration",
];

/// Takes out times, keys and addresses, and counts epochs from the beginning of the run, or leaves them out.
fn strip(value: Value, before: i64, held_back: bool) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, value)| !OTHER.contains(&key.as_str()) || value == "current");
            let counted = kept.filter_map(|(key, value)| match (key.as_str(), value.as_i64()) {
                ("epoch" | "acknowledgedEpoch", Some(_)) if held_back => None,
                ("epoch" | "acknowledgedEpoch", Some(epoch)) => Some((key, json!(epoch - before))),
                _ => Some((key, strip(value, before, held_back))),
            });
            Value::Object(counted.collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(|value| strip(value, before, held_back)).collect()),
        other => other,
    }
}

/// Where two ends differ.
fn differences(at: &str, like: &Value, end: &Value) -> Vec<String> {
    match (like, end) {
        _ if like == end => Vec::new(),
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            let part = |map: &serde_json::Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or_default();
            keys.into_iter().flat_map(|key| differences(&format!("{at}/{key}"), &part(a, key), &part(b, key))).collect()
        }
        _ => vec![format!("{at}: {end} instead of {like}")],
    }
}
