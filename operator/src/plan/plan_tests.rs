//! Plans as snapshots, and the laws that every plan obeys.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crds::{AgentRuntime, AgentRuntimeSpec, AgentRuntimeStatus, AgentSource, DesiredState, RuntimeState};
use lifecycle::brake::Brakes;
use lifecycle::wire::{Health, Status};
use lifecycle::{BootFile, Desired, State, Verb};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::observe::fleet::FleetView;
use crate::observe::{
    AgentText, Barrier, BootConfigMap, BrakeOutcome, BrakeReply, Cause, ChildFacts, ChildKey, ChildKind, Contact,
    DeploymentFacts, Fault, Faults, Heard, HookOutcome, Nonce, Onset, PodFacts, calls_ended,
};

#[path = "asking_tests.rs"]
mod asking;
#[path = "brakes_tests.rs"]
mod braking;
#[path = "ends_tests.rs"]
mod ends;
#[path = "holding_tests.rs"]
mod holding;
#[path = "hooks_tests.rs"]
mod hooked;
#[path = "mutations_tests.rs"]
mod mutations;
#[path = "replacing_tests.rs"]
mod replacing;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn settings() -> Settings {
    Settings {
        runtime_image: "agent-runtime:test".to_owned(),
        namespace: "system".to_owned(),
        exec_hooks: true,
        obey_freezes: true,
    }
}

fn fault(of: &str, cause: Cause, now: Timestamp) -> Fault {
    Fault::again(None, of, cause, (now, now), |_| jiff::SignedDuration::from_secs(20))
}

/// What a cluster would hold: carries out plans without any of the I/O.
#[derive(Clone)]
struct World {
    runtime: AgentRuntime,
    boot: Option<BootConfigMap>,
    children: BTreeMap<ChildKey, ChildFacts>,
    deployment: Option<DeploymentFacts>,
    pods: Vec<Pod>,
    contacts: HashMap<String, Contact>,
    barrier: Option<Barrier>,
    faults: Faults,
    tried: Option<String>,
    reported: Option<Timestamp>,
    epoch_since: Option<(i64, Timestamp)>,
    protected_since: Option<Timestamp>,
    fleet: FleetView,
    keys: Vec<String>,
    now: Timestamp,
    writes: usize,
    made: usize,
    /// Hooks that were called: the pod, which, and for which epoch.
    hooked: Vec<String>,
    hook_error: Option<String>,
    agent: String,
    sketch: RefCell<Sketch>,
    onset: Option<Onset>,
    looks: u64,
    made_brakes: Vec<String>,
    /// The boot ConfigMap cannot be written.
    unwritable: bool,
}

/// A pod that obeys, or hangs.
#[derive(Clone)]
struct Pod {
    uid: String,
    state: State,
    epoch: i64,
    in_flight: i64,
    hung: bool,
    /// It has booted, and nobody has confirmed that yet.
    awaits: bool,
    /// None of an image that knows none.
    brakes: Option<Brakes>,
}

impl World {
    fn new(desired: DesiredState, replicas: i32) -> Self {
        let spec = AgentRuntimeSpec {
            desired_state: desired,
            replicas,
            progress_deadline_seconds: 600,
            agent: Some(AgentSource { inline: Some(serde_json::Map::new()), config_map_ref: None }),
            ..AgentRuntimeSpec::default()
        };
        let mut runtime = AgentRuntime::new("demo", spec);
        runtime.metadata.namespace = Some("default".to_owned());
        runtime.metadata.uid = Some("runtime-1".to_owned());
        runtime.metadata.generation = Some(1);
        runtime.metadata.resource_version = Some("1".to_owned());
        Self {
            runtime,
            boot: None,
            children: BTreeMap::new(),
            deployment: None,
            pods: Vec::new(),
            contacts: HashMap::new(),
            barrier: None,
            faults: Faults::default(),
            tried: None,
            epoch_since: None,
            reported: None,
            protected_since: None,
            fleet: FleetView::default(),
            keys: vec!["key-1".to_owned()],
            now: at(0),
            writes: 0,
            made: 0,
            hooked: Vec::new(),
            hook_error: None,
            agent: "{}".to_owned(),
            sketch: RefCell::default(),
            onset: None,
            looks: 0,
            made_brakes: Vec::new(),
            unwritable: false,
        }
    }

    fn ask(&mut self, desired: DesiredState) {
        self.runtime.spec.desired_state = desired;
        *self.runtime.metadata.generation.as_mut().unwrap() += 1;
    }

    fn observed(&self) -> Observed {
        Observed {
            boot: self.boot.clone(),
            children: self.children.clone(),
            deployment: self.deployment.clone(),
            pods: self.pods.iter().map(|pod| Arc::new(self.facts(pod))).collect(),
            contacts: self.contacts.clone(),
            barrier: self.barrier.clone(),
            agent: AgentText::Found { text: self.agent.clone(), file: "agent.json".to_owned() },
            epoch_since: self.epoch_since,
            reported: self.reported,
            keys: self.keys.clone().into(),
            faults: self.faults.clone(),
            tried: self.tried.clone(),
            protected_since: self.protected_since,
            fleet: self.fleet.clone(),
            onset: self.onset.clone(),
            made: self.made_brakes.clone(),
            nonce: Nonce { look: self.looks, ..Nonce::default() },
            ..Observed::of(Arc::new(self.runtime.clone()))
        }
    }

    /// The API server refuses the child of this kind as it is drawn now.
    fn refuse(&mut self, kind: ChildKind) {
        let found = self.plan().children.apply.into_iter().find(|child| child.key.kind == kind).unwrap();
        let cause = Cause::Refused { code: 422, message: "unknown field".to_owned() };
        self.faults.children.insert(found.key, fault(&found.hash, cause, self.now));
        self.tried = None;
    }

    fn facts(&self, pod: &Pod) -> PodFacts {
        PodFacts {
            name: pod.uid.clone(),
            uid: pod.uid.clone(),
            address: Some([10, 0, 0, 1].into()),
            terminating: false,
            ended: false,
            ready: pod.state == State::Running,
            port: None,
            container: Some(format!("{}-container", pod.uid).into()),
            created: Some(at(0)),
            started: Some(at(0)),
            waiting: None,
            unsafe_target: None,
        }
    }

    fn plan(&self) -> Plan {
        let seen = self.observed();
        let plan = plan(&seen, &settings(), self.now);
        let sooner = plan_with(&seen, &settings(), self.now, &mut self.sketch.borrow_mut());
        assert_eq!(sooner, plan, "what was drawn before changes no plan");
        plan
    }

