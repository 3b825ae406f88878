//! Freezes and the labels of namespaces, as their watches showed them last, and whether they can be believed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::{AgentFreeze, AgentRuntime};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::observe::decoded::Decoded;
use crate::observe::fleet::{FleetView, Labels, Turn, Unknown};
use crate::observe::index::Owner;
use crate::plan::freezes;

/// An end that is seen later than this has come before this process looked.
const SEEN_LATE: SignedDuration = SignedDuration::from_secs(5);

/// The objects of the fleet, as often as they are asked for.
pub(crate) type Runtimes<'a> = &'a dyn Fn() -> Vec<Arc<AgentRuntime>>;

/// What an event changed.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Freezes as they were and as they are, where what they ask for changed.
    pub(crate) freezes: Vec<Arc<AgentFreeze>>,
    /// Namespaces whose labels changed.
    pub(crate) namespaces: Vec<String>,
    /// Every object is to be looked at: what was unknown is known again, or the other way round.
    pub(crate) all: bool,
}

/// What the report of all freezes is made from.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Every freeze.
    pub(crate) freezes: Vec<Arc<AgentFreeze>>,
    /// Every namespace.
    pub(crate) namespaces: BTreeMap<String, Labels>,
}

/// Freezes and namespaces.
#[derive(Debug)]
pub(crate) struct Fleet {
    state: Mutex<State>,
    settled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    freezes: Shown<Arc<AgentFreeze>>,
    /// Of which not even the selectors can be read.
    undecodable: Shown<Undecodable>,
    namespaces: Shown<Labels>,
    ended: Vec<Ended>,
    /// What the objects tell of freezes that ended before this process began has been asked for.
    recalled: bool,
}

/// A freeze that has ended, with the places of those that it held.
#[derive(Debug)]
struct Ended {
    freeze: Arc<AgentFreeze>,
    at: Timestamp,
    places: HashMap<Owner, usize>,
}

/// A freeze that cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
struct Undecodable {
    uid: Option<String>,
    generation: Option<i64>,
    why: String,
}

/// The freeze, or what it can be told by from another one.
fn read(freeze: Decoded<AgentFreeze>) -> (String, Result<Arc<AgentFreeze>, Undecodable>) {
    let Decoded { metadata, object, error } = freeze;
    let name = metadata.name.clone().unwrap_or_default();
    if let Some(error) = &error {
        tracing::warn!(kind = "AgentFreeze", name, error, "object_undecodable");
    }
    let bad =
        || Undecodable { uid: metadata.uid.clone(), generation: metadata.generation, why: error.unwrap_or_default() };
    (name, object.map(Arc::new).ok_or_else(bad))
}

/// Objects of one kind by name.
#[derive(Debug)]
struct Shown<T> {
    live: BTreeMap<String, T>,
    // A list under way; it replaces `live` as a whole.
    incoming: BTreeMap<String, T>,
    lost: Option<Unknown>,
    /// The first list has come to its end, or failed.
    settled: bool,
}

impl<T> Default for Shown<T> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), incoming: BTreeMap::new(), lost: None, settled: false }
    }
}

impl<T> Shown<T> {
    /// Takes over the list; gives what stood before and whether it was unknown.
    fn listed(&mut self) -> (BTreeMap<String, T>, bool) {
        let incoming = std::mem::take(&mut self.incoming);
        self.settled = true;
        (std::mem::replace(&mut self.live, incoming), self.lost.take().is_some())
    }

    /// True if it was known.
    fn lose(&mut self, why: String, now: Timestamp) -> bool {
        self.settled = true;
        let known = self.lost.is_none();
        let since = self.lost.as_ref().map_or(now, |lost| lost.since);
        self.lost = Some(Unknown { since, why });
        known
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self { state: Mutex::default(), settled: watch::Sender::new(false) }
    }
}

