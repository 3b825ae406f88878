//! The safety lane: boot file, commands, barrier and status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::Span;

use super::{Governed, Look, ROUNDS, is_worth_a_line};
use crate::act::boot::Swapped;
use crate::act::{self, fault, traced};
use crate::context::Context;
use crate::observe::index::Owner;
use crate::observe::{Fault, Observed};
use crate::plan::{BootWrite, Call, Order, Plan, Scale, said};
use crate::queue::Again;

/// The pause after a failed visit; it doubles up to `BACKOFF_MAX`.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Says when to come again; never to an object that is gone with its pods.
pub(super) async fn visit(context: &Context, owner: &Owner) -> Again {
    let Some(governed) = Governed::of(context, owner) else { return Again::Never };
    if governed.is_over() {
        context.runtimes.forget(owner);
        return Again::Never;
    }
    let begun = Instant::now();
    context.telemetry.begins();
    let outcome = governed.converge().await;
    let mut remembered = governed.lock();
    let failures = if outcome.is_ok() { 0 } else { remembered.memory.failures.saturating_add(1) };
    remembered.memory.failures = failures;
    remembered.memory.visited = Some(begun);
    drop(remembered);
    context.telemetry.reconciled(outcome.as_ref().err().map(act::Error::label), begun.elapsed());
    if !context.fleet.is_empty() {
        context.report.notify_one();
    }
    outcome.map_or_else(|error| after_failure(owner, &error, failures), Again::In)
}

/// A conflict is tried again at once with what the watch has brought since; all else backs off.
fn after_failure(owner: &Owner, error: &act::Error, failures: u32) -> Again {
    let Owner { namespace, name } = owner;
    match error {
        act::Error::Conflict { .. } | act::Error::Deposed => {
            tracing::debug!(namespace, name, %error, "plan_outdated");
        }
        _ if is_worth_a_line(failures) => tracing::warn!(namespace, name, %error, failures, "status_write_failed"),
        _ => {}
    }
    Again::Failed(act::backoff(BACKOFF, BACKOFF_MAX, failures))
}

