//! The names of an object and of what is made for it.

use crds::AgentRuntime;

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

/// The name of the boot ConfigMap.
#[must_use]
pub fn boot_name(runtime: &str) -> String {
    format!("{runtime}-boot")
}

/// The name of the claim that executions are kept on.
pub(super) fn claim_name(runtime: &AgentRuntime) -> String {
    format!("{}-data", name_of(runtime))
}
