//! What the API server has shown so far: every runtime and freeze, how each runtime changed since the page was opened,
//! and what Events say of the time before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crds::decoded::Decoded;
use crds::{AgentFreeze, AgentRuntime};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::past::{self, Id, Past, Transition};
use crate::kubernetes::{Kubernetes, identity};
use crate::show;

/// Transitions and samples that are kept of a runtime.
const KEPT: usize = 300;
/// How often it is looked whether the operator is there.
const LOOK: Duration = Duration::from_secs(15);

/// How much there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) in_flight: i64,
    pub(super) queued: i64,
}

/// A runtime and what is known of its past.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) runtime: AgentRuntime,
    pub(super) transitions: VecDeque<Transition>,
    pub(super) samples: VecDeque<Sample>,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    pub(super) runtimes: BTreeMap<Id, Arc<Seen>>,
    pub(super) freezes: BTreeMap<String, AgentFreeze>,
    /// What happened before, as far as Events are kept.
    pub(super) past: Past,
    /// The runtimes have been listed once.
    pub(super) listed: bool,
    /// What is wrong with the picture, by where it comes from.
    pub(super) troubles: BTreeMap<&'static str, String>,
    /// Of a list that is being read anew: what it has not named yet.
    stale: BTreeSet<Id>,
}

impl Board {
    /// Takes one event of the watch of runtimes.
    fn take(&mut self, event: Event<Decoded<AgentRuntime>>, now: Timestamp) {
        match event {
            Event::Init => self.stale = self.runtimes.keys().cloned().collect(),
            Event::InitApply(runtime) | Event::Apply(runtime) => self.put(runtime.into_runtime(), now),
            Event::Delete(runtime) => {
                self.runtimes.remove(&id(&runtime.into_runtime()));
            }
            Event::InitDone => {
                self.listed = true;
                for id in std::mem::take(&mut self.stale) {
                    self.runtimes.remove(&id);
                }
            }
        }
    }

    fn put(&mut self, runtime: AgentRuntime, now: Timestamp) {
        let id = id(&runtime);
        self.stale.remove(&id);
        let before = self.runtimes.get(&id);
        let (mut transitions, mut samples) =
            before.map_or_else(Default::default, |seen| (seen.transitions.clone(), seen.samples.clone()));
        if let Some(status) = runtime.status.as_ref().filter(|status| status.state.is_some()) {
            let state = show::state(status).to_owned();
            let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
            let says = ready.map(|condition| condition.message.clone()).unwrap_or_default();
            let (source, reason) = (status.source.clone(), status.reason.clone());
            let transition = Transition { at: now, state, source, reason, says };
            let is_new = transitions.back().is_none_or(|last: &Transition| {
                (&last.state, &last.source, &last.reason) != (&transition.state, &transition.source, &transition.reason)
            });
            if is_new {
                keep(&mut transitions, transition);
            }
            let sample =
                Sample { at: now, in_flight: status.in_flight.unwrap_or(0), queued: status.queued.unwrap_or(0) };
            if status.in_flight.is_some() || status.queued.is_some() {
                keep(&mut samples, sample);
            }
        }
        self.runtimes.insert(id, Arc::new(Seen { runtime, transitions, samples }));
    }

    fn trouble(&mut self, what: &'static str, error: Option<String>) {
        match error {
            Some(error) => self.troubles.insert(what, error),
            None => self.troubles.remove(what),
        };
    }
}

fn keep<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() == KEPT {
        all.pop_front();
    }
    all.push_back(one);
}

fn id(runtime: &AgentRuntime) -> Id {
    let (namespace, name) = identity(runtime);
    (namespace.to_owned(), name.to_owned())
}

/// The board as it is, and a number that changes with it.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    board: Arc<RwLock<Arc<Board>>>,
    version: watch::Sender<u64>,
}

impl Watched {
    /// The board at this moment; it is copied only when it changes while somebody still reads it.
    pub(super) fn read(&self) -> Arc<Board> {
        Arc::clone(&self.board.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Told of each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Board)) {
        let mut board = self.board.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(Arc::make_mut(&mut board));
        drop(board);
        self.version.send_modify(|version| *version += 1);
    }
}

/// Begins to watch; the tasks end with the process.
pub(super) fn watch(cluster: Arc<Kubernetes>) -> Watched {
    let watched = Watched { board: Arc::default(), version: watch::Sender::new(0) };
    tokio::spawn(runtimes(Arc::clone(&cluster), watched.clone()));
    tokio::spawn(freezes(Arc::clone(&cluster), watched.clone()));
    tokio::spawn(events(Arc::clone(&cluster), watched.clone()));
    tokio::spawn(operator(cluster, watched.clone()));
    watched
}

