//! The custom resources of the group `agents.hive.dev`: types, validation and the CRD that is generated from them.

pub mod freeze;
pub mod hook;
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
/// a wait started right after an apply does not take the object for settled; and the longest name
/// whose children's names and labels still fit into 63 characters.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let fits = ValidationRule {
        rule: "size(self.metadata.name) <= 52".to_owned(),
        message: Some("metadata.name: at most 52 characters, so that the names of its pods fit".to_owned()),
        ..ValidationRule::default()
    };
    vec![complete(AgentRuntime::crd(), vec![fits]), complete(AgentFreeze::crd(), Vec::new())]
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
