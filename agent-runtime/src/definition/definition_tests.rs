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
    assert!(matches!(loaded.agent.nodes["greet"].edges[0].condition, Condition::OnSuccess));
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
        ("node_type: exec", "node_type: dream", "graph.nodes[0].node_type"),
        ("node_type: exec", "node_type: exec, effects: twice", "graph.nodes[0].effects"),
        ("node_type: exec", "node_type: exec, tool_effects: {a: once}", "graph.nodes[0].tool_effects"),
        ("target: rest}", "target: rest, condition: conditional}", "graph.edges[0].condition_expr"),
        ("target: rest}", "target: rest, condition: often}", "graph.edges[0].condition"),
        ("trigger_type: timer", "trigger_type: webhook", "graph.async_entry_points[0].trigger_config"),
        ("trigger_type: timer", "trigger_type: event", "graph.async_entry_points[0].trigger_config"),
        ("trigger_type: timer", "trigger_type: moon", "graph.async_entry_points[0].trigger_type"),
        ("interval_seconds: 5", "interval_seconds: 5, overlap: x", "graph.async_entry_points[0].trigger_config"),
        ("interval_seconds: 5", "interval_seconds: 5, missed: x", "graph.async_entry_points[0].trigger_config"),
        ("interval_seconds: 5", "interval_seconds: 0", "graph.async_entry_points[0].trigger_config"),
        ("interval_seconds: 5", "cron: 'x'", "graph.async_entry_points[0].trigger_config"),
        ("interval_seconds: 5", "cron: '* * * * *', time_zone: Nowhere", "graph.async_entry_points[0].trigger_config"),
        (
            "entry_node: greet",
            "isolation_level: synchronized, entry_node: greet",
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
fn unknown_keys_are_warned_about_once_each() {
    let text = HELLO.replace("id: rest,", "id: rest, sparkle: 1,");
    let loaded = parse("agent.yaml", &text).expect("it is valid");
    assert_eq!(loaded.warnings, ["graph.nodes[1].sparkle is not used by this version"]);
}

#[test]
fn unknown_keys_are_allowed_everywhere_and_what_only_describes_is_not_told() {
    let text = HELLO
        .replace("agent: {id: hello}", "agent: {id: hello, version: '1', glitter: 1}\nshine: 1")
        .replace("graph:\n", "graph:\n  gloss: 1\n  loop_config: {max_history_tokens: 9}\n")
        .replace("{interval_seconds: 5}", "{interval_seconds: 5, gleam: 1}, isolation_level: shared")
        .replace("{id: e,", "{id: e, glow: 1, description: x,");
    let mut warnings = parse("agent.yaml", &text).expect("it is valid").warnings;
    let shared = warnings.pop().unwrap();
    assert!(shared.contains("isolation_level is shared") && shared.contains("memory of its own"), "{shared}");
    let keys = ["shine", "agent.glitter", "graph.gloss", "graph.loop_config.max_history_tokens"];
    let keys = keys.into_iter().chain(["graph.async_entry_points[0].trigger_config.gleam", "graph.edges[0].glow"]);
    assert_eq!(warnings, keys.map(|key| format!("{key} is not used by this version")).collect::<Vec<_>>());
}

#[test]
fn words_of_older_exports_are_read_and_what_an_export_does_not_hold_is_refused_with_what_to_do() {
    let node = |own: &str| parse("a.yaml", &format!("graph:\n  entry_node: a\n  nodes:\n    - {{id: a, {own}}}\n"));
    for own in ["node_type: llm_tool_use", "node_type: llm_generate", "node_type: router", "node_type: human_input"] {
        let loaded = node(own).unwrap_or_else(|error| panic!("{own}: {error}"));
        assert!(loaded.warnings.is_empty(), "{own}: {:?}", loaded.warnings);
    }
    let asks = node("tools: [ask_user, set_output, look]").expect("it is valid").agent;
    let NodeKind::Loop(event_loop) = &asks.nodes["a"].kind else { panic!("an event_loop") };
    assert!(event_loop.client_facing && event_loop.tools == ["look"]);
    for (own, field, word) in [
        ("node_type: function, function: f", "node_type", "exec"),
        ("node_type: gcu", "node_type", "MCP server"),
        ("sub_agents: [b]", "sub_agents", "edges"),
        ("node_type: router, routes: {x: nowhere}", "routes", "nowhere"),
    ] {
        let fault = node(own).expect_err(own).faults.remove(0);
        assert_eq!(fault.field, format!("graph.nodes[0].{field}"), "{fault:?}");
        assert!(fault.reason.contains(word), "{fault:?}");
    }
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
        other => panic!("a timer, not {other:?}"),
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
        let mut due = Vec::new();
        while let Some(next) = daily.next(at).filter(|next| *next < end) {
            assert!(next > at);
            due.push(next);
            (at, count) = (next, count + 1);
        }
        assert_eq!(count, 2, "two days from {from}");
        if from.starts_with("2026-03") {
            let gap: Timestamp = "2026-03-29T01:00:00Z".parse().unwrap();
            let after = due[0].duration_since(gap);
            assert!((0..=1800).contains(&after.as_secs()), "once after the gap: {}", due[0]);
        }
    }
}

