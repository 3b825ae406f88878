//! Every rule of the operator, as one pure function: what was seen and the time in, what is to be done out.

mod agent;
mod blueprint;
mod brakes;
mod children;
mod conditions;
mod effective;
mod epoch;
mod faults;
pub mod freeze_pods;
pub mod freeze_status;
pub mod freezes;
mod hooks;
mod keys;
mod manifest;
mod names;
mod pods;
mod policy;
mod protection;
mod quantity;
mod reading;
mod releases;
mod rollout;
mod settings;
mod sketch;
mod spans;
mod status;
mod steps;
mod suspended;
mod template;
mod windows;

use jiff::Timestamp;
use lifecycle::Desired;

use crate::observe::{Observed, Outstanding};

pub use brakes::{BrakePlan, brakes};
pub use children::{STRATEGY_ANNOTATION, TEMPLATE_ANNOTATION};
pub use epoch::HOOKS_ANNOTATION;
pub use faults::said;
pub(crate) use freezes::ended;
pub use keys::{KeyFacts, Reach, Signer, Step as KeyStep, step as key_step};
pub use manifest::{HASH_ANNOTATION, MANAGED_BY, managed, selector};
pub use names::{boot_name, claim_name, deployment_key, deployment_name};
pub use policy::RECONCILE_ANNOTATION;
pub use protection::PROTECTED_SINCE;
pub use settings::Settings;
pub use sketch::Sketch;
pub use steps::{Announcement, BootWrite, Call, Child, ChildrenPlan, Confirm, Deed, DeleteChild, Order, Plan, Scale};

use effective::Kind;

/// Decides what is to be done. Reads no clock and does no I/O: the same input gives the same plan.
#[must_use]
pub fn plan(seen: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    plan_with(seen, settings, now, &mut Sketch::default())
}

/// The same plan, made sooner by what was drawn of the object before.
#[must_use]
pub fn plan_with(seen: &Observed, settings: &Settings, now: Timestamp, sketch: &mut Sketch) -> Plan {
    let runtime = seen.runtime.as_ref();
    sketch.renew(seen, settings);
    let drains = sketch.blueprint(seen, settings).is_some_and(|blueprint| rollout::drains(seen, blueprint));
    let mut effective = effective::decide(seen, drains, now);
    let hooks = hooks::decide(seen, &effective, now);
    let brakes = brakes::decide(seen, &effective, &hooks, now);
    effective.hold_back(seen, hooks.holds);
    let policy = effective.policy.clone();
    let untouched = Some(&effective).filter(|e| e.disabled).and_then(|_| suspended::untouched(seen, &policy));
    let decided = untouched.unwrap_or_else(|| epoch::decide(seen, settings, &policy, &hooks, now));
    let standings = pods::standings(seen, decided.file.epoch, policy.desired, now);
    let protection = protection::decide(seen, &standings, now);
    let waits = effective.kind == Kind::Rollout
        && (hooks.holds || standings.iter().any(|standing| rollout::waits_for(standing, seen, &policy, now)));
    let wanted = if effective.leaves_children(seen) {
        suspended::wanted(seen, &policy, &standings)
    } else {
        // What runs is drained first, though nothing drains it yet: the API server is to take the change before.
        let blueprint = sketch.blueprint(seen, settings).filter(|blueprint| rollout::must_drain(seen, blueprint));
        let undrained = policy.desired == Desired::Running && blueprint.is_some();
        let untried = blueprint.is_some_and(|blueprint| !rollout::is_tried(seen, blueprint));
        let gate = children::Gate {
            replaced: !waits && !undrained,
            trial: undrained && untried,
            stored: decided.is_stored(),
            protection,
        };
        children::plan(seen, settings, &policy, &standings, gate, sketch, now)
    };
    let scale = suspended::scale(seen, &policy, &effective, &wanted, now).filter(|_| !decided.unwritten);
    let reading = reading::Reading::of(seen, &decided, &effective, &hooks, &standings, &wanted, now);
    let barrier = reading.needs_barrier.then_some(decided.file.epoch);
    let next = status::write(seen, &reading, &effective, now);
    let settled = reading.ready || (reading.stalled.is_some() && seen.unlisted.is_none());
    let kept_back = match &next {
        Some(next) if !settled => status::kept_back(seen, decided.write.is_some(), next, now),
        Some(_) | None => None,
    };
    let (status, events) = match next {
        Some(next) if barrier.is_none() && kept_back.is_none() => {
            let events = status::announcements(runtime, &next);
            (Some(Box::new(next)), events)
        }
        Some(_) | None => (None, Vec::new()),
    };
    let mut orders = pods::orders(runtime, seen, &standings, &decided, &policy, now);
    orders.extend(hooks::orders(seen, &hooks));
    let edges = [brakes.again, hooks.again(), kept_back, reading.deadline_in, effective.edge, protection.edge()];
    let looks = [Some(pods::look_again(seen, &standings, now)), faults::look_again(seen, now)];
    let again = edges.into_iter().chain(looks).flatten().min();
    let outstanding = Outstanding {
        children: wanted.outstanding.clone(),
        boot: decided.write.is_some() || decided.unwritten,
        pods: reading.wants_barrier,
        scale: seen.deployment.as_ref().is_some_and(|deployment| deployment.wanted != wanted.replicas),
        agent: runtime.spec.agent.as_ref().is_some_and(|agent| agent.config_map_ref.is_some()),
    };
    let mut children = children::steps(seen, &effective, wanted, now);
    if status.as_ref().is_some_and(|status| status::claims_rest(status)) {
        children.wait_for_status();
    }
    Plan { brakes, boot: decided.write, children, outstanding, scale, orders, barrier, status, events, again }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