    /// Carries out one plan as the executor and a cluster would.
    fn step(&mut self) -> Plan {
        let mut plan = self.plan();
        self.faults.retain(&plan.outstanding);
        self.note_brakes(plan.brakes.onset.as_ref());
        if !plan.brakes.orders.is_empty() {
            plan.brakes.orders.iter().for_each(|order| self.call(order));
            // What was planned before the answers came is planned anew.
            plan = Plan { brakes: plan.brakes, ..self.plan() };
        }
        if let Some(boot) = plan.boot.as_ref().filter(|_| self.unwritable) {
            let cause = Cause::Refused { code: 403, message: "no".to_owned() };
            self.faults.boot = Some(fault(&boot.demand, cause, self.now));
            return plan;
        }
        if let Some(boot) = &plan.boot {
            let (file, hooks) = (Some(boot.file.clone()), boot.hooks.clone());
            self.boot = Some(BootConfigMap { resource_version: boot.file.epoch.to_string(), file, hooks });
            if self.epoch_since.is_none_or(|(epoch, _)| epoch != boot.file.epoch) {
                self.epoch_since = Some((boot.file.epoch, self.now));
            }
            self.writes += 1;
        }
        for child in &plan.children.apply {
            self.faults.children.remove(&child.key);
            if child.trial {
                let template = child.manifest["metadata"]["annotations"][TEMPLATE_ANNOTATION].as_str();
                self.tried = template.map(str::to_owned);
                continue;
            }
            let (hash, uid) = (Some(child.hash.clone()), Some(format!("{}-uid", child.key.name)));
            self.children.insert(child.key.clone(), ChildFacts { hash, drifted: false, shown: true, uid });
            if child.key.kind == ChildKind::Deployment {
                self.roll_out(child);
            }
            if child.key.kind == ChildKind::PodDisruptionBudget {
                let since = &child.manifest["metadata"]["annotations"][PROTECTED_SINCE];
                self.protected_since = since.as_str().map(|since| since.parse().unwrap());
            }
            self.writes += 1;
        }
        for child in &plan.children.delete {
            self.children.remove(&child.key);
        }
        if let Some(scale) = &plan.scale {
            let strategy = self.deployment.as_ref().unwrap().strategy.clone();
            self.run_pods(scale.replicas, strategy);
            self.writes += 1;
        }
        for order in &plan.orders {
            assert_eq!(order.ended, calls_ended(&self.contacts, &order.pod), "planned from all that was heard");
        }
        for order in &plan.orders {
            self.call(order);
        }
        if let Some(epoch) = plan.barrier {
            let pods = self.pods.iter().map(|pod| pod.uid.clone()).collect();
            self.barrier = Some(Barrier { epoch, pods, at: self.now });
        }
        if let Some(status) = &plan.status {
            self.runtime.status = Some(status.as_ref().clone());
            self.reported = Some(self.now);
            self.writes += 1;
        }
        plan
    }

    fn note_brakes(&mut self, onset: Option<&Onset>) {
        let mut memory = crate::observe::memory::Memory::default();
        memory.made = std::mem::take(&mut self.made_brakes);
        memory.braked(onset, self.boot.as_ref().map(BootConfigMap::releases).unwrap_or_default());
        (self.made_brakes, self.onset) = (memory.made, memory.onset);
        self.looks += 1;
    }

    fn roll_out(&mut self, child: &Child) {
        let spec = child.manifest.get("spec").unwrap();
        let wanted = i32::try_from(spec["replicas"].as_i64().unwrap()).unwrap();
        let annotation = |name: &str| child.manifest["metadata"]["annotations"][name].as_str().unwrap().to_owned();
        let template = annotation(TEMPLATE_ANNOTATION);
        if self.deployment.as_ref().is_some_and(|deployment| deployment.template != template) {
            self.pods.clear();
        }
        self.run_pods(wanted, annotation(STRATEGY_ANNOTATION));
        self.deployment.as_mut().unwrap().template = template;
    }

    fn run_pods(&mut self, wanted: i32, strategy: String) {
        let count = usize::try_from(wanted).unwrap();
        self.pods.truncate(count);
        while self.pods.len() < count {
            self.made += 1;
            let uid = format!("pod-{}", self.made);
            // As the runtime boots: paused, until the operator confirms.
            self.pods.push(Pod {
                uid,
                state: State::Paused,
                epoch: 0,
                in_flight: 0,
                hung: false,
                awaits: true,
                brakes: Some(Brakes::default()),
            });
        }
        let template = self.deployment.take().map(|deployment| deployment.template).unwrap_or_default();
        self.deployment = Some(DeploymentFacts { wanted, strategy, template, ..DeploymentFacts::default() });
        self.count();
    }

    fn count(&mut self) {
        let pods = i32::try_from(self.pods.len()).unwrap();
        let ready = i32::try_from(self.pods.iter().filter(|p| p.state == State::Running).count()).unwrap();
        if let Some(deployment) = &mut self.deployment {
            deployment.observed = true;
            (deployment.replicas, deployment.updated, deployment.ready) = (pods, pods, ready);
        }
    }

    fn call(&mut self, order: &Order) {
        let now = self.now;
        let Some(pod) = self.pods.iter_mut().find(|pod| pod.uid == order.pod) else { return };
        let contact = self.contacts.entry(order.pod.clone()).or_default();
        contact.ended += 1;
        if pod.hung {
            contact.failures += 1;
            contact.failing_since = contact.failing_since.or(Some(now));
            contact.error = Some("no answer".to_owned());
            if let Call::Command { body, .. } = &order.call {
                contact.failed_epoch = body.epoch;
            }
            if let Call::Brake { body } = &order.call {
                contact.brake = Some(Box::new(outcome(order, &body.id, BrakeReply::Failed, now)));
            }
            return;
        }
        let mut reply = None;
        if let Call::Brake { body } = &order.call {
            let brake = body.brake().unwrap();
            let said = match &mut pod.brakes {
                None => BrakeReply::Unknown,
                Some(_) if pod.epoch > brake.epoch => BrakeReply::Stale,
                Some(brakes) => brakes.set(brake).map_or(BrakeReply::Failed, |()| BrakeReply::Held),
            };
            pod.rest();
            reply = Some(outcome(order, &body.id, said, now));
        }
        if let Call::Hook { turn, .. } = &order.call {
            self.hooked.push(format!("{} {} {}", order.pod, turn.hook.as_str(), turn.epoch));
            let error = self.hook_error.clone();
            let next_attempt = now + jiff::SignedDuration::from_secs(1);
            contact.hook = Some(Box::new(HookOutcome { turn: *turn, error, failures: 1, next_attempt }));
            return;
        }
        if let Call::Command { verb, body } = &order.call {
            let epoch = body.epoch.unwrap();
            if let Some(brakes) = &mut pod.brakes {
                brakes.release(pod.epoch, epoch, &body.releases);
            } else {
                assert!(body.releases.is_empty(), "it would refuse a field that it does not know");
            }
            (pod.epoch, pod.awaits) = (epoch, false);
            if body.mode == Some(lifecycle::DrainMode::Cancel) && matches!(verb, Verb::Pause | Verb::Stop) {
                pod.in_flight = 0;
            }
            pod.state = match (verb, pod.in_flight) {
                (Verb::Start | Verb::Resume | Verb::Restart, _) => State::Running,
                (Verb::Pause, 0) => State::Paused,
                (Verb::Pause, _) => State::Pausing,
                (Verb::Stop, 0) => State::Stopped,
                (Verb::Stop, _) => State::Stopping,
            };
            pod.rest();
        }
        let heard = Heard::new(answer(pod), now, order.container.clone(), order.ready);
        let (hook, ended, brake) = (contact.hook.take(), contact.ended, contact.brake.take());
        let brake = reply.map(Box::new).or(brake);
        *contact = Contact { answer: Some(Arc::new(heard)), hook, ended, brake, ..Contact::default() };
        self.count();
    }

