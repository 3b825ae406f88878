//! Which keys stand in a boot file, which of them signs, and when the key Secret changes.
//!
//! A new key is published first, in every boot file. A pod is spoken to by the newest key that it says it
//! holds, and by the oldest while it has said nothing, so that no mount that lags behind refuses a command.
//! The old key ends when every pod holds the new one.

use crds::{AgentRuntime, CommandAuth};
use jiff::{SignedDuration, Timestamp};
use lifecycle::BootFile;
use lifecycle::wire::Status;

use super::names::uid_of;
use super::policy::is_left_alone;
use crate::observe::Observed;

/// How long the old key waits for pods that do not say that they hold the new one. Such a pod is out of
/// reach, or lies; neither may keep an old key alive.
const PATIENCE: SignedDuration = SignedDuration::from_hours(24);

/// What a call to a pod is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The public half of the key.
    pub key: String,
    /// UID of the AgentRuntime.
    pub runtime_uid: String,
    /// The epoch in force.
    pub epoch: i64,
}

/// The keys that the boot file of an object is to name, newest first; none where commands are not signed. One that
/// is left alone goes on as its present file says.
pub(super) fn named(seen: &Observed, current: Option<&BootFile>) -> Vec<String> {
    let signed = match current.filter(|_| is_left_alone(seen)) {
        Some(file) => !file.keys.is_empty(),
        None => seen.runtime.spec.lifecycle.auth == CommandAuth::Signed,
    };
    if signed { seen.keys.to_vec() } else { Vec::new() }
}

/// What calls to a pod are signed with, from what it said last.
pub(super) fn signer(runtime: &AgentRuntime, file: &BootFile, heard: Option<&Status>) -> Option<Signer> {
    let held = heard.map(|status| status.keys.as_slice()).unwrap_or_default();
    let key = file.keys.iter().find(|key| held.contains(key)).or_else(|| file.keys.last())?;
    Some(Signer { key: key.clone(), runtime_uid: uid_of(runtime).to_owned(), epoch: file.epoch })
}

/// A key of the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its public half.
    pub public: String,
    /// When it was made.
    pub created: Timestamp,
}

/// How far keys have come with one object whose commands are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// What its boot file names.
    pub named: Vec<String>,
    /// What each running pod said it holds; nothing for one that has not answered.
    pub held: Vec<Vec<String>>,
}

/// What is to be done about the key Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Make the first key: there is none, or none that can be read.
    Create,
    /// Make a second key, which is published before it signs.
    Rotate,
    /// Take the older key away.
    Retire,
}

/// Decides what is to be done about the key Secret. `ring` is newest first; `asked` says that somebody
/// asked for a rotation.
#[must_use]
pub fn step(ring: &[KeyFacts], asked: bool, reach: &[Reach], max_age: SignedDuration, now: Timestamp) -> Step {
    let Some(newest) = ring.first() else { return Step::Create };
    let age = now.duration_since(newest.created);
    if ring.len() < 2 {
        return if asked || age >= max_age { Step::Rotate } else { Step::Keep };
    }
    let published = reach.iter().all(|one| one.named.contains(&newest.public));
    let held = reach.iter().flat_map(|one| &one.held).all(|keys| keys.contains(&newest.public));
    if published && (held || age >= PATIENCE) { Step::Retire } else { Step::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: SignedDuration = SignedDuration::from_hours(24 * 90);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hours * 3600).unwrap()
    }

    fn ring(keys: &[(&str, i64)]) -> Vec<KeyFacts> {
        keys.iter().map(|(public, hours)| KeyFacts { public: (*public).to_owned(), created: at(*hours) }).collect()
    }

    fn reach(named: &[&str], held: &[&[&str]]) -> Reach {
        let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Reach { named: owned(named), held: held.iter().map(|keys| owned(keys)).collect() }
    }

    #[test]
    fn the_first_key_is_made_and_kept_until_it_is_old_or_somebody_asks() {
        assert_eq!(step(&[], false, &[], MAX_AGE, at(0)), Step::Create);
        let one = ring(&[("a", 0)]);
        assert_eq!(step(&one, false, &[], MAX_AGE, at(24 * 90 - 1)), Step::Keep);
        assert_eq!(step(&one, false, &[], MAX_AGE, at(24 * 90)), Step::Rotate);
        assert_eq!(step(&one, true, &[], MAX_AGE, at(1)), Step::Rotate);
    }

    #[test]
    fn the_old_key_ends_when_every_file_names_and_every_pod_holds_the_new_one() {
        let two = ring(&[("b", 0), ("a", -1)]);
        let at_once = |all: &[Reach]| step(&two, true, all, MAX_AGE, at(0));
        assert_eq!(at_once(&[]), Step::Retire);
        assert_eq!(at_once(&[reach(&["b", "a"], &[&["b", "a"], &["b"]])]), Step::Retire);
        let good = reach(&["b", "a"], &[&["b", "a"]]);
        for lagging in [reach(&["a"], &[]), reach(&["b", "a"], &[&["a"]]), reach(&["b", "a"], &[&["b"], &[]])] {
            assert_eq!(at_once(&[good.clone(), lagging]), Step::Keep);
        }
    }

    #[test]
    fn a_pod_that_never_takes_up_the_new_key_holds_the_old_one_up_for_a_day_and_a_file_for_as_long_as_it_takes() {
        let two = ring(&[("b", 0), ("a", -1)]);
        let silent = [reach(&["b", "a"], &[&[]])];
        assert_eq!(step(&two, false, &silent, MAX_AGE, at(23)), Step::Keep);
        assert_eq!(step(&two, false, &silent, MAX_AGE, at(24)), Step::Retire);
        let unpublished = [reach(&["a"], &[])];
        assert_eq!(step(&two, false, &unpublished, MAX_AGE, at(24 * 365)), Step::Keep);
    }
}
