//! The children's lane: what the pods are made from. What fails is noted, told by the safety lane, and tried again.

use std::time::Duration;

use crds::ConfigMapKey;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Map, Value};

use super::{Governed, Look, ROUNDS};
use crate::act::{self, fault};
use crate::context::Context;
use crate::observe::index::Owner;
use crate::observe::memory::AgentRead;
use crate::observe::{AgentText, ChildKey, ChildKind, Observed};
use crate::plan::{Child, ChildrenPlan, DeleteChild, TEMPLATE_ANNOTATION};
use crate::queue::Again;

/// The pause after the store has shown another object than the one that was planned from.
const OUTDATED: Duration = Duration::from_millis(500);

/// Says when to come again though the safety lane wakes nobody.
pub(super) async fn visit(context: &Context, owner: &Owner) -> Again {
    let Some(governed) = Governed::of(context, owner) else { return Again::Never };
    let (mut again, mut changed) = (None, false);
    for _ in 0..ROUNDS {
        let Look { seen, plan, now } = governed.look();
        let steps = plan.children;
        again = steps.again;
        if !steps.is_due() {
            break;
        }
        if let Err(error) = governed.carry_out(&seen, &steps, now).await {
            let Owner { namespace, name } = owner;
            tracing::debug!(namespace, name, %error, "plan_outdated");
            return Again::Failed(OUTDATED);
        }
        changed = true;
    }
    if changed {
        // It tells of what has failed, and of a rollout that has begun.
        context.safety.wake(owner.clone());
    }
    let failing = !governed.lock().memory.faults.children.is_empty();
    match again {
        None => Again::Never,
        Some(again) if failing => Again::Failed(again),
        Some(again) => Again::In(again),
    }
}

impl Governed<'_> {
    /// Carries out each step, whatever becomes of the others.
    ///
    /// # Errors
    /// Nothing may be done from what was seen.
    async fn carry_out(&self, seen: &Observed, steps: &ChildrenPlan, now: Timestamp) -> Result<(), act::Error> {
        if steps.read_agent {
            self.read_agent(seen, now).await;
        }
        if let Some(confirm) = steps.confirm {
            self.context.actor.confirm(seen, confirm).await?;
        }
        for child in &steps.apply {
            self.apply(child, now).await?;
        }
        for child in &steps.delete {
            self.delete(child, now).await?;
        }
        Ok(())
    }

    async fn apply(&self, child: &Child, now: Timestamp) -> Result<(), act::Error> {
        let uid = self.shown.runtime.uid().unwrap_or_default();
        let outcome = self.context.actor.apply(&self.owner.namespace, &uid, child).await;
        let mut remembered = self.lock();
        let memory = &mut remembered.memory;
        match outcome {
            Ok(written) => {
                if child.trial {
                    memory.tried = template_hash(child);
                } else {
                    memory.applied(&child.key, child.hash.clone(), written);
                }
                self.mended("child_applied", memory.faults.children.remove(&child.key));
            }
            Err(error @ act::Error::Deposed) => return Err(error),
            Err(error) => {
                if child.key.kind == ChildKind::Deployment {
                    memory.tried = None;
                }
                self.note(&child.key, &child.hash, "child_unapplied", &error, &mut memory.faults.children, now);
            }
        }
        Ok(())
    }

    async fn delete(&self, child: &DeleteChild, now: Timestamp) -> Result<(), act::Error> {
        let outcome = self.context.actor.delete(&self.owner.namespace, child).await;
        let mut remembered = self.lock();
        let memory = &mut remembered.memory;
        match outcome {
            Ok(()) => {
                self.mended("child_deleted", memory.faults.children.remove(&child.key));
                memory.deleted(&child.key);
            }
            Err(error @ act::Error::Deposed) => return Err(error),
            Err(error) => {
                self.note(&child.key, &child.uid, "child_undeleted", &error, &mut memory.faults.children, now);
            }
        }
        Ok(())
    }

    fn note(
        &self,
        key: &ChildKey,
        of: &str,
        event: &'static str,
        error: &act::Error,
        faults: &mut std::collections::BTreeMap<ChildKey, crate::observe::Fault>,
        now: Timestamp,
    ) {
        let fault = fault::of_child(faults.remove(key), of, error, now);
        self.tell(event, error, Some(&fault));
        faults.insert(key.clone(), fault);
    }

    /// Reads the definition that `spec.agent.configMapRef` names.
    async fn read_agent(&self, seen: &Observed, now: Timestamp) {
        let source = self.shown.runtime.spec.agent.as_ref();
        let Some(from) = source.and_then(|source| source.config_map_ref.as_ref()) else { return };
        let found = self.context.actor.config_map(&self.owner.namespace, &from.name).await;
        let mut remembered = self.lock();
        let memory = &mut remembered.memory;
        match found {
            Ok(config_map) => {
                let text = text(from, config_map.map(|config_map| config_map.data.unwrap_or_default()));
                let generation = seen.runtime.metadata.generation;
                memory.agent = Some(AgentRead { from: from.clone(), generation, text, at: now });
                self.mended("definition_read", memory.faults.agent.take());
            }
            Err(error) => {
                let fault = fault::of_child(memory.faults.agent.take(), &from.name, &error, now);
                self.tell("definition_unread", &error, Some(&fault));
                memory.faults.agent = Some(fault);
            }
        }
    }
}

/// The hash of the pod template in a Deployment.
fn template_hash(child: &Child) -> Option<String> {
    let annotations = child.manifest.get("metadata")?.get("annotations")?;
    annotations.get(TEMPLATE_ANNOTATION)?.as_str().map(str::to_owned)
}

/// The definition in a ConfigMap; none if there is no such.
fn text(from: &ConfigMapKey, data: Option<std::collections::BTreeMap<String, String>>) -> AgentText {
    let missing = |why: String| AgentText::Missing(format!("spec.agent.configMapRef: {why}"));
    let Some(mut data) = data else { return missing(format!("there is no ConfigMap {}", from.name)) };
    match data.remove(&from.key) {
        Some(text) => AgentText::Found { text, file: from.key.clone() },
        None => missing(format!("ConfigMap {} has no key {}", from.name, from.key)),
    }
}

/// The definition in the object itself.
pub(super) fn inline(inline: &Map<String, Value>) -> AgentText {
    let text = serde_json::to_string_pretty(inline).unwrap_or_default();
    AgentText::Found { text, file: "agent.json".to_owned() }
}