    /// The work in flight of every pod ends, and the pods say so.
    fn finish_work(&mut self) {
        for pod in &mut self.pods {
            pod.in_flight = 0;
            pod.state = match pod.state {
                State::Pausing => State::Paused,
                State::Stopping => State::Stopped,
                state @ (State::Stopped | State::Starting | State::Running | State::Paused) => state,
            };
            if let Some(heard) =
                self.contacts.get_mut(&pod.uid).and_then(|c| c.answer.as_mut()).filter(|_| !pod.hung).map(Arc::make_mut)
            {
                *heard.said() = answer(pod);
                heard.at = self.now;
            }
        }
    }

    /// Steps until a plan asks for nothing; at most `most` times.
    fn settle(&mut self, most: usize) -> usize {
        for steps in 0..most {
            let plan = self.step();
            let idle =
                plan.boot.is_none() && !plan.children.is_due() && plan.status.is_none() && plan.barrier.is_none();
            if idle && plan.orders.is_empty() && plan.brakes.orders.is_empty() && plan.scale.is_none() {
                return steps;
            }
            self.now += jiff::SignedDuration::from_secs(2);
        }
        panic!("it does not settle in {most} steps: {:#?}", self.plan());
    }

    fn status(&self) -> &AgentRuntimeStatus {
        self.runtime.status.as_ref().unwrap()
    }

    fn condition(&self, kind: &str) -> String {
        let found = self.status().conditions.iter().find(|c| c.type_ == kind);
        found.map_or_else(|| "absent".to_owned(), |c| format!("{} {}", c.status, c.reason))
    }
}

impl Pod {
    /// As severe as its brakes ask for at least.
    fn rest(&mut self) {
        let Some(brakes) = &self.brakes else { return };
        let busy = self.in_flight > 0;
        self.state = match (brakes.target(), self.state) {
            (Desired::Paused, State::Running | State::Starting) if busy => State::Pausing,
            (Desired::Paused, State::Running | State::Starting) => State::Paused,
            (Desired::Stopped, State::Stopped) => State::Stopped,
            (Desired::Stopped, _) if busy => State::Stopping,
            (Desired::Stopped, _) => State::Stopped,
            (Desired::Running | Desired::Paused, state) => state,
        };
    }
}

fn outcome(order: &Order, id: &str, reply: BrakeReply, now: Timestamp) -> BrakeOutcome {
    let next_attempt = now + jiff::SignedDuration::from_secs(i64::from(reply == BrakeReply::Failed));
    BrakeOutcome { id: id.to_owned(), container: order.container.clone(), reply, failures: 1, next_attempt }
}

fn answer(pod: &Pod) -> Status {
    Status {
        state: pod.state,
        uptime_seconds: 1,
        active_streams: 0,
        total_executions: 0,
        failed_executions: 0,
        entry_points: vec!["main".to_owned()],
        health: Health::default(),
        in_flight: Some(pod.in_flight),
        waiting_for_input: 0,
        queued: 0,
        epoch: pod.epoch,
        holds: Vec::new(),
        brakes: pod.brakes.as_ref().map(Brakes::ids),
        features: Vec::new(),
        drain_deadline: None,
        held_by: Vec::new(),
        boot_id: "boot".to_owned(),
        version: format!("boot.{}{}", pod.epoch, pod.in_flight),
        counter_scope: lifecycle::wire::CounterScope::Pod,
        pod_uid: None,
        awaiting_confirmation: pod.awaits,
        message: None,
        keys: Vec::new(),
    }
}

/// The plan in few lines, for a reader.
fn show(plan: &Plan) -> String {
    let mut text = String::new();
    if let Some(boot) = &plan.boot {
        let _ = writeln!(text, "boot: epoch {} {} replaces {:?}", boot.file.epoch, boot.file.state, boot.replaces);
    }
    for child in &plan.children.apply {
        let _ = writeln!(text, "apply: {:?} {}", child.key.kind, child.key.name);
    }
    for DeleteChild { key, .. } in &plan.children.delete {
        let _ = writeln!(text, "delete: {:?} {}", key.kind, key.name);
    }
    if let Some(scale) = &plan.scale {
        let _ = writeln!(text, "scale: {} to {}", scale.deployment.name, scale.replicas);
    }
    for order in plan.brakes.orders.iter().chain(&plan.orders) {
        let _ = match &order.call {
            Call::Brake { body } => writeln!(text, "brake: {} {} epoch {}", order.pod, body.state, body.epoch),
            Call::Command { verb, body } => writeln!(text, "push: {} {verb} epoch {:?}", order.pod, body.epoch),
            Call::Hook { turn, .. } => writeln!(text, "hook: {} {} {}", order.pod, turn.hook.as_str(), turn.epoch),
            Call::Ask { after } => writeln!(text, "ask: {} after {after:?}", order.pod),
        };
    }
    if let Some(epoch) = plan.barrier {
        let _ = writeln!(text, "barrier: epoch {epoch}");
    }
    if let Some(status) = &plan.status {
        let _ = writeln!(text, "status: {:?} {} {}", status.state.unwrap(), status.reason, status.epoch);
    }
    for event in &plan.events {
        let _ = writeln!(text, "event: {} {}", event.reason, event.note);
    }
    let _ = writeln!(text, "again: {:?}", plan.again);
    text
}

#[test]
fn every_plan_from_apply_to_stop() {
    let mut world = World::new(DesiredState::Running, 2);
    let mut story = String::new();
    let mut tell = |world: &mut World, title: &str, steps: usize| {
        let _ = writeln!(story, "# {title}");
        for _ in 0..steps {
            let plan = world.step();
            story.push_str(&show(&plan));
            story.push_str("--\n");
            world.now += jiff::SignedDuration::from_secs(2);
        }
    };
    tell(&mut world, "apply", 4);
    world.pods[0].in_flight = 1;
    world.ask(DesiredState::Paused);
    tell(&mut world, "pause with work in flight", 3);
    world.finish_work();
    tell(&mut world, "the work ends", 3);
    world.ask(DesiredState::Running);
    tell(&mut world, "resume", 3);
    world.ask(DesiredState::Stopped);
    tell(&mut world, "stop", 5);
    insta::assert_snapshot!(story);
}

#[test]
fn the_children_of_a_small_object() {
    let children: Vec<_> =
        applied(&World::new(DesiredState::Running, 1)).into_iter().map(|child| child.manifest).collect();
    insta::assert_snapshot!(serde_json::to_string_pretty(&children).unwrap());
}

