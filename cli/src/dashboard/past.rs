//! How runtimes changed, and what happened to them before the page was opened, as the cluster's Events say; those are
//! kept for about an hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::runtime::watcher;

/// The Events that are looked at.
pub(super) const OF_RUNTIMES: &str = "involvedObject.kind=AgentRuntime";

/// Namespace and name.
pub(super) type Id = (String, String);

/// A change of what a runtime does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) at: Timestamp,
    pub(super) state: String,
    pub(super) source: String,
    pub(super) reason: String,
    /// A sentence.
    pub(super) says: String,
}

/// One Event: what it says, when first, and when last if it came again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// Of the object, as another may have had its name.
    uid: String,
    reason: String,
    says: String,
    first: Timestamp,
    /// When it was last seen, and how often by then.
    again: Option<(Timestamp, i32)>,
}

/// The Events of every runtime, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    runtimes: BTreeMap<Id, Arc<BTreeMap<String, Told>>>,
    /// Why they cannot be watched.
    pub(super) unknown: Option<String>,
}

impl Past {
    /// Takes what the watch has brought.
    pub(super) fn take(&mut self, event: Result<watcher::Event<Event>, String>) {
        self.unknown = event.as_ref().err().cloned();
        match event {
            Ok(watcher::Event::Init) => self.runtimes.clear(),
            Ok(watcher::Event::InitApply(event) | watcher::Event::Apply(event)) => {
                if let Some((id, name, told)) = read(&event) {
                    Arc::make_mut(self.runtimes.entry(id).or_default()).insert(name, told);
                }
            }
            Ok(watcher::Event::Delete(event)) => {
                let id = id(&event);
                if let Some(told) = self.runtimes.get_mut(&id) {
                    Arc::make_mut(told).remove(&event.metadata.name.unwrap_or_default());
                    if told.is_empty() {
                        self.runtimes.remove(&id);
                    }
                }
            }
            Ok(watcher::Event::InitDone) | Err(_) => {}
        }
    }

    /// What happened to an object before `until`, oldest first.
    pub(super) fn before(&self, id: &Id, uid: &str, until: Timestamp) -> Vec<Transition> {
        let mut all = Vec::new();
        for told in self.runtimes.get(id).into_iter().flat_map(|told| told.values()).filter(|told| told.uid == uid) {
            all.push(told.at(told.first, told.says.clone()));
            // Of those between the first and the last only the number is known.
            if let Some((last, count)) = told.again {
                all.push(told.at(last, format!("{} (the {count}th time)", told.says)));
            }
        }
        all.retain(|transition| transition.at < until);
        all.sort_by_key(|transition| transition.at);
        all
    }
}

impl Told {
    fn at(&self, at: Timestamp, says: String) -> Transition {
        Transition { at, state: String::new(), source: String::new(), reason: self.reason.clone(), says }
    }
}

fn id(event: &Event) -> Id {
    let object = &event.involved_object;
    (object.namespace.clone().unwrap_or_default(), object.name.clone().unwrap_or_default())
}

fn read(event: &Event) -> Option<(Id, String, Told)> {
    let first = event.event_time.as_ref().map(|time| time.0).or(event.first_timestamp.as_ref().map(|time| time.0));
    let series = event
        .series
        .as_ref()
        .and_then(|series| Some((series.last_observed_time.as_ref()?.0, series.count.unwrap_or(0))));
    let counted = || Some((event.last_timestamp.as_ref()?.0, event.count?));
    let told = Told {
        uid: event.involved_object.uid.clone().unwrap_or_default(),
        reason: event.reason.clone().unwrap_or_default(),
        says: event.message.clone().unwrap_or_default(),
        first: first?,
        again: series.or_else(counted).filter(|(_, count)| *count > 1),
    };
    Some((id(event), event.metadata.name.clone()?, told))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, uid: &str, second: u32, series: &serde_json::Value) -> Event {
        let text = json!({
            "metadata": { "name": name, "namespace": "shop" },
            "involvedObject": { "kind": "AgentRuntime", "namespace": "shop", "name": "a", "uid": uid },
            "reason": name, "message": "it is so", "eventTime": format!("2026-01-01T00:00:{second:02}.000000Z"),
            "series": series,
        });
        serde_json::from_str(&text.to_string()).unwrap()
    }

    fn at(second: u32) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}Z").parse().unwrap()
    }

    fn reasons(past: &Past, until: u32) -> Vec<(String, String)> {
        let all = past.before(&("shop".to_owned(), "a".to_owned()), "u", at(until));
        all.into_iter().map(|transition| (transition.reason, transition.says)).collect()
    }

    #[test]
    fn events_before_the_page_was_opened_are_told_in_order_and_of_this_object_alone() {
        let mut past = Past::default();
        let again = json!({ "count": 7, "lastObservedTime": "2026-01-01T00:00:30.000000Z" });
        for event in [
            event("Paused", "u", 20, &again),
            event("Running", "u", 10, &json!(null)),
            event("Stopped", "of the object before", 5, &json!(null)),
        ] {
            past.take(Ok(watcher::Event::Apply(event)));
        }
        let said = |reason: &str, says: &str| (reason.to_owned(), says.to_owned());
        let first = [said("Running", "it is so"), said("Paused", "it is so")];
        assert_eq!(reasons(&past, 30), first);
        assert_eq!(reasons(&past, 31)[2..], [said("Paused", "it is so (the 7th time)")]);
        past.take(Ok(watcher::Event::Delete(event("Running", "u", 10, &json!(null)))));
        assert_eq!(reasons(&past, 30), first[1..]);
    }

    #[test]
    fn a_list_read_anew_replaces_what_was_known_and_a_refusal_is_kept_until_it_ends() {
        let mut past = Past::default();
        past.take(Ok(watcher::Event::Apply(event("Running", "u", 10, &json!(null)))));
        past.take(Err("forbidden".to_owned()));
        assert_eq!((past.unknown.as_deref(), reasons(&past, 30).len()), (Some("forbidden"), 1));
        past.take(Ok(watcher::Event::Init));
        assert_eq!((past.unknown.as_deref(), reasons(&past, 30).len()), (None, 0));
    }
}
