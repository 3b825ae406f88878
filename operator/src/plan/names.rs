//! The names of an object and of what is made for it.

use crds::AgentRuntime;

use crate::observe::{ChildKey, ChildKind};

pub(super) fn name_of(runtime: &AgentRuntime) -> &str {
    runtime.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn uid_of(runtime: &AgentRuntime) -> &str {
    runtime.metadata.uid.as_deref().unwrap_or_default()
}

/// The name of the Deployment.
#[must_use]
pub fn deployment_name(runtime: &str) -> String {
    runtime.to_owned()
}

/// The kind and name of the Deployment.
#[must_use]
pub fn deployment_key(runtime: &str) -> ChildKey {
    ChildKey { kind: ChildKind::Deployment, name: deployment_name(runtime) }
}

/// The name of the boot ConfigMap.
#[must_use]
pub fn boot_name(runtime: &str) -> String {
    format!("{runtime}-boot")
}

/// The name of the claim that executions are kept on.
#[must_use]
pub fn claim_name(runtime: &str) -> String {
    format!("{runtime}-data")
}