/// Every child that is applied until nothing is to be done: what the pods need comes before them.
fn applied(world: &World) -> Vec<Child> {
    let mut world = world.clone();
    (0..4).flat_map(|_| world.step().children.apply).collect()
}

fn child(world: &World, kind: ChildKind) -> Value {
    let found = applied(world).into_iter().find(|child| child.key.kind == kind);
    Value::Object(found.map(|child| child.manifest).unwrap_or_default())
}

fn on_a_volume(when_deleted: crds::WhenDeleted) -> World {
    let mut world = World::new(DesiredState::Running, 1);
    let claim = crds::VolumeClaim { size: "1Gi".to_owned(), storage_class_name: None, when_deleted };
    world.runtime.spec.storage = Some(crds::Storage { volume_claim: Some(claim), ..crds::Storage::default() });
    world
}

#[test]
fn a_volume_claim_is_mounted_and_kept_unless_it_is_to_go_with_its_object() {
    let world = on_a_volume(crds::WhenDeleted::Retain);
    let claim = child(&world, ChildKind::PersistentVolumeClaim);
    assert_eq!(claim["spec"]["accessModes"][0], "ReadWriteOncePod");
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);
    let deployment = child(&world, ChildKind::Deployment);
    assert_eq!(deployment["spec"]["strategy"], serde_json::json!({ "type": "Recreate" }));
    let volumes = &deployment["spec"]["template"]["spec"]["volumes"];
    assert_eq!(volumes[1]["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);
    let deleted = child(&on_a_volume(crds::WhenDeleted::Delete), ChildKind::PersistentVolumeClaim);
    assert_eq!(deleted["metadata"]["ownerReferences"][0]["uid"], "runtime-1");
}

fn on_a_database(replicas: i32) -> World {
    let mut world = World::new(DesiredState::Running, replicas);
    let url_secret_ref = crds::SecretKey { name: "database".to_owned(), key: "uri".to_owned() };
    let postgres = Some(crds::Postgres { url_secret_ref });
    world.runtime.spec.storage = Some(crds::Storage { postgres, ..crds::Storage::default() });
    world
}

#[test]
fn the_address_of_a_database_is_mounted_and_pods_share_its_timers() {
    let mut world = on_a_database(2);
    world.agent = r#"{"graph":{"async_entry_points":[{"id":"tick","trigger_type":"timer"}]}}"#.to_owned();
    let deployment = child(&world, ChildKind::Deployment);
    let pod = &deployment["spec"]["template"]["spec"];
    let find = |list: &str, name: &str| {
        let all = [&pod["volumes"], &pod["containers"][0][list]].into_iter().flat_map(|all| all.as_array().unwrap());
        all.filter(|one| one["name"] == name).cloned().collect::<Vec<Value>>()
    };
    insta::assert_snapshot!(serde_json::to_string_pretty(&find("volumeMounts", "store")).unwrap());
    assert_eq!(find("env", "HIVE_STORE_URL_FILE")[0]["value"], "/etc/hive/store/url");
    assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
    world.settle(20);
    assert_eq!((world.condition("Ready").as_str(), world.pods.len()), ("True Running", 2));
}

#[test]
fn a_pod_without_its_database_is_stalled_with_the_field_once_it_had_time_whatever_is_desired() {
    for desired in [DesiredState::Running, DesiredState::Paused] {
        let mut world = on_a_database(1);
        world.ask(desired);
        world.settle(20);
        let starts = |world: &mut World| {
            let heard = world.contacts.get_mut("pod-1").unwrap().heard();
            heard.state = State::Starting;
            heard.health.storage = lifecycle::wire::HealthLevel::Unhealthy;
            heard.message = Some("HIVE_STORE_URL_FILE /etc/hive/store/url: No such file".to_owned());
        };
        starts(&mut world);
        // Its container is as old as the world.
        world.now = at(9);
        assert!(world.plan().status.is_none_or(|status| status.conditions.iter().all(|c| c.type_ != "Stalled")));
        world.now = at(10);
        world.step();
        assert_eq!(world.condition("Stalled"), "True StorageUnavailable");
        let stalled = world.status().conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
        let named = "spec.storage.postgres.urlSecretRef: key uri of Secret database: pod-1: HIVE_STORE_URL_FILE";
        assert!(stalled.message.starts_with(named), "{}", stalled.message);
        world.finish_work();
        world.settle(20);
        assert_eq!(world.condition("Stalled"), "absent");
    }
}

#[test]
fn what_pods_count_in_a_store_they_share_is_not_added_up() {
    for (scope, queued) in [(lifecycle::wire::CounterScope::Pod, 7), (lifecycle::wire::CounterScope::Store, 4)] {
        let mut world = World::new(DesiredState::Paused, 2);
        world.settle(20);
        for (uid, queued) in [("pod-1", 3), ("pod-2", 4)] {
            let status = world.contacts.get_mut(uid).unwrap().heard();
            (status.queued, status.waiting_for_input, status.counter_scope) = (queued, queued, scope);
        }
        world.step();
        assert_eq!((world.status().queued, world.status().waiting_for_input), (Some(queued), Some(queued)));
    }
}

#[test]
fn a_changed_restart_nonce_changes_the_pods_and_nothing_else() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.runtime.spec.restart_nonce = Some("2".to_owned());
    let plan = world.plan();
    assert_eq!(plan.children.apply.iter().map(|child| child.key.kind).collect::<Vec<_>>(), [ChildKind::Deployment]);
    assert!(plan.boot.is_none(), "no new epoch");
}

/// A template that gives the agent's container these fields.
fn with_agent(fields: &Value) -> Value {
    let mut container = fields.clone();
    container["name"] = serde_json::json!("agent");
    serde_json::json!({ "spec": { "containers": [container] } })
}

#[test]
fn a_port_without_a_name_is_added_to_the_lifecycle_port() {
    let mut world = World::new(DesiredState::Running, 1);
    world.runtime.spec.template =
        with_agent(&serde_json::json!({ "ports": [{ "containerPort": 9000 }] })).as_object().cloned();
    let deployment = child(&world, ChildKind::Deployment);
    let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
    let lifecycle = serde_json::json!({ "name": "lifecycle", "containerPort": 8080, "protocol": "TCP" });
    assert_eq!(*ports, serde_json::json!([lifecycle, { "containerPort": 9000 }]));
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Running");
}