#[test]
fn a_cron_of_every_hour_goes_on_by_real_hours_over_the_change_of_the_clocks() {
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    for (expression, minute) in [("0 * * * *", 0), ("30 * * * *", 30)] {
        let hourly = schedule(&format!("cron: '{expression}', time_zone: Europe/Berlin"));
        for (day, hours) in [("2026-10-25", 25), ("2026-03-29", 23), ("2026-06-01", 24)] {
            let date: jiff::civil::Date = day.parse().unwrap();
            let begin = date.to_zoned(zone.clone()).unwrap().timestamp();
            let end = date.tomorrow().unwrap().to_zoned(zone.clone()).unwrap().timestamp();
            let first = begin.checked_sub(jiff::SignedDuration::from_secs(1)).unwrap();
            let due: Vec<Timestamp> = std::iter::successors(Some(first), |at| hourly.next(*at))
                .skip(1)
                .take_while(|next| *next < end)
                .collect();
            // Each is a tick of its own, an hour after the one before: none comes twice and none is left out.
            assert!(due.windows(2).all(|two| two[1].duration_since(two[0]).as_secs() == 3600), "{due:?}");
            assert_eq!(due.len(), hours, "{day} {expression}");
            assert!(due.iter().all(|due| due.to_zoned(zone.clone()).minute() == minute), "{due:?}");
        }
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

#[test]
fn a_fault_names_line_and_column() {
    let fault = faults(&HELLO.replace("target: rest", "target: nowhere")).remove(0);
    assert_eq!((fault.line, fault.column), (Some(8), Some(38)));
}

fn graph(edges: &[(&str, &str)]) -> Agent {
    let nodes: std::collections::BTreeSet<&str> = edges.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let nodes = nodes.iter().map(|id| format!("    - {{id: {id}, node_type: wait, seconds: 1}}\n")).collect::<String>();
    let edges = edges
        .iter()
        .map(|(a, b)| format!("    - {{source: {a}, target: {b}, condition: always}}\n"))
        .collect::<String>();
    parse("a.yaml", &format!("graph:\n  nodes:\n{nodes}  edges:\n{edges}")).expect("it is valid").agent
}

#[test]
fn branches_join_at_the_nearest_node_that_all_of_them_lead_to() {
    let diamond = graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e")]);
    assert_eq!(diamond.join(&["b", "c"]), Some("d"));
    let short = graph(&[("a", "b"), ("a", "c"), ("b", "c")]);
    assert_eq!(short.join(&["b", "c"]), Some("c"), "a target may be the join itself");
    assert_eq!(graph(&[("a", "b"), ("a", "c")]).join(&["b", "c"]), None);
    let looped = graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "a")]);
    assert_eq!(looped.join(&["b", "c"]), Some("d"));
}

#[test]
fn a_webhook_keeps_off_the_runtimes_own_paths_and_needs_a_secret_that_is_one() {
    let webhook = |config: &str| {
        let text = HELLO.replace("trigger_type: timer, trigger_config: {interval_seconds: 5}", config);
        parse("agent.yaml", &text.replace("CONFIG", ""))
    };
    let ok = webhook("trigger_type: webhook, trigger_config: {path: /hooks/x, methods: [post], secret: '${NAME}'}");
    let agent = ok.expect("it is valid").agent;
    let Trigger::Webhook(hook) = &agent.entry_points["tick"].trigger else { panic!("a webhook") };
    assert_eq!(hook.secret, Some(entry::Secret::Environment("NAME".to_owned())));
    for bad in [
        "path: /api/v1/x",
        "path: hooks",
        "path: '/a b'",
        "path: /x, secret: ''",
        "path: /x, methods: [GET]",
        "path: /x, requests_per_minute: 0",
        "path: /x, secret: a, secret_file: /b",
    ] {
        let config = format!("trigger_type: webhook, trigger_config: {{{bad}}}");
        let error = webhook(&config).expect_err(bad);
        assert_eq!(error.faults[0].field, "graph.async_entry_points[0].trigger_config", "{bad}");
    }
}

proptest! {
    #[test]
    fn a_missed_tick_is_the_newest_due_one_in_the_window(
        seconds in 1i64..5000, catch_up in 1i64..5000, last in 0i64..100_000, gone in 0i64..20_000,
    ) {
        let timer = schedule(&format!("interval_seconds: {seconds}, missed: runOnce, catchup_seconds: {catch_up}"));
        let at = |second| Timestamp::from_second(second).unwrap();
        let now = at(last + gone);
        let due = (last + gone).div_euclid(seconds) * seconds;
        let served = due > last && due > last + gone - catch_up;
        prop_assert_eq!(timer.missed(Some(at(last)), now), served.then(|| at(due)));
    }
}
