//! The custom resources of the group `agents.hive.dev`: types, validation and the CRD that is generated from them.

pub mod decoded;
pub mod freeze;
pub mod hook;
mod patterns;
pub mod spec;
pub mod state;
pub mod status;
pub mod window;
pub mod yaml;

pub use freeze::*;
pub use hook::*;
pub use spec::*;
pub use state::*;
pub use status::*;
pub use window::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, ValidationRule,
};
use kube::CustomResourceExt as _;

/// The API group.
pub const GROUP: &str = "agents.hive.dev";

/// Every CustomResourceDefinition of the group, as the API server takes it.
///
/// What the derive cannot say is added here: the status that a new object is born with, so that
/// a wait started right after an apply does not take the object for settled; and names from which
/// the names of all children can be made.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![complete(AgentRuntime::crd(), names()), complete(AgentFreeze::crd(), Vec::new())]
}

/// Which names an AgentRuntime may have: its Services are called `<name>` and `<name>-pods`, its ServiceAccount `<name>`.
fn names() -> Vec<ValidationRule> {
    let fits = ValidationRule {
        rule: "size(self.metadata.name) <= 52".to_owned(),
        message: Some("metadata.name: at most 52 characters, so that the names of its pods fit".to_owned()),
        ..ValidationRule::default()
    };
    let service = format!("self.metadata.name.matches('{}')", patterns::SERVICE);
    vec![
        fits,
        of_new(
            &service,
            "metadata.name: lower-case letters, digits and hyphens, a letter first, as its Services need it",
        ),
        of_new(
            "!self.metadata.name.endsWith('-pods')",
            "metadata.name: not -pods at its end, which is for the Service of the object without it",
        ),
        of_new(
            "!(self.metadata.name in ['default', 'kubernetes'])",
            "metadata.name: not default, whose ServiceAccount is the namespace's, nor kubernetes, whose Service is the cluster's",
        ),
    ]
}

/// A rule for objects that are made. The API server holds a rule of a whole object against every write, also of status:
/// without this, an object from before the rule could neither be changed nor say how it stands.
fn of_new(rule: &str, message: &str) -> ValidationRule {
    ValidationRule {
        rule: format!("oldSelf.hasValue() || {rule}"),
        message: Some(message.to_owned()),
        optional_old_self: Some(true),
        ..ValidationRule::default()
    }
}

fn complete(mut crd: CustomResourceDefinition, rules: Vec<ValidationRule>) -> CustomResourceDefinition {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for root in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        if !rules.is_empty() {
            root.x_kubernetes_validations.get_or_insert_default().extend(rules.clone());
        }
        if let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
        }
    }
    crd
}
