//! Which objects a freeze selects, and the order in which they go back to work.

use crds::{AgentFreezeSpec, AgentRuntimeSpec, DesiredState};
use crds::{AgentRuntimeStatus, RuntimeState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn equals(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(labels(&[(key, value)])), match_expressions: None }
}

fn freeze(spec: AgentFreezeSpec) -> AgentFreeze {
    let mut freeze = AgentFreeze::new("stop", spec);
    freeze.metadata.uid = Some("freeze-1".to_owned());
    freeze.metadata.generation = Some(1);
    freeze
}

fn runtime(name: &str, desired: DesiredState, state: Option<RuntimeState>) -> AgentRuntime {
    let mut runtime = AgentRuntime::new(name, AgentRuntimeSpec::default());
    runtime.metadata.namespace = Some("shop".to_owned());
    runtime.status = Some(AgentRuntimeStatus { desired_state: Some(desired), state, ..AgentRuntimeStatus::default() });
    runtime
}

fn spaces() -> BTreeMap<String, Labels> {
    BTreeMap::from([("shop".to_owned(), Labels::new())])
}

#[test]
fn a_freeze_selects_by_the_labels_of_namespaces_and_of_runtimes() {
    let all = freeze(AgentFreezeSpec::default());
    assert_eq!(selects(&all, None, &Labels::new()), Some(true), "{{}} is all, whatever the namespace");
    let narrow = freeze(AgentFreezeSpec {
        namespace_selector: equals("team", "red"),
        runtime_selector: Some(equals("model", "m1")),
        ..AgentFreezeSpec::default()
    });
    let (red, blue) = (labels(&[("team", "red")]), labels(&[("team", "blue")]));
    let (m1, m2) = (labels(&[("model", "m1")]), labels(&[("model", "m2")]));
    assert_eq!(selects(&narrow, Some(&red), &m1), Some(true));
    assert_eq!(selects(&narrow, Some(&blue), &m1), Some(false));
    assert_eq!(selects(&narrow, Some(&red), &m2), Some(false));
    assert_eq!(selects(&narrow, None, &m2), Some(false), "its own labels decide");
    assert_eq!(selects(&narrow, None, &m1), None, "its namespace has not been seen");
}

#[test]
fn a_selector_that_cannot_be_read_selects_nobody_knows_what() {
    let odd = LabelSelectorRequirement { key: "a".to_owned(), operator: "Near".to_owned(), values: None };
    let selector = LabelSelector { match_labels: None, match_expressions: Some(vec![odd]) };
    let freeze = freeze(AgentFreezeSpec { namespace_selector: selector, ..AgentFreezeSpec::default() });
    assert_eq!(selects(&freeze, Some(&Labels::new()), &Labels::new()), None);
}

proptest! {
    /// At most so many of those that a freeze held go back to work in any second, and each does.
    #[test]
    fn no_second_sees_more_go_back_to_work_than_the_freeze_allows(each_second in 1i32..20, count in 0usize..60) {
        let spec = AgentFreezeSpec { resume_per_second: Some(each_second), ..AgentFreezeSpec::default() };
        let freeze = std::sync::Arc::new(freeze(spec));
        let many: Vec<_> = (0..count).map(|n| runtime(&format!("r{n}"), DesiredState::Paused, None)).collect();
        let places = order(&freeze, many.iter(), &spaces());
        prop_assert_eq!(&places, &order(&freeze, many.iter().rev(), &spaces()), "another operator comes to the same order");
        let turns: Vec<Timestamp> = places
            .values()
            .map(|rank| not_before(&freeze, at(0), *rank))
            .collect();
        for begin in 0..i64::try_from(count).unwrap() {
            let within = turns.iter().filter(|turn| **turn >= at(begin) && **turn < at(begin + 1)).count();
            prop_assert!(within <= usize::try_from(each_second).unwrap());
        }
        prop_assert!(turns.iter().all(|turn| *turn <= all_resumed(&freeze, at(0), count)));
        for rank in places.values() {
            let place = Turn { freeze: std::sync::Arc::clone(&freeze), ended: at(0), rank: *rank };
            let comes = not_before(&freeze, at(0), *rank);
            prop_assert!(turn(&place, comes).is_none(), "its turn has come");
        }
    }
}

#[test]
fn another_operator_keeps_to_the_rate_of_a_freeze_that_is_gone() {
    let mut held = Vec::new();
    for (name, source, rate) in [
        ("b", "Freeze gone", Some(2)),
        ("a", "Freeze gone", Some(2)),
        ("c", "Freeze gone", None),
        ("d", "Freeze live", Some(1)),
        ("e", "Spec", None),
    ] {
        let mut one = runtime(name, DesiredState::Paused, Some(RuntimeState::Paused));
        let status = one.status.as_mut().unwrap();
        (status.source, status.resume_per_second) = (source.to_owned(), rate);
        held.push(one);
    }
    let gone = recall(held.iter(), |name| name == "live");
    assert_eq!(gone.len(), 1);
    let (freeze, places) = &gone[0];
    assert_eq!((freeze.name_any().as_str(), freeze.spec.resume_per_second), ("gone", Some(2)));
    let place = |name: &str| places.get(&Owner { namespace: "shop".to_owned(), name: name.to_owned() }).copied();
    assert_eq!((place("a"), place("b"), place("c")), (Some(0), Some(1), None));
}
