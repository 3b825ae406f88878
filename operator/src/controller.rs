//! Wires watches, plans and writes together. No rule lives here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crds::{AgentRuntime, AgentSource};
use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::act::dispatch::Dispatcher;
use crate::act::keys::{KeySecret, Keyring};
use crate::act::{self, Actor};
use crate::census;
use crate::config::Config;
use crate::fleet;
use crate::fleet::known::Fleet;
use crate::merged;
use crate::observe::index::Owner;
use crate::observe::memory::Memory;
use crate::observe::{AgentText, Observed};
use crate::plan::{Call, KeyStep, Plan, Reach, Settings, key_step, plan};
use crate::telemetry::Telemetry;
use crate::watches::Watches;

/// Answers and events that may wait to be looked at; each is a name, and a full queue only delays.
const QUEUE: usize = 4096;
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
    memories: Mutex<HashMap<String, Memory>>,
    telemetry: Arc<Telemetry>,
    pub(crate) fleet: Fleet,
    /// The objects as their watch shows them, once it is begun.
    runtimes: OnceLock<Store<AgentRuntime>>,
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
    client: Client,
    exec: Option<Client>,
    keyring: Arc<Keyring>,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) {
    let (wake, woken) = mpsc::channel(QUEUE);
    telemetry.set_concurrency(config.reconcile_concurrency);
    let dispatcher = Dispatcher::new(
        config.command_concurrency,
        config.poll_concurrency,
        wake.clone(),
        Arc::clone(&telemetry),
        Arc::clone(&keyring),
        exec,
    );
    let (announcer, mut publisher) = act::events::channel(&client);
    let context = Arc::new(Context {
        client: client.clone(),
        actor: Actor::new(client.clone(), announcer),
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
        runtimes: OnceLock::new(),
        report: Notify::new(),
    });
    let (counted, queue) = (Arc::clone(&context), wake.clone());
    context.telemetry.take_census_by(Box::new(move || {
        let oldest = counted.dispatcher.oldest_answer();
        census::take(&counted.runtimes(), oldest, QUEUE.saturating_sub(queue.capacity()), Timestamp::now())
    }));
    let gone = |pod: &str| context.dispatcher.forget(pod);
    let watches = async {
        let children = context.watches.follow(&client, &config.watch_namespaces, &wake, gone);
        tokio::join!(children, fleet::follow(config, &context, &wake))
    };
    let reconciling = reconcile_all(config, Arc::clone(&context), woken, stop.clone());
    tokio::select! {
        _ = watches => tracing::error!("a watch ended"),
        () = publisher.run() => tracing::error!("nobody announces Events any more"),
        () = keep_keys(&context, &wake) => tracing::error!("nobody listens for new keys any more"),
        () = reconciling => {}
    }
    publisher.finish().await;
}

