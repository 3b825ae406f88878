//! Wires watches, plans and writes together. No rule lives here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::{AgentRuntime, AgentSource};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::act::dispatch::Dispatcher;
use crate::act::keys::{KeySecret, Keyring};
use crate::act::{self, Actor};
use crate::census;
use crate::config::Config;
use crate::fleet;
use crate::fleet::known::Fleet;
use crate::lease::Tenure;
use crate::merged;
use crate::observe::index::Owner;
use crate::observe::memory::Memory;
use crate::observe::{AgentText, Observed};
use crate::plan::{Call, KeyStep, Plan, Reach, Settings, Sketch, key_step, plan_with};
use crate::queue::Queue;
use crate::telemetry::Telemetry;
use crate::watches::Watches;

/// Plans in a row within one reconcile: the first, and one after each barrier or refusal.
const ROUNDS: usize = 4;
/// The pause after a failed reconcile; it doubles up to `BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often the key Secret is read.
const LOOK_AT_KEYS: Duration = Duration::from_secs(10);
/// Every object is visited at least every five minutes.
const FORGET: Duration = Duration::from_secs(900);

pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) actor: Actor,
    dispatcher: Dispatcher,
    keyring: Arc<Keyring>,
    key_secret: KeySecret,
    key_age: SignedDuration,
    settings: Settings,
    watches: Watches,
    memories: Mutex<HashMap<String, (Memory, Sketch)>>,
    telemetry: Arc<Telemetry>,
    pub(crate) fleet: Fleet,
    /// The objects as their watch shows them.
    runtimes: Store<AgentRuntime>,
    /// Something that a freeze's status tells of may have changed.
    pub(crate) report: Notify,
}

