//! The client of language models against a real server, in both wire formats.

use std::time::Duration;

use agent_runtime::llm::{Call, Client, Error, Format, Message, Request, Settings, Tool, Usage};
use serde_json::{Map, Value, json};

use crate::llm_server::{LlmServer, Reply};

fn client(server: &LlmServer, format: Format) -> Client {
    let settings = Settings {
        format,
        base_url: server.url(),
        model: "tiny".to_owned(),
        key: Some("secret".to_owned()),
        timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_millis(1500),
        attempts: 3,
    };
    Client::new(settings).unwrap()
}

fn history() -> Vec<Message> {
    let call = |id: &str| Call { id: id.to_owned(), name: "look".to_owned(), arguments: Map::new() };
    let result = |id: &str, is_error| Message::Tool {
        call: id.to_owned(),
        name: "look".to_owned(),
        content: "seen".to_owned(),
        is_error,
    };
    vec![
        Message::User { text: "Look twice.".to_owned() },
        Message::Assistant { text: "I look.".to_owned(), calls: vec![call("a"), call("b")] },
        result("a", false),
        result("b", true),
    ]
}

async fn ask(server: &LlmServer, format: Format) -> Result<agent_runtime::llm::Answer, Error> {
    let tools = [Tool { name: "look".to_owned(), description: "Looks.".to_owned(), schema: json!({"type": "object"}) }];
    let messages = history();
    let request = Request {
        model: None,
        system: "You look.",
        messages: &messages,
        tools: &tools,
        max_tokens: 100,
        idempotency_key: "e/main/n/0/0",
    };
    client(server, format).complete(&request, |_| {}).await
}

const FORMATS: [Format; 2] = [Format::OpenAi, Format::Anthropic];

#[tokio::test]
async fn words_and_parallel_calls_come_in_both_formats() {
    for format in FORMATS {
        let calls = vec![("look".to_owned(), json!({"at": "ä"})), ("look".to_owned(), json!({}))];
        let server = LlmServer::start(move |_, _| Reply::Calls("So:".to_owned(), calls.clone())).await;
        let answer = ask(&server, format).await.unwrap();
        assert_eq!((answer.text.as_str(), answer.calls.len()), ("So:", 2));
        assert_eq!(Value::Object(answer.calls[0].arguments.clone()), json!({"at": "ä"}));
        assert_eq!(answer.usage, Usage { input_tokens: 10, output_tokens: 5 });
        let requests = server.requests.lock().unwrap();
        assert_eq!(requests[0].0["idempotency-key"], "e/main/n/0/0");
        insta::assert_snapshot!(format!("request_{format:?}"), serde_json::to_string_pretty(&requests[0].1).unwrap());
    }
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_read_too() {
    for format in FORMATS {
        let server = LlmServer::start(|_, _| Reply::Whole("whole".to_owned())).await;
        assert_eq!(ask(&server, format).await.unwrap().text, "whole");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_with_the_same_key_and_when_the_server_says() {
    for first in [
        Reply::Status(429, vec![("retry-after", "1".to_owned())], "slow down".to_owned()),
        Reply::Status(500, vec![], String::new()),
        Reply::Status(529, vec![], String::new()),
        Reply::BreakOff,
        Reply::Hang,
    ] {
        let waits = matches!(first, Reply::Status(429, ..));
        let server = LlmServer::start(move |_, n| if n == 0 { first.clone() } else { Reply::text("at last") }).await;
        let begun = std::time::Instant::now();
        assert_eq!(ask(&server, Format::OpenAi).await.unwrap().text, "at last");
        assert!(!waits || begun.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
        let requests = server.requests.lock().unwrap();
        assert_eq!((requests.len(), &requests[0].0["idempotency-key"]), (2, &requests[1].0["idempotency-key"]));
    }
}

#[tokio::test]
async fn a_models_retry_after_is_waited_out_in_seconds_and_as_a_date() {
    for as_date in [false, true] {
        let server = LlmServer::start(move |_, n| {
            let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4);
            let after = if as_date {
                jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&later).unwrap()
            } else {
                "3".to_owned()
            };
            if n == 0 {
                Reply::Status(429, vec![("retry-after", after)], String::new())
            } else {
                Reply::text("at last")
            }
        })
        .await;
        let begun = std::time::Instant::now();
        assert_eq!(ask(&server, Format::Anthropic).await.unwrap().text, "at last");
        // A date has whole seconds; without the header it would be under a second.
        assert!(begun.elapsed() >= Duration::from_millis(2900), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn attempts_are_bounded_and_a_refusal_is_not_repeated() {
    let server =
        LlmServer::start(|_, _| Reply::Status(503, vec![("retry-after", "0".to_owned())], "down".to_owned())).await;
    let error = ask(&server, Format::OpenAi).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { attempts: 3, .. }), "{error}");
    for (code, word) in [(401, "HIVE_LLM_API_KEY"), (404, "HIVE_LLM_MODEL"), (400, "too long")] {
        let said = json!({"error": {"message": "too long"}}).to_string();
        let server = LlmServer::start(move |_, _| Reply::Status(code, vec![], said.clone())).await;
        let error = ask(&server, Format::Anthropic).await.unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("secret"), "{error}");
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let server = LlmServer::start(|_, _| Reply::text("")).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = LlmServer { address: port, ..server };
    let error = ask(&gone, Format::OpenAi).await.unwrap_err().to_string();
    assert!(error.starts_with("127.0.0.1 gave no answer at 3 attempts"), "{error}");
}
