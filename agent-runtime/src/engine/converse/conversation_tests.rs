use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::definition::{NodeKind, parse};
use crate::llm::Usage;

/// A conversation at one node, entry by entry, as the engine would have it.
struct Talk {
    event_loop: EventLoop,
    outputs: Vec<Output>,
    entries: Vec<Entry>,
    place: Place,
}

fn talk(node: &str) -> Talk {
    let text = format!("graph:\n  nodes:\n    - {{id: n, {node}}}\n");
    let agent = parse("a.yaml", &text).expect("it is valid").agent;
    let node = &agent.nodes["n"];
    let NodeKind::Loop(event_loop) = &node.kind else { panic!("an event_loop") };
    let place = Place { branch: "main".to_owned(), node: "n".to_owned(), visit: 0, attempt: 0 };
    let mut talk =
        Talk { event_loop: event_loop.as_ref().clone(), outputs: node.outputs.clone(), entries: Vec::new(), place };
    talk.add(What::Said { text: "Task: n".to_owned(), reminder: false });
    talk
}

fn call(id: &str, name: &str, arguments: Value) -> Call {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    Call { id: id.to_owned(), name: name.to_owned(), arguments }
}

impl Talk {
    fn add(&mut self, what: What) {
        let Place { branch, node, visit, attempt } = self.place.clone();
        self.entries.push(Entry { at: Timestamp::UNIX_EPOCH, branch, node, visit, attempt, what });
    }

    fn answers(&mut self, text: &str, calls: Vec<Call>) {
        let answer = Answer { text: text.to_owned(), calls, usage: Usage::default(), truncated: false };
        self.add(What::Answered { answer });
    }

    fn called(&mut self, call: &str, tool: &str, is_error: bool) {
        let (call, tool) = (call.to_owned(), tool.to_owned());
        self.add(What::Called { call, tool, content: "ok".to_owned(), is_error });
    }

    fn read(&self) -> Conversation {
        read(&self.entries, &self.place, &self.outputs, false)
    }

    fn next(&self) -> Next {
        self.read().next(&self.event_loop, &self.outputs)
    }
}

fn set(id: &str, key: &str, value: Value) -> Call {
    call(id, SET_OUTPUT, json!({"key": key, "value": value}))
}

#[test]
fn a_node_is_done_when_every_output_is_set_and_the_model_calls_no_more_tools() {
    let mut talk = talk("output_keys: [a, b], nullable_output_keys: [b]");
    assert_eq!(talk.next(), Next::Ask);
    talk.answers("", vec![set("1", "a", json!(5))]);
    assert_eq!(talk.next(), Next::Run(vec![set("1", "a", json!(5))]));
    talk.called("1", SET_OUTPUT, false);
    assert_eq!(talk.next(), Next::Ask);
    talk.answers("done", Vec::new());
    assert_eq!(talk.next(), Next::Done(Map::from_iter([("a".to_owned(), json!(5))])));
}

#[test]
fn only_calls_without_a_result_are_run_after_a_crash() {
    let mut talk = talk("output_keys: [a], tools: [x]");
    let calls = vec![call("1", "x", json!({})), call("2", "x", json!({})), call("3", "x", json!({}))];
    talk.answers("", calls);
    talk.called("2", "x", false);
    let Next::Run(left) = talk.next() else { panic!("calls are left") };
    assert_eq!(left.iter().map(|call| call.id.as_str()).collect::<Vec<_>>(), ["1", "3"]);
}

#[test]
fn a_refused_output_is_not_set() {
    let mut talk = talk("output_keys: [a], output_schema: {a: {type: integer}}");
    talk.answers("", vec![set("1", "a", json!("many"))]);
    talk.called("1", SET_OUTPUT, true);
    assert!(talk.read().outputs.is_empty());
    for (arguments, good) in [
        (json!({"key": "a", "value": 3}), true),
        (json!({"key": "a", "value": "3"}), true),
        (json!({"key": "a", "value": "x"}), false),
        (json!({"key": "a"}), false),
        (json!({"key": "z", "value": 3}), false),
        (json!({"value": 3}), false),
    ] {
        let Value::Object(fields) = &arguments else { panic!("an object") };
        assert_eq!(output(&talk.outputs, fields).is_ok(), good, "{arguments}");
    }
}

#[test]
fn words_of_a_client_facing_node_are_a_question_until_all_is_set() {
    let mut talk = talk("output_keys: [a], client_facing: true");
    talk.answers("Which one?", Vec::new());
    assert_eq!(talk.next(), Next::Person("Which one?".to_owned(), None));
    talk.add(What::Asked { question: "Which one?".to_owned(), call: None });
    talk.add(What::Input { value: json!("the first") });
    assert_eq!(talk.next(), Next::Ask);
    assert_eq!(talk.read().messages.last(), Some(&Message::User { text: "the first".to_owned() }));
}

#[test]
fn ask_user_waits_after_the_other_calls_and_its_answer_is_its_result() {
    let mut talk = talk("output_keys: [a], client_facing: true, tools: [x]");
    let ask = call("2", ASK_USER, json!({"question": "Go on?"}));
    talk.answers("", vec![ask, call("1", "x", json!({}))]);
    assert!(matches!(talk.next(), Next::Run(calls) if calls.len() == 1));
    talk.called("1", "x", false);
    assert_eq!(talk.next(), Next::Person("Go on?".to_owned(), Some("2".to_owned())));
    talk.add(What::Asked { question: "Go on?".to_owned(), call: Some("2".to_owned()) });
    talk.add(What::Input { value: json!("yes") });
    assert_eq!(talk.next(), Next::Ask);
    let Some(Message::Tool { call, content, .. }) = talk.read().messages.pop() else { panic!("a result") };
    assert_eq!((call.as_str(), content.as_str()), ("2", "yes"));
}

