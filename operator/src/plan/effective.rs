//! What an object is to be now: the most severe of its spec, its windows and the freezes that hold it.

use std::cmp::Reverse;
use std::time::Duration;

use crds::AgentRuntime;
use jiff::Timestamp;
use kube::ResourceExt as _;
use lifecycle::{Desired, DrainMode};

use super::policy::{self, Policy, RECONCILE_ANNOTATION, held, in_force, is_disabled, is_left_alone};
use super::spans::until;
use super::{freezes, releases, windows};
use crate::observe::{Legible, Observed};

/// The source of what is paused because its pods are replaced.
const ROLLOUT: &str = "Rollout";

/// How long freezes may be unknown before an object that is not held back says so: watches break and come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an object is to be now, and why.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    pub(super) policy: Policy,
    /// What decided, as status names it: Spec, Window and its name, Freeze and its name.
    pub(super) source: String,
    /// What decided.
    pub(super) kind: Kind,
    /// The UID and the generation of the freeze that decided; none if something else did.
    pub(super) freeze: Option<(String, i64)>,
    /// A freeze holds it, whatever decided.
    pub(super) frozen: bool,
    /// The reason that people gave for it.
    pub(super) why: String,
    /// How many go back to work each second after the freeze that decided.
    pub(super) resume_per_second: Option<i32>,
    /// How long until it may be otherwise though nothing happens.
    pub(super) edge: Option<Duration>,
    /// What is wrong with it, though the rest is obeyed: a reason and a sentence.
    pub(super) trouble: Option<(&'static str, String)>,
    /// The object's spec and children are left alone.
    pub(super) disabled: bool,
}

impl Effective {
    /// Whether its children stay as they are: it asks for that, is being deleted, or its children cannot be listed.
    pub(super) fn leaves_children(&self, seen: &Observed) -> bool {
        self.disabled || seen.runtime.metadata.deletion_timestamp.is_some() || seen.unlisted.is_some()
    }

    /// Keeps what is in force as long as something is to be done before it changes.
    pub(super) fn hold_back(&mut self, seen: &Observed, holds: bool) {
        if let Some(file) = in_force(seen).filter(|_| holds) {
            self.policy = Policy::from(file);
        }
    }
}

/// What may ask for a state. Of two that ask for the same, the later one is named: it takes longer to get rid of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// What stood before, where nothing better is known.
    Kept,
    /// spec.desiredState.
    Spec,
    /// Pods that run are drained before others replace them.
    Rollout,
    /// A maintenance window.
    Window,
    /// A freeze.
    Freeze,
}

/// One asks for a state.
#[derive(Clone, Debug)]
struct Claim {
    kind: Kind,
    name: String,
    desired: Desired,
    mode: DrainMode,
    deadline_seconds: i64,
    why: String,
    resume_per_second: Option<i32>,
    /// The UID and the generation of a freeze.
    freeze: Option<(String, i64)>,
}

impl Claim {
    fn of(kind: Kind, name: &str, desired: Desired, own: &Policy) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            desired,
            mode: own.mode,
            deadline_seconds: own.deadline_seconds,
            why: String::new(),
            resume_per_second: None,
            freeze: None,
        }
    }

    fn source(&self) -> String {
        match self.kind {
            Kind::Kept => self.name.clone(),
            Kind::Spec => "Spec".to_owned(),
            Kind::Rollout => ROLLOUT.to_owned(),
            Kind::Window => format!("Window {}", self.name),
            Kind::Freeze => format!("{}{}", freezes::SOURCE, self.name),
        }
    }
}

