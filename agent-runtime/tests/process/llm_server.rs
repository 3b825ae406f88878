//! A language model of the test's own: it answers as its script says, in both wire formats.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use serde_json::{Value, json};

/// What the model answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Words.
    Text(String),
    /// Words and calls of tools.
    Calls(String, Vec<(String, Value)>),
    /// A refusal, with headers.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Words without a stream.
    Whole(String),
    /// It closes in the middle.
    BreakOff,
    /// It says nothing more.
    Hang,
}

impl Reply {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(crate) fn call(name: &str, arguments: Value) -> Self {
        Self::Calls(String::new(), vec![(name.to_owned(), arguments)])
    }

    pub(crate) fn set(key: &str, value: &str) -> Self {
        Self::call("set_output", json!({"key": key, "value": value}))
    }
}

pub(crate) type Script = dyn Fn(&Value, usize) -> Reply + Send + Sync;
/// Headers and bodies of the requests so far.
pub(crate) type Requests = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

#[derive(Clone)]
pub(crate) struct LlmServer {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Requests,
    pub(crate) script: Arc<Script>,
}

impl LlmServer {
    /// Serves until the test ends. The script sees each request and its number from 0.
    pub(crate) async fn start(script: impl Fn(&Value, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, requests: Requests::default(), script: Arc::new(script) };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

async fn answer(State(server): State<LlmServer>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut requests = server.requests.lock().unwrap();
        requests.push((headers, body.clone()));
        requests.len() - 1
    };
    let anthropic = uri.path().ends_with("/messages");
    let (text, calls) = match (server.script)(&body, number) {
        Reply::Text(text) => (text, Vec::new()),
        Reply::Calls(text, calls) => (text, calls),
        Reply::Status(code, headers, body) => {
            let response = Response::builder().status(code);
            let response = headers.into_iter().fold(response, |response, (name, value)| response.header(name, value));
            return response.body(Body::from(body)).unwrap();
        }
        Reply::Whole(text) => return whole(&text, anthropic),
        Reply::BreakOff => {
            let pieces =
                [Ok("data: {\"choices\":[{\"delta\":{\"content\":\"he\"}}]}\n\n"), Err(std::io::Error::other("cut"))];
            return stream(Body::from_stream(futures::stream::iter(pieces)));
        }
        Reply::Hang => return stream(Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>())),
    };
    let events = if anthropic { anthropic_events(&text, &calls, number) } else { openai_events(&text, &calls, number) };
    stream(Body::from(events))
}

fn stream(body: Body) -> Response<Body> {
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

fn whole(text: &str, anthropic: bool) -> Response<Body> {
    let body = if anthropic {
        json!({"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 5}})
    } else {
        json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    };
    Response::builder().header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()
}

fn events(all: &[Value]) -> String {
    all.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn openai_events(text: &str, calls: &[(String, Value)], number: usize) -> String {
    let mut all = vec![json!({"choices": [{"delta": {"role": "assistant", "content": text}}]})];
    for (n, (name, arguments)) in calls.iter().enumerate() {
        let arguments = arguments.to_string();
        let (first, rest) = arguments.split_at(1);
        let id = format!("call-{number}-{n}");
        let begin = json!({"index": n, "id": id, "function": {"name": name, "arguments": first}});
        all.push(json!({"choices": [{"delta": {"tool_calls": [begin]}}]}));
        all.push(json!({"choices": [{"delta": {"tool_calls": [{"index": n, "function": {"arguments": rest}}]}}]}));
    }
    all.push(json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}));
    all.push(json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}));
    events(&all) + "data: [DONE]\n\n"
}

fn anthropic_events(text: &str, calls: &[(String, Value)], number: usize) -> String {
    let mut all = vec![
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        json!({"type": "ping"}),
    ];
    for (n, (name, arguments)) in calls.iter().enumerate() {
        let index = n + 1;
        let block = json!({"type": "tool_use", "id": format!("call-{number}-{n}"), "name": name, "input": {}});
        all.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        let delta = json!({"type": "input_json_delta", "partial_json": arguments.to_string()});
        all.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }
    all.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}));
    all.push(json!({"type": "message_stop"}));
    events(&all)
}
