//! What was drawn of an object before: whether anything is to be applied is mostly seen without drawing it anew.

use std::collections::BTreeSet;

use crds::DesiredState;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::blueprint::Blueprint;
use super::names::{name_of, uid_of};
use super::protection::Protection;
use super::settings::Settings;
use super::steps::Child;
use crate::observe::{AgentText, ChildKey, Legible, Observed};

/// The hashes of an object's children, and of what they were drawn from. It spares work; no plan depends on it.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// None for nothing, and for what has no digest.
    source: Option<[u8; 32]>,
    blueprint: Option<Blueprint>,
    pub(super) children: Option<Drawn>,
}

/// The children for one protection of the pods and the ports that they have.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    protection: Protection,
    open: BTreeSet<u16>,
    /// Keys and hashes; the Deployment comes last.
    pub(super) hashes: Vec<(ChildKey, String)>,
}

impl Drawn {
    pub(super) fn of<'a>(
        protection: Protection,
        open: BTreeSet<u16>,
        children: impl Iterator<Item = &'a Child>,
    ) -> Self {
        let hashes = children.map(|child| (child.key.clone(), child.hash.clone())).collect();
        Self { protection: protection.drawn(), open, hashes }
    }

    pub(super) fn is_of(&self, protection: Protection, open: &BTreeSet<u16>) -> bool {
        self.protection == protection.drawn() && self.open == *open
    }
}

/// What children are drawn from, but for the text of the agent's definition.
#[derive(Serialize)]
struct Source<'a> {
    namespace: Option<&'a String>,
    name: &'a str,
    uid: &'a str,
    spec: crds::AgentRuntimeSpec,
    file: Option<&'a String>,
    settings: (&'a str, &'a str, bool),
}

impl Sketch {
    /// Forgets what was drawn from something else.
    pub(super) fn renew(&mut self, seen: &Observed, settings: &Settings) {
        let source = source(seen, settings);
        if source.is_none() || self.source != source {
            *self = Self { source, ..Self::default() };
        }
    }

    /// The pods as the spec wants them; none while the agent's definition is missing.
    pub(super) fn blueprint(&mut self, seen: &Observed, settings: &Settings) -> Option<&Blueprint> {
        if seen.legible != Legible::Whole {
            return None;
        }
        if self.blueprint.is_none() || matches!(seen.agent, AgentText::Missing(_) | AgentText::Unknown) {
            self.blueprint = Blueprint::of(seen, settings);
        }
        self.blueprint.as_ref()
    }
}

fn source(seen: &Observed, settings: &Settings) -> Option<[u8; 32]> {
    let runtime = seen.runtime.as_ref();
    let mut spec = runtime.spec.clone();
    // No child is drawn from these, and they change with each pause.
    (spec.desired_state, spec.resume_nonce) = (DesiredState::default(), None);
    let (text, file) = match &seen.agent {
        AgentText::Found { text, file } => (text.as_str(), Some(file)),
        AgentText::Builtin | AgentText::Missing(_) | AgentText::Unknown => ("", None),
    };
    let source = Source {
        namespace: runtime.metadata.namespace.as_ref(),
        name: name_of(runtime),
        uid: uid_of(runtime),
        spec,
        file,
        settings: (&settings.runtime_image, &settings.namespace, settings.exec_hooks),
    };
    let source = serde_json::to_vec(&source).ok()?;
    Some(Sha256::new().chain_update(source).chain_update(text).finalize().into())
}
