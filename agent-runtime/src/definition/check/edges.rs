//! Edges: where each leads and when, checked.

use std::collections::BTreeMap;

use super::Faults;
use crate::definition::expression::Expression;
use crate::definition::shape::{EdgeShape, Graph};
use crate::definition::{Condition, Edge, Node};

/// Hangs the edges on their nodes, highest priority first and else in the order of the text.
pub(super) fn resolve(graph: &Graph, nodes: &mut BTreeMap<String, Node>, faults: &mut Faults<'_>) {
    let known = |id: &str| graph.nodes.iter().any(|node| node.id == id);
    let mut drawn: Vec<(i32, &str, Edge)> = Vec::new();
    routes(graph, &mut drawn, faults);
    for (i, shape) in graph.edges.iter().enumerate() {
        // An export draws a router's routes as edges too.
        if graph.nodes.iter().any(|node| node.id == shape.source && node.routes.values().any(|to| *to == shape.target))
        {
            continue;
        }
        let path = format!("graph.edges[{i}]");
        for (field, id) in [("source", &shape.source), ("target", &shape.target)] {
            if !known(id) {
                faults.add(format!("{path}.{field}"), id, format!("there is no node {id:?}"));
            }
        }
        let Some(condition) = condition(&path, shape, faults) else { continue };
        let id = if shape.id.is_empty() { format!("{}-{}", shape.source, shape.target) } else { shape.id.clone() };
        let (target, mapping) = (shape.target.clone(), shape.input_mapping.clone());
        drawn.push((shape.priority, &shape.source, Edge { id, condition, priority: shape.priority, target, mapping }));
    }
    // A stable sort keeps the order of the text among equals.
    drawn.sort_by_key(|(priority, ..)| std::cmp::Reverse(*priority));
    for (_, source, edge) in drawn {
        if let Some(node) = nodes.get_mut(source) {
            node.edges.push(edge);
        }
    }
}

/// A router's routes are edges of which the model chooses one.
fn routes<'a>(graph: &'a Graph, drawn: &mut Vec<(i32, &'a str, Edge)>, faults: &mut Faults<'_>) {
    for (i, node) in graph.nodes.iter().enumerate() {
        for (route, target) in &node.routes {
            if graph.nodes.iter().all(|other| other.id != *target) {
                faults.add(format!("graph.nodes[{i}].routes"), target, format!("there is no node {target:?}"));
            }
            let said = node.system_prompt.as_deref().unwrap_or_default();
            let condition = Condition::Model(format!("{route:?} is the one route to take. {said}").trim().to_owned());
            let id = format!("{}-{route}", node.id);
            let edge = Edge { id, condition, priority: 0, target: target.clone(), mapping: BTreeMap::new() };
            drawn.push((0, &node.id, edge));
        }
    }
}

fn condition(path: &str, shape: &EdgeShape, faults: &mut Faults<'_>) -> Option<Condition> {
    match shape.condition.as_str() {
        "always" => Some(Condition::Always),
        "on_success" => Some(Condition::OnSuccess),
        "on_failure" => Some(Condition::OnFailure),
        "conditional" => {
            let Some(text) = shape.condition_expr.as_deref().filter(|text| !text.trim().is_empty()) else {
                faults.add(format!("{path}.condition_expr"), &shape.id, "a conditional edge needs an expression");
                return None;
            };
            match Expression::parse(text) {
                Ok(expression) => Some(Condition::Expression(Box::new(expression))),
                Err(error) => {
                    faults.add(format!("{path}.condition_expr"), &shape.id, error.to_string());
                    None
                }
            }
        }
        "llm_decide" => Some(Condition::Model(
            [&shape.condition_expr, &shape.description].into_iter().flatten().cloned().collect::<Vec<_>>().join("\n"),
        )),
        other => {
            let reason =
                format!("a condition is always, on_success, on_failure, conditional or llm_decide, not {other:?}");
            faults.add(format!("{path}.condition"), &shape.id, reason);
            None
        }
    }
}