/// Waits for the CustomResourceDefinition, so that the operator may be installed before it.
pub async fn wait_for_crd(client: &Client, namespace: Option<&String>) {
    let api: Api<AgentRuntime> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = kube::api::ListParams::default().limit(1);
    let mut said = false;
    while let Err(error) = api.list_metadata(&params).await {
        if !std::mem::replace(&mut said, true) {
            tracing::info!(%error, "waiting for the CustomResourceDefinition agentruntimes.agents.hive.dev");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Reconciles until `stop`. By `exec` commands are run in pods, where that is allowed.
pub async fn run(
    config: &Config,
    (client, exec): (Client, Option<Client>),
    tenure: Tenure,
    keyring: Arc<Keyring>,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) {
    let queue = Queue::default();
    telemetry.set_concurrency(config.reconcile_concurrency);
    let dispatcher = Dispatcher::new(
        config.command_concurrency,
        config.poll_concurrency,
        queue.clone(),
        Arc::clone(&telemetry),
        Arc::clone(&keyring),
        exec,
    );
    let (announcer, mut publisher) = act::events::channel(&client);
    let (runtimes, writer) = reflector::store();
    let context = Arc::new(Context {
        client: client.clone(),
        actor: Actor::new(client.clone(), announcer, tenure),
        dispatcher,
        keyring,
        key_secret: KeySecret::new(client.clone(), &config.namespace),
        key_age: config.key_age(),
        settings: Settings {
            runtime_image: config.runtime_image.clone(),
            namespace: config.namespace.clone(),
            exec_hooks: config.exec_hooks,
            obey_freezes: config.obey_freezes,
        },
        watches: Watches::new(config.loopback_pods()),
        memories: Mutex::default(),
        telemetry,
        fleet: Fleet::default(),
        runtimes,
        report: Notify::new(),
    });
    let (counted, waiting) = (Arc::clone(&context), queue.clone());
    context.telemetry.take_census_by(Box::new(move || {
        let oldest = counted.dispatcher.oldest_answer();
        census::take(&counted.runtimes(), oldest, waiting.depth(), Timestamp::now())
    }));
    let gone = |pod: &str| context.dispatcher.forget(pod);
    let watches = async {
        let runtimes = follow_runtimes(config, &context, writer, &queue);
        let children = context.watches.follow(&client, &config.watch_namespaces, &queue, gone);
        tokio::join!(runtimes, children, fleet::follow(config, &context, &queue), keep_keys(&context, &queue))
    };
    let reconciling = reconcile_all(config, &context, &queue, &stop);
    tokio::select! {
        _ = watches => tracing::error!("a watch ended"),
        () = publisher.run() => tracing::error!("nobody announces Events any more"),
        () = reconciling => {}
    }
    publisher.finish().await;
}

/// Keeps the key Secret and what is in memory of it; an object whose file must name other keys is woken.
async fn keep_keys(context: &Context, queue: &Queue) {
    let mut failures = 0;
    loop {
        let pause = match context.turn_keys().await {
            Ok(changed) => {
                failures = 0;
                if changed {
                    context.watches.owners().into_iter().for_each(|owner| queue.wake(owner));
                }
                LOOK_AT_KEYS
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "the key Secret cannot be kept, and is tried again");
                act::backoff(BACKOFF, LOOK_AT_KEYS, failures)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Follows the objects themselves; after their children, so that no boot file is at first newer than the spec beside it.
async fn follow_runtimes(config: &Config, context: &Context, writer: Writer<AgentRuntime>, queue: &Queue) {
    context.watches.synced().await;
    let events = merged::watch::<AgentRuntime>(&context.client, &config.watch_namespaces, watcher::Config::default());
    let mut events = std::pin::pin!(reflector(writer, events).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(runtime)) => queue.wake(Owner::of(&runtime)),
            // A list is shown as a whole, once it is complete.
            Ok(Event::InitDone) => context.runtimes().iter().for_each(|runtime| queue.wake(Owner::of(runtime))),
            Ok(Event::Init | Event::InitApply(_) | Event::Delete(_)) => {}
            Err(error) => tracing::warn!(kind = "AgentRuntime", %error, "a watch failed and is begun again"),
        }
    }
}

async fn reconcile_all(config: &Config, context: &Arc<Context>, queue: &Queue, stop: &CancellationToken) {
    // No plan from half a picture: a pod that is not seen yet might still be running.
    tokio::join!(
        async {
            // Its writer lives as long as the watches, which this future does not outlive.
            let _ = context.runtimes.wait_until_ready().await;
        },
        context.watches.synced(),
        // Read, or known to be unreadable: then nothing is loosened.
        context.fleet.settled(),
        // Nor one without keys: it would name none, and open every pod.
        context.keyring.ready()
    );
    tracing::info!("the caches have synced");
    queue.run(config.reconcile_concurrency.into(), stop, |owner| visit(owner, Arc::clone(context))).await;
}

/// Says when to come again; an object that is gone is not visited again.
async fn visit(owner: Owner, context: Arc<Context>) -> Option<Duration> {
    let runtime = context.runtimes.get(&ObjectRef::new(&owner.name).within(&owner.namespace))?;
    let begun = Instant::now();
    context.telemetry.begins();
    let uid = runtime.uid().unwrap_or_default();
    let (mut memory, mut sketch) = context.memories().remove(&uid).unwrap_or_default();
    let outcome = context.converge(&owner, runtime, (&mut memory, &mut sketch)).await;
    let failures = if outcome.is_ok() { 0 } else { memory.failures.saturating_add(1) };
    memory.failures = failures;
    memory.visited = Some(begun);
    context.remember(uid, (memory, sketch));
    context.telemetry.reconciled(outcome.as_ref().err().map(act::Error::label), begun.elapsed());
    if !context.fleet.is_empty() {
        context.report.notify_one();
    }
    Some(outcome.unwrap_or_else(|error| after_failure(&owner, &error, failures)))
}

/// A conflict is tried again at once with what the watch has brought since; all else backs off.
fn after_failure(owner: &Owner, error: &act::Error, failures: u32) -> Duration {
    match error {
        act::Error::Conflict { .. } | act::Error::Deposed => {
            tracing::debug!(name = owner.name, %error, "planned from an old picture")
        }
        act::Error::Api { .. } | act::Error::Timeout { .. } | act::Error::Key { .. } | act::Error::Manifest { .. } => {
            tracing::warn!(name = owner.name, %error, failures, "a write failed and is tried again");
        }
    }
    act::backoff(BACKOFF, BACKOFF_MAX, failures)
}

impl Context {
    /// Every object, as its watch shows it.
    pub(crate) fn runtimes(&self) -> Vec<Arc<AgentRuntime>> {
        self.runtimes.state()
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<String, (Memory, Sketch)>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is known of an object, and forgets objects that nobody has visited for long: they are deleted.
    fn remember(&self, uid: String, memory: (Memory, Sketch)) {
        let mut memories = self.memories();
        if memories.len() >= memories.capacity() {
            memories.retain(|_, (memory, _)| memory.visited.is_some_and(|visited| visited.elapsed() < FORGET));
        }
        memories.insert(uid, memory);
    }

    /// Says after what time to look again though nothing happens.
    async fn converge(
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
                outdated |= !self.dispatcher.submit(owner, order, span);
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
    async fn turn_keys(&self) -> Result<bool, act::Error> {
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
