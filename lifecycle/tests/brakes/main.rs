//! Brakes as a bounded model: two leaders with old pictures, either of which may be deposed without noticing; freezes
//! and labels that change; a pod that crashes; a boot file that cannot be written; brakes and commands that come late,
//! twice or never. Every order of events is walked. The pod in it is the product's own `Machine` and `fence`; what the
//! leaders do are the rules of the design, which the controls leave out one by one.
//!
//! What a brake promises begins with the pod's acknowledgement and ends with its reason: the freeze that it was first
//! sent for stops to select the object, as the store has it, be it for a moment.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod leaders;
mod pods;
mod steps;
mod store;
mod world;

use stateright::{Checker as _, Model as _};
use store::Event::{Create, Delete, Edit, RelabelNamespace, RelabelObject};
use world::{Bounds, Broken, Proof, World};

/// Walks a model to its end, prints its size, and gives the first path that breaks the promise.
fn walk(name: &str, bounds: Bounds) -> Option<String> {
    let begun = std::time::Instant::now();
    let checker = steps::Model { bounds }.checker().threads(2).spawn_bfs().join();
    let broken = checker.discovery(steps::PROMISE);
    let found = broken.as_ref().map_or_else(
        || "all walked, nothing found".to_owned(),
        |path| format!("found after {} steps", path.clone().into_actions().len()),
    );
    println!(
        "{name}: {found}; {} states, {} of them distinct, in {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        begun.elapsed().as_secs_f32()
    );
    for reached in [steps::BRAKED, steps::RELEASED] {
        assert!(broken.is_some() || checker.discovery(reached).is_some(), "{reached}: never");
    }
    broken.map(|path| {
        let last: &World = path.last_state();
        format!("{:#?}\n{last:#?}", path.clone().into_actions())
    })
}

fn holds(name: &str, bounds: Bounds) {
    if let Some(path) = walk(name, bounds) {
        panic!("the promise is broken by:\n{path}");
    }
}

/// The bounds of the first walk, in which each control finds its way.
const EDITED_AND_RELABELED: Bounds = Bounds {
    events: &[Edit, RelabelObject],
    happens: 2,
    freezes: 1,
    writes: 2,
    crashes: 0,
    proof: Proof::OneMoment,
    broken: Broken::Nothing,
};

#[test]
fn freeze_edited_and_object_relabeled_keep_the_promise() {
    holds("edited and relabeled", EDITED_AND_RELABELED);
}

#[test]
fn freeze_edited_and_namespace_relabeled_keep_the_promise() {
    holds("namespace", Bounds { events: &[Edit, RelabelNamespace], ..EDITED_AND_RELABELED });
}

#[test]
fn freeze_deleted_and_made_again_keeps_the_promise() {
    holds("deleted", Bounds { events: &[Edit, Delete, Create], ..EDITED_AND_RELABELED });
}

#[test]
fn two_freezes_at_once_keep_the_promise() {
    let events = &[Create, Delete, RelabelObject];
    holds("two freezes", Bounds { events, freezes: 2, ..EDITED_AND_RELABELED });
}

#[test]
fn pod_that_crashes_keeps_the_promise() {
    holds("crash", Bounds { events: &[RelabelObject], crashes: 1, ..EDITED_AND_RELABELED });
}

#[test]
fn three_writes_of_the_boot_file_keep_the_promise() {
    holds("three writes", Bounds { events: &[RelabelObject], writes: 3, ..EDITED_AND_RELABELED });
}

#[test]
fn pod_asked_long_before_the_store_keeps_the_promise() {
    let bounds = Bounds { events: &[RelabelObject], writes: 1, proof: Proof::PodFirst, ..EDITED_AND_RELABELED };
    holds("pod first", bounds);
}

fn is_found(name: &str, bounds: Bounds) {
    assert!(walk(name, bounds).is_some(), "{name}: not found");
}

/// Rule 2.
#[test]
fn brake_without_a_nonce_in_its_id_is_found() {
    is_found("rule 2 left out", Bounds { broken: Broken::Nonce, ..EDITED_AND_RELABELED });
}

/// Rule 7.
#[test]
fn command_that_releases_what_it_does_not_name_is_found() {
    is_found("rule 7 left out", Bounds { broken: Broken::Names, ..EDITED_AND_RELABELED });
}

/// Rule 9.
#[test]
fn command_of_a_file_that_is_not_stored_is_found() {
    is_found("rule 9 left out", Bounds { broken: Broken::Stored, ..EDITED_AND_RELABELED });
}

/// Rule 11.
#[test]
fn release_without_proof_from_the_store_is_found() {
    is_found("rule 11 left out", Bounds { broken: Broken::Proof, ..EDITED_AND_RELABELED });
}

/// Rule 11: "begun after the answer that showed the brake".
#[test]
fn proof_from_before_the_answer_of_the_pod_is_found() {
    is_found("store first", Bounds { proof: Proof::StoreFirst, ..EDITED_AND_RELABELED });
}

/// Rule 12.
#[test]
fn loosening_write_without_confirmation_is_found() {
    is_found("rule 12 left out", Bounds { broken: Broken::Confirm, ..EDITED_AND_RELABELED });
}

/// Rule 12: the store is asked after the file was read that the write replaces.
#[test]
fn proof_from_before_the_replaced_file_is_found() {
    is_found("file last", Bounds { proof: Proof::FileLast, ..EDITED_AND_RELABELED });
}

/// Freezes and labels are read one after the other. A freeze that selects one label more and an object that is given
/// that label then look as if they had parted, which they never did.
#[test]
fn proof_with_labels_younger_than_its_freezes_is_found() {
    is_found("labels last", Bounds { proof: Proof::LabelsLast, ..EDITED_AND_RELABELED });
}

/// The other way about it takes one event more.
#[test]
fn proof_with_labels_older_than_its_freezes_is_found() {
    is_found("freezes last", Bounds { proof: Proof::FreezesLast, happens: 3, ..EDITED_AND_RELABELED });
}
