//! The state of everything, what may happen to it, and the promise.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{AgentRuntimeStatus, RuntimeState};
use lifecycle::{BootFile, Desired, Verb};
use stateright::Property;

use crate::operators::{Operator, Plans};
use crate::pods::Pod;

pub(crate) const PROMISE: &str = "when status says paused, nothing runs and nothing starts";

/// How large the model is.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) operators: usize,
    pub(crate) pods: u8,
    /// What the user asks for, one after the other.
    pub(crate) asks: &'static [Desired],
    /// Times a pod begins work.
    pub(crate) works: u8,
    /// Times a container dies.
    pub(crate) crashes: u8,
    /// Times a pod is replaced by a new one.
    pub(crate) replacements: u8,
    /// Times an operator dies.
    pub(crate) restarts: u8,
    /// Times somebody deletes the boot ConfigMap.
    pub(crate) losses: u8,
    pub(crate) broken: Broken,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            operators: 1,
            pods: 1,
            asks: &[],
            works: 1,
            crashes: 0,
            replacements: 0,
            restarts: 0,
            losses: 0,
            broken: Broken::Nothing,
        }
    }
}

/// What is taken away, to see that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// Pods take any command for a new one.
    Fence,
    /// Pods forget at a crash, and believe an old boot file.
    Record,
    /// Operators let run what another held back without a look at the store.
    Confirm,
}

/// An object of the API server with the version that a compare-and-swap names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Runtime {
    pub(crate) version: u32,
    pub(crate) generation: i64,
    pub(crate) desired: Desired,
    /// As JSON, or as the object is born.
    pub(crate) status: Option<Arc<str>>,
}

/// The boot ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Boot {
    pub(crate) version: u32,
    /// `boot.json`.
    pub(crate) text: Arc<str>,
}

impl Boot {
    pub(crate) fn file(&self) -> BootFile {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// A command on its way. It stays there: it may come late, and twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sent {
    pub(crate) pod: u8,
    pub(crate) epoch: i64,
    pub(crate) verb: Verb,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) boot: Option<Boot>,
    /// Boot files that a mount may still show.
    pub(crate) old_files: Vec<Arc<str>>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) operators: Vec<Operator>,
    pub(crate) sent: BTreeSet<Sent>,
    /// The highest epoch that was ever in force; it outlives a ConfigMap that is lost.
    pub(crate) newest: i64,
    /// Raised by every write, so that no version comes twice.
    pub(crate) versions: u32,
    asked: usize,
    works: u8,
    crashes: u8,
    replacements: u8,
    restarts: u8,
    losses: u8,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The user asks for the next state.
    Ask,
    /// An operator's watches catch up.
    Look(usize),
    /// That of the boot ConfigMap does, and the others do not.
    LookAtBoot(usize),
    /// An operator plans, and carries it out; or dies after its first write.
    Act(usize, bool),
    /// An operator hears how a pod stands.
    Hear(usize, usize),
    /// A command arrives.
    Arrive(Sent),
    /// A pod begins work, and ends it.
    Begin(usize),
    End(usize),
    /// A container dies and comes up again, with a mount that may be old.
    Crash(usize, Option<usize>),
    /// The boot hold runs out.
    HoldEnds(usize),
    Replace(usize),
    Restart(usize),
    /// Somebody deletes the boot ConfigMap.
    Lose,
}

pub(crate) struct Model {
    bounds: Bounds,
    plans: Plans,
}

impl Model {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, plans: Plans::default() }
    }
}

impl World {
    fn new(bounds: &Bounds) -> Self {
        Self {
            runtime: Runtime { version: 0, generation: 1, desired: Desired::Running, status: None },
            boot: None,
            old_files: Vec::new(),
            pods: (0..bounds.pods).map(Pod::new).collect(),
            operators: vec![Operator::default(); bounds.operators],
            sent: BTreeSet::new(),
            newest: 0,
            versions: 0,
            asked: 0,
            works: 0,
            crashes: 0,
            replacements: 0,
            restarts: 0,
            losses: 0,
        }
    }

    pub(crate) fn next_version(&mut self) -> u32 {
        self.versions += 1;
        self.versions
    }

