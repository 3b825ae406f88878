//! Snapshots of what people see.

use serde_json::json;

use super::*;

pub(crate) fn pausing() -> AgentRuntime {
    serde_json::from_value(json!({
        "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime",
        "metadata": {"name": "site-watch", "namespace": "shop", "generation": 4},
        "spec": {"desiredState": "paused", "replicas": 2},
        "status": {
            "observedGeneration": 4, "epoch": 7, "desiredState": "paused", "source": "Spec", "reason": "Pausing",
            "state": "pausing", "replicas": 2, "acknowledgedReplicas": 2, "inFlight": 1, "waitingForInput": 0,
            "queued": 3, "drainDeadline": "2026-11-25T10:00:30Z",
            "pods": [
                {"name": "site-watch-a", "uid": "1", "state": "pausing", "acknowledgedEpoch": 7, "inFlight": 1, "heldBy": ["0197 at fetch"]},
                {"name": "site-watch-b", "uid": "2", "state": "paused", "acknowledgedEpoch": 7, "inFlight": 0},
            ],
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "Pausing", "message": "1 of 2 pods are paused", "lastTransitionTime": "2026-11-25T10:00:00Z"},
            ],
        },
    }))
    .unwrap()
}

#[test]
fn a_pause_on_its_way_names_who_holds_it_up() {
    insta::assert_snapshot!(tree(&[pausing()], false));
    insta::assert_snapshot!(progress(&pausing()));
}

#[test]
fn wide_adds_epoch_source_deadline_and_message() {
    insta::assert_snapshot!(tree(&[pausing()], true));
}

#[test]
fn without_a_status_nothing_is_claimed() {
    let mut fresh = pausing();
    fresh.status = None;
    insta::assert_snapshot!(tree(&[fresh.clone()], false));
    assert_eq!(progress(&fresh), "the operator has not answered yet");
    assert_eq!(tree(&[], false), "No agentruntimes found.\n");
}

#[test]
fn executions_stand_with_their_pods() {
    let one = json!({"id": "0197", "entry_point": "tick", "state": "running"});
    insta::assert_snapshot!(executions(&[("site-watch-a".to_owned(), one)]));
}
