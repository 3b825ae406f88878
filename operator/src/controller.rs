//! Wires watches, plans and writes together. No rule lives here.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crds::AgentRuntime;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
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
use crate::observe::decoded::{Decoded, note_undecodable};
use crate::plan::Settings;
use crate::queue::Queue;
use crate::telemetry::Telemetry;
use crate::watches::Watches;

/// The first pause after the key Secret could not be kept.
const BACKOFF: Duration = Duration::from_millis(50);
/// Looks for brakes at once. None of them waits for anything.
const LOOKS: usize = 8;
/// How often the key Secret is read.
const LOOK_AT_KEYS: Duration = Duration::from_secs(10);

/// Waits for the CustomResourceDefinition, so that the operator may be installed before it.
pub async fn wait_for_crd(client: &Client, namespace: Option<&String>) {
    // What is listed may be of any depth: only that it is served counts.
    let api: Api<Decoded<AgentRuntime>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = kube::api::ListParams::default().limit(1);
    let mut said = false;
    while let Err(error) = api.list(&params).await {
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
    let (queue, brakes) = (Queue::default(), Queue::default());
    telemetry.set_concurrency(config.reconcile_concurrency);
    let dispatcher = Dispatcher::new(
        config.command_concurrency,
        config.poll_concurrency,
        (queue.clone(), brakes.clone()),
        Arc::clone(&telemetry),
        Arc::clone(&keyring),
        exec,
    );
    let (announcer, mut publisher) = act::events::channel(&client, Arc::clone(&telemetry));
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
        runtimes: Arc::default(),
        safety: queue.clone(),
        children: Queue::default(),
        brakes,
        process: format!("{:016x}", rand::random::<u64>()).into(),
        looks: AtomicU64::new(0),
        report: Notify::new(),
    });
    let counted = Arc::clone(&context);
    context.telemetry.take_census_by(Box::new(move || {
        let oldest = counted.dispatcher.oldest_answer();
        let illegible = counted.runtimes.illegible();
        census::take(&counted.runtimes.all(), oldest, counted.safety.depth(), illegible, Timestamp::now())
    }));
    let gone = |pod: &str| context.dispatcher.forget(pod);
    let watches = async {
        let runtimes = follow_runtimes(config, &context, &queue);
        let children = context.watches.follow((&client, &config.watch_namespaces), (&queue, &context.brakes), gone);
        tokio::join!(runtimes, children, fleet::follow(config, &context, &queue), keep_keys(&context, &queue))
    };
    let reconciling = reconcile_all(config, &context, &stop);
    tokio::select! {
        _ = watches => tracing::error!("watches_ended"),
        () = publisher.run() => tracing::error!("publisher_ended"),
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

/// Follows the objects themselves; after their boot files, so that none is at first newer than the spec beside it.
async fn follow_runtimes(config: &Config, context: &Context, queue: &Queue) {
    context.watches.safety_synced().await;
    let config = (&config.watch_namespaces, watcher::Config::default());
    let events = merged::watch::<Decoded<AgentRuntime>>(&context.client, config.0, config.1);
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Event::Apply(object) | Event::InitApply(object) = &event {
                    note_undecodable("AgentRuntime", object);
                }
                let touched = context.runtimes.take_in(event, |owner| context.watches.has_pods(owner));
                for owner in touched {
                    context.brakes.urge(owner.clone());
                    queue.urge(owner);
                }
            }
            Err(error) => tracing::warn!(kind = "AgentRuntime", %error, "watch_failed"),
        }
    }
}

async fn reconcile_all(config: &Config, context: &Arc<Context>, stop: &CancellationToken) {
    // No plan from half a picture: a pod that is not seen yet might still be running.
    tokio::join!(
        context.runtimes.synced(),
        context.watches.safety_synced(),
        // Read, or known to be unreadable: then nothing is loosened.
        context.fleet.settled(),
        // Nor one without keys: it would name none, and open every pod.
        context.keyring.ready()
    );
    tracing::info!("caches_synced");
    let places = config.reconcile_concurrency.into();
    let safety = context.safety.run(places, stop, |owner| Arc::clone(context).visit_safety(owner));
    let children = async {
        // A kind that cannot be listed keeps children as they are, and nothing else.
        if stop.run_until_cancelled(context.watches.synced()).await.is_some() {
            context.watches.owners().into_iter().for_each(|owner| context.safety.wake(owner));
            context.children.run(places, stop, |owner| Arc::clone(context).visit_children(owner)).await;
        }
    };
    let brakes = context.brakes.run(LOOKS, stop, |owner| Arc::clone(context).visit_brakes(owner));
    tokio::join!(brakes, safety, children);
}
