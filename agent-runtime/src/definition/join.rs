//! Where the branches of a fork come together.

use std::collections::{BTreeMap, VecDeque};

use super::Node;

/// The nearest node that every target leads to: the one whose longest way from a target is shortest,
/// and of several such the first by name. A target may itself be it.
pub(super) fn nearest<'a>(nodes: &'a BTreeMap<String, Node>, targets: &[&str]) -> Option<&'a str> {
    let ways: Vec<BTreeMap<&str, usize>> = targets.iter().map(|target| distances(nodes, target)).collect();
    let (first, others) = ways.split_first()?;
    let common = first.iter().filter_map(|(node, distance)| {
        let longest = others.iter().try_fold(*distance, |most, way| Some(most.max(*way.get(node)?)))?;
        Some((longest, *node))
    });
    common.min().map(|(_, node)| node)
}

fn distances<'a>(nodes: &'a BTreeMap<String, Node>, from: &str) -> BTreeMap<&'a str, usize> {
    let mut found = BTreeMap::new();
    let Some((from, _)) = nodes.get_key_value(from) else { return found };
    let mut next = VecDeque::from([(from.as_str(), 0)]);
    while let Some((id, distance)) = next.pop_front() {
        if found.contains_key(id) {
            continue;
        }
        found.insert(id, distance);
        let edges = nodes.get(id).map(|node| node.edges.as_slice()).unwrap_or_default();
        next.extend(edges.iter().map(|edge| (edge.target.as_str(), distance + 1)));
    }
    found
}