#[test]
fn a_model_that_hands_in_nothing_is_reminded_and_then_fails() {
    let mut talk = talk("output_keys: [a], max_validation_retries: 1");
    talk.answers("I am done.", Vec::new());
    let Next::Remind(text) = talk.next() else { panic!("a reminder") };
    assert!(text.contains(" a."), "{text}");
    talk.add(What::Said { text, reminder: true });
    talk.answers("Really.", Vec::new());
    assert!(matches!(talk.next(), Next::Fail(failure) if failure.kind == "validation"));
}

#[test]
fn the_same_answer_several_turns_running_is_a_stall() {
    let mut talk = talk("output_keys: [a], tools: [x]");
    for n in 0..3 {
        assert_eq!(talk.next(), Next::Ask, "turn {n}");
        let id = n.to_string();
        talk.answers("", vec![call(&id, "x", json!({"q": 1}))]);
        talk.called(&id, "x", false);
    }
    assert!(matches!(talk.next(), Next::Fail(failure) if failure.kind == "stall"));
}

#[test]
fn turns_are_bounded() {
    let mut talk = talk("output_keys: [a], tools: [x]");
    talk.event_loop.max_iterations = 2;
    for n in 0..2 {
        let id = n.to_string();
        talk.answers("", vec![call(&id, "x", json!({"q": n}))]);
        talk.called(&id, "x", false);
    }
    assert!(matches!(talk.next(), Next::Fail(failure) if failure.kind == "iterations"));
}

#[test]
fn a_second_attempt_begins_anew_but_numbers_its_steps_on() {
    let mut talk = talk("output_keys: [a]");
    talk.answers("first", Vec::new());
    talk.add(What::Failed { kind: "llm".to_owned(), reason: "x".to_owned(), again: true, next: Vec::new() });
    talk.place.attempt = 1;
    let second = talk.read();
    assert_eq!((second.begun, second.messages.len(), second.turns, second.step), (false, 0, 0, 1));
}

#[test]
fn a_continuous_conversation_goes_on_from_node_to_node_without_what_failed() {
    let mut talk = talk("output_keys: [a]");
    talk.answers("of an attempt that failed", Vec::new());
    talk.add(What::Failed { kind: "llm".to_owned(), reason: "x".to_owned(), again: true, next: Vec::new() });
    talk.place.attempt = 1;
    talk.add(What::Said { text: "again".to_owned(), reminder: false });
    talk.answers("kept", Vec::new());
    talk.place = Place { branch: "main.1".to_owned(), node: "next".to_owned(), visit: 0, attempt: 0 };
    let texts = |continuous| -> Vec<String> {
        let messages = read(&talk.entries, &talk.place, &talk.outputs, continuous).messages;
        let text = |message| match message {
            Message::User { text } | Message::Assistant { text, .. } => text,
            Message::Tool { content, .. } => content,
        };
        messages.into_iter().map(text).collect()
    };
    assert_eq!(texts(true), ["again", "kept"]);
    assert!(texts(false).is_empty());
    talk.place.branch = "mainly".to_owned();
    assert!(texts_of(&talk).is_empty(), "another branch's name may begin with this one's");
}

fn texts_of(talk: &Talk) -> Vec<Message> {
    read(&talk.entries, &talk.place, &talk.outputs, true).messages
}

#[test]
fn a_call_whose_end_is_not_known_is_settled_by_a_person() {
    let begin = || {
        let mut talk = talk("node_type: event_loop, tools: [send, look], tool_effects: {send: once}, output_keys: [k]");
        talk.answers("", vec![call("a", "send", json!({})), call("b", "look", json!({}))]);
        talk.add(What::Intended { call: Some("a".to_owned()) });
        // What may be repeated is repeated first.
        assert_eq!(talk.next(), Next::Run(vec![call("b", "look", json!({}))]));
        talk.called("b", "look", false);
        assert_eq!(talk.next(), Next::Uncertain(call("a", "send", json!({}))));
        talk.add(What::Asked { question: "?".to_owned(), call: Some("a".to_owned()) });
        talk
    };
    let told = |content: &str, is_error| Message::Tool {
        call: "a".to_owned(),
        name: "send".to_owned(),
        content: content.to_owned(),
        is_error,
    };
    for (answer, message) in [
        (json!({"action": "use", "output": "sent"}), told("sent", false)),
        (json!({"action": "fail"}), told(SAID_TO_HAVE_FAILED, true)),
    ] {
        let mut talk = begin();
        talk.add(What::Input { value: answer });
        assert_eq!(talk.next(), Next::Ask);
        assert_eq!(talk.read().messages.last(), Some(&message));
    }
    let mut talk = begin();
    talk.add(What::Input { value: json!({"action": "retry"}) });
    assert_eq!(talk.next(), Next::Run(vec![call("a", "send", json!({}))]));
    talk.add(What::Intended { call: Some("a".to_owned()) });
    assert_eq!(talk.next(), Next::Uncertain(call("a", "send", json!({}))), "it may be lost again");
    talk.called("a", "send", false);
    assert_eq!(talk.next(), Next::Ask);
}