#[test]
fn a_template_that_cannot_work_is_stalled_with_its_field_and_not_applied() {
    for (template, field) in [
        (serde_json::json!({ "spec": { "hostNetwork": true } }), "hostNetwork"),
        (serde_json::json!({ "spec": { "terminationGracePeriodSeconds": 34 } }), "terminationGracePeriodSeconds"),
        (
            serde_json::json!({ "spec": { "terminationGracePeriodSeconds": 40, "containers": [
                { "name": "agent", "lifecycle": { "preStop": { "sleep": { "seconds": 6 } } } }] } }),
            "terminationGracePeriodSeconds",
        ),
        (with_agent(&serde_json::json!({ "ports": null })), "spec.template.spec.containers[agent].ports"),
        (
            with_agent(&serde_json::json!({ "ports": [{ "name": "lifecycle", "containerPort": 9000 }] })),
            "spec.template.spec.containers[agent].ports",
        ),
        (
            with_agent(&serde_json::json!({ "ports": [{ "name": "web", "containerPort": 8080 }] })),
            "spec.template.spec.containers[agent].ports",
        ),
        (
            with_agent(
                &serde_json::json!({ "ports": [{ "name": "lifecycle", "containerPort": 8080, "protocol": "UDP" }] }),
            ),
            "spec.template.spec.containers[agent].ports",
        ),
        (serde_json::json!({ "spec": { "containers": null } }), "spec.template.spec.containers"),
    ] {
        let mut world = World::new(DesiredState::Running, 1);
        world.runtime.spec.template = template.as_object().cloned();
        world.settle(20);
        assert_eq!(world.condition("Stalled"), "True InvalidTemplate");
        let stalled = world.status().conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
        assert!(stalled.message.contains(field), "{}", stalled.message);
        assert!(world.children.is_empty());
        world.runtime.spec.template = None;
        world.ask(DesiredState::Running);
        world.settle(20);
        assert_eq!(world.condition("Ready"), "True Running");
    }
}

#[test]
fn every_port_that_a_template_declares_can_be_reached() {
    let mut world = World::new(DesiredState::Running, 1);
    let side =
        serde_json::json!({ "spec": { "containers": [{ "name": "side", "ports": [{ "containerPort": 9000 }] }] } });
    world.runtime.spec.template = side.as_object().cloned();
    let ports = child(&world, ChildKind::NetworkPolicy)["spec"]["ingress"][0]["ports"].clone();
    let numbers: Vec<i64> = ports.as_array().unwrap().iter().map(|port| port["port"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [8080, 9000]);
}

#[test]
fn peers_of_the_spec_and_the_operator_are_let_in_and_nobody_else() {
    let mut world = World::new(DesiredState::Running, 1);
    let from = |world: &World| child(world, ChildKind::NetworkPolicy)["spec"]["ingress"][0]["from"].clone();
    assert_eq!(from(&world), Value::Null, "triggers come from everywhere");
    let peer = serde_json::json!({ "podSelector": { "matchLabels": { "app": "web" } } });
    world.runtime.spec.network_policy_peers = Some(vec![peer.as_object().cloned().unwrap()]);
    let system =
        serde_json::json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "system" } } });
    assert_eq!(from(&world), Value::Array(vec![peer, system]));
}

#[test]
fn a_timer_in_several_pods_is_stalled_and_changes_nothing() {
    let mut world = World::new(DesiredState::Running, 1);
    world.agent = r#"{"graph":{"async_entry_points":[{"id":"tick","trigger_type":"timer"}]}}"#.to_owned();
    world.settle(20);
    world.runtime.spec.replicas = 2;
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!((world.condition("Stalled").as_str(), world.pods.len()), ("True InvalidSpec", 1));
    world.runtime.spec.replicas = 1;
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Running");
}

fn releases(plan: &Plan) -> Vec<Option<i64>> {
    let commands = plan.orders.iter().filter_map(|order| match &order.call {
        Call::Command { body, .. } => Some(body.release_epoch),
        Call::Ask { .. } | Call::Hook { .. } | Call::Brake { .. } => None,
    });
    commands.collect()
}

#[test]
fn a_changed_resume_nonce_raises_the_epoch_once_and_every_later_command_tells_of_it() {
    let mut world = World::new(DesiredState::Running, 2);
    world.settle(20);
    world.runtime.spec.resume_nonce = Some("a".to_owned());
    let plan = world.step();
    let file = plan.boot.as_ref().unwrap().file.clone();
    assert_eq!((file.epoch, file.release_epoch), (2, 2));
    assert_eq!(releases(&plan), [Some(2), Some(2)]);
    world.settle(20);
    assert_eq!(world.status().resume_nonce.as_deref(), Some("a"));
    // A pod that missed that command hears of it with the next one.
    world.ask(DesiredState::Paused);
    let plan = world.step();
    assert_eq!((plan.boot.as_ref().unwrap().file.epoch, releases(&plan)), (3, vec![Some(2), Some(2)]));
    world.settle(20);
    for same in [None, Some("a".to_owned())] {
        world.runtime.spec.resume_nonce = same;
        assert!(world.plan().boot.is_none(), "nothing new is asked for");
    }
    world.boot = None;
    let file = world.plan().boot.unwrap().file;
    assert_eq!((file.release_epoch, file.resume_nonce.as_deref()), (0, Some("a")), "it was obeyed before");
}

#[test]
fn a_pod_that_holds_itself_is_stalled_and_does_not_serve() {
    for (hold, reason) in [("breaker", "CircuitOpen"), ("local", "LocalHold")] {
        let mut world = World::new(DesiredState::Running, 1);
        world.settle(20);
        world.pods[0].state = State::Paused;
        let status = world.contacts.get_mut("pod-1").unwrap().heard();
        (status.state, status.holds) = (State::Paused, vec![hold.to_owned()]);
        let commands = world.step().orders.iter().filter(|o| matches!(o.call, Call::Command { .. })).count();
        assert_eq!(commands, 0, "it is not fought");
        for (kind, wanted) in [("Stalled", "True"), ("Serving", "False"), ("Ready", "False")] {
            assert_eq!(world.condition(kind), format!("{wanted} {reason}"));
        }
    }
}

#[test]
fn a_rollout_that_does_not_get_on_is_stalled_until_it_does() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    let before = world.deployment.clone();
    let deployment = world.deployment.as_mut().unwrap();
    (deployment.updated, deployment.failing) = (0, Some("no pod gets ready".to_owned()));
    world.step();
    assert_eq!(world.condition("Stalled"), "True ProgressDeadlineExceeded");
    world.deployment = before;
    world.step();
    assert_eq!((world.condition("Stalled").as_str(), world.condition("Ready").as_str()), ("absent", "True Running"));
}

#[test]
fn a_pause_is_two_writes() {
    let mut world = World::new(DesiredState::Running, 2);
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Running");
    world.ask(DesiredState::Paused);
    let before = world.writes;
    world.settle(20);
    assert_eq!((world.writes - before, world.condition("Ready").as_str()), (2, "True Paused"));
    assert_eq!((world.status().state, world.status().in_flight), (Some(RuntimeState::Paused), Some(0)));
}

#[test]
fn created_paused_with_no_pods_is_reached() {
    let mut world = World::new(DesiredState::Paused, 0);
    world.settle(20);
    assert_eq!((world.condition("Ready").as_str(), world.status().state), ("True Paused", Some(RuntimeState::Paused)));
}