async fn runtimes(cluster: Arc<Kubernetes>, watched: Watched) {
    let mut events = watcher(cluster.runtimes(), watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        watched.change(|board| {
            board.trouble("agentruntimes cannot be watched", event.as_ref().err().map(ToString::to_string));
            if let Ok(event) = event {
                board.take(event, Timestamp::now());
            }
        });
    }
}

async fn freezes(cluster: Arc<Kubernetes>, watched: Watched) {
    let events = watcher(cluster.freezes(), watcher::Config::default()).default_backoff();
    let mut events = events.map_err(|error| error.to_string()).boxed();
    while let Some(event) = events.next().await {
        let name = |freeze: &AgentFreeze| freeze.metadata.name.clone().unwrap_or_default();
        watched.change(|board| {
            board.trouble("agentfreezes cannot be watched", event.as_ref().err().cloned());
            match event {
                Ok(Event::Init) => board.freezes.clear(),
                Ok(Event::InitApply(freeze) | Event::Apply(freeze)) => {
                    board.freezes.insert(name(&freeze), freeze);
                }
                Ok(Event::Delete(freeze)) => {
                    board.freezes.remove(&name(&freeze));
                }
                Ok(Event::InitDone) | Err(_) => {}
            }
        });
    }
}

/// Who may not look at Events sees the time since the page was opened, and is told so where the rest would stand.
async fn events(cluster: Arc<Kubernetes>, watched: Watched) {
    let config = watcher::Config::default().fields(past::OF_RUNTIMES);
    let mut events = watcher(cluster.events(), config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        watched.change(|board| board.past.take(event.map_err(|error| error.to_string())));
    }
}

/// Whether anybody acts on what is asked for. Whoever may not look is told nothing.
async fn operator(cluster: Arc<Kubernetes>, watched: Watched) {
    loop {
        let trouble = match cluster.operators().await {
            Ok(found) if found.iter().all(|(_, ready)| *ready == 0) => {
                Some("what is asked for is kept, and acted on when it is back".to_owned())
            }
            Ok(_) | Err(_) => None,
        };
        let known = watched.read().troubles.contains_key("no operator is ready");
        if trouble.is_some() != known {
            watched.change(|board| board.trouble("no operator is ready", trouble));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::pausing;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn named(name: &str) -> AgentRuntime {
        let mut runtime = pausing();
        runtime.metadata.name = Some(name.to_owned());
        runtime
    }

    #[test]
    fn only_a_change_of_what_it_does_is_a_transition() {
        let mut board = Board::default();
        board.take(Event::Apply(Decoded::whole(pausing())), at(1));
        let mut later = pausing();
        later.status.as_mut().unwrap().in_flight = Some(0);
        board.take(Event::Apply(Decoded::whole(later.clone())), at(2));
        later.status.as_mut().unwrap().reason = "Paused".to_owned();
        board.take(Event::Apply(Decoded::whole(later)), at(3));
        let seen = board.runtimes.values().next().unwrap();
        let reasons: Vec<&str> = seen.transitions.iter().map(|t| t.reason.as_str()).collect();
        assert_eq!(reasons, ["Pausing", "Paused"]);
        assert_eq!(seen.samples.iter().map(|s| s.in_flight).collect::<Vec<_>>(), [1, 0, 0]);
    }

    #[test]
    fn what_a_list_read_anew_does_not_name_is_gone() {
        let mut board = Board::default();
        board.take(Event::Apply(Decoded::whole(named("a"))), at(1));
        board.take(Event::Apply(Decoded::whole(named("b"))), at(1));
        board.take(Event::Init, at(2));
        assert_eq!(board.runtimes.len(), 2, "until the list is whole nothing disappears");
        board.take(Event::InitApply(Decoded::whole(named("b"))), at(2));
        board.take(Event::InitDone, at(2));
        let names: Vec<&String> = board.runtimes.keys().map(|(_, name)| name).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn the_past_is_bounded() {
        let mut board = Board::default();
        for second in 0..1000 {
            let mut runtime = pausing();
            runtime.status.as_mut().unwrap().reason = second.to_string();
            board.take(Event::Apply(Decoded::whole(runtime)), at(second));
        }
        let seen = board.runtimes.values().next().unwrap();
        assert_eq!((seen.transitions.len(), seen.samples.len()), (KEPT, KEPT));
    }
}
