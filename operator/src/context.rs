//! How one object converges: observed, planned and acted upon in turn, with what all visits share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::{AgentRuntime, AgentSource};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use tokio::sync::Notify;
use tracing::Span;

use crate::act::dispatch::Dispatcher;
use crate::act::keys::{KeySecret, Keyring};
use crate::act::{self, Actor};
use crate::fleet::known::Fleet;
use crate::observe::index::Owner;
use crate::observe::memory::Memory;
use crate::observe::{AgentText, Observed};
use crate::plan::{Call, KeyStep, Plan, Reach, Settings, Sketch, key_step, plan_with};
use crate::telemetry::Telemetry;
use crate::watches::Watches;

/// Plans in a row within one reconcile: the first, and one after each barrier or refusal.
const ROUNDS: usize = 4;
/// Every object is visited at least every five minutes.
const FORGET: Duration = Duration::from_secs(900);

/// What every visit and every watch works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) actor: Actor,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) key_secret: KeySecret,
    pub(crate) key_age: SignedDuration,
    pub(crate) settings: Settings,
    pub(crate) watches: Watches,
    pub(crate) memories: Mutex<HashMap<String, (Memory, Sketch)>>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) fleet: Fleet,
    /// The objects as their watch shows them.
    pub(crate) runtimes: Store<AgentRuntime>,
    /// Something that a freeze's status tells of may have changed.
    pub(crate) report: Notify,
}

impl Context {
    /// Every object, as its watch shows it.
    pub(crate) fn runtimes(&self) -> Vec<Arc<AgentRuntime>> {
        self.runtimes.state()
    }

    pub(crate) fn memories(&self) -> MutexGuard<'_, HashMap<String, (Memory, Sketch)>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is known of an object, and forgets objects that nobody has visited for long: they are deleted.
    pub(crate) fn remember(&self, uid: String, memory: (Memory, Sketch)) {
        let mut memories = self.memories();
        if memories.len() >= memories.capacity() {
            memories.retain(|_, (memory, _)| memory.visited.is_some_and(|visited| visited.elapsed() < FORGET));
        }
        memories.insert(uid, memory);
    }

    /// Says after what time to look again though nothing happens.
    pub(crate) async fn converge(
        &self,
        owner: &Owner,
        runtime: Arc<AgentRuntime>,
        (memory, sketch): (&mut Memory, &mut Sketch),
    ) -> Result<Duration, act::Error> {
        let agent = self.agent_text(&runtime).await?;
        let mut again = Duration::from_secs(1);
        for _ in 0..ROUNDS {
            let seen = self.observe(owner, Arc::clone(&runtime), agent.clone(), memory);
            let now = Timestamp::now();
            let mut next = plan_with(&seen, &self.settings, now, sketch);
            let refusal = memory.refusal.clone();
            if let Some(boot) = &next.boot {
                memory.transition.begin(owner, &boot.file);
            }
            self.actor.carry_out(&seen, &next, memory).await?;
            if let Some(boot) = &next.boot
                && memory.epoch_since.is_none_or(|(epoch, _)| epoch != boot.file.epoch)
            {
                memory.epoch_since = Some((boot.file.epoch, now));
            }
            let mut outdated = false;
            for order in std::mem::take(&mut next.orders) {
                // Questions of how a pod stands are no steps, and there may be many.
                let span = match &order.call {
                    Call::Ask { .. } => Span::none(),
                    call => memory.transition.call(call.name(), (&order.name, &order.pod), order.address),
                };
                // A pod that left while this was planned was forgotten before the call began. Where any call has ended,
                // the dispatcher sees that by itself, and does not begin it.
                let first = (order.ended == 0).then(|| (order.name.clone(), order.pod.clone()));
                outdated |= !self.dispatcher.submit(owner, order, span);
                if let Some((name, uid)) = first
                    && !self.watches.has_pod(owner, &name, &uid)
                {
                    self.dispatcher.forget(&uid);
                }
            }
            if outdated {
                self.dispatcher.replan(owner);
            }
            again = next.again.unwrap_or(again);
            if let Some(epoch) = next.barrier {
                let span = memory.transition.request("list pods");
                memory.barrier = Some(act::traced(span, self.actor.barrier(owner, epoch)).await?);
            } else if memory.refusal == refusal {
                self.actor.report(&seen, &next, memory).await?;
                self.note_acknowledgement(&next, memory);
                if next.is_reached() {
                    memory.transition.reached();
                }
                break;
            }
        }
        Ok(again)
    }