#[test]
fn a_pod_that_hangs_is_unknown_and_never_paused() {
    let mut world = World::new(DesiredState::Running, 2);
    world.settle(20);
    world.pods[1].hung = true;
    world.ask(DesiredState::Paused);
    for _ in 0..30 {
        world.step();
        world.now += jiff::SignedDuration::from_secs(2);
        assert_ne!(world.status().state, Some(RuntimeState::Paused));
    }
    assert_eq!(world.status().state, Some(RuntimeState::Unknown));
    assert_eq!(world.condition("Ready"), "Unknown PodsUnreachable");
    assert_eq!(world.condition("Drained"), "Unknown PodsUnreachable");
    world.pods[1].hung = false;
    world.now += jiff::SignedDuration::from_secs(60);
    world.settle(20);
    assert_eq!(world.condition("Ready"), "True Paused");
}

#[test]
fn a_pod_that_says_nothing_of_its_work_counts_as_busy() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.ask(DesiredState::Paused);
    world.step();
    world
        .contacts
        .values_mut()
        .filter_map(|c| c.answer.as_mut())
        .map(Arc::make_mut)
        .for_each(|heard| heard.said().in_flight = None);
    let plan = world.plan();
    assert!(plan.barrier.is_none());
    world.now += jiff::SignedDuration::from_secs(2);
    assert_ne!(world.plan().status.unwrap().state, Some(RuntimeState::Paused));
}

#[test]
fn a_pod_that_no_watch_has_shown_blocks_paused() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.ask(DesiredState::Paused);
    world.step();
    world.step();
    world.barrier.as_mut().unwrap().pods.push("unseen".to_owned());
    let plan = world.plan();
    assert!(plan.status.is_none() && plan.barrier.is_none(), "{}", show(&plan));
    assert_eq!(plan.again, Some(Duration::from_millis(200)), "it is not listed at the pace of the network");
    world.now += Duration::from_millis(200);
    let plan = world.plan();
    assert!(plan.status.is_none() && plan.barrier.is_some(), "{}", show(&plan));
}

#[test]
fn a_restarted_container_has_acknowledged_nothing() {
    let mut world = World::new(DesiredState::Paused, 1);
    world.settle(20);
    world
        .contacts
        .values_mut()
        .filter_map(|c| c.answer.as_mut())
        .map(Arc::make_mut)
        .for_each(|h| h.container = Some("old".into()));
    world.now = at(1);
    let plan = world.plan();
    assert!(matches!(plan.orders[0].call, Call::Command { verb: Verb::Pause, .. }), "{}", show(&plan));
    let status = plan.status.unwrap();
    assert_eq!((status.state, status.acknowledged_replicas), (Some(RuntimeState::Starting), 0));
}

#[test]
fn a_lost_boot_config_map_is_made_above_everything_seen() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.boot = None;
    world
        .contacts
        .values_mut()
        .filter_map(|c| c.answer.as_mut())
        .map(Arc::make_mut)
        .for_each(|heard| heard.said().epoch = 7);
    assert_eq!(world.plan().boot.unwrap().file.epoch, 8);
}

#[test]
fn new_keys_are_published_without_a_new_epoch_and_sign_only_for_pods_that_hold_them() {
    let mut world = World::new(DesiredState::Paused, 2);
    world.settle(20);
    let before = world.boot.clone().and_then(|boot| boot.file).unwrap();
    world.keys = vec!["key-2".to_owned(), "key-1".to_owned()];
    let plan = world.step();
    let file = plan.boot.clone().unwrap().file;
    assert_eq!(file, BootFile { keys: world.keys.clone(), keys_version: before.keys_version + 1, ..before });
    assert!(plan.status.is_none() && plan.barrier.is_none(), "the pause stands as it stood: {}", show(&plan));
    // One pod has read the new file, the other still has the old one mounted.
    let held = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let answer = |world: &mut World, pod: &str, keys: Vec<String>| {
        world.contacts.get_mut(pod).unwrap().heard().keys = keys;
    };
    answer(&mut world, "pod-1", held(&["key-2", "key-1"]));
    answer(&mut world, "pod-2", held(&["key-1"]));
    world.ask(DesiredState::Running);
    let plan = world.plan();
    let signers: Vec<(&str, &str)> =
        plan.orders.iter().map(|o| (o.pod.as_str(), o.signer.as_ref().unwrap().key.as_str())).collect();
    assert_eq!(signers, [("pod-1", "key-2"), ("pod-2", "key-1")]);
    // A pod that has said nothing is spoken to by the key that every file names.
    world.contacts.clear();
    assert!(world.plan().orders.iter().all(|order| order.signer.as_ref().unwrap().key == "key-1"));
}

#[test]
fn without_signing_the_file_names_no_key_and_nothing_is_signed() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    let epoch = world.boot.as_ref().and_then(|boot| boot.file.clone()).unwrap().epoch;
    world.runtime.spec.lifecycle.auth = crds::CommandAuth::None;
    let plan = world.step();
    let file = plan.boot.unwrap().file;
    assert_eq!((file.keys.len(), file.epoch), (0, epoch));
    world.ask(DesiredState::Paused);
    assert!(world.plan().orders.iter().all(|order| order.signer.is_none()));
}

#[test]
fn a_stop_that_takes_pods_away_is_not_taken_back_by_a_picture_from_before() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.ask(DesiredState::Stopped);
    let mut before = world.clone();
    while world.step().scale.is_none() {
        before = world.clone();
    }
    // The watch shows the pod of then, which was started again and has said nothing yet, and the number of pods is known to
    // have been written since.
    before.deployment.as_mut().unwrap().wanted = 0;
    before.contacts.clear();
    let plan = before.plan();
    assert!(plan.scale.is_none() && plan.children.apply.is_empty(), "{}", show(&plan));
    // A number that is shown to be another is another's doing, and waits for the pods.
    before.deployment.as_mut().unwrap().wanted = 1;
    assert!(before.plan().scale.is_none());
}

#[test]
fn a_stop_takes_the_pods_away_only_when_they_have_stopped() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.pods[0].in_flight = 1;
    world.ask(DesiredState::Stopped);
    for _ in 0..5 {
        world.step();
        assert_eq!(world.pods.len(), 1);
        world.now += jiff::SignedDuration::from_secs(2);
    }
    assert_eq!(world.status().state, Some(RuntimeState::Stopping));
    world.finish_work();
    world.settle(20);
    assert_eq!((world.pods.len(), world.condition("Ready").as_str()), (0, "True Stopped"));
    world.ask(DesiredState::Running);
    world.settle(20);
    assert_eq!((world.pods.len(), world.condition("Ready").as_str()), (1, "True Running"));
}

#[test]
fn a_sick_pod_does_not_block_a_stop() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.pods[0].hung = true;
    world.ask(DesiredState::Stopped);
    for _ in 0..40 {
        world.step();
        world.now += jiff::SignedDuration::from_secs(2);
    }
    assert_eq!(world.pods.len(), 0, "it was out of reach for the whole drain timeout");
}

#[test]
fn a_stop_takes_the_pods_away_though_nothing_can_be_applied() {
    let host = serde_json::json!({ "spec": { "hostNetwork": true } });
    for refused in [false, true] {
        let mut world = World::new(DesiredState::Running, 1);
        world.settle(20);
        if refused {
            world.runtime.spec.restart_nonce = Some("2".to_owned());
            world.refuse(ChildKind::Deployment);
        } else {
            world.runtime.spec.template = host.as_object().cloned();
        }
        world.ask(DesiredState::Stopped);
        world.settle(20);
        assert_eq!((world.pods.len(), world.status().state), (0, Some(RuntimeState::Stopped)), "{refused}");
        assert_eq!(world.condition("Stalled"), "True InvalidTemplate");
    }
}

