//! Wires watches, plans and writes together. No rule lives here.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crds::AgentRuntime;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, reflector};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::act::dispatch::Dispatcher;
use crate::act::keys::{KeySecret, Keyring};
use crate::act::{self, Actor};
use crate::census;
use crate::config::Config;
use crate::context::Context;
use crate::fleet;
use crate::fleet::known::Fleet;
use crate::lease::Tenure;
use crate::merged;
use crate::observe::index::Owner;
use crate::plan::Settings;
use crate::queue::Queue;
use crate::telemetry::Telemetry;
use crate::watches::Watches;

/// The pause after a failed reconcile; it doubles up to `BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often the key Secret is read.
const LOOK_AT_KEYS: Duration = Duration::from_secs(10);

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
    let (announcer, mut publisher) = act::events::channel(&client, Arc::clone(&telemetry));
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
