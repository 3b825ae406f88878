//! The pod template: ours, with the user's merged over it.

mod merge;

use std::collections::BTreeSet;

use crds::{AgentRuntime, WhilePaused};
use serde_json::{Value, json};

pub(super) use merge::merge;

use super::manifest;
use super::names::{boot_name, claim_name, name_of, uid_of};
use super::settings::Settings;
use crate::observe::pod::AGENT_CONTAINER;

/// Seconds of the grace period beyond the runtime's own shutdown, so that the kubelet never cuts it short.
const GRACE_MARGIN_SECONDS: i32 = 5;

/// Where the address of a shared store is mounted: a directory, as a subPath mount is not filled in later.
const STORE_DIR: &str = "/etc/hive/store";
const STORE_URL_FILE: &str = "url";

/// The name of the port of the lifecycle endpoint.
const LIFECYCLE_PORT: &str = "lifecycle";

/// Holds `spec.restartNonce`, so that a change of it is a change of the pods.
const RESTART_ANNOTATION: &str = "agents.hive.dev/restart-nonce";

/// What the API server would take and the runtime cannot live with: a sentence that names the field.
pub(super) fn fault(runtime: &AgentRuntime, template: &Value) -> Option<(&'static str, String)> {
    unlivable(runtime, template).map(|what| ("InvalidTemplate", what))
}

fn unlivable(runtime: &AgentRuntime, template: &Value) -> Option<String> {
    let spec = template.get("spec")?;
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Some("spec.template.spec.hostNetwork: a pod must have an address of its own; remove it".to_owned());
    }
    let agent = containers(template).find(|c| c.get("name").and_then(Value::as_str) == Some(AGENT_CONTAINER));
    if let Some(what) = unreachable(runtime, agent) {
        return Some(what);
    }
    let sleep = agent.and_then(|agent| agent.pointer("/lifecycle/preStop/sleep/seconds")).and_then(Value::as_i64);
    let shutdown = i64::from(runtime.spec.lifecycle.shutdown_seconds);
    let needed = sleep.unwrap_or(0) + shutdown + i64::from(GRACE_MARGIN_SECONDS);
    let given = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    given.filter(|given| *given < needed).map(|given| {
        format!(
            "spec.template.spec.terminationGracePeriodSeconds: {given} is too short for preStop {} + \
             lifecycle.shutdownSeconds {shutdown} + {GRACE_MARGIN_SECONDS}: at least {needed}",
            sleep.unwrap_or(0)
        )
    })
}

/// Probes, Services, the NetworkPolicy and the operator's calls all need the port.
fn unreachable(runtime: &AgentRuntime, agent: Option<&Value>) -> Option<String> {
    let Some(agent) = agent else {
        return Some(format!("spec.template.spec.containers: there must be a container {AGENT_CONTAINER}"));
    };
    let number = runtime.spec.lifecycle.port;
    let is_ours = |port: &Value| {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        let named = port.get("name").and_then(Value::as_str) == Some(LIFECYCLE_PORT);
        named && protocol == "TCP" && port.get("containerPort").and_then(Value::as_i64) == Some(i64::from(number))
    };
    let kept = agent.get("ports").and_then(Value::as_array).is_some_and(|ports| ports.iter().any(is_ours));
    (!kept).then(|| {
        format!(
            "spec.template.spec.containers[{AGENT_CONTAINER}].ports: port {number}, TCP, must be there and be called \
             {LIFECYCLE_PORT}: give other ports other names and numbers, or change spec.lifecycle.port"
        )
    })
}

/// The ports that the template's containers declare, and these.
pub(super) fn ports(template: &Value, open: &BTreeSet<u16>) -> Vec<Value> {
    let mut ports = declared_ports(template);
    let declares = |ports: &[Value], port: u16| ports.iter().any(|known| known.get("port") == Some(&json!(port)));
    for port in open {
        if !declares(&ports, *port) {
            ports.push(json!({ "port": port, "protocol": "TCP" }));
        }
    }
    ports
}

fn declared_ports(template: &Value) -> Vec<Value> {
    let declared = containers(template).filter_map(|container| container.get("ports")?.as_array()).flatten();
    declared
        .filter_map(|port| {
            let number = port.get("containerPort")?;
            Some(json!({ "port": number, "protocol": port.get("protocol").cloned().unwrap_or(json!("TCP")) }))
        })
        .collect()
}

fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    template.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten()
}

/// The pod template of a runtime. `agent` is the ConfigMap and the file of its definition.
pub(super) fn pod_template(runtime: &AgentRuntime, settings: &Settings, agent: Option<(&str, &str)>) -> Value {
    let mut template = json!({
        "metadata": { "labels": manifest::pod_labels(name_of(runtime)) },
        "spec": pod_spec(runtime, settings, agent),
    });
    if let Some(nonce) = &runtime.spec.restart_nonce {
        merge(&mut template, &json!({ "metadata": { "annotations": { RESTART_ANNOTATION: nonce } } }));
    }
    if let Some(user) = &runtime.spec.template {
        merge(&mut template, &Value::Object(user.clone()));
        // The selector's labels are ours: a template that changed them could never be applied.
        merge(&mut template, &json!({ "metadata": { "labels": manifest::match_labels(name_of(runtime)) } }));
    }
    template
}

