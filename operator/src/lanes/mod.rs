//! The lanes of an object, each with a queue of its own. None waits for another.
//!
//! Before all others its pods are braked, which takes no write. The safety lane brings pause, stop and freeze to the pods
//! and says in status what they acknowledged. It does not depend on anything that only children need. The children's lane
//! applies what the pods are made from; what fails there is told by the safety lane, and tried again for as long as it
//! lasts.

mod brakes;
mod children;
mod safety;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::context::Context;
use crate::observe::index::Owner;
use crate::observe::memory::Memory;
use crate::observe::{AgentText, BootConfigMap, Observed};
use crate::plan::{Plan, Sketch, deployment_key, plan_with};
use crate::queue::Again;
use crate::runtimes::Shown;

/// Plans in a row within one visit: the first, and one after each step that changes what is seen.
const ROUNDS: usize = 4;

/// What both lanes know of one object.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) memory: Memory,
    sketch: Sketch,
}

/// One object, as both lanes look at it. Its memory is locked while a plan is made, and never over a call.
struct Governed<'c> {
    context: &'c Context,
    owner: Owner,
    shown: Shown,
    remembered: Arc<Mutex<Remembered>>,
}

/// What is seen at one moment, and what is to be done.
struct Look {
    seen: Observed,
    plan: Plan,
    now: Timestamp,
}

impl<'c> Governed<'c> {
    /// None if there is no such object any more.
    fn of(context: &'c Context, owner: &Owner) -> Option<Self> {
        let shown = context.runtimes.get(owner)?;
        let remembered = context.remembered(&shown.runtime.uid().unwrap_or_default());
        Some(Self { context, owner: owner.clone(), shown, remembered })
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the object and plans.
    fn look(&self) -> Look {
        let mut remembered = self.lock();
        let Remembered { memory, sketch } = &mut *remembered;
        let now = Timestamp::now();
        let seen = self.observe(memory, now);
        let plan = plan_with(&seen, &self.context.settings, now, sketch);
        memory.faults.retain(&plan.outstanding);
        memory.braked(plan.brakes.onset.as_ref(), seen.boot.as_ref().map(BootConfigMap::releases).unwrap_or_default());
        Look { seen, plan, now }
    }

    /// What is asked of the object, and its pods: all that brakes are planned from.
    fn observe_demand(&self, memory: &mut Memory, now: Timestamp) -> Observed {
        let (context, owner) = (self.context, &self.owner);
        let runtime = Arc::clone(&self.shown.runtime);
        let uid = runtime.uid().unwrap_or_default();
        let pods = context.watches.pods(owner);
        let boot = memory.boot(context.watches.boot(owner, &uid));
        if memory.epoch_since.is_none() {
            // The epoch is older than this process: nothing is kept back for its sake.
            memory.epoch_since = boot.as_ref().and_then(|b| b.file.as_ref()).map(|f| (f.epoch, Timestamp::UNIX_EPOCH));
        }
        Observed {
            legible: self.shown.legible.clone(),
            outdated: memory.is_outdated(&runtime),
            boot,
            faults: memory.faults.clone(),
            contacts: context.dispatcher.contacts(pods.iter().map(|pod| pod.uid.as_str())),
            pods,
            epoch_since: memory.epoch_since,
            keys: context.keyring.public(),
            fleet: context.fleet.view(owner, now, &|| context.runtimes.all()),
            onset: memory.onset.clone(),
            made: memory.made.clone(),
            nonce: context.nonce(),
            ..Observed::of(memory.runtime(runtime))
        }
    }

    fn observe(&self, memory: &mut Memory, now: Timestamp) -> Observed {
        let (context, owner) = (self.context, &self.owner);
        let demand = self.observe_demand(memory, now);
        let uid = demand.runtime.uid().unwrap_or_default();
        let children = context.watches.children(owner, &uid);
        let (agent, agent_read) = agent(memory, &self.shown);
        let deployment = deployment_key(&owner.name);
        let shown = context.watches.deployment(owner, &uid);
        memory.find_scaled(&deployment, children.own.get(&deployment), shown.as_ref());
        Observed {
            agent,
            agent_read,
            deployment: memory.deployment(&deployment, shown),
            children: memory.children(&children.own),
            foreign: children.foreign,
            unlisted: context.watches.unsynced(),
            tried: memory.tried.clone(),
            barrier: memory.barrier.clone(),
            first_seen: Some(*memory.first_seen.get_or_insert(now)),
            reported: memory.reported,
            claim_size: context.watches.claim_size(owner),
            protected_since: context.watches.protected_since(owner, &uid),
            ..demand
        }
    }
}

/// The agent's definition, as it stands in the object or was read last.
fn agent(memory: &mut Memory, shown: &Shown) -> (AgentText, Option<Timestamp>) {
    let Some(source) = &shown.runtime.spec.agent else { return (AgentText::Builtin, None) };
    if let Some(inline) = &source.inline {
        return (children::inline(inline), None);
    }
    let Some(from) = &source.config_map_ref else {
        return (AgentText::Missing("spec.agent: give inline or configMapRef".to_owned()), None);
    };
    memory.agent = memory.agent.take().filter(|read| read.from == *from);
    let Some(read) = &memory.agent else { return (AgentText::Unknown, None) };
    // What was read for an earlier spec still stands; that it is read again is due.
    let is_new = read.generation == shown.runtime.metadata.generation;
    (read.text.clone(), Some(read.at).filter(|_| is_new))
}

/// Says in the log what failed, once for each cause and then ever more rarely.
fn is_worth_a_line(failures: u32) -> bool {
    failures.is_power_of_two()
}

impl Context {
    /// A visit of the safety lane.
    pub(crate) async fn visit_safety(self: Arc<Self>, owner: Owner) -> Again {
        safety::visit(&self, &owner).await
    }

    /// A look at an object for brakes.
    pub(crate) async fn visit_brakes(self: Arc<Self>, owner: Owner) -> Again {
        brakes::visit(&self, &owner)
    }

    /// A visit of the children's lane.
    pub(crate) async fn visit_children(self: Arc<Self>, owner: Owner) -> Again {
        children::visit(&self, &owner).await
    }
}
