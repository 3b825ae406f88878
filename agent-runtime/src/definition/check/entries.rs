//! Entry points: what triggers each, checked.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::{Faults, ID_RULE, duration, is_id, resumes};
use crate::definition::entry::{EntryPoint, Secret, Trigger, Webhook};
use crate::definition::schedule::Schedule;
use crate::definition::shape::{AsyncEntryPoint, Graph, TriggerConfig};

/// Executions that may wait at an entry point that sets no bound of its own.
const MAX_QUEUED: usize = 1000;
/// The longest time an execution may be given: 30 days.
const MAX_TIMEOUT_SECONDS: f64 = 2_592_000.0;
/// Requests per minute and the largest body of a webhook that sets none.
const REQUESTS_PER_MINUTE: u32 = 600;
const MAX_BODY: usize = 1024 * 1024;
/// Paths below these are the runtime's own.
const OWN_PATHS: &[&str] = &["/api/", "/health/", "/metrics", "/openapi.json", "/agent.schema.json"];

pub(super) fn resolve(graph: &Graph, faults: &mut Faults<'_>) -> BTreeMap<String, EntryPoint> {
    let mut all = BTreeMap::new();
    for (id, node) in &graph.entry_points {
        check(&format!("graph.entry_points.{id}"), id, node, graph, faults);
        if resumes(id).is_none_or(|paused| !graph.nodes.iter().any(|shape| shape.id == paused)) {
            all.insert(id.clone(), api(node));
        }
    }
    for (i, shape) in graph.async_entry_points.iter().enumerate() {
        let path = format!("graph.async_entry_points[{i}]");
        check(&path, &shape.id, &shape.entry_node, graph, faults);
        let Some(entry) = entry_point(&path, shape, faults) else { continue };
        if let Trigger::Webhook(webhook) = &entry.trigger {
            let taken = |other: &EntryPoint| matches!(&other.trigger, Trigger::Webhook(w) if w.path == webhook.path);
            if all.values().any(taken) {
                let reason = format!("another entry point has the path {:?} too", webhook.path);
                faults.add(format!("{path}.trigger_config.path"), &shape.id, reason);
            }
        }
        if all.insert(shape.id.clone(), entry).is_some() {
            faults.add(format!("{path}.id"), &shape.id, format!("another entry point is called {:?} too", shape.id));
        }
    }
    let none = all.is_empty() && graph.async_entry_points.is_empty();
    let first = graph.nodes.first().map(|node| node.id.as_str()).filter(|_| none);
    // An agent whose entry node has no name is begun by hand there, beside what else begins it.
    let unnamed = graph.entry_node.as_deref().filter(|_| graph.entry_points.keys().all(|id| resumes(id).is_some()));
    if let Some(node) = unnamed.or(first) {
        check("graph.entry_node", node, node, graph, faults);
        all.entry("main".to_owned()).or_insert_with(|| api(node));
    }
    all
}

fn api(node: &str) -> EntryPoint {
    EntryPoint {
        node: node.to_owned(),
        trigger: Trigger::Api,
        priority: 0,
        max_concurrent: 10,
        max_queued: MAX_QUEUED,
        timeout: None,
    }
}

fn check(path: &str, id: &str, node: &str, graph: &Graph, faults: &mut Faults<'_>) {
    if !is_id(id) {
        faults.add(path.to_owned(), id, ID_RULE);
    }
    if graph.nodes.iter().all(|shape| shape.id != node) {
        faults.add(path.to_owned(), node, format!("there is no node {node:?}"));
    }
}

fn entry_point(path: &str, shape: &AsyncEntryPoint, faults: &mut Faults<'_>) -> Option<EntryPoint> {
    // Hive writes shared when nothing was chosen, so that is warned about and not refused.
    if let Some(level) = shape.isolation_level.as_deref().filter(|level| !matches!(*level, "isolated" | "shared")) {
        let reason = match level {
            "synchronized" => format!(
                "{level} memory between executions would make a repetition after a crash depend on what others \
                 wrote meanwhile: write isolated, and keep what is shared behind a tool"
            ),
            other => format!("an isolation level is isolated, shared or synchronized, not {other:?}"),
        };
        faults.add(format!("{path}.isolation_level"), &shape.id, reason);
    }
    if shape.max_concurrent == 0 {
        faults.add(format!("{path}.max_concurrent"), &shape.id, "0 would run nothing: give at least 1");
    }
    let timeout = shape.timeout_seconds.and_then(|seconds| {
        duration(&format!("{path}.timeout_seconds"), &shape.id, seconds, MAX_TIMEOUT_SECONDS, faults)
    });
    let config = &shape.trigger_config;
    let trigger = match shape.trigger_type.as_str() {
        "manual" | "api" => Ok(Trigger::Api),
        "timer" => Schedule::of(config).map(|schedule| Trigger::Timer(Box::new(schedule))),
        "webhook" => webhook(config).map(Trigger::Webhook),
        "event" if config.events.is_empty() => Err("an event entry point needs the names of its events".to_owned()),
        "event" => Ok(Trigger::Event(config.events.clone())),
        other => {
            let reason = format!("a trigger is manual, api, webhook, event or timer, not {other:?}");
            faults.add(format!("{path}.trigger_type"), &shape.id, reason);
            return None;
        }
    };
    let trigger = trigger.map_err(|reason| faults.add(format!("{path}.trigger_config"), &shape.id, reason)).ok()?;
    Some(EntryPoint {
        node: shape.entry_node.clone(),
        trigger,
        priority: shape.priority,
        max_concurrent: shape.max_concurrent,
        max_queued: shape.max_queued.unwrap_or(MAX_QUEUED),
        timeout,
    })
}

fn webhook(config: &TriggerConfig) -> Result<Webhook, String> {
    let path = config.path.clone().unwrap_or_default();
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._~-".contains(&b));
    if !path.starts_with('/') || path.len() < 2 || !plain {
        return Err(format!("path {path:?} is no path such as /hooks/github"));
    }
    if OWN_PATHS.iter().any(|own| path.starts_with(own)) {
        return Err(format!("path {path:?} is the runtime's own: take another, such as /hooks/github"));
    }
    let words = if config.methods.is_empty() { &vec!["POST".to_owned()] } else { &config.methods };
    let method = |word: &String| match word.to_ascii_uppercase().as_str() {
        "POST" => Ok(http::Method::POST),
        "PUT" => Ok(http::Method::PUT),
        "PATCH" => Ok(http::Method::PATCH),
        other => Err(format!("methods are POST, PUT and PATCH, not {other:?}")),
    };
    let secret = match (&config.secret, &config.secret_file) {
        (Some(_), Some(_)) => return Err("give secret or secret_file, not both".to_owned()),
        (None, Some(file)) => Some(Secret::File(file.clone())),
        (Some(text), None) => match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => Some(Secret::Environment(name.to_owned())),
            None if text.is_empty() => return Err("an empty secret would let everybody in".to_owned()),
            None => Some(Secret::Literal(text.clone())),
        },
        (None, None) => None,
    };
    let per_minute = NonZeroU32::new(config.requests_per_minute.unwrap_or(REQUESTS_PER_MINUTE));
    Ok(Webhook {
        path,
        methods: words.iter().map(method).collect::<Result<_, _>>()?,
        secret,
        per_minute: per_minute.ok_or("requests_per_minute: give at least 1")?,
        max_body: config.max_body_bytes.unwrap_or(MAX_BODY).clamp(1, MAX_BODY),
    })
}