impl Governed<'_> {
    /// Whether the object is gone, and its last pod too.
    fn is_over(&self) -> bool {
        self.context.runtimes.is_gone(&self.owner) && !self.context.watches.has_pods(&self.owner)
    }

    /// Says after what time to look again though nothing happens.
    async fn converge(&self) -> Result<Duration, act::Error> {
        let mut again = Duration::from_secs(1);
        for _ in 0..ROUNDS {
            let Look { seen, mut plan, now } = self.look();
            self.order(std::mem::take(&mut plan.brakes.orders));
            if plan.brakes.again.is_some() {
                // Its pods are braked though this visit may wait for a write by then.
                self.context.brakes.wake(self.owner.clone());
            }
            if let Some(boot) = &plan.boot
                && !self.swap_boot(&seen, boot, now).await?
            {
                continue;
            }
            self.order(std::mem::take(&mut plan.orders));
            // Before anything that may hang: children wait for no status.
            self.hand_on(&plan);
            if let Some(scale) = &plan.scale {
                self.scale(scale, now).await;
            }
            again = plan.again.unwrap_or(again);
            if let Some(epoch) = plan.barrier {
                self.take_barrier(epoch, now).await;
            } else {
                self.report(&seen, &plan).await?;
                if plan.children.after_status {
                    self.context.children.wake(self.owner.clone());
                }
                break;
            }
        }
        Ok(again)
    }

    /// Writes the boot file. False if another plan is due: it cannot be written, or another one was there.
    async fn swap_boot(&self, seen: &Observed, boot: &BootWrite, now: Timestamp) -> Result<bool, act::Error> {
        let span = {
            let mut remembered = self.lock();
            remembered.memory.transition.begin(&self.owner, &boot.file);
            remembered.memory.transition.request("write boot file")
        };
        match traced(span, self.context.actor.swap_boot(seen, boot)).await {
            Ok(Swapped::Written(written)) => {
                let mut remembered = self.lock();
                let memory = &mut remembered.memory;
                memory.wrote_boot(written, boot.replaces.clone());
                self.mended("boot_file_written", memory.faults.boot.take());
                if memory.epoch_since.is_none_or(|(epoch, _)| epoch != boot.file.epoch) {
                    memory.epoch_since = Some((boot.file.epoch, now));
                }
                Ok(true)
            }
            Ok(Swapped::Found(found)) => {
                let mut remembered = self.lock();
                remembered.memory.wrote_boot(found, boot.replaces.clone());
                // Somebody who writes it all the time is told of like any other failure.
                let error = act::Error::Conflict { what: format!("ConfigMap {}", boot.name) };
                let fault = &mut remembered.memory.faults.boot;
                fault::note_safety(fault, &boot.demand, &error, now);
                self.tell("boot_file_unwritable", &error, fault.as_ref());
                Ok(false)
            }
            Err(error @ act::Error::Deposed) => Err(error),
            Err(error) => {
                let mut remembered = self.lock();
                let fault = &mut remembered.memory.faults.boot;
                fault::note_safety(fault, &boot.demand, &error, now);
                self.tell("boot_file_unwritable", &error, fault.as_ref());
                Ok(false)
            }
        }
    }

    /// Hands calls to the dispatcher, which does not wait for them.
    pub(super) fn order(&self, orders: Vec<Order>) {
        let (context, owner) = (self.context, &self.owner);
        let mut outdated = false;
        for order in orders {
            // Questions of how a pod stands are no steps, and there may be many.
            let span = match &order.call {
                Call::Ask { .. } => Span::none(),
                call => self.lock().memory.transition.call(call.name(), (&order.name, &order.pod), order.address),
            };
            // A pod that left while this was planned was forgotten before the call began. Where any call has ended,
            // the dispatcher sees that by itself, and does not begin it.
            let first = (order.ended == 0).then(|| (order.name.clone(), order.pod.clone()));
            outdated |= !context.dispatcher.submit(owner, order, span);
            if let Some((name, uid)) = first
                && !context.watches.has_pod(owner, &name, &uid)
            {
                context.dispatcher.forget(&uid);
            }
        }
        if outdated {
            context.dispatcher.replan(owner);
        }
    }

    async fn scale(&self, scale: &Scale, now: Timestamp) {
        self.lock().memory.scaling = Some(scale.replicas);
        let scaled = self.context.actor.scale(&self.owner.namespace, scale).await;
        let mut remembered = self.lock();
        let memory = &mut remembered.memory;
        match scaled {
            Ok(written) => {
                let hash = memory.hash_of(&scale.deployment).unwrap_or_default();
                memory.applied(&scale.deployment, hash, written);
                self.mended("deployment_scaled", memory.faults.scale.take());
            }
            Err(act::Error::Deposed) => {}
            Err(error) => {
                fault::note_safety(&mut memory.faults.scale, "", &error, now);
                self.tell("scale_failed", &error, memory.faults.scale.as_ref());
            }
        }
    }

    /// Lists the pods. Where they cannot be listed the next plan says so.
    async fn take_barrier(&self, epoch: i64, now: Timestamp) {
        let span = self.lock().memory.transition.request("list pods");
        let listed = traced(span, self.context.actor.barrier(&self.owner, epoch)).await;
        let mut remembered = self.lock();
        let memory = &mut remembered.memory;
        match listed {
            Ok(barrier) => {
                memory.barrier = Some(barrier);
                self.mended("pods_listed", memory.faults.pods.take());
            }
            Err(error) => {
                fault::note_safety(&mut memory.faults.pods, "", &error, now);
                self.tell("pods_unlisted", &error, memory.faults.pods.as_ref());
            }
        }
    }

    /// Writes the status and announces what is new in it.
    async fn report(&self, seen: &Observed, plan: &Plan) -> Result<(), act::Error> {
        let reached = plan.is_reached();
        // There is nothing to write the status of an object to that is gone before its pods.
        let shown = !self.context.runtimes.is_gone(&self.owner);
        if let Some(status) = plan.status.as_ref().filter(|_| shown) {
            let runtime = seen.runtime.as_ref();
            let span = self.lock().memory.transition.request("write status");
            let written = traced(span, self.context.actor.report(runtime, status)).await?;
            let mut remembered = self.lock();
            let memory = &mut remembered.memory;
            memory.wrote_status(Arc::new(written), runtime.metadata.resource_version.clone(), Timestamp::now());
            self.context.actor.announce(runtime, &plan.events);
            self.context.note_acknowledgement(status, reached, memory);
        }
        if reached {
            self.lock().memory.transition.reached();
        }
        Ok(())
    }

    /// Has the children's lane look at the object if there is something to do.
    fn hand_on(&self, plan: &Plan) {
        if plan.children.is_due() {
            self.context.children.wake(self.owner.clone());
        }
    }

    pub(super) fn tell(&self, event: &'static str, error: &act::Error, fault: Option<&Fault>) {
        let failures = fault.map_or(1, |fault| fault.failures);
        self.context.telemetry.step_failed(event);
        if is_worth_a_line(failures) {
            let Owner { namespace, name } = &self.owner;
            tracing::warn!(namespace, name, failures, error = said(&error.cause()), event);
        }
    }

    pub(super) fn mended(&self, event: &'static str, fault: Option<Fault>) {
        if let Some(fault) = fault {
            let Owner { namespace, name } = &self.owner;
            tracing::info!(namespace, name, failures = fault.failures, since = %fault.since, event);
        }
    }
}
