//! Writes the statuses of freezes. No rule lives here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::{AgentFreeze, AgentRuntime};
use jiff::Timestamp;
use kube::ResourceExt as _;
use lifecycle::Desired;
use tokio::time::{Instant, sleep, timeout};

use super::known::Picture;
use crate::context::Context;
use crate::observe::index::Owner;
use crate::plan::freeze_status::{self, Sight};

/// Changes within this time make one status of a freeze.
const GATHER: Duration = Duration::from_millis(500);
/// The same for freezes that all have been there for longer than `NEW`.
const LATER: Duration = Duration::from_secs(5);
const NEW: Duration = Duration::from_secs(10);
/// The least time between two lists of all pods.
const LISTS_APART: Duration = Duration::from_secs(2);
/// With nothing to wait for.
const LONG: Duration = Duration::from_secs(300);

/// What was listed of all pods, and when that was begun.
struct Listed {
    begun: Instant,
    pods: Vec<(Owner, String)>,
}

/// Keeps the freezes' statuses.
pub(super) async fn keep(context: &Arc<Context>) {
    let mut seen: HashMap<String, Instant> = HashMap::new();
    let mut listed: Option<Listed> = None;
    let mut again = None;
    loop {
        let end = context.fleet.next_end(Timestamp::now());
        let left = end.and_then(|end| Duration::try_from(end.duration_since(Timestamp::now())).ok());
        let left = left.into_iter().chain(again).min().unwrap_or(LONG);
        // Either way it is looked at: a notice, or an end that has come.
        let _ = timeout(left.min(LONG), context.report.notified()).await;
        let newest = note_seen(&mut seen, context.fleet.picture().as_ref());
        sleep(if newest.is_none_or(|newest| newest.elapsed() < NEW) { GATHER } else { LATER }).await;
        let Some(picture) = context.fleet.picture() else { continue };
        let newest = note_seen(&mut seen, Some(&picture));
        if is_due(context, listed.as_ref(), newest) {
            listed = list(context, listed).await;
        }
        again = wants_list(context, listed.as_ref(), newest).then_some(LISTS_APART);
        write(context, &picture, &seen, listed.as_ref()).await;
    }
}

/// Notes the freezes that are there, and says since when the newest is known.
fn note_seen(seen: &mut HashMap<String, Instant>, picture: Option<&Picture>) -> Option<Instant> {
    let freezes = picture.into_iter().flat_map(|picture| &picture.freezes);
    let live: Vec<String> = freezes.map(|freeze| key(freeze)).collect();
    seen.retain(|key, _| live.contains(key));
    for key in live {
        seen.entry(key).or_insert_with(Instant::now);
    }
    seen.values().max().copied()
}

/// Which freeze, and how often it was changed.
fn key(freeze: &AgentFreeze) -> String {
    format!("{}.{}", freeze.uid().unwrap_or_default(), freeze.metadata.generation.unwrap_or(0))
}

/// Whether all pods are to be listed now.
fn is_due(context: &Context, listed: Option<&Listed>, newest: Option<Instant>) -> bool {
    let paced = listed.is_none_or(|listed| listed.begun.elapsed() >= LISTS_APART);
    paced && wants_list(context, listed, newest)
}

/// Whether all pods are to be listed: the newest freeze is newer than the last list, or that showed unseen ones.
fn wants_list(context: &Context, listed: Option<&Listed>, newest: Option<Instant>) -> bool {
    let Some(listed) = listed else { return newest.is_some() };
    newest.is_some_and(|newest| newest >= listed.begun || !unseen(context, listed).is_empty())
}

async fn list(context: &Context, before: Option<Listed>) -> Option<Listed> {
    let begun = Instant::now();
    match context.actor.list_all_pods().await {
        Ok(pods) => Some(Listed { begun, pods }),
        Err(error) => {
            tracing::warn!(%error, "freeze_pods_unlisted");
            before
        }
    }
}

/// Whose pods were listed and are not known to the watch.
fn unseen(context: &Context, listed: &Listed) -> Vec<Owner> {
    let known: std::collections::HashSet<String> = context.watches.pod_uids().into_iter().collect();
    let unknown = listed.pods.iter().filter(|(_, uid)| !known.contains(uid));
    unknown.map(|(owner, _)| owner.clone()).collect()
}

async fn write(context: &Context, picture: &Picture, seen: &HashMap<String, Instant>, listed: Option<&Listed>) {
    let runtimes = context.runtimes.all();
    let orphans = context.orphans();
    let unknown = listed.map(|listed| unseen(context, listed));
    for freeze in &picture.freezes {
        let since = seen.get(&key(freeze));
        let lists = listed.is_some_and(|listed| since.is_some_and(|since| listed.begun > *since));
        let sight = Sight {
            namespaces: &picture.namespaces,
            stored: &|runtime: &AgentRuntime| context.stored(runtime),
            pods: &|runtime: &AgentRuntime, asked: Desired| context.pods_held(runtime, asked),
            orphans: &orphans,
            unseen: unknown.as_deref().filter(|_| lists),
        };
        let all = runtimes.iter().map(AsRef::as_ref);
        let Some(status) = freeze_status::report(freeze, all, &sight, Timestamp::now()) else { continue };
        match context.actor.report_freeze(freeze, &status).await {
            Ok(written) => context.fleet.wrote(freeze, written),
            Err(error) => {
                tracing::debug!(freeze = %freeze.name_any(), %error, "freeze_status_unwritten");
                context.report.notify_one();
            }
        }
    }
}
