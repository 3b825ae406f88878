//! Objects that come, go, and change hands.

use k8s_openapi::api::core::v1::ConfigMap;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn owner(name: &str) -> Owner {
    Owner { namespace: "agents".to_owned(), name: name.to_owned() }
}

fn object(name: &str, of: Option<&str>) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some("agents".to_owned());
    object.metadata.name = Some(name.to_owned());
    object.metadata.uid = Some(format!("uid-{name}"));
    object.metadata.labels = of.map(|of| [(RUNTIME_LABEL.to_owned(), of.to_owned())].into());
    object
}

fn names(index: &Index<ConfigMap>, of: &str) -> Vec<String> {
    index.of(&owner(of)).iter().map(|object| object.name_any()).collect()
}

fn change(index: &Index<ConfigMap>, event: Event<ConfigMap>) -> (Vec<Owner>, Vec<String>) {
    let change = index.take_in(event, |_, object| object);
    let mut gone: Vec<String> = change.gone.iter().map(|object| Named::uid(object.as_ref()).to_owned()).collect();
    gone.sort();
    (change.touched, gone)
}

fn take_in(index: &Index<ConfigMap>, event: Event<ConfigMap>) -> Vec<Owner> {
    change(index, event).0
}

#[test]
fn an_object_that_is_relabelled_changes_hands_and_both_are_looked_at() {
    let index = Index::default();
    take_in(&index, Event::Apply(object("x", Some("a"))));
    take_in(&index, Event::Apply(object("y", Some("a"))));
    assert_eq!(take_in(&index, Event::Apply(object("x", Some("b")))), ["a", "b"].map(owner));
    assert_eq!((names(&index, "a"), names(&index, "b")), (vec!["y".to_owned()], vec!["x".to_owned()]));
    assert_eq!(take_in(&index, Event::Apply(object("y", None))), [owner("a")], "it is nobody's now");
    assert_eq!(index.owners(), [owner("b")]);
    // Whatever the last state of a deleted object says, it goes from where it was.
    assert_eq!(take_in(&index, Event::Delete(object("x", Some("a")))), [owner("b")]);
    assert!(index.owners().is_empty());
}

#[test]
fn a_new_list_replaces_everything_and_all_that_it_touches_are_looked_at() {
    let index = Index::default();
    take_in(&index, Event::Apply(object("x", Some("a"))));
    for event in [Event::Init, Event::InitApply(object("z", Some("b")))] {
        assert!(take_in(&index, event).is_empty());
        assert_eq!(names(&index, "a"), ["x"], "until the list is complete");
    }
    let mut touched = take_in(&index, Event::InitDone);
    touched.sort();
    assert_eq!(touched, ["a", "b"].map(owner));
    assert_eq!(index.owners(), [owner("b")]);
    assert_eq!(take_in(&index, Event::Apply(object("z", None))), [owner("b")], "the list counts as the watch does");
}

#[test]
fn what_has_left_its_owner_is_handed_on_however_it_left() {
    let index = Index::default();
    let gone = |event| change(&index, event).1;
    let mut again = object("x", Some("a"));
    again.metadata.uid = Some("another".to_owned());
    for name in ["x", "y", "z", "w"] {
        assert!(gone(Event::Apply(object(name, Some("a")))).is_empty());
    }
    assert!(gone(Event::Apply(object("x", Some("a")))).is_empty(), "it is the same one");
    assert_eq!(gone(Event::Apply(again.clone())), ["uid-x"], "another of its name is there");
    assert_eq!(gone(Event::Delete(object("w", Some("a")))), ["uid-w"]);
    assert!(gone(Event::Delete(object("w", Some("a")))).is_empty(), "once");
    assert_eq!(gone(Event::Apply(object("y", Some("b")))), ["uid-y"], "relabelled");
    // A list that was taken anew, since the watch broke: one is missing in it, one has another owner, one is new.
    assert!(gone(Event::Init).is_empty());
    for shown in [again, object("y", Some("a")), object("v", Some("a"))] {
        assert!(gone(Event::InitApply(shown)).is_empty());
    }
    assert_eq!(gone(Event::InitDone), ["uid-y", "uid-z"]);
    assert!(index.has(&owner("a"), "x", "another") && index.has(&owner("a"), "y", "uid-y"));
    assert!(!index.has(&owner("a"), "x", "uid-x") && !index.has(&owner("b"), "y", "uid-y"));
}

proptest! {
    #[test]
    fn it_holds_what_a_plain_map_of_labels_holds(steps in vec((0..6_u8, prop::option::of(0..3_u8), any::<bool>()), 0..60)) {
        let index = Index::default();
        let mut plain = std::collections::BTreeMap::new();
        for (name, of, deleted) in steps {
            let (name, of) = (format!("x{name}"), of.map(|of| format!("o{of}")));
            let shown = object(&name, of.as_deref());
            if deleted {
                plain.remove(&name);
                take_in(&index, Event::Delete(shown));
            } else {
                plain.insert(name, of);
                take_in(&index, Event::Apply(shown));
            }
            for of in ["o0", "o1", "o2"] {
                let owned = plain.iter().filter(|(_, owner)| owner.as_deref() == Some(of)).map(|(name, _)| name.clone());
                prop_assert_eq!(names(&index, of), owned.collect::<Vec<_>>());
            }
        }
        let owners: HashSet<_> = plain.values().flatten().map(|name| owner(name)).collect();
        prop_assert_eq!(index.owners().into_iter().collect::<HashSet<_>>(), owners);
    }
}
