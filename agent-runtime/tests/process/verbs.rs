//! The table of states and verbs, cell by cell, through the real server.

use lifecycle::wire::Command;
use lifecycle::{State, Verb};
use rustix::process::Signal;
use serde_json::json;

use crate::process::{Home, Runtime, eventually, held};

const VERBS: [Verb; 5] = [Verb::Start, Verb::Resume, Verb::Pause, Verb::Stop, Verb::Restart];

/// An agent that stays `starting`: what it needs cannot be had, and is asked for again and again.
fn waiting_for_tools() -> String {
    "graph: {nodes: [{id: n, node_type: event_loop, tools: [far_away]}]}".to_owned()
}

/// Where a runtime is brought before it is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Stopped,
    Starting,
    Running,
    Pausing,
    Paused,
    StoppingToStopped,
    StoppingToRunning,
    StoppingToPaused,
    Exiting,
}

/// The status of each verb's answer, in the order of [`VERBS`], for a person. Where something is in flight,
/// nothing is reached before its answer; a start that is aborted is.
const PERSON: [(At, [u16; 5]); 9] = [
    (At::Stopped, [202, 409, 409, 200, 202]),
    (At::Starting, [202, 202, 202, 200, 202]),
    (At::Running, [200, 200, 202, 202, 202]),
    (At::Pausing, [409, 200, 202, 202, 202]),
    (At::Paused, [409, 200, 200, 200, 202]),
    (At::StoppingToStopped, [202, 409, 409, 202, 202]),
    (At::StoppingToRunning, [202, 409, 409, 202, 202]),
    (At::StoppingToPaused, [202, 409, 409, 202, 202]),
    (At::Exiting, [409, 409, 409, 202, 409]),
];

/// The same for the operator, whose verbs are declarative.
const OPERATOR: [(At, [u16; 5]); 9] = [
    (At::Stopped, [202, 202, 202, 200, 202]),
    (At::Starting, [202, 202, 202, 200, 202]),
    (At::Running, [200, 200, 202, 202, 202]),
    (At::Pausing, [200, 200, 202, 202, 202]),
    (At::Paused, [200, 200, 200, 200, 202]),
    (At::StoppingToStopped, [202, 202, 202, 202, 202]),
    (At::StoppingToRunning, [202, 202, 202, 202, 202]),
    (At::StoppingToPaused, [202, 202, 202, 202, 202]),
    (At::Exiting, [409, 409, 409, 202, 409]),
];

/// One who gives commands: a person, or the operator with an epoch that rises.
struct Giver {
    epoch: Option<i64>,
}

impl Giver {
    fn next(&mut self) -> Command {
        let Some(epoch) = &mut self.epoch else { return Command::default() };
        *epoch += 1;
        crate::process::command(*epoch)
    }

    async fn give(&mut self, runtime: &Runtime, verb: Verb) -> u16 {
        let body = serde_json::to_string(&self.next()).unwrap();
        runtime.post(&format!("/api/v1/lifecycle/{verb}"), &[], &body).await.0
    }
}