impl Fleet {
    /// Takes in an event of the freezes' watch, or why it failed.
    pub(crate) fn freezes(
        &self,
        event: Result<Event<Decoded<AgentFreeze>>, String>,
        now: Timestamp,
        runtimes: Runtimes<'_>,
    ) -> Changed {
        let mut state = self.lock();
        let mut changed = Changed::default();
        match event {
            Err(why) => changed.all = state.freezes.lose(format!("agentfreezes: {why}"), now),
            Ok(Event::Init) => {
                state.freezes.incoming.clear();
                state.undecodable.incoming.clear();
            }
            Ok(Event::InitApply(freeze)) => match read(freeze) {
                (name, Ok(freeze)) => drop(state.freezes.incoming.insert(name, freeze)),
                (name, Err(bad)) => drop(state.undecodable.incoming.insert(name, bad)),
            },
            Ok(Event::InitDone) => {
                let (before, was_unknown) = state.freezes.listed();
                let (bad, _) = state.undecodable.listed();
                changed.all = was_unknown || bad != state.undecodable.live;
                let added: Vec<_> = state
                    .freezes
                    .live
                    .iter()
                    .filter(|(name, _)| !before.contains_key(*name))
                    .map(|(_, f)| Arc::clone(f))
                    .collect();
                changed.freezes.extend(added);
                for (name, old) in before {
                    let new = state.freezes.live.get(&name).cloned();
                    state.replaced(Some(old), new, now, runtimes, &mut changed);
                }
            }
            Ok(Event::Apply(freeze)) => {
                let (name, freeze) = read(freeze);
                let was_bad = state.undecodable.live.remove(&name).is_some();
                let (new, bad) = match freeze {
                    Ok(freeze) => (Some(freeze), None),
                    Err(bad) => (None, Some(bad)),
                };
                changed.all = was_bad || bad.is_some();
                state.undecodable.live.extend(bad.map(|bad| (name.clone(), bad)));
                let old = match &new {
                    Some(new) => state.freezes.live.insert(name, Arc::clone(new)),
                    None => state.freezes.live.remove(&name),
                };
                // What it asks for is not known any more; that it has ended is not either.
                let old = old.filter(|_| new.is_some());
                state.replaced(old, new, now, runtimes, &mut changed);
            }
            Ok(Event::Delete(freeze)) => {
                let name = freeze.name_any();
                changed.all = state.undecodable.live.remove(&name).is_some();
                let old = state.freezes.live.remove(&name);
                state.replaced(old, None, now, runtimes, &mut changed);
            }
        }
        self.settle(&state);
        changed
    }

    /// There are no freezes, by the operator's own settings.
    pub(crate) fn ignore(&self) {
        let mut state = self.lock();
        state.freezes.settled = true;
        state.namespaces.settled = true;
        self.settle(&state);
    }

    /// Takes in an event of the namespaces' watch, or why it failed.
    pub(crate) fn namespaces(&self, event: Result<Event<impl ResourceExt>, String>, now: Timestamp) -> Changed {
        let mut state = self.lock();
        let shown = &mut state.namespaces;
        let mut changed = Changed::default();
        match event {
            Err(why) => changed.all = shown.lose(format!("namespaces: {why}"), now),
            Ok(Event::Init) => shown.incoming.clear(),
            Ok(Event::InitApply(space)) => {
                shown.incoming.insert(space.name_any(), space.labels().clone());
            }
            Ok(Event::InitDone) => {
                let (before, was_unknown) = shown.listed();
                changed.all = was_unknown;
                let differs = |(name, labels): &(&String, &Labels)| before.get(*name) != Some(*labels);
                changed.namespaces = shown.live.iter().filter(differs).map(|(name, _)| name.clone()).collect();
            }
            Ok(Event::Apply(space)) => {
                let labels = space.labels().clone();
                if shown.live.insert(space.name_any(), labels.clone()) != Some(labels) {
                    changed.namespaces.push(space.name_any());
                }
            }
            Ok(Event::Delete(space)) => {
                shown.live.remove(&space.name_any());
            }
        }
        self.settle(&state);
        changed
    }

