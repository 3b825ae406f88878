//! From the text to what can be run: every name resolved, every number in its range, all faults at once.

mod edges;
mod entries;
mod nodes;

use std::time::Duration;

use super::shape::{File, Graph};
use super::{Agent, Breaker, Fault, Limits};

/// The longest window of a breaker: a day.
const MAX_WINDOW_SECONDS: f64 = 86_400.0;

/// Collects faults and finds their places in the text.
struct Faults<'a> {
    text: &'a str,
    found: Vec<Fault>,
}

impl Faults<'_> {
    /// Notes a fault. `near` is a word of the definition whose first place is shown.
    fn add(&mut self, field: String, near: &str, reason: impl Into<String>) {
        let place = (!near.is_empty())
            .then(|| self.text.lines().enumerate().find_map(|(i, line)| Some((i + 1, column(line, near)?))))
            .flatten();
        let at = |number: usize| u64::try_from(number).ok();
        let (line, column) = place.map_or((None, None), |(line, column)| (at(line), at(column)));
        self.found.push(Fault { line, column, field, reason: reason.into() });
    }
}

/// The column, from 1, at which a line holds the word by itself, quoted or not.
fn column(line: &str, word: &str) -> Option<usize> {
    let ends = |c: char| c.is_whitespace() || "\"',:[]{}".contains(c);
    let found = line.match_indices(word).find(|(at, _)| {
        let before = line.get(..*at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        before.is_none_or(ends) && after.is_none_or(ends)
    });
    found.map(|(at, _)| line.get(..at).map_or(0, |text| text.chars().count()) + 1)
}

pub(super) fn resolve(file: File, text: &str) -> Result<Agent, Vec<Fault>> {
    let mut faults = Faults { text, found: Vec::new() };
    let graph = file.graph;
    let mut nodes = nodes::resolve(&graph, &mut faults);
    edges::resolve(&graph, &mut nodes, &mut faults);
    let entry_points = entries::resolve(&graph, &mut faults);
    let limits = limits(&graph, &mut faults);
    let breaker = breaker(&graph, &mut faults);
    let continuous = match graph.conversation_mode.as_deref() {
        None | Some("isolated") => false,
        Some("continuous") => true,
        Some(other) => {
            let reason = format!("conversation_mode is continuous or isolated, not {other:?}");
            faults.add("graph.conversation_mode".to_owned(), "conversation_mode", reason);
            false
        }
    };
    if graph.max_steps == 0 {
        faults.add("graph.max_steps".to_owned(), "max_steps", "0 would run nothing: give at least 1");
    }
    if !faults.found.is_empty() {
        return Err(faults.found);
    }
    for id in &graph.terminal_nodes {
        // Terminal means that an execution ends there, whatever edges are drawn.
        if let Some(node) = nodes.get_mut(id) {
            node.edges.clear();
        }
    }
    let resume = graph.entry_points.iter().filter_map(|(id, node)| Some((resumes(id)?.to_owned(), node.clone())));
    let name = [file.agent.name, file.agent.id].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    Ok(Agent {
        name,
        hash: String::new(),
        text: String::new(),
        file: String::new(),
        entry_points,
        nodes,
        max_steps: graph.max_steps,
        identity: graph.identity_prompt.clone().unwrap_or_default(),
        continuous,
        resume: resume.collect(),
        limits,
        breaker,
    })
}

/// The node of an entry point called `NODE_resume`, which says where to go on after a pause at NODE.
fn resumes(entry_point: &str) -> Option<&str> {
    entry_point.strip_suffix("_resume")
}

fn limits(graph: &Graph, faults: &mut Faults<'_>) -> Limits {
    let shape = &graph.limits;
    for (name, value) in [
        ("tokens", shape.tokens),
        ("tokens_per_day", shape.tokens_per_day),
        ("steps_per_day", shape.steps_per_day),
        ("seconds", shape.seconds),
        ("seconds_per_day", shape.seconds_per_day),
    ] {
        if value < 0 {
            faults.add(format!("graph.limits.{name}"), name, "give 0, which is no limit, or more");
        }
    }
    Limits {
        tokens: shape.tokens,
        tokens_per_day: shape.tokens_per_day,
        steps_per_day: shape.steps_per_day,
        seconds: shape.seconds,
        seconds_per_day: shape.seconds_per_day,
    }
}

fn breaker(graph: &Graph, faults: &mut Faults<'_>) -> Option<Breaker> {
    let shape = graph.breaker.as_ref()?;
    if shape.failures == 0 {
        faults.add("graph.breaker.failures".to_owned(), "failures", "give at least 1");
    }
    let field = "graph.breaker.window_seconds";
    let window = duration(field, "window_seconds", shape.window_seconds, MAX_WINDOW_SECONDS, faults)?;
    Some(Breaker { failures: shape.failures, window })
}

fn duration(field: &str, near: &str, seconds: f64, most: f64, faults: &mut Faults<'_>) -> Option<Duration> {
    if seconds > 0.0 && seconds <= most {
        return Some(Duration::from_secs_f64(seconds));
    }
    faults.add(field.to_owned(), near, format!("give seconds, more than 0 and at most {most}"));
    None
}

const ID_RULE: &str = "an id has 1 to 100 letters, digits, dots, dashes and underscores";

/// Ids stand in paths, headers and store keys.
fn is_id(id: &str) -> bool {
    (1..=100).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}