async fn bring(at: At, operator: bool) -> (Home, Runtime, Giver) {
    let agent = if at == At::Starting { waiting_for_tools() } else { held() };
    let home = Home::new(&agent).with("HIVE_LLM_BASE_URL", "http://127.0.0.1:9");
    let servers = json!({"far": {"url": "http://127.0.0.1:9/mcp"}});
    std::fs::write(home.path("mcp_servers.json"), servers.to_string()).unwrap();
    let home = if operator { home.managed() } else { home };
    if operator {
        home.write_boot(1, "running");
    }
    let runtime = home.start().await;
    let mut giver = Giver { epoch: operator.then_some(1) };
    if operator {
        runtime.send(Verb::Start, &crate::process::command(1)).await.unwrap();
    }
    if at == At::Starting {
        runtime.reach(State::Starting).await;
        return (home, runtime, giver);
    }
    runtime.reach(State::Running).await;
    let works = !matches!(at, At::Stopped | At::Paused);
    if works {
        runtime.work(&home).await;
    }
    let (path, reached): (&[Verb], State) = match at {
        At::Stopped => (&[Verb::Stop], State::Stopped),
        At::Starting | At::Running => (&[], State::Running),
        At::Pausing => (&[Verb::Pause], State::Pausing),
        At::Paused => (&[Verb::Pause], State::Paused),
        At::StoppingToStopped => (&[Verb::Stop], State::Stopping),
        At::StoppingToRunning => (&[Verb::Restart], State::Stopping),
        At::StoppingToPaused => (&[Verb::Pause, Verb::Restart], State::Stopping),
        At::Exiting => (&[], State::Stopping),
    };
    for verb in path {
        giver.give(&runtime, *verb).await;
    }
    if at == At::Exiting {
        runtime.signal(Signal::TERM);
    }
    runtime.reach(reached).await;
    (home, runtime, giver)
}

async fn cell(at: At, verb: Verb, operator: bool) -> u16 {
    let (home, runtime, mut giver) = bring(at, operator).await;
    let code = giver.give(&runtime, verb).await;
    // In every state it is alive, and only where triggers are taken it is ready.
    assert_eq!(runtime.get("/health/live").await.0, 200, "{at:?} {verb}");
    if code == 409 {
        let (_, problem) = runtime
            .post(&format!("/api/v1/lifecycle/{verb}"), &[], &serde_json::to_string(&giver.next()).unwrap())
            .await;
        let kind = problem["type"].as_str().unwrap();
        assert_eq!(kind, if at == At::Exiting { "terminating" } else { "conflict" }, "{at:?} {verb}");
        assert!(problem["runtime"]["state"].is_string(), "a refusal bears the whole status: {problem}");
    }
    home.let_go();
    runtime.kill().await;
    code
}

async fn table(rows: [(At, [u16; 5]); 9], operator: bool) {
    let mut wrong = Vec::new();
    for (at, codes) in rows {
        let cells = VERBS.map(|verb| cell(at, verb, operator));
        let found = futures::future::join_all(cells).await;
        for ((verb, code), found) in VERBS.iter().zip(codes).zip(found) {
            // What loads is sometimes there before its answer is: then 202 is 200.
            let early = at == At::Stopped && (code, found) == (202, 200);
            if code != found && !early {
                wrong.push(format!("{at:?} {verb}: {found}, not {code}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_persons_verb_is_answered_as_the_table_says_in_every_state() {
    table(PERSON, false).await;
}

#[tokio::test]
async fn the_operators_verb_is_answered_as_the_table_says_in_every_state() {
    table(OPERATOR, true).await;
}

#[tokio::test]
async fn readiness_is_what_each_state_says() {
    for at in [At::Stopped, At::Starting, At::Running, At::Pausing, At::Paused, At::StoppingToStopped, At::Exiting] {
        let (home, runtime, _) = bring(at, false).await;
        let ready = runtime.get("/health/ready").await.0;
        assert_eq!(ready, if at == At::Running { 200 } else { 503 }, "{at:?}");
        home.let_go();
        runtime.kill().await;
    }
}

#[tokio::test]
async fn the_counters_bump_the_version_at_most_once_a_second() {
    let home = Home::new(&crate::process::agent(0.0));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    let number = |version: &str| version.rsplit_once('.').unwrap().1.parse::<u64>().unwrap();
    let begun = std::time::Instant::now();
    let (first, ticks) = (number(&runtime.status().await.version), home.lines("ticks").len());
    eventually("many executions have run", || async { home.lines("ticks").len() >= ticks + 12 }).await;
    let bumps = number(&runtime.status().await.version) - first;
    assert!(bumps <= begun.elapsed().as_secs() + 2, "{bumps} in {:?}", begun.elapsed());
}
