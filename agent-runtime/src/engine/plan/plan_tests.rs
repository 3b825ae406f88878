use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::definition::parse;

fn agent(graph: &str) -> Agent {
    parse("a.yaml", graph).expect("it is valid").agent
}

/// Nodes that wait, and edges such as `a>b`, `a!b` on failure, `a?b:expression`.
fn drawn(nodes: &str, edges: &[&str]) -> Agent {
    let nodes: String = nodes
        .split(' ')
        .map(|node| {
            let (id, outputs) = node.split_once('=').unwrap_or((node, ""));
            format!("    - {{id: {id}, node_type: exec, command: [x], max_retries: 0, output_keys: [{outputs}]}}\n")
        })
        .collect();
    let edge = |edge: &&str| {
        let at = edge.find(['>', '!', '?']).unwrap();
        let (source, rest) = (&edge[..at], &edge[at + 1..]);
        let (target, expression) = rest.split_once(':').unwrap_or((rest, ""));
        let condition = match &edge[at..=at] {
            ">" => "on_success".to_owned(),
            "!" => "on_failure".to_owned(),
            _ => format!("conditional, condition_expr: \"{expression}\""),
        };
        format!("    - {{source: {source}, target: {target}, condition: {condition}}}\n")
    };
    let edges: String = edges.iter().map(edge).collect();
    let edges = if edges.is_empty() { "    []\n".to_owned() } else { edges };
    agent(&format!("graph:\n  max_steps: 50\n  nodes:\n{nodes}  edges:\n{edges}"))
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn begin(agent: &Agent) -> Execution {
    let entry = agent.entry_points.values().next().unwrap();
    let mut execution = Execution::new("main", "hash", &entry.node, Map::new(), now());
    take_up(&mut execution, Some(agent), now());
    execution
}

fn outputs(values: Value) -> Outcome {
    let Value::Object(values) = values else { panic!("an object") };
    Outcome::Success(values)
}

/// The branch that is at a node.
fn branch(execution: &Execution, node: &str) -> String {
    let at = execution.branches.iter().find(|(_, branch)| branch.node == node && branch.phase == Phase::Ready);
    at.unwrap_or_else(|| panic!("no branch is at {node}: {:?}", execution.branches)).0.clone()
}

fn done(agent: &Agent, execution: &mut Execution, node: &str, outcome: Outcome) {
    let id = branch(execution, node);
    settle(agent, execution, &id, outcome, &Choice::new(), now());
}

#[test]
fn a_line_of_nodes_succeeds() {
    let agent = drawn("a=x b", &["a>b"]);
    let mut execution = begin(&agent);
    done(&agent, &mut execution, "a", outputs(json!({"x": 1})));
    done(&agent, &mut execution, "b", outputs(json!({})));
    assert_eq!((execution.state, execution.memory["x"].as_i64(), execution.steps), (State::Succeeded, Some(1), 2));
}

#[test]
fn a_fork_joins_once_and_the_last_in_edge_order_wins_whoever_is_first() {
    let agent = drawn("a b=k c=k d", &["a>b", "a>c", "b>d", "c>d"]);
    for order in [["b", "c"], ["c", "b"]] {
        let mut execution = begin(&agent);
        done(&agent, &mut execution, "a", outputs(json!({})));
        assert_eq!(ready(&execution), ["main.1", "main.2"]);
        for node in order {
            assert!(execution.memory.is_empty(), "a branch's writes stay its own until the join");
            done(&agent, &mut execution, node, outputs(json!({"k": node})));
        }
        assert_eq!((execution.memory["k"].as_str(), ready(&execution)), (Some("c"), vec!["main".to_owned()]));
        done(&agent, &mut execution, "d", outputs(json!({})));
        assert_eq!((execution.state, execution.visits["d"]), (State::Succeeded, 1));
    }
}

#[test]
fn a_branch_sees_what_it_wrote_and_not_what_its_sibling_wrote() {
    let agent = drawn("a b=k c=l b2 c2 d", &["a>b", "a>c", "b>b2", "c>c2", "b2>d", "c2>d"]);
    let mut execution = begin(&agent);
    done(&agent, &mut execution, "a", outputs(json!({})));
    done(&agent, &mut execution, "b", outputs(json!({"k": 1})));
    done(&agent, &mut execution, "c", outputs(json!({"l": 2})));
    assert_eq!(Value::Object(view(&execution, &branch(&execution, "b2"))), json!({"k": 1}));
    assert_eq!(Value::Object(view(&execution, &branch(&execution, "c2"))), json!({"l": 2}));
}

#[test]
fn a_failed_branch_fails_the_join_after_the_others_unless_an_edge_takes_it() {
    let failing = drawn("a b c d", &["a>b", "a>c", "b>d", "c>d"]);
    let mut execution = begin(&failing);
    done(&failing, &mut execution, "a", outputs(json!({})));
    done(&failing, &mut execution, "b", Outcome::failed("exit", "broke"));
    assert_eq!(execution.state, State::Running, "the other branch goes on");
    done(&failing, &mut execution, "c", outputs(json!({})));
    assert_eq!((execution.state, execution.error.as_deref()), (State::Failed, Some("b: broke")));
    // Tried again, only the failed branch is run.
    retry(&mut execution, now()).expect("it failed");
    assert_eq!(ready(&execution), ["main.1"]);
    take_up(&mut execution, Some(&failing), now());
    done(&failing, &mut execution, "b", outputs(json!({})));
    done(&failing, &mut execution, "d", outputs(json!({})));
    assert_eq!(execution.state, State::Succeeded);

    let taken = drawn("a b c d e", &["a>b", "a>c", "b>d", "c>d", "b!e", "e>d"]);
    let mut execution = begin(&taken);
    done(&taken, &mut execution, "a", outputs(json!({})));
    done(&taken, &mut execution, "b", Outcome::failed("exit", "broke"));
    done(&taken, &mut execution, "e", outputs(json!({})));
    done(&taken, &mut execution, "c", outputs(json!({})));
    done(&taken, &mut execution, "d", outputs(json!({})));
    assert_eq!(execution.state, State::Succeeded);
}

#[test]
fn branches_without_a_join_end_each_by_itself() {
    let agent = drawn("a b=k c=l", &["a>b", "a>c"]);
    let mut execution = begin(&agent);
    done(&agent, &mut execution, "a", outputs(json!({})));
    done(&agent, &mut execution, "c", outputs(json!({"l": 2})));
    assert_eq!(execution.state, State::Running);
    done(&agent, &mut execution, "b", outputs(json!({"k": 1})));
    assert_eq!((execution.state, Value::Object(execution.memory)), (State::Succeeded, json!({"k": 1, "l": 2})));
}

#[test]
fn a_fork_in_a_fork_joins_inside_first() {
    let agent = drawn("a b c d e f g", &["a>b", "a>c", "b>d", "b>e", "d>f", "e>f", "f>g", "c>g"]);
    let mut execution = begin(&agent);
    for node in ["a", "b", "d", "c", "e", "f", "g"] {
        done(&agent, &mut execution, node, outputs(json!({})));
    }
    assert_eq!((execution.state, execution.steps, execution.branches.len()), (State::Succeeded, 7, 1));
}

#[test]
fn a_feedback_loop_ends_by_its_condition_or_by_its_bound() {
    let agent = drawn("work=more end", &["work?work:more == 'yes'", "work?end:more != 'yes'"]);
    let mut execution = begin(&agent);
    for more in ["yes", "yes", "no"] {
        done(&agent, &mut execution, "work", outputs(json!({"more": more})));
    }
    done(&agent, &mut execution, "end", outputs(json!({})));
    assert_eq!((execution.state, execution.visits["work"]), (State::Succeeded, 3));
    let mut execution = begin(&agent);
    while execution.state == State::Running {
        done(&agent, &mut execution, "work", outputs(json!({"more": "yes"})));
    }
    assert_eq!((execution.steps, execution.reason.as_deref()), (50, Some("limit")));
}

#[test]
fn of_several_conditions_that_hold_only_the_highest_priority_is_followed() {
    let agent = agent(
        "graph:\n  nodes:\n    - {id: a, node_type: exec, command: [x], output_keys: [n]}\n    - {id: b, node_type: wait, seconds: 1}\n    - {id: c, node_type: wait, seconds: 1}\n    - {id: d, node_type: wait, seconds: 1}\n  edges:\n    - {source: a, target: b, condition: conditional, condition_expr: 'n > 1', priority: 1}\n    - {source: a, target: c, condition: conditional, condition_expr: 'n > 2', priority: 2, input_mapping: {m: n}}\n    - {source: a, target: d, condition: conditional, condition_expr: 'n[0] > n', priority: 9}\n",
    );
    for (n, node) in [(2, "b"), (3, "c")] {
        let mut execution = begin(&agent);
        done(&agent, &mut execution, "a", outputs(json!({"n": n})));
        assert_eq!(execution.branches[MAIN].node, node, "an edge whose condition is an error is not followed");
        assert_eq!(execution.memory.get("m").and_then(Value::as_i64), (n == 3).then_some(3));
    }
}

#[test]
fn retries_are_parked_ever_longer_and_only_for_the_kinds_that_are_named() {
    let agent =
        agent("graph:\n  nodes:\n    - {id: a, node_type: exec, command: [x], max_retries: 2, retry_on: [timeout]}\n");
    let mut execution = begin(&agent);
    let mut at = now();
    for (attempt, seconds) in [(1, 1), (2, 2)] {
        settle(&agent, &mut execution, MAIN, Outcome::failed("timeout", "slow"), &Choice::new(), at);
        at = later(at, Duration::from_secs(seconds));
        assert_eq!(execution.branches[MAIN].phase, Phase::Parked { until: at });
        assert_eq!(execution.branches[MAIN].attempt, attempt);
        wake(&agent, &mut execution, at);
        assert_eq!(ready(&execution), [MAIN]);
    }
    settle(&agent, &mut execution, MAIN, Outcome::failed("timeout", "slow"), &Choice::new(), at);
    assert_eq!(execution.state, State::Failed);
    let mut execution = begin(&agent);
    done(&agent, &mut execution, "a", Outcome::failed("exit", "broke"));
    assert_eq!(execution.state, State::Failed, "exit is not named");
}

fn asks(about: About) -> Outcome {
    Outcome::Asks { question: "which?".to_owned(), call: None, about, expires: Duration::from_secs(60) }
}

#[test]
fn a_question_waits_for_its_answer_or_expires_into_failure() {
    let agent = drawn("a b", &["a!b"]);
    let mut execution = begin(&agent);
    done(&agent, &mut execution, "a", asks(About::Input));
    rest(&agent, &mut execution);
    assert_eq!((execution.state, execution.asks()), (State::Waiting, true));
    let mut answered = execution.clone();
    answer(&agent, &mut answered, None, &json!("this"), now()).expect("it asks");
    assert_eq!(ready(&answered), [MAIN]);
    assert!(matches!(answer(&agent, &mut answered, None, &json!("again"), now()), Err(Unanswered::NotAsking(_))));
    wake(&agent, &mut execution, later(now(), Duration::from_secs(61)));
    assert_eq!(execution.branches[MAIN].node, "b", "on_failure takes it");
}

#[test]
fn an_uncertain_effect_is_retried_used_or_failed_as_a_person_says() {
    let agent = drawn("a=k b", &["a>b"]);
    for (said, state, node) in [
        (json!({"action": "retry"}), State::Running, "a"),
        (json!({"action": "use", "output": {"k": 7}}), State::Running, "b"),
        (json!({"action": "fail"}), State::Failed, "a"),
    ] {
        let mut execution = begin(&agent);
        done(&agent, &mut execution, "a", asks(About::Uncertain));
        assert_eq!(answer(&agent, &mut execution, None, &json!("what?"), now()).err(), Some(Unanswered::Action));
        answer(&agent, &mut execution, None, &said, now()).expect("it asks");
        assert_eq!((execution.state, execution.branches[MAIN].node.as_str()), (state, node), "{said}");
    }
}

#[test]
fn a_pause_node_waits_and_goes_on_where_its_resume_says() {
    let text = "graph:\n  entry_points: {start: a, a_resume: c}\n  pause_nodes: [a]\n  nodes:\n    - {id: a, node_type: exec, command: [x], output_keys: [k]}\n    - {id: b, node_type: wait, seconds: 1}\n    - {id: c, node_type: wait, seconds: 1}\n  edges: [{source: a, target: b}]\n";
    for (text, node) in [(text.to_owned(), "c"), (text.replace(", a_resume: c", ""), "b")] {
        let agent = agent(&text);
        assert_eq!(agent.entry_points.keys().collect::<Vec<_>>(), ["start"]);
        let mut execution = begin(&agent);
        done(&agent, &mut execution, "a", outputs(json!({"k": 1})));
        assert!(execution.asks());
        answer(&agent, &mut execution, None, &json!({"more": 2}), now()).expect("it asks");
        assert_eq!(execution.branches[MAIN].node, node);
        assert_eq!(Value::Object(execution.memory.clone()), json!({"k": 1, "more": 2}));
    }
}

#[test]
fn cancel_takes_every_branch_and_never_follows_on_failure() {
    let agent = drawn("a b c d", &["a>b", "a>c", "b!d"]);
    let mut execution = begin(&agent);
    done(&agent, &mut execution, "a", outputs(json!({})));
    cancel(&mut execution, true, now());
    assert_eq!((execution.state, execution.ended), (State::Cancelling, None));
    let mut crashed = execution.clone();
    take_up(&mut crashed, Some(&agent), now());
    assert_eq!(crashed.state, State::Cancelled, "what a crash left is not run again");
    cancel(&mut execution, false, now());
    assert_eq!((execution.state, ready(&execution).len()), (State::Cancelled, 0));
}

#[test]
fn three_claims_without_progress_are_a_crash_loop() {
    let agent = drawn("a", &[]);
    let mut execution = begin(&agent);
    for _ in 0..2 {
        take_up(&mut execution, Some(&agent), now());
        assert_eq!(execution.state, State::Running);
    }
    take_up(&mut execution, Some(&agent), now());
    assert_eq!((execution.state, execution.reason.as_deref()), (State::Failed, Some("crash_loop")));
}

#[test]
fn the_first_deadline_counts() {
    let text = "graph:\n  limits: {seconds: 9}\n  async_entry_points: [{id: e, entry_node: a, timeout_seconds: 5}]\n  nodes: [{id: a, node_type: wait, seconds: 1}]\n";
    let agent = agent(text);
    let mut execution = begin(&agent);
    let found = deadline(&agent, agent.entry_points.get("e"), &execution).unwrap();
    assert_eq!((found.kind, found.at), ("timeout", later(now(), Duration::from_secs(5))));
    assert_eq!(deadline(&agent, None, &execution).unwrap().kind, "limit");
    settle(&agent, &mut execution, MAIN, Outcome::Parked(Duration::from_secs(60)), &Choice::new(), now());
    execution.entry_point = "e".to_owned();
    rest(&agent, &mut execution);
    assert_eq!((execution.state, execution.due()), (State::Waiting, Some(found.at)), "it is not slept through");
    give_up(&mut execution, found.kind, found.reason, now());
    assert_eq!((execution.state, execution.reason.as_deref()), (State::Failed, Some("timeout")));
}

/// A graph of up to eight nodes whose edges go anywhere, and the outcomes of its nodes.
fn walks() -> impl Strategy<Value = (Vec<(usize, usize, bool)>, Vec<u8>)> {
    let edge = (0usize..8, 0usize..8, prop::bool::weighted(0.8));
    (prop::collection::vec(edge, 0..16), prop::collection::vec(any::<u8>(), 1..200))
}

proptest! {
    /// Whatever the graph and the outcomes, an execution ends, no branch is lost, and steps are bounded.
    #[test]
    fn every_execution_ends((edges, outcomes) in walks()) {
        let edges: Vec<String> =
            edges.iter().map(|(a, b, ok)| format!("n{a}{}n{b}", if *ok { '>' } else { '!' })).collect();
        let edges: Vec<&str> = edges.iter().map(String::as_str).collect();
        let agent = drawn("n0 n1 n2 n3 n4 n5 n6 n7", &edges);
        let mut execution = begin(&agent);
        let mut outcomes = outcomes.into_iter().cycle();
        let mut settled = 0;
        while execution.state == State::Running {
            let ready = ready(&execution);
            prop_assert!(!ready.is_empty(), "nothing can go on: {:?}", execution.branches);
            let pick = usize::from(outcomes.next().unwrap()) % ready.len();
            let fails = outcomes.next().unwrap() % 4 == 0;
            let outcome = if fails { Outcome::failed("exit", "no") } else { outputs(json!({})) };
            settle(&agent, &mut execution, &ready[pick], outcome, &Choice::new(), now());
            settled += 1;
            prop_assert!(settled <= 50, "max_steps bounds it");
            let bytes = serde_json::to_vec(&execution).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Execution>(&bytes).unwrap(), &execution);
        }
        prop_assert!(execution.ended.is_some());
        let visits: u32 = execution.visits.values().sum();
        prop_assert_eq!(visits, execution.steps);
        prop_assert!(execution.state != State::Succeeded || execution.branches.len() == 1);
    }

    /// The order in which branches finish changes nothing in what they write.
    #[test]
    fn a_join_does_not_depend_on_who_is_first(order in Just([0usize, 1, 2, 3]).prop_shuffle()) {
        let agent = drawn("a b=k c=k d=k e=k f", &["a>b", "a>c", "a>d", "a>e", "b>f", "c>f", "d>f", "e>f"]);
        let mut execution = begin(&agent);
        done(&agent, &mut execution, "a", outputs(json!({})));
        for node in order.map(|n| ["b", "c", "d", "e"][n]) {
            done(&agent, &mut execution, node, outputs(json!({"k": node})));
        }
        prop_assert_eq!(&execution.memory["k"], "e");
        prop_assert_eq!(execution.branches, BTreeMap::from([(MAIN.to_owned(), Branch::at("f", 0))]));
    }
}