#[test]
fn while_paused_replicas_fall_and_do_not_rise() {
    let mut world = World::new(DesiredState::Paused, 2);
    world.settle(20);
    world.runtime.spec.replicas = 5;
    world.settle(20);
    assert_eq!(world.pods.len(), 2);
    world.runtime.spec.replicas = 1;
    world.settle(20);
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn refused_child_stalls_and_is_tried_again_later_or_once_it_differs() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.runtime.spec.restart_nonce = Some("2".to_owned());
    world.refuse(ChildKind::Deployment);
    assert!(world.plan().children.apply.is_empty());
    world.step();
    assert_eq!(world.condition("Stalled"), "True InvalidTemplate");
    let mut later = world.clone();
    later.now += jiff::SignedDuration::from_secs(21);
    assert_eq!(later.plan().children.apply.len(), 1, "the cause may be gone");
    world.runtime.spec.restart_nonce = Some("3".to_owned());
    assert_eq!(world.plan().children.apply.len(), 1, "another manifest is tried at once");
}

#[test]
fn failure_of_what_is_not_to_be_done_any_more_is_forgotten() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.runtime.spec.restart_nonce = Some("2".to_owned());
    world.refuse(ChildKind::Deployment);
    world.step();
    assert_eq!(world.condition("Stalled"), "True InvalidTemplate");
    world.runtime.spec.restart_nonce = None;
    world.settle(20);
    assert_eq!((world.condition("Stalled").as_str(), world.condition("Ready").as_str()), ("absent", "True Running"));
    assert_eq!(world.faults, Faults::default());
    // A resume that could not be confirmed, and is taken back.
    world.ask(DesiredState::Paused);
    world.settle(20);
    world.ask(DesiredState::Running);
    let demand = world.plan().boot.unwrap().demand;
    let cause = || Cause::Refused { code: 503, message: "no".to_owned() };
    world.faults.boot = Some(fault(&demand, cause(), world.now));
    world.ask(DesiredState::Paused);
    world.settle(20);
    assert_eq!((world.condition("Stalled").as_str(), world.faults.boot.is_none()), ("absent", true));
    // Another demand does not wait for the next attempt of the one that failed.
    world.faults.boot = Some(fault(&demand, cause(), world.now));
    world.ask(DesiredState::Stopped);
    assert!(world.plan().boot.is_some());
}

#[test]
fn definition_that_has_not_been_read_is_not_called_rolled_out() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    let from = crds::ConfigMapKey { name: "other".to_owned(), key: "agent.yaml".to_owned() };
    world.runtime.spec.agent = Some(AgentSource { inline: None, config_map_ref: Some(from) });
    world.ask(DesiredState::Running);
    world.now += jiff::SignedDuration::from_secs(10);
    let plan = plan(&Observed { agent: AgentText::Unknown, ..world.observed() }, &settings(), world.now);
    assert!(!plan.is_reached() && plan.children.read_agent, "{}", show(&plan));
}

#[test]
fn failing_child_holds_up_neither_its_neighbors_nor_a_pause() {
    for kind in
        [ChildKind::ServiceAccount, ChildKind::PodDisruptionBudget, ChildKind::NetworkPolicy, ChildKind::ConfigMap]
    {
        let mut world = World::new(DesiredState::Running, 1);
        world.settle(20);
        world.children.values_mut().for_each(|facts| facts.drifted = true);
        world.refuse(kind);
        let applied: Vec<ChildKind> = world.plan().children.apply.iter().map(|child| child.key.kind).collect();
        assert!(!applied.contains(&kind) && !applied.is_empty(), "{kind:?}: {applied:?}");
        world.ask(DesiredState::Paused);
        for _ in 0..3 {
            world.step();
        }
        let status = world.status();
        assert_eq!((status.state, status.observed_generation), (Some(RuntimeState::Paused), 2), "{kind:?}");
        assert_eq!(world.condition("Stalled"), "True InvalidTemplate");
    }
}

#[test]
fn boot_file_that_cannot_be_written_sends_no_command_and_is_told() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.ask(DesiredState::Paused);
    let cause = Cause::Refused { code: 403, message: "exceeded quota".to_owned() };
    let demand = world.plan().boot.unwrap().demand;
    world.faults.boot = Some(fault(&demand, cause, world.now));
    let plan = world.step();
    assert!(plan.boot.is_none() && plan.scale.is_none() && plan.barrier.is_none(), "{}", show(&plan));
    let commands = plan.orders.iter().filter(|order| matches!(order.call, Call::Command { .. })).count();
    assert_eq!(commands, 0, "a pod that boots would obey the file");
    assert_eq!(world.condition("Stalled"), "True BootFileUnwritable");
    assert_eq!(world.status().state, Some(RuntimeState::Pausing), "nothing is called paused");
    world.now += jiff::SignedDuration::from_secs(21);
    assert!(world.plan().boot.is_some(), "it is tried again");
}

#[test]
fn foreign_object_of_a_childs_name_is_left_alone_and_named() {
    let mut world = World::new(DesiredState::Running, 1);
    let key = ChildKey { kind: ChildKind::Service, name: "demo".to_owned() };
    world.step();
    world.children.remove(&key);
    let foreign = BTreeMap::from([(key.clone(), "its controller is Shop shop".to_owned())]);
    let plan = plan(&Observed { foreign, ..world.observed() }, &settings(), world.now);
    assert!(plan.children.apply.iter().all(|child| child.key != key));
    let stalled = plan.status.unwrap().conditions.into_iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!(stalled.reason, "NameTaken");
    assert!(stalled.message.contains("Service demo") && stalled.message.contains("Shop"), "{}", stalled.message);
}

#[test]
fn a_changed_template_is_not_ready_before_its_rollout_is_seen() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.runtime.spec.template = Some(serde_json::Map::from_iter([("metadata".to_owned(), serde_json::json!({}))]));
    world.runtime.spec.lifecycle.shutdown_seconds = 60;
    world.ask(DesiredState::Running);
    let before = (world.deployment.clone(), world.pods.clone());
    let plan = world.step();
    assert!(plan.status.is_none_or(|status| status.reason != "Running"), "the rollout has only been asked for");
    // The watch still shows the Deployment of before, and its pods, which run.
    (world.deployment, world.pods) = before;
    world.children.iter_mut().for_each(|(_, facts)| facts.shown = false);
    let plan = world.plan();
    assert!(plan.status.is_none_or(|status| status.reason != "Running"), "the watch is behind");
}