/// Decides. A window that cannot be used asks for nothing, unless it is what holds the object at present: a
/// slip of the pen must not let it go. Where freezes cannot be read, nothing is let go.
///
/// `drains` says that pods are to be idle before others replace them, which only what runs asks for.
pub(super) fn decide(seen: &Observed, drains: bool, now: Timestamp) -> Effective {
    let runtime = seen.runtime.as_ref();
    let disabled = is_left_alone(seen);
    let own = own(seen, disabled);
    let mut edges = Vec::new();
    let mut trouble = is_disabled(runtime).then(|| {
        let what =
            format!("{RECONCILE_ANNOTATION} is disabled: its spec and children are left alone; remove the annotation");
        ("Disabled", what)
    });
    let mut claims = Vec::new();
    if !disabled {
        let wrong = from_windows(runtime, &own, now, &mut claims, &mut edges);
        trouble = wrong.map(|why| ("InvalidWindow", why));
    }
    let unsure = from_freezes(seen, &own, now, &mut claims, &mut edges);
    let frozen = claims.iter().any(|claim| claim.kind == Kind::Freeze);
    claims.push(base(seen, &own, disabled, frozen));
    if drains && claims.iter().all(|claim| claim.desired == Desired::Running) {
        claims.push(Claim::of(Kind::Rollout, "", Desired::Paused, &own));
    }
    let mut effective = most_severe(claims, own, disabled);
    if let Some(unknown) = unsure {
        let floor = floor(seen, &effective.policy);
        let holds = floor.desired > effective.policy.desired;
        if holds {
            effective.source =
                present(runtime).map_or_else(|| "FreezesUnknown".to_owned(), |(source, _)| source.to_owned());
            (effective.policy, effective.kind, effective.why) = (floor, Kind::Kept, String::new());
            effective.freeze = None;
            effective.resume_per_second = runtime.status.as_ref().and_then(|status| status.resume_per_second);
        }
        let said_at = unknown.since + PATIENCE;
        if holds || said_at <= now {
            let why = format!("freezes cannot be read, so nothing is resumed or started: {}", unknown.why);
            trouble = Some(("FreezesUnknown", why));
        } else {
            edges.push(said_at);
        }
    }
    effective.trouble = trouble;
    effective.edge = edges.into_iter().filter_map(|edge| until(now, edge)).min();
    effective
}

/// What status says of the present state: what decided it, and the state.
fn present(runtime: &AgentRuntime) -> Option<(&str, Desired)> {
    let status = runtime.status.as_ref()?;
    Some((status.source.as_str(), policy::desired(status.desired_state?)))
}

/// How the object is drained by itself. One that is left alone keeps what it was commanded last.
fn own(seen: &Observed, disabled: bool) -> Policy {
    let spec = Policy::of(&seen.runtime);
    match in_force(seen).filter(|_| disabled) {
        Some(file) => Policy { desired: spec.desired, ..Policy::from(file) },
        None => spec,
    }
}

/// What the object is to be without windows and freezes. One that is left alone stays as it was, except that
/// what a freeze made of it does not outlive the freeze.
fn base(seen: &Observed, own: &Policy, disabled: bool, frozen: bool) -> Claim {
    let runtime = seen.runtime.as_ref();
    match present(runtime) {
        // Neither its spec nor its status can be read: it is held as the boot file says, or else at rest.
        None if disabled && matches!(seen.legible, Legible::MetadataAlone(_)) => {
            let held = in_force(seen).map_or(Desired::Paused, |file| file.state);
            Claim::of(Kind::Kept, "", held, own)
        }
        Some((source, desired)) if disabled && !source.starts_with("Freeze") && source != ROLLOUT => {
            // A file that no status tells of yet is newer.
            let newer = in_force(seen).filter(|file| runtime.status.as_ref().is_none_or(|s| s.epoch < file.epoch));
            Claim::of(Kind::Kept, source, newer.map_or(desired, |file| file.state.max(desired)), own)
        }
        // What it was before is not known any more; until the freeze ends, the freeze alone decides.
        Some(_) if disabled && frozen => Claim::of(Kind::Kept, "", Desired::Running, own),
        Some(_) | None => Claim::of(Kind::Spec, "", own.desired, own),
    }
}

/// Adds what windows ask for; gives what is wrong with one that cannot be used.
fn from_windows(
    runtime: &AgentRuntime,
    own: &Policy,
    now: Timestamp,
    claims: &mut Vec<Claim>,
    edges: &mut Vec<Timestamp>,
) -> Option<String> {
    let mut wrong = None;
    for window in &runtime.spec.maintenance_windows {
        let mut claim = Claim::of(Kind::Window, &window.name, held(window.state), own);
        claim.why.clone_from(&window.reason);
        match windows::look(window, now) {
            Ok(opening) => {
                edges.extend(opening.edge);
                if opening.open {
                    claims.push(claim);
                }
            }
            Err(why) => {
                let holds = present(runtime).filter(|(source, _)| *source == claim.source());
                if let Some((_, desired)) = holds {
                    claims.push(Claim { desired, ..claim });
                }
                wrong = wrong.or(Some(why));
            }
        }
    }
    wrong
}