    /// Notes how long a transition took, once: when its status is first written as reached.
    fn note_acknowledgement(&self, next: &Plan, memory: &mut Memory) {
        let Some(status) = next.status.as_ref().filter(|_| next.is_reached()) else { return };
        // One that began before this process is not measured.
        let begun = memory.epoch_since.filter(|(epoch, from)| *epoch == status.epoch && *from > Timestamp::UNIX_EPOCH);
        let Some((epoch, from)) = begun.filter(|(epoch, _)| memory.measured != Some(*epoch)) else { return };
        memory.measured = Some(epoch);
        let took = Duration::try_from(Timestamp::now().duration_since(from)).unwrap_or_default();
        self.telemetry.acknowledged(status.desired_state.map_or("unknown", crds::DesiredState::as_str), took);
    }

    fn observe(&self, owner: &Owner, runtime: Arc<AgentRuntime>, agent: AgentText, memory: &mut Memory) -> Observed {
        let pods = self.watches.pods(owner);
        let boot = memory.boot(self.watches.boot(owner));
        if memory.epoch_since.is_none() {
            // The epoch is older than this process: nothing is kept back for its sake.
            memory.epoch_since = boot.as_ref().and_then(|b| b.file.as_ref()).map(|f| (f.epoch, Timestamp::UNIX_EPOCH));
        }
        Observed {
            agent,
            outdated: memory.is_outdated(&runtime),
            runtime: memory.runtime(runtime),
            boot,
            children: memory.children(&self.watches.children(owner)),
            deployment: self.watches.deployment(owner),
            contacts: self.dispatcher.contacts(pods.iter().map(|pod| pod.uid.as_str())),
            pods,
            barrier: memory.barrier.clone(),
            epoch_since: memory.epoch_since,
            reported: memory.reported,
            keys: self.keyring.public(),
            refusal: memory.refusal.clone(),
            protected_since: self.watches.protected_since(owner),
            fleet: self.fleet.view(owner, Timestamp::now(), &|| self.runtimes()),
        }
    }

    /// Reads the key Secret, changes it if that is due, and says whether the keys are others now.
    pub(crate) async fn turn_keys(&self) -> Result<bool, act::Error> {
        let found = self.key_secret.read().await?;
        let facts = found.facts();
        // Only the end of a rotation asks how far the new key has come, and only from whole caches.
        let reach = if facts.len() > 1 { self.reach().await } else { Vec::new() };
        let step = key_step(&facts, found.asked, &reach, self.key_age, Timestamp::now());
        let found = if step == KeyStep::Keep { found } else { self.key_secret.write(found, step).await? };
        Ok(self.keyring.adopt(&found))
    }

    /// How far keys have come with each object whose commands are signed.
    async fn reach(&self) -> Vec<Reach> {
        self.watches.synced().await;
        let mut all = Vec::new();
        for owner in self.watches.owners() {
            let boot = self.watches.boot(&owner).and_then(|boot| boot.file);
            let Some(named) = boot.map(|file| file.keys).filter(|keys| !keys.is_empty()) else { continue };
            let pods = self.watches.pods(&owner).into_iter();
            let running: Vec<String> =
                pods.filter(|pod| !pod.ended && pod.container.is_some()).map(|pod| pod.uid.clone()).collect();
            let contacts = self.dispatcher.contacts(running.iter().map(String::as_str));
            let held = |uid: &String| contacts.get(uid).and_then(|c| Some(c.answer.as_ref()?.status.keys.clone()));
            all.push(Reach { named, held: running.iter().map(|uid| held(uid).unwrap_or_default()).collect() });
        }
        all
    }

    async fn agent_text(&self, runtime: &AgentRuntime) -> Result<AgentText, act::Error> {
        match &runtime.spec.agent {
            None => Ok(AgentText::Builtin),
            Some(AgentSource { inline: Some(inline), .. }) => {
                let text = serde_json::to_string_pretty(inline).unwrap_or_default();
                Ok(AgentText::Found { text, file: "agent.json".to_owned() })
            }
            Some(AgentSource { config_map_ref: None, .. }) => {
                Ok(AgentText::Missing("spec.agent: give inline or configMapRef".to_owned()))
            }
            Some(AgentSource { config_map_ref: Some(key), .. }) => {
                let namespace = runtime.namespace().unwrap_or_default();
                let missing = |why: String| AgentText::Missing(format!("spec.agent.configMapRef: {why}"));
                let Some(config_map) = self.actor.config_map(&namespace, &key.name).await? else {
                    return Ok(missing(format!("there is no ConfigMap {}", key.name)));
                };
                Ok(match config_map.data.unwrap_or_default().remove(&key.key) {
                    Some(text) => AgentText::Found { text, file: key.key.clone() },
                    None => missing(format!("ConfigMap {} has no key {}", key.name, key.key)),
                })
            }
        }
    }
}
