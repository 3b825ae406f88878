//! The Events that wait: what people need most comes first and is lost last.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::Event;

/// An Event that waits.
pub(super) struct Entry {
    pub(super) about: ObjectReference,
    pub(super) event: Event,
    /// A warning, or the record of a freeze.
    pub(super) important: bool,
}

/// The object's UID and the reason: what is said again is said by the newest.
type Key = (String, String);

/// Less important ones come later, and so do those that came later.
type Place = (bool, u64);

/// Events by importance, then in the order in which they came.
#[derive(Default)]
pub(super) struct Waiting {
    entries: BTreeMap<Place, Entry>,
    places: HashMap<Key, Place>,
    came: u64,
}

fn key(entry: &Entry) -> Key {
    (entry.about.uid.clone().unwrap_or_default(), entry.event.reason.clone())
}

impl Waiting {
    /// Takes one in, in place of an older one of the same object and reason. Gives back the one that has no room: of the
    /// least important ones the newest.
    pub(super) fn put(&mut self, entry: Entry, most: usize) -> Option<Entry> {
        let key = key(&entry);
        let older = self.places.remove(&key);
        if let Some(place) = older {
            self.entries.remove(&place);
        }
        self.came += 1;
        let turn = older.map_or(self.came, |(_, came)| came);
        let place = (!entry.important, turn);
        self.places.insert(key, place);
        self.entries.insert(place, entry);
        if self.entries.len() > most { self.entries.pop_last().map(|(_, entry)| self.forget(entry)) } else { None }
    }

    /// The next one to publish.
    pub(super) fn take(&mut self) -> Option<Entry> {
        self.entries.pop_first().map(|(_, entry)| self.forget(entry))
    }

    fn forget(&mut self, entry: Entry) -> Entry {
        self.places.remove(&key(&entry));
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kube::runtime::events::EventType;
    use proptest::prelude::*;

    use super::*;

    fn entry(object: u8, reason: u8, important: bool, note: usize) -> Entry {
        Entry {
            about: ObjectReference { uid: Some(format!("u{object}")), ..ObjectReference::default() },
            event: Event {
                type_: EventType::Normal,
                reason: format!("R{reason}"),
                note: Some(note.to_string()),
                action: "Reconcile".to_owned(),
                secondary: None,
            },
            important,
        }
    }

    proptest! {
        /// Whatever comes: at most so many wait, none twice, each with its newest note, important ones first; and an
        /// important one is lost only when nothing but important ones wait.
        #[test]
        fn what_is_lost_is_the_least_important(
            all in proptest::collection::vec((0u8..6, 0u8..3, any::<bool>()), 0..60),
            most in 1usize..8,
        ) {
            let mut waiting = Waiting::default();
            let mut newest: HashMap<Key, String> = HashMap::new();
            for (note, (object, reason, important)) in all.into_iter().enumerate() {
                let one = entry(object, reason, important, note);
                newest.insert(key(&one), note.to_string());
                if let Some(lost) = waiting.put(one, most) {
                    newest.remove(&key(&lost));
                    prop_assert!(!lost.important || waiting.entries.values().all(|entry| entry.important));
                }
                prop_assert!(waiting.entries.len() <= most);
                prop_assert_eq!(waiting.entries.len(), waiting.places.len());
            }
            let mut seen = HashSet::new();
            let mut before = true;
            while let Some(entry) = waiting.take() {
                prop_assert!(before || !entry.important, "an important one comes after another");
                before = entry.important;
                prop_assert_eq!(entry.event.note.as_ref(), newest.get(&key(&entry)));
                prop_assert!(seen.insert(key(&entry)));
            }
            prop_assert_eq!(seen.len(), newest.len());
            prop_assert!(waiting.places.is_empty());
        }
    }
}