#[test]
fn a_pod_on_its_way_out_may_stop_answering() {
    let mut world = World::new(DesiredState::Paused, 1);
    world.settle(20);
    let mut seen = world.observed();
    Arc::make_mut(&mut seen.pods[0]).terminating = true;
    let contact = seen.contacts.get_mut("pod-1").unwrap();
    contact.failing_since = Some(world.now);
    let state = |seen: &Observed| plan(seen, &settings(), world.now).status.map(|status| status.pods[0].state);
    assert_eq!(state(&seen), Some(RuntimeState::Stopping));
    // One that had not acknowledged is unknown, on its way out or not.
    seen.contacts.get_mut("pod-1").unwrap().heard().epoch = 0;
    assert_eq!(state(&seen), Some(RuntimeState::Unknown));
}

#[test]
fn object_that_is_being_deleted_is_paused_and_its_children_are_left_alone() {
    let mut world = World::new(DesiredState::Running, 1);
    world.settle(20);
    world.runtime.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    world.runtime.spec.restart_nonce = Some("2".to_owned());
    world.children.clear();
    world.ask(DesiredState::Paused);
    for _ in 0..4 {
        let plan = world.step();
        assert!(!plan.children.is_due() && plan.scale.is_none(), "{}", show(&plan));
    }
    assert_eq!((world.status().state, world.condition("Ready").as_str()), (Some(RuntimeState::Paused), "True Paused"));
    // A boot file that is gone is not made again: its namespace may be going too.
    world.boot = None;
    assert!(world.plan().boot.is_none());
    world.ask(DesiredState::Running);
    assert!(world.plan().orders.is_empty(), "nothing is let run by a file that no store has");
    world.ask(DesiredState::Stopped);
    for _ in 0..4 {
        world.step();
        world.now += status::PROGRESS;
    }
    assert_eq!((world.pods[0].state, world.status().state), (State::Stopped, Some(RuntimeState::Stopping)));
}

#[derive(Clone, Debug)]
enum Change {
    Ask(DesiredState),
    Template(u8, bool),
    Scale(i32),
    Work(usize, i64),
    Hang(usize, bool),
    Restart(usize),
    LoseBoot,
    LoseBarrier,
    FinishWork,
    Wait(i64),
}

fn change() -> impl Strategy<Value = Change> {
    let states = vec![DesiredState::Running, DesiredState::Paused, DesiredState::Stopped];
    prop_oneof![
        prop::sample::select(states).prop_map(Change::Ask),
        (0u8..3, any::<bool>()).prop_map(|(version, drain)| Change::Template(version, drain)),
        (0i32..4).prop_map(Change::Scale),
        (0usize..4, 0i64..3).prop_map(|(pod, n)| Change::Work(pod, n)),
        (0usize..4, any::<bool>()).prop_map(|(pod, hung)| Change::Hang(pod, hung)),
        (0usize..4).prop_map(Change::Restart),
        Just(Change::LoseBoot),
        Just(Change::LoseBarrier),
        Just(Change::FinishWork),
        (1i64..100).prop_map(Change::Wait),
    ]
}

impl World {
    fn suffer(&mut self, change: &Change) {
        match change {
            Change::Ask(desired) => self.ask(*desired),
            Change::Template(version, drain) => {
                self.runtime.spec.restart_nonce = Some(version.to_string());
                self.runtime.spec.lifecycle.drain_before_restart = *drain;
                *self.runtime.metadata.generation.as_mut().unwrap() += 1;
            }
            Change::Scale(replicas) => {
                self.runtime.spec.replicas = *replicas;
                *self.runtime.metadata.generation.as_mut().unwrap() += 1;
            }
            // Work begins only where work is admitted.
            Change::Work(pod, n) => {
                if let Some(pod) = self.pods.get_mut(*pod).filter(|pod| pod.state == State::Running) {
                    pod.in_flight = *n;
                }
            }
            Change::Hang(pod, hung) => {
                if let Some(pod) = self.pods.get_mut(*pod) {
                    pod.hung = *hung;
                }
            }
            Change::Restart(pod) => {
                if let Some(pod) = self.pods.get_mut(*pod) {
                    (pod.state, pod.in_flight, pod.awaits) = (State::Paused, 0, true);
                    self.contacts.remove(&pod.uid);
                }
            }
            Change::LoseBoot => self.boot = None,
            Change::LoseBarrier => self.barrier = None,
            Change::FinishWork => self.finish_work(),
            Change::Wait(seconds) => self.now += jiff::SignedDuration::from_secs(*seconds),
        }
        self.count();
    }

    /// The promise: a status that says paused, written now, is true of every pod.
    fn check(&self, plan: &Plan) -> Result<(), TestCaseError> {
        let Some(status) = &plan.status else { return Ok(()) };
        if status.state == Some(RuntimeState::Paused) {
            for pod in &self.pods {
                prop_assert!(matches!(pod.state, State::Paused | State::Stopped), "{} is {:?}", pod.uid, pod.state);
                prop_assert_eq!((pod.in_flight, pod.epoch), (0, status.epoch));
            }
        }
        let kinds: Vec<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
        prop_assert_eq!(&kinds[..3], &["Ready", "Serving", "Drained"]);
        let ready = status.conditions[0].status == "True";
        prop_assert_eq!(ready, kinds.len() == 3, "Reconciling or Stalled exactly while not Ready: {:?}", kinds);
        prop_assert_eq!(Some(status.observed_generation), self.runtime.metadata.generation);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_promise_holds_and_the_world_converges(
        changes in prop::collection::vec((change(), 0usize..4), 1..25)
    ) {
        let mut world = World::new(DesiredState::Running, 2);
        let mut epoch = 0;
        for (change, steps) in &changes {
            world.suffer(change);
            for _ in 0..*steps {
                let seen = world.observed();
                let first = plan(&seen, &settings(), world.now);
                prop_assert_eq!(&first, &plan(&seen, &settings(), world.now), "the same input gives the same plan");
                world.check(&first)?;
                world.step();
                let file: Option<&BootFile> = world.boot.as_ref().and_then(|b| b.file.as_ref());
                let raised = file.map_or(epoch, |file| file.epoch);
                prop_assert!(raised >= epoch, "the epoch never falls");
                epoch = raised;
                world.now += jiff::SignedDuration::from_secs(1);
            }
        }
        // The faults end: it converges, and planning once more changes nothing.
        world.pods.iter_mut().for_each(|pod| pod.hung = false);
        world.finish_work();
        world.now += jiff::SignedDuration::from_secs(120);
        for _ in 0..40 {
            // Pods that this plan makes are not there yet when it speaks of all that are.
            world.check(&world.plan())?;
            world.step();
            world.finish_work();
            world.now += jiff::SignedDuration::from_secs(2);
        }
        let before = world.writes;
        world.step();
        prop_assert_eq!(world.writes, before, "it has settled");
        let wanted = match world.runtime.spec.desired_state {
            DesiredState::Running if world.runtime.spec.replicas == 0 => "True ScaledToZero",
            DesiredState::Running => "True Running",
            DesiredState::Paused => "True Paused",
            DesiredState::Stopped => "True Stopped",
        };
        prop_assert_eq!(world.condition("Ready"), wanted);
    }
}
