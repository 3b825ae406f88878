//! What every visit and every watch works with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::{AgentRuntime, AgentRuntimeStatus};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use lifecycle::{BootFile, Desired};
use tokio::sync::Notify;

use crate::act::dispatch::Dispatcher;
use crate::act::keys::{KeySecret, Keyring};
use crate::act::{self, Actor};
use crate::fleet::known::Fleet;
use crate::lanes::Remembered;
use crate::observe::Nonce;
use crate::observe::index::Owner;
use crate::observe::memory::Memory;
use crate::plan::freeze_pods::PodCounts;
use crate::plan::{KeyStep, Reach, Settings, key_step};
use crate::queue::Queue;
use crate::runtimes::Runtimes;
use crate::telemetry::Telemetry;
use crate::watches::Watches;

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
    pub(crate) memories: Mutex<HashMap<String, Arc<Mutex<Remembered>>>>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) fleet: Fleet,
    /// The objects as their watch shows them.
    pub(crate) runtimes: Arc<Runtimes>,
    /// Who is looked at next by each lane.
    pub(crate) safety: Queue,
    pub(crate) children: Queue,
    pub(crate) brakes: Queue,
    /// Tells the brakes of this process from those of any other, and of each look from those of the others.
    pub(crate) process: Arc<str>,
    pub(crate) looks: AtomicU64,
    /// Something that a freeze's status tells of may have changed.
    pub(crate) report: Notify,
}

impl Context {
    /// What is known of an object by its UID. Objects that nobody has visited for long are forgotten: they are deleted.
    pub(crate) fn remembered(&self, uid: &str) -> Arc<Mutex<Remembered>> {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = memories.get(uid) {
            return Arc::clone(known);
        }
        if memories.len() >= memories.capacity() {
            memories.retain(|_, known| {
                // One that is looked at now is in use.
                let Ok(known) = known.try_lock() else { return true };
                known.memory.visited.is_some_and(|visited| visited.elapsed() < FORGET)
            });
        }
        // One that is gone before its first visit is forgotten too.
        let mut first = Remembered::default();
        first.memory.visited = Some(Instant::now());
        Arc::clone(memories.entry(uid.to_owned()).or_insert_with(|| Arc::new(Mutex::new(first))))
    }

    /// What a brake of this look is named by.
    pub(crate) fn nonce(&self) -> Nonce {
        Nonce { process: Arc::clone(&self.process), look: self.looks.fetch_add(1, Ordering::Relaxed) }
    }

    /// Who has pods and is no object that is known: deleted, and its pods are on their way out.
    pub(crate) fn orphans(&self) -> Vec<Owner> {
        let owners = self.watches.pod_owners().into_iter();
        owners.filter(|owner| self.runtimes.get(owner).is_none() && self.watches.has_pods(owner)).collect()
    }

    /// How the pods of an object stand to a freeze that asks for this state.
    pub(crate) fn pods_held(&self, runtime: &AgentRuntime, asked: Desired) -> PodCounts {
        let pods = self.watches.pods(&Owner::of(runtime));
        let contacts = self.dispatcher.contacts(pods.iter().map(|pod| pod.uid.as_str()));
        let file = self.stored_file(runtime);
        let live = pods.iter().filter(|pod| !pod.ended);
        let counts = live.map(|pod| PodCounts::of(pod, contacts.get(&pod.uid), file.as_ref(), asked));
        counts.fold(PodCounts::default(), PodCounts::and)
    }

    /// The state and the epoch of an object's boot file in the store.
    pub(crate) fn stored(&self, runtime: &AgentRuntime) -> Option<(Desired, i64)> {
        self.stored_file(runtime).map(|file| (file.state, file.epoch))
    }

    /// An object's boot file, as it was written or is shown last.
    fn stored_file(&self, runtime: &AgentRuntime) -> Option<BootFile> {
        let uid = runtime.metadata.uid.as_deref().unwrap_or_default();
        let shown = self.watches.boot(&Owner::of(runtime), uid);
        let known = self.memories.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned();
        let boot = match known {
            Some(known) => known.lock().unwrap_or_else(PoisonError::into_inner).memory.newest_boot(shown),
            None => shown,
        };
        boot?.file.filter(|file| file.runtime_uid == uid)
    }

    /// Notes how long a transition took, once: when its status is first written as reached.
    pub(crate) fn note_acknowledgement(&self, status: &AgentRuntimeStatus, reached: bool, memory: &mut Memory) {
        // One that began before this process is not measured.
        let begun = memory.epoch_since.filter(|(epoch, from)| *epoch == status.epoch && *from > Timestamp::UNIX_EPOCH);
        let begun = begun.filter(|(epoch, _)| reached && memory.measured != Some(*epoch));
        let Some((epoch, from)) = begun else { return };
        memory.measured = Some(epoch);
        let took = Duration::try_from(Timestamp::now().duration_since(from)).unwrap_or_default();
        self.telemetry.acknowledged(status.desired_state.map_or("unknown", crds::DesiredState::as_str), took);
    }

    /// Reads the key Secret, changes it if that is due, and says whether the keys are others now.
    pub(crate) async fn turn_keys(&self) -> Result<bool, act::Error> {
        let found = self.key_secret.read().await?;
        // Commands wait for keys, and those that are there are good whatever becomes of a rotation.
        let adopted = self.keyring.adopt(&found);
        let facts = found.facts();
        // Only the end of a rotation asks how far the new key has come, and only from whole caches.
        let reach = if facts.len() > 1 { self.reach().await } else { Vec::new() };
        let step = key_step(&facts, found.asked, &reach, self.key_age, Timestamp::now());
        let found = if step == KeyStep::Keep { found } else { self.key_secret.write(found, step).await? };
        Ok(self.keyring.adopt(&found) || adopted)
    }

    /// How far keys have come with each object whose commands are signed.
    async fn reach(&self) -> Vec<Reach> {
        self.watches.safety_synced().await;
        let mut all = Vec::new();
        for owner in self.watches.owners() {
            let Some(shown) = self.runtimes.get(&owner) else { continue };
            let uid = shown.runtime.metadata.uid.as_deref().unwrap_or_default();
            let boot = self.watches.boot(&owner, uid).and_then(|boot| boot.file);
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
}