/// Why it is not known which freezes hold an object.
struct Unsure {
    since: Timestamp,
    why: String,
}

/// Adds what freezes ask for; gives why they may be more than that.
fn from_freezes(
    seen: &Observed,
    own: &Policy,
    now: Timestamp,
    claims: &mut Vec<Claim>,
    edges: &mut Vec<Timestamp>,
) -> Option<Unsure> {
    let runtime = seen.runtime.as_ref();
    let fleet = &seen.fleet;
    let mut unsure = fleet.unknown.as_ref().map(|unknown| Unsure { since: unknown.since, why: unknown.why.clone() });
    let mut take = |hold: freezes::Hold| {
        edges.extend(hold.ends);
        claims.push(Claim {
            kind: Kind::Freeze,
            desired: hold.desired,
            mode: hold.mode.unwrap_or(own.mode),
            deadline_seconds: hold.deadline_seconds.unwrap_or(own.deadline_seconds),
            name: hold.name,
            why: hold.why,
            resume_per_second: hold.resume_per_second,
            freeze: Some(hold.of),
        });
    };
    for freeze in &fleet.freezes {
        let Some(hold) = freezes::hold(freeze, now) else { continue };
        match freezes::selects(freeze, fleet.namespace.as_ref(), runtime.labels()) {
            Some(true) => take(hold),
            Some(false) => {}
            None => {
                let why = format!("whether Freeze {} selects it is not known yet", hold.name);
                unsure = unsure.or(Some(Unsure { since: now, why }));
            }
        }
    }
    // A turn only puts off: it never holds again what has gone back to work.
    let braked = seen.onset.as_ref().map_or(Desired::Running, |onset| onset.state);
    let commanded = in_force(seen).map_or(Desired::Running, |file| file.state).max(braked);
    for hold in fleet.turns.iter().filter_map(|turn| freezes::turn(turn, now)) {
        if commanded >= hold.desired {
            take(hold);
        }
    }
    unsure
}

/// The most severe claim decides the state; the tightest mode and the shortest deadline of those that hold
/// the object decide how.
fn most_severe(claims: Vec<Claim>, own: Policy, disabled: bool) -> Effective {
    let holding = || claims.iter().filter(|claim| claim.desired != Desired::Running);
    let mode = holding().map(|claim| claim.mode).max().unwrap_or(own.mode);
    let deadline_seconds = holding().map(|claim| claim.deadline_seconds).min().unwrap_or(own.deadline_seconds);
    let winner = claims.iter().max_by_key(|claim| (claim.desired, claim.kind, Reverse(claim.name.as_str())));
    let desired = winner.map_or(own.desired, |claim| claim.desired);
    Effective {
        source: winner.map_or_else(|| "Spec".to_owned(), Claim::source),
        kind: winner.map_or(Kind::Spec, |claim| claim.kind),
        freeze: winner.and_then(|claim| claim.freeze.clone()),
        frozen: claims.iter().any(|claim| claim.kind == Kind::Freeze),
        why: winner.map(|claim| claim.why.clone()).unwrap_or_default(),
        resume_per_second: winner.and_then(|claim| claim.resume_per_second),
        policy: Policy { desired, mode, deadline_seconds, ..own },
        edge: None,
        trouble: None,
        disabled,
    }
}

/// What an object is at present, below which it does not go while freezes are unknown. One of which nothing
/// is known has never run, and does not begin to.
fn floor(seen: &Observed, wanted: &Policy) -> Policy {
    let known = match (in_force(seen), present(&seen.runtime)) {
        (Some(file), _) => Policy::from(file),
        (None, Some((_, desired))) => Policy { desired, ..wanted.clone() },
        (None, None) => Policy { desired: Desired::Paused, ..wanted.clone() },
    };
    // What it is held by without a file: a freeze that can be read no more has braked it.
    let onset = seen.onset.as_ref().map_or(Desired::Running, |onset| onset.state);
    let braked = if releases::any_unnamed(seen) { Desired::Paused } else { Desired::Running };
    Policy { desired: known.desired.max(onset).max(braked), ..known }
}