/// Keeps the key Secret and what is in memory of it; an object whose file must name other keys is woken.
async fn keep_keys(context: &Context, wake: &mpsc::Sender<Owner>) {
    let mut failures = 0;
    loop {
        let pause = match context.turn_keys().await {
            Ok(changed) => {
                failures = 0;
                for owner in if changed { context.watches.owners() } else { Vec::new() } {
                    if wake.send(owner).await.is_err() {
                        return;
                    }
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

async fn reconcile_all(config: &Config, context: Arc<Context>, woken: mpsc::Receiver<Owner>, stop: CancellationToken) {
    // No plan from half a picture: a pod that is not seen yet might still be running.
    tokio::join!(
        context.watches.synced(),
        // Read, or known to be unreadable: then nothing is loosened.
        context.fleet.settled(),
        // Nor one without keys: it would name none, and open every pod.
        context.keyring.ready()
    );
    tracing::info!("the caches have synced");
    let owners = stream::unfold(woken, |mut woken| async move { woken.recv().await.map(|owner| (owner, woken)) });
    let queued = Arc::clone(&context);
    let references = owners.map(move |owner| {
        queued.telemetry.added();
        ObjectRef::new(&owner.name).within(&owner.namespace)
    });
    let (store, writer) = reflector::store();
    let all = watcher::Config::default();
    let events = merged::watch::<AgentRuntime>(&context.client, &config.watch_namespaces, all);
    let controller = Controller::for_stream(reflector(writer, events).applied_objects(), store);
    // Set once: this function is called once.
    let _ = context.runtimes.set(controller.store());
    let told = Arc::clone(&context);
    controller
        .with_config(ControllerConfig::default().concurrency(config.reconcile_concurrency))
        .reconcile_on(references)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, failed, context)
        .for_each(|outcome| {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a reconcile failed");
            }
            if !told.fleet.is_empty() {
                told.report.notify_one();
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile(runtime: Arc<AgentRuntime>, context: Arc<Context>) -> Result<Action, act::Error> {
    let begun = Instant::now();
    context.telemetry.begins();
    let uid = runtime.uid().unwrap_or_default();
    let mut memory = context.memories().remove(&uid).unwrap_or_default();
    let outcome = context.converge(runtime, &mut memory).await;
    memory.failures = if outcome.is_ok() { 0 } else { memory.failures.saturating_add(1) };
    memory.visited = Some(begun);
    context.remember(uid, memory);
    context.telemetry.reconciled(outcome.as_ref().err().map(act::Error::label), begun.elapsed());
    outcome
}

/// A conflict is tried again at once with what the watch has brought since; all else backs off.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the controller's")]
fn failed(runtime: Arc<AgentRuntime>, error: &act::Error, context: Arc<Context>) -> Action {
    let failures = context.memories().get(&runtime.uid().unwrap_or_default()).map_or(1, |memory| memory.failures);
    let pause = act::backoff(BACKOFF, BACKOFF_MAX, failures);
    match error {
        act::Error::Conflict { .. } => {
            tracing::debug!(name = %runtime.name_any(), %error, "planned from an old picture")
        }
        act::Error::Api { .. } | act::Error::Timeout { .. } | act::Error::Key { .. } | act::Error::Manifest { .. } => {
            tracing::warn!(name = %runtime.name_any(), %error, failures, "a write failed and is tried again");
        }
    }
    Action::requeue(pause)
}

impl Context {
    /// Every object, as its watch shows it.
    pub(crate) fn runtimes(&self) -> Vec<Arc<AgentRuntime>> {
        self.runtimes.get().map(Store::state).unwrap_or_default()
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is known of an object, and forgets objects that nobody has visited for long: they are deleted.
    fn remember(&self, uid: String, memory: Memory) {
        let mut memories = self.memories();
        if memories.len() >= memories.capacity() {
            memories.retain(|_, memory| memory.visited.is_some_and(|visited| visited.elapsed() < FORGET));
        }
        memories.insert(uid, memory);
    }

    async fn converge(&self, runtime: Arc<AgentRuntime>, memory: &mut Memory) -> Result<Action, act::Error> {
        let owner = Owner { namespace: runtime.namespace().unwrap_or_default(), name: runtime.name_any() };
        let agent = self.agent_text(&runtime).await?;
        let mut again = Duration::from_secs(1);
        for _ in 0..ROUNDS {
            let seen = self.observe(&owner, Arc::clone(&runtime), agent.clone(), memory);
            let now = Timestamp::now();
            let mut next = plan(&seen, &self.settings, now);
            let refusal = memory.refusal.clone();
            if let Some(boot) = &next.boot {
                memory.transition.begin(&owner, &boot.file);
            }
            self.actor.carry_out(&seen, &next, memory).await?;
            if let Some(boot) = &next.boot
                && memory.epoch_since.is_none_or(|(epoch, _)| epoch != boot.file.epoch)
            {
                memory.epoch_since = Some((boot.file.epoch, now));
            }
            for order in std::mem::take(&mut next.orders) {
                // Questions of how a pod stands are no steps, and there may be many.
                let span = match &order.call {
                    Call::Ask { .. } => Span::none(),
                    call => memory.transition.call(call.name(), (&order.name, &order.pod), order.address),
                };
                self.dispatcher.submit(&owner, order, span);
            }
            again = next.again.unwrap_or(again);
            if let Some(epoch) = next.barrier {
                let span = memory.transition.request("list pods");
                memory.barrier = Some(act::traced(span, self.actor.barrier(&seen.runtime, epoch)).await?);
            } else if memory.refusal == refusal {
                self.actor.report(&seen, &next, memory).await?;
                self.note_acknowledgement(&next, memory);
                if next.is_reached() {
                    memory.transition.reached();
                }
                break;
            }
        }
        Ok(Action::requeue(again))
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
            runtime: memory.runtime(runtime),
            boot,
            children: memory.children(&self.watches.children(owner)),
            deployment: self.watches.deployment(owner),
            contacts: self.dispatcher.contacts(pods.iter().map(|pod| pod.uid.as_str())),
            pods,
            barrier: memory.barrier.clone(),
            epoch_since: memory.epoch_since,
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