    /// What may hold one object.
    pub(crate) fn view(&self, owner: &Owner, now: Timestamp, runtimes: Runtimes<'_>) -> FleetView {
        let mut state = self.lock();
        state.recall(now, runtimes);
        state.note_expired(now, runtimes);
        let turn = |ended: &Ended| {
            let rank = *ended.places.get(owner)?;
            Some(Turn { freeze: Arc::clone(&ended.freeze), ended: ended.at, rank })
        };
        let namespace = state.namespaces.live.get(&owner.namespace);
        let bad = || state.undecodable.live.iter();
        let unknown = bad().next().map(|(name, bad)| Unknown {
            since: Timestamp::UNIX_EPOCH,
            why: format!("AgentFreeze {name} cannot be decoded: {}", bad.why),
        });
        FleetView {
            freezes: state.freezes.live.values().cloned().collect(),
            turns: state.ended.iter().filter_map(turn).collect(),
            namespace: namespace.filter(|_| !state.freezes.live.is_empty()).cloned(),
            undecodable: bad().map(|(_, bad)| (bad.uid.clone(), bad.generation)).collect(),
            unknown: state.freezes.lost.clone().or_else(|| state.namespaces.lost.clone()).or(unknown),
        }
    }

    /// What the freezes' statuses are made from; none while it cannot be believed, or there is no freeze.
    pub(crate) fn picture(&self) -> Option<Picture> {
        let state = self.lock();
        let known = state.freezes.lost.is_none() && state.namespaces.lost.is_none();
        (known && !state.freezes.live.is_empty()).then(|| Picture {
            freezes: state.freezes.live.values().cloned().collect(),
            namespaces: state.namespaces.live.clone(),
        })
    }

    /// Notes a freeze whose status was written, unless the watch has shown something else meanwhile.
    pub(crate) fn wrote(&self, before: &AgentFreeze, written: AgentFreeze) {
        let mut state = self.lock();
        if let Some(shown) = state.freezes.live.get_mut(&before.name_any())
            && shown.resource_version() == before.resource_version()
        {
            *shown = Arc::new(written);
        }
    }