fn pod_spec(runtime: &AgentRuntime, settings: &Settings, agent: Option<(&str, &str)>) -> Value {
    let lifecycle = &runtime.spec.lifecycle;
    let data = match runtime.spec.volume_claim() {
        Some(_) => json!({ "name": "data", "persistentVolumeClaim": { "claimName": claim_name(name_of(runtime)) } }),
        None => json!({ "name": "data", "emptyDir": {} }),
    };
    let mut volumes = vec![
        json!({ "name": "boot", "configMap": { "name": boot_name(name_of(runtime)) } }),
        data,
        json!({ "name": "tmp", "emptyDir": {} }),
    ];
    if let Some(from) = runtime.spec.database() {
        // Optional, so that a pod without it comes up, says what is missing and obeys; the kubelet fills it in later.
        let items = json!([{ "key": from.key, "path": STORE_URL_FILE }]);
        let secret = json!({ "secretName": from.name, "items": items, "optional": true, "defaultMode": 0o440 });
        volumes.push(json!({ "name": "store", "secret": secret }));
    }
    if let Some((config_map, _)) = agent {
        volumes.push(json!({ "name": "agent", "configMap": { "name": config_map } }));
    }
    json!({
        "serviceAccountName": name_of(runtime),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": lifecycle.shutdown_seconds + GRACE_MARGIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(runtime, settings, agent)],
        "volumes": volumes,
    })
}

fn container(runtime: &AgentRuntime, settings: &Settings, agent: Option<(&str, &str)>) -> Value {
    let mut mounts = vec![
        // A directory and never a subPath: a subPath mount is not updated.
        json!({ "name": "boot", "mountPath": "/etc/hive/boot", "readOnly": true }),
        json!({ "name": "data", "mountPath": "/var/lib/hive" }),
        json!({ "name": "tmp", "mountPath": "/tmp" }),
    ];
    if runtime.spec.database().is_some() {
        mounts.push(json!({ "name": "store", "mountPath": STORE_DIR, "readOnly": true }));
    }
    let mut container = json!({
        "name": AGENT_CONTAINER,
        "env": environment(runtime),
        "ports": [{ "name": LIFECYCLE_PORT, "containerPort": runtime.spec.lifecycle.port, "protocol": "TCP" }],
        "livenessProbe": probe("/health/live", 10, 3),
        "readinessProbe": probe("/health/ready", 1, 2),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
        "imagePullPolicy": "IfNotPresent",
        "image": settings.runtime_image,
    });
    if let Some((_, file)) = agent {
        mounts.push(json!({ "name": "agent", "mountPath": "/etc/hive/agent", "readOnly": true }));
        merge(&mut container, &json!({ "args": ["serve", format!("/etc/hive/agent/{file}")] }));
    }
    merge(&mut container, &json!({ "volumeMounts": mounts }));
    container
}

fn environment(runtime: &AgentRuntime) -> Value {
    let lifecycle = &runtime.spec.lifecycle;
    let while_paused = match lifecycle.while_paused {
        WhilePaused::Reject => "reject",
        WhilePaused::Queue => "queue",
    };
    let mut variables = json!([
        { "name": "HIVE_LIFECYCLE_ENABLED", "value": "true" },
        { "name": "HIVE_LIFECYCLE_HOST", "value": "::" },
        { "name": "HIVE_LIFECYCLE_PORT", "value": lifecycle.port.to_string() },
        { "name": "HIVE_GRACEFUL_SHUTDOWN_TIMEOUT", "value": lifecycle.shutdown_seconds.to_string() },
        { "name": "HIVE_WHILE_PAUSED", "value": while_paused },
        { "name": "HIVE_BOOT_HOLD_SECONDS", "value": lifecycle.boot_hold_seconds.to_string() },
        { "name": "HIVE_RUNTIME_UID", "value": uid_of(runtime) },
        { "name": "HIVE_POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } },
        { "name": "HIVE_BOOT_DIR", "value": "/etc/hive/boot" },
        { "name": "HIVE_DATA_DIR", "value": "/var/lib/hive" },
    ]);
    let rate = lifecycle.resume_rate.map(|rate| json!({ "name": "HIVE_RESUME_RATE", "value": rate.to_string() }));
    let file = format!("{STORE_DIR}/{STORE_URL_FILE}");
    let store = runtime.spec.database().map(|_| json!({ "name": "HIVE_STORE_URL_FILE", "value": file }));
    if let Value::Array(list) = &mut variables {
        list.extend(rate.into_iter().chain(store));
    }
    variables
}

fn probe(path: &str, period: i32, failures: i32) -> Value {
    json!({
        "httpGet": { "path": path, "port": LIFECYCLE_PORT },
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    })
}
