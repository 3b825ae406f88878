//! Objects of watches, each decoded by itself, and what is told of those that cannot be.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use crds::decoded::{Decoded, Salvage};

impl Salvage for super::pod::SlimPod {}

/// Says in the log what cannot be decoded, and nothing of its content.
pub(crate) fn note_undecodable<K>(kind: &str, object: &Decoded<K>) {
    if let Some(error) = &object.error {
        let ObjectMeta { namespace, name, .. } = &object.metadata;
        tracing::warn!(kind, namespace, name, error, "object_undecodable");
    }
}