    /// Whether there is any freeze.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().freezes.live.is_empty()
    }

    /// When the next freeze ends by itself.
    pub(crate) fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        self.lock().freezes.live.values().filter_map(|freeze| freezes::expires(freeze)).filter(|end| *end > now).min()
    }

    /// Waits until both watches have shown everything, or failed.
    pub(crate) async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = settled.wait_for(|done| *done).await;
    }

    fn settle(&self, state: &State) {
        if state.freezes.settled && state.namespaces.settled {
            self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A freeze was shown anew, or is gone.
    fn replaced(
        &mut self,
        old: Option<Arc<AgentFreeze>>,
        new: Option<Arc<AgentFreeze>>,
        now: Timestamp,
        runtimes: Runtimes<'_>,
        changed: &mut Changed,
    ) {
        let key = |freeze: &Arc<AgentFreeze>| (freeze.uid(), freeze.metadata.generation);
        if old.as_ref().map(key) == new.as_ref().map(key) {
            return;
        }
        if let Some(old) = old.as_ref().filter(|old| new.as_ref().is_none_or(|new| new.uid() != old.uid())) {
            self.end(old, now, runtimes);
        }
        changed.freezes.extend(old.into_iter().chain(new));
    }

    /// A freeze is gone. If it had ended before, those that it held go on in the order begun.
    fn end(&mut self, freeze: &Arc<AgentFreeze>, now: Timestamp, runtimes: Runtimes<'_>) {
        let resumed = |ended: &Ended| freezes::all_resumed(&ended.freeze, ended.at, ended.places.len()) <= now;
        let live = &self.freezes.live;
        self.ended.retain(|ended| live.contains_key(&ended.freeze.name_any()) || !resumed(ended));
        if !self.has_ended(freeze) {
            self.note_end(freeze, now, runtimes);
        }
    }

    /// Freezes that were deleted while another process led, or none.
    fn recall(&mut self, now: Timestamp, runtimes: Runtimes<'_>) {
        if self.recalled || !self.freezes.settled || self.freezes.lost.is_some() {
            return;
        }
        self.recalled = true;
        let all = runtimes();
        let gone = freezes::recall(all.iter().map(AsRef::as_ref), |name| self.freezes.live.contains_key(name));
        self.ended.extend(gone.into_iter().map(|(freeze, places)| Ended { freeze: Arc::new(freeze), at: now, places }));
    }

    /// Freezes that have ended by themselves and are there still.
    fn note_expired(&mut self, now: Timestamp, runtimes: Runtimes<'_>) {
        let expired: Vec<_> = self
            .freezes
            .live
            .values()
            .filter(|freeze| !self.has_ended(freeze))
            .filter_map(|freeze| Some((Arc::clone(freeze), freezes::expires(freeze).filter(|end| *end <= now)?)))
            .collect();
        for (freeze, at) in expired {
            self.note_end(&freeze, at, runtimes);
            // It ended before this process began to look: those that it still holds go on from now.
            if now.duration_since(at) > SEEN_LATE
                && let Some(ended) = self.ended.last_mut()
            {
                let held = freezes::held(&freeze, &runtimes());
                ended.places.retain(|owner, _| held.contains(owner));
                ended.at = now;
            }
        }
        let gone = |ended: &Ended| freezes::all_resumed(&ended.freeze, ended.at, ended.places.len()) <= now;
        self.ended.iter_mut().filter(|ended| gone(ended)).for_each(|ended| ended.places.clear());
    }

    fn note_end(&mut self, freeze: &Arc<AgentFreeze>, at: Timestamp, runtimes: Runtimes<'_>) {
        let all = runtimes();
        let places = freezes::order(freeze, all.iter().map(AsRef::as_ref), &self.namespaces.live);
        self.ended.retain(|ended| ended.freeze.uid() != freeze.uid());
        self.ended.push(Ended { freeze: Arc::clone(freeze), at, places });
    }

    fn has_ended(&self, freeze: &AgentFreeze) -> bool {
        let same = |ended: &Ended| {
            ended.freeze.uid() == freeze.uid() && ended.freeze.metadata.generation == freeze.metadata.generation
        };
        self.ended.iter().any(same)
    }
}

#[cfg(test)]
mod tests {
    use crds::{AgentRuntimeSpec, AgentRuntimeStatus, DesiredState};

    use super::*;

    fn frozen(name: &str) -> Arc<AgentRuntime> {
        let mut runtime = AgentRuntime::new(name, AgentRuntimeSpec::default());
        runtime.metadata.namespace = Some("shop".to_owned());
        runtime.status = Some(AgentRuntimeStatus {
            source: "Freeze gone".to_owned(),
            desired_state: Some(DesiredState::Paused),
            resume_per_second: Some(1),
            ..AgentRuntimeStatus::default()
        });
        Arc::new(runtime)
    }

    #[test]
    fn a_new_leader_lets_those_of_a_deleted_freeze_go_one_after_the_other() {
        let now = Timestamp::UNIX_EPOCH;
        let fleet = Fleet::default();
        let runtimes = || vec![frozen("b"), frozen("a")];
        let ranks = || {
            let rank = |name: &str| {
                let owner = Owner { namespace: "shop".to_owned(), name: name.to_owned() };
                fleet.view(&owner, now, &runtimes).turns.first().map(|turn| turn.rank)
            };
            (rank("a"), rank("b"))
        };
        fleet.freezes(Err("forbidden".to_owned()), now, &runtimes);
        assert_eq!(ranks(), (None, None), "while freezes cannot be read nothing goes anyway");
        fleet.freezes(Ok(Event::Init), now, &runtimes);
        fleet.freezes(Ok(Event::InitDone), now, &runtimes);
        assert_eq!(ranks(), (Some(0), Some(1)));
    }
}
