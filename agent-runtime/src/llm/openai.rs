//! The wire format of OpenAI's chat completions.

use serde_json::{Value, json};

use super::{Message, Partial, REASONING, Request, Usage};

/// Where a server puts what it wants back with a call.
const STATE: &str = "extra_content";
/// The path below the base URL.
pub(super) const PATH: &str = "/chat/completions";

/// What the most tokens of an answer are called, and what newer models call it.
pub(super) const MOST: &str = "max_tokens";
pub(super) const MOST_NEWER: &str = "max_completion_tokens";

/// The body of a request. `most` is what this server calls the most tokens.
pub(super) fn body(request: &Request<'_>, model: &str, most: &str) -> Value {
    let mut messages = Vec::new();
    if !request.system.is_empty() {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    messages.extend(request.messages.iter().map(message));
    let mut body = json!({
        "model": model,
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if let Some(fields) = body.as_object_mut() {
        fields.insert(most.to_owned(), request.max_tokens.into());
    }
    let tools = request.tools.iter().map(|tool| {
        let function = json!({"name": tool.name, "description": tool.description, "parameters": tool.schema});
        json!({"type": "function", "function": function})
    });
    let tools: Vec<Value> = tools.collect();
    if let (false, Some(fields)) = (tools.is_empty(), body.as_object_mut()) {
        fields.insert("tools".to_owned(), Value::Array(tools));
    }
    body
}

fn message(message: &Message) -> Value {
    match message {
        Message::User { text } => json!({"role": "user", "content": text}),
        Message::Assistant { text, calls, .. } if calls.is_empty() => json!({"role": "assistant", "content": text}),
        Message::Assistant { text, calls, state } => {
            let calls = calls.iter().map(|call| {
                let arguments = Value::Object(call.arguments.clone()).to_string();
                let function = json!({"name": call.name, "arguments": arguments});
                let mut one = call.state.clone();
                one.extend([
                    ("id".to_owned(), call.id.clone().into()),
                    ("type".to_owned(), "function".into()),
                    ("function".to_owned(), function),
                ]);
                Value::Object(one)
            });
            let mut turn = state.clone();
            turn.extend([
                ("role".to_owned(), "assistant".into()),
                ("content".to_owned(), text.clone().into()),
                ("tool_calls".to_owned(), calls.collect::<Vec<_>>().into()),
            ]);
            Value::Object(turn)
        }
        Message::Tool { call, content, .. } => json!({"role": "tool", "tool_call_id": call, "content": content}),
    }
}

/// Takes in the data of one event. An error is what the server said of one.
pub(super) fn take_in(partial: &mut Partial, data: &str, on_text: &mut dyn FnMut(&str)) -> Result<(), String> {
    if data.trim() == "[DONE]" {
        (partial.ended, partial.closed) = (true, true);
        return Ok(());
    }
    let event: Value = serde_json::from_str(data).map_err(|error| format!("an event is no JSON: {error}"))?;
    fault(&event)?;
    take_usage(partial, &event);
    if let Some(choice) = event.pointer("/choices/0") {
        take_choice(partial, choice, choice.get("delta").unwrap_or(&Value::Null), on_text);
    }
    Ok(())
}

/// What a server says of a failure after it has said 200: under `error`, or as an object of that kind.
fn fault(event: &Value) -> Result<(), String> {
    let error = match event.get("error").filter(|error| !error.is_null()) {
        None if event.get("object").and_then(Value::as_str) == Some("error") => event,
        None => return Ok(()),
        Some(error) => error,
    };
    Err(error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned))
}

/// An answer that came whole.
pub(super) fn whole(answer: &Value, on_text: &mut dyn FnMut(&str)) -> Result<Partial, String> {
    fault(answer)?;
    let choice = answer.pointer("/choices/0").ok_or("it has no choices")?;
    let mut partial = Partial { ended: true, ..Partial::default() };
    take_usage(&mut partial, answer);
    take_choice(&mut partial, choice, choice.get("message").unwrap_or(&Value::Null), on_text);
    Ok(partial)
}

fn take_usage(partial: &mut Partial, event: &Value) {
    let count = |name: &str| event.pointer(&format!("/usage/{name}")).and_then(Value::as_i64);
    if let (Some(input_tokens), Some(output_tokens)) = (count("prompt_tokens"), count("completion_tokens")) {
        partial.usage = Usage { input_tokens, output_tokens };
    }
}

/// Takes in a piece of a call. Pieces belong together by their index; one with another id begins another call, for some
/// servers give all of them one index, or none.
fn take_call(partial: &mut Partial, n: u64, call: &Value) {
    let piece = |path: &str| call.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let index = call.get("index").and_then(Value::as_u64).unwrap_or(n);
    let (id, next) = (piece("/id"), u64::try_from(partial.calls.len()).unwrap_or(u64::MAX));
    let known = partial.places.get(&index).copied();
    let is_other = |place: &u64| {
        partial.calls.get(place).is_some_and(|part| !id.is_empty() && !part.id.is_empty() && part.id != id)
    };
    let place = known.filter(|place| !is_other(place)).unwrap_or(next);
    partial.places.insert(index, place);
    let part = partial.calls.entry(place).or_default();
    if part.id.is_empty() {
        id.clone_into(&mut part.id);
    }
    // Some repeat it with each piece.
    if part.name != piece("/function/name") {
        part.name.push_str(piece("/function/name"));
    }
    match call.pointer("/function/arguments") {
        Some(Value::String(text)) => part.arguments.push_str(text),
        // Some give them as they are.
        Some(fields @ Value::Object(_)) => part.arguments = fields.to_string(),
        Some(_) | None => {}
    }
    if let Some(state) = call.get(STATE) {
        part.state.insert(STATE.to_owned(), state.clone());
    }
}

fn take_choice(partial: &mut Partial, choice: &Value, said: &Value, on_text: &mut dyn FnMut(&str)) {
    if let Some(text) = said.get("content").and_then(Value::as_str) {
        partial.text.push_str(text);
        on_text(text);
    }
    let calls = said.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if let Some(reasoning) = said.get(REASONING).and_then(Value::as_str) {
        partial.reasoning.push_str(reasoning);
    }
    for (n, call) in (0u64..).zip(calls) {
        take_call(partial, n, call);
    }
    match choice.get("finish_reason").and_then(Value::as_str) {
        Some("length") => (partial.truncated, partial.ended) = (true, true),
        Some(_) => partial.ended = true,
        None => {}
    }
}
