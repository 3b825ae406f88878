//! The list of brakes by itself: what it takes, what it keeps, and by what it lets go.

use proptest::prelude::*;

use super::*;

fn brake(id: &str, epoch: i64) -> Brake {
    Brake { id: id.to_owned(), epoch, state: Desired::Paused, mode: DrainMode::Drain }
}

fn names(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn an_id_of_safe_characters_up_to_128_is_one_and_nothing_else_is() {
    for good in ["a", "6f9619ff-8b86-d011-b42d-00cf4fc964ff.3.x_Y", &"a".repeat(128)] {
        assert!(is_id(good), "{good}");
    }
    for bad in ["", "a b", "a/b", "a\nb", "é", "a\"b", &"a".repeat(129)] {
        assert!(!is_id(bad), "{bad}");
    }
}

#[test]
fn a_ninth_brake_is_refused_and_nothing_is_dropped_for_it() {
    let mut brakes: Brakes = (0..8).map(|n| brake(&n.to_string(), 1)).collect();
    let before = brakes.clone();
    assert_eq!(brakes.set(brake("8", 1)), Err(BrakesFullError));
    assert_eq!(brakes, before);
    assert_eq!(brakes.set(brake("7", 1)), Ok(()), "one that is held already needs no room");
    assert_eq!(brakes, before);
}

#[test]
fn the_same_id_again_only_tightens() {
    let mut brakes = Brakes::default();
    let severe = Brake { state: Desired::Stopped, mode: DrainMode::Checkpoint, ..brake("a", 5) };
    for next in [brake("a", 4), severe.clone(), brake("a", 3)] {
        brakes.set(next).unwrap();
    }
    assert_eq!(brakes.iter().collect::<Vec<_>>(), [&severe]);
}

#[test]
fn a_release_needs_the_name_a_higher_epoch_and_one_not_below_the_pods() {
    for (held, epoch, id, goes) in [
        (3, 6, "a", true),
        (6, 6, "a", true),
        (7, 6, "a", false),
        (3, 5, "a", false),
        (3, 4, "a", false),
        (3, 6, "b", false),
    ] {
        let mut brakes: Brakes = [brake("a", 5)].into_iter().collect();
        assert_eq!(brakes.release(held, epoch, &names(&[id, "unknown"])), goes, "{held} {epoch} {id}");
        assert_eq!(brakes.is_empty(), goes);
    }
}

#[test]
fn a_brake_that_names_no_hold_pauses() {
    let odd = Brake { state: Desired::Running, ..brake("a", 1) };
    let brakes: Brakes = [odd].into_iter().collect();
    assert_eq!(brakes.target(), Desired::Paused);
}

proptest! {
    #[test]
    fn together_they_are_as_severe_as_the_most_severe(list in prop::collection::vec((0usize..12, 0i64..9, 0usize..6), 0..20)) {
        let states = [Desired::Paused, Desired::Stopped];
        let modes = [DrainMode::Drain, DrainMode::Checkpoint, DrainMode::Cancel];
        let mut brakes = Brakes::default();
        for (id, epoch, kind) in list {
            let one = Brake { state: states[kind % 2], mode: modes[kind / 2], ..brake(&id.to_string(), epoch) };
            if brakes.set(one.clone()).is_ok() {
                prop_assert!(brakes.target() >= one.state && brakes.mode() >= one.mode && brakes.epoch() >= epoch);
            }
            prop_assert!(brakes.ids().len() <= MAX_BRAKES);
        }
    }
}
