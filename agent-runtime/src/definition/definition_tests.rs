use proptest::prelude::*;

use jiff::Timestamp;

use super::*;

const HELLO: &str = r#"
agent: {id: hello}
graph:
  nodes:
    - {id: greet, node_type: exec, command: [/bin/echo, "{}"]}
    - {id: rest, node_type: wait, seconds: 1}
  edges:
    - {id: e, source: greet, target: rest}
  async_entry_points:
    - {id: tick, entry_node: greet, trigger_type: timer, trigger_config: {interval_seconds: 5}}
"#;

fn faults(text: &str) -> Vec<Fault> {
    parse("agent.yaml", text).expect_err("it is invalid").faults
}

#[test]
fn a_small_agent_is_resolved() {
    let loaded = parse("agent.yaml", HELLO).expect("it is valid");
    assert_eq!(loaded.agent.name, "hello");
    assert_eq!(loaded.agent.entry_points["tick"].node, "greet");
    assert_eq!(loaded.agent.nodes["greet"].edges[0].condition, Condition::OnSuccess);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn what_does_not_parse_names_line_and_column() {
    let fault = faults("graph:\n  nodes: [\n").remove(0);
    assert!(fault.line.is_some() && fault.column.is_some(), "{fault:?}");
    let json = parse("a.json", "{\n  \"graph\": }").expect_err("it is invalid");
    assert_eq!(json.faults[0].line, Some(2));
    assert!(json.to_string().starts_with("a.json:2:"), "{json}");
}

#[test]
fn every_fault_names_its_field_and_line() {
    let text = HELLO.replace("target: rest", "target: nowhere").replace("seconds: 1}", "seconds: 0}");
    let found = faults(&text);
    let fields: Vec<_> = found.iter().map(|f| (f.field.as_str(), f.line)).collect();
    assert_eq!(fields, [("graph.nodes[1].seconds", Some(6)), ("graph.edges[0].target", Some(8))]);
}

#[test]
fn what_cannot_be_run_is_refused_and_not_ignored() {
    for (from, to, field) in [
        ("node_type: exec", "node_type: event_loop", "graph.nodes[0].node_type"),
        ("target: rest}", "target: rest, condition: conditional}", "graph.edges[0].condition"),
        ("trigger_type: timer", "trigger_type: webhook", "graph.async_entry_points[0].trigger_type"),
        ("interval_seconds: 5", "interval_seconds: 0", "graph.async_entry_points[0].trigger_config"),
        ("interval_seconds: 5", "cron: 'x'", "graph.async_entry_points[0].trigger_config"),
        ("interval_seconds: 5", "cron: '* * * * *', time_zone: Nowhere", "graph.async_entry_points[0].trigger_config"),
        (
            "entry_node: greet",
            "isolation_level: shared, entry_node: greet",
            "graph.async_entry_points[0].isolation_level",
        ),
        ("id: greet", "id: 'a b'", "graph.nodes[0].id"),
        ("[/bin/echo, \"{}\"]", "[]", "graph.nodes[0].command"),
    ] {
        let text = HELLO.replacen(from, to, 1);
        assert_ne!(text, HELLO);
        let found = faults(&text);
        assert!(found.iter().any(|f| f.field == field), "{to}: {found:?}");
    }
}

#[test]
fn two_edges_that_hold_at_once_are_refused() {
    let text = HELLO.replace(
        "    - {id: e, source: greet, target: rest}",
        "    - {id: e, source: greet, target: rest}\n    - {id: f, source: greet, target: greet, condition: always}",
    );
    assert_eq!(faults(&text)[0].field, "graph.edges[1]");
}

#[test]
fn unknown_keys_are_warned_about_once_each() {
    let text = HELLO.replace("id: rest,", "id: rest, sparkle: 1,");
    let loaded = parse("agent.yaml", &text).expect("it is valid");
    assert_eq!(loaded.warnings, ["graph.nodes[1].sparkle is not used by this version"]);
}

#[test]
fn an_agent_without_entry_points_gets_main() {
    let loaded = parse("a.yaml", "graph: {nodes: [{id: a, node_type: wait, seconds: 1}]}").expect("it is valid");
    assert_eq!(loaded.agent.entry_points.keys().collect::<Vec<_>>(), ["main"]);
}

fn schedule(config: &str) -> Schedule {
    let text = HELLO.replace("interval_seconds: 5", config);
    let loaded = parse("agent.yaml", &text).expect("it is valid");
    match &loaded.agent.entry_points["tick"].trigger {
        Trigger::Timer(schedule) => schedule.as_ref().clone(),
        Trigger::Api => panic!("a timer"),
    }
}

#[test]
fn cron_runs_once_over_the_change_of_the_clocks() {
    // On 29 March 2026 the hour from 2 to 3 does not exist in Berlin; on 25 October it comes twice.
    let daily = schedule("cron: '30 2 * * *', time_zone: Europe/Berlin");
    for (from, to) in
        [("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"), ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z")]
    {
        let (mut at, end): (Timestamp, Timestamp) = (from.parse().unwrap(), to.parse().unwrap());
        let mut count = 0;
        while let Some(next) = daily.next(at).filter(|next| *next < end) {
            assert!(next > at);
            (at, count) = (next, count + 1);
        }
        assert_eq!(count, 2, "two days from {from}");
    }
}

proptest! {
    #[test]
    fn an_interval_is_aligned_and_moves_on(seconds in 1i64..100_000, from in 0i64..4_000_000_000) {
        let timer = schedule(&format!("interval_seconds: {seconds}"));
        let at = Timestamp::from_second(from).unwrap();
        let next = timer.next(at).unwrap();
        prop_assert!(next > at && next.as_second() <= from + seconds);
        prop_assert_eq!(next.as_second() % seconds, 0);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}") {
        let _ = parse("a.yaml", &text);
        let _ = parse("a.json", &text);
    }
}
