//! Follows freezes and namespaces, and writes the freezes' statuses. No rule lives here.

pub(crate) mod known;
mod report;

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crds::{AgentFreeze, AgentRuntime};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use crate::act;
use crate::config::Config;
use crate::context::Context;
use crate::observe::decoded::Decoded;
use crate::observe::index::Owner;
use crate::plan::freezes;
use crate::queue::Queue;
use known::Changed;

/// A list takes no longer, or what it was to show is unknown.
const LIST: Duration = Duration::from_secs(10);
/// A watch can be dead without a sign, and outlives the right to it: freezes are listed anew this often,
/// which bounds how long a lost one is believed.
const RELIST_FREEZES: Duration = Duration::from_secs(30);
const RELIST_NAMESPACES: Duration = Duration::from_secs(300);
/// The pause after a failed list or watch; it doubles up to `BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Follows freezes and namespaces, and keeps the freezes' statuses. An operator of some namespaces alone writes none:
/// it does not see every runtime that a freeze holds.
pub(crate) async fn follow(config: &Config, context: &Arc<Context>, queue: &Queue) {
    if !config.obey_freezes {
        tracing::warn!(obey_freezes = false, "freezes_ignored");
        context.fleet.ignore();
        return std::future::pending().await;
    }
    let (freezes, namespaces) = (follow_freezes(context, queue), follow_namespaces(context, queue));
    if config.watch_namespaces.is_empty() {
        tokio::join!(freezes, namespaces, report::keep(context));
    } else {
        tokio::join!(freezes, namespaces);
    }
}

async fn follow_freezes(context: &Arc<Context>, queue: &Queue) {
    let api: Api<Decoded<AgentFreeze>> = Api::all(context.client.clone());
    let take = async |event| {
        let changed = context.fleet.freezes(event, Timestamp::now(), &|| context.runtimes.all());
        spread(context, queue, changed);
        context.report.notify_one();
    };
    keep_up(&api, RELIST_FREEZES, take).await;
}

/// Follows the labels of namespaces.
async fn follow_namespaces(context: &Arc<Context>, queue: &Queue) {
    let api: Api<Decoded<PartialObjectMeta<Namespace>>> = Api::all(context.client.clone());
    let take = async |event| {
        let changed = context.fleet.namespaces(event, Timestamp::now());
        spread(context, queue, changed);
    };
    keep_up(&api, RELIST_NAMESPACES, take).await;
}

/// Hands on what a list and the watch after it show, and each failure; begins anew after each, and after `relist`.
async fn keep_up<K>(api: &Api<K>, relist: Duration, mut take: impl AsyncFnMut(Result<Event<K>, String>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let mut failures = 0;
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), watcher::Config::default().page_size(PAGE)));
        let mut until = Instant::now() + LIST;
        let mut listed = false;
        let why = loop {
            match timeout_at(until, events.next()).await {
                Ok(Some(Ok(event))) => {
                    if matches!(event, Event::InitDone) {
                        (listed, failures, until) = (true, 0, Instant::now() + relist);
                    }
                    take(Ok(event)).await;
                }
                Ok(Some(Err(error))) => break Some(error.to_string()),
                Ok(None) => break Some("the watch ended".to_owned()),
                Err(_) if listed => break None,
                Err(_) => break Some(format!("no answer from the API server within {} s", LIST.as_secs())),
            }
        };
        if let Some(why) = why {
            tracing::warn!(kind = %K::kind(&K::DynamicType::default()), why, "watch_failed");
            take(Err(why)).await;
            sleep(act::backoff(BACKOFF, BACKOFF_MAX, failures)).await;
            failures = failures.saturating_add(1);
        }
    }
}

/// Has every object looked at that a change may concern.
fn spread(context: &Context, queue: &Queue, changed: Changed) {
    if !changed.all && changed.freezes.is_empty() && changed.namespaces.is_empty() {
        return;
    }
    let spaces: HashSet<String> = changed.namespaces.into_iter().collect();
    let concerned = |runtime: &AgentRuntime| {
        let may = |freeze: &Arc<AgentFreeze>| {
            // Its namespace is looked at by its own plan.
            let runtimes = freeze.spec.runtime_selector.as_ref();
            runtimes.is_none() || freezes::selects(freeze, None, runtime.labels()) != Some(false)
        };
        changed.all
            || spaces.contains(runtime.namespace().as_deref().unwrap_or_default())
            || changed.freezes.iter().any(may)
    };
    let concerned: Vec<Owner> =
        context.runtimes.all().iter().filter(|runtime| concerned(runtime)).map(|runtime| Owner::of(runtime)).collect();
    // All are braked before anything is written for one.
    concerned.iter().for_each(|owner| context.brakes.urge(owner.clone()));
    concerned.into_iter().for_each(|owner| queue.urge(owner));
}
