//! Merges a user's template over ours as Kubernetes merges patches: what neither names is left alone.

use serde_json::{Map, Value};

/// Merges `over` into `base`: objects by field, lists whose elements have a key by that key, all else replaced.
pub(in crate::plan) fn merge(base: &mut Value, over: &Value) {
    merge_field("", base, over);
}

/// Merges what stands in a field of this name, or in an element of the list in it.
fn merge_field(field: &str, base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            leave_out_rivals(field, base, over);
            merge_objects(base, over);
        }
        (Value::Array(base), Value::Array(over)) => match Key::of(field) {
            Some(key) => merge_lists(field, &key, base, over),
            None => base.clone_from(over),
        },
        (base, over) => base.clone_from(over),
    }
}

fn merge_objects(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (field, value) in over {
        match base.get_mut(field) {
            Some(existing) => merge_field(field, existing, value),
            None => {
                base.insert(field.clone(), value.clone());
            }
        }
    }
}

fn merge_lists(field: &str, key: &Key, base: &mut Vec<Value>, over: &[Value]) {
    for value in over {
        match base.iter_mut().find(|existing| key.is_same(existing, value)) {
            Some(existing) => merge_field(field, existing, value),
            None => base.push(value.clone()),
        }
    }
}

/// How the elements of a list are told apart.
enum Key {
    /// By a field of theirs.
    Field(&'static str),
    /// Ports by name, or by number and protocol: the name may be left out.
    Port,
}

impl Key {
    /// That of the list in a field of a pod template; none for a list that is replaced as a whole.
    fn of(field: &str) -> Option<Self> {
        match field {
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "env"
            | "volumes"
            | "imagePullSecrets"
            | "resourceClaims" => Some(Self::Field("name")),
            "volumeMounts" => Some(Self::Field("mountPath")),
            "volumeDevices" => Some(Self::Field("devicePath")),
            "hostAliases" => Some(Self::Field("ip")),
            "ports" => Some(Self::Port),
            _ => None,
        }
    }

    fn is_same(&self, one: &Value, other: &Value) -> bool {
        let alike = |field: &str| one.get(field).is_some() && one.get(field) == other.get(field);
        match self {
            Self::Field(field) => alike(field),
            Self::Port => alike("name") || alike("containerPort") && protocol(one) == protocol(other),
        }
    }
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

/// Of fields of which an object may have one, ours goes when the user gives another: both at once are refused.
fn leave_out_rivals(field: &str, base: &mut Map<String, Value>, over: &Map<String, Value>) {
    let is_rival = |name: &str| match field {
        "env" => matches!(name, "value" | "valueFrom"),
        "volumes" => name != "name",
        "valueFrom" => true,
        "livenessProbe" | "readinessProbe" | "startupProbe" => {
            matches!(name, "exec" | "grpc" | "httpGet" | "tcpSocket")
        }
        _ => false,
    };
    if over.iter().any(|(name, value)| is_rival(name) && !value.is_null()) {
        base.retain(|name, _| !is_rival(name) || over.contains_key(name));
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