    fn status(&self) -> Option<AgentRuntimeStatus> {
        self.runtime.status.as_ref().map(|text| serde_json::from_str(text).unwrap())
    }

    fn says(&self, state: RuntimeState) -> bool {
        self.status().is_some_and(|status| status.state == Some(state))
    }

    /// While status calls the newest epoch paused, or the newest spec that asks for it, no pod works and none could
    /// begin.
    fn keeps_the_promise(&self) -> bool {
        let Some(status) = self.status().filter(|status| status.state == Some(RuntimeState::Paused)) else {
            return true;
        };
        let asked = self.runtime.desired == Desired::Paused && status.observed_generation == self.runtime.generation;
        (!asked && self.newest > status.epoch) || self.pods.iter().all(Pod::is_still)
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.asked < self.bounds.asks.len() {
            steps.push(Step::Ask);
        }
        for (n, operator) in world.operators.iter().enumerate() {
            steps.push(Step::Look(n));
            if operator.has_looked() {
                steps.extend([Step::LookAtBoot(n), Step::Act(n, false), Step::Act(n, true)]);
                steps.extend((0..world.pods.len()).map(|pod| Step::Hear(n, pod)));
            }
            if world.restarts < self.bounds.restarts {
                steps.push(Step::Restart(n));
            }
        }
        steps.extend(world.sent.iter().cloned().map(Step::Arrive));
        for n in 0..world.pods.len() {
            steps.extend([Step::End(n), Step::HoldEnds(n)]);
            if world.works < self.bounds.works {
                steps.push(Step::Begin(n));
            }
            if world.crashes < self.bounds.crashes {
                steps.push(Step::Crash(n, None));
                steps.extend((0..world.old_files.len()).map(|old| Step::Crash(n, Some(old))));
            }
            if world.replacements < self.bounds.replacements {
                steps.push(Step::Replace(n));
            }
        }
        if world.losses < self.bounds.losses && world.boot.is_some() {
            steps.push(Step::Lose);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Ask => {
                world.runtime.desired = *self.bounds.asks.get(world.asked)?;
                world.runtime.generation += 1;
                world.runtime.version = world.next_version();
                world.asked += 1;
            }
            Step::Look(n) => Operator::look(&mut world, n),
            Step::LookAtBoot(n) => Operator::look_at_boot(&mut world, n),
            Step::Act(n, dies) => Operator::act(&mut world, n, dies, self.bounds.broken, &self.plans),
            Step::Hear(n, pod) => Operator::hear(&mut world, n, pod),
            Step::Arrive(sent) => {
                let pod = world.pods.iter_mut().find(|pod| pod.uid == sent.pod)?;
                pod.obey(&sent, self.bounds.broken);
            }
            Step::Begin(n) => {
                world.pods[n].begin();
                world.works += u8::from(world.pods[n] != before.pods[n]);
            }
            Step::End(n) => world.pods[n].end(),
            Step::Crash(n, old) => {
                let current = world.boot.as_ref().map(|boot| Arc::clone(&boot.text));
                let mounted = old.map_or(current, |old| world.old_files.get(old).cloned());
                world.pods[n].crash(mounted.as_deref(), self.bounds.broken);
                world.crashes += 1;
            }
            Step::HoldEnds(n) => {
                let file = world.boot.as_ref().map(Boot::file);
                world.pods[n].hold_ends(file.as_ref());
            }
            Step::Replace(n) => {
                let file = world.boot.as_ref().map(Boot::file);
                let uid = world.pods.iter().map(|pod| pod.uid).max()? + 1;
                world.pods[n] = Pod::new(uid);
                world.pods[n].start(file.as_ref());
                world.replacements += 1;
            }
            Step::Restart(n) => {
                world.operators[n] = Operator::default();
                world.restarts += 1;
            }
            Step::Lose => {
                world.boot = None;
                world.losses += 1;
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISE, |_, world: &World| world.keeps_the_promise()),
            Property::sometimes("paused is reached", |_, world: &World| world.says(RuntimeState::Paused)),
            Property::sometimes("running is reached", |_, world: &World| world.says(RuntimeState::Running)),
        ]
    }
}
