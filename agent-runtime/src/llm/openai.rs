//! The wire format of OpenAI's chat completions.

use serde_json::{Value, json};

use super::{Message, Partial, Request, Usage};

/// The path below the base URL.
pub(super) const PATH: &str = "/chat/completions";

/// The body of a request.
pub(super) fn body(request: &Request<'_>, model: &str) -> Value {
    let mut messages = Vec::new();
    if !request.system.is_empty() {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    messages.extend(request.messages.iter().map(message));
    let mut body = json!({
        "model": model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
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
        Message::Assistant { text, calls } if calls.is_empty() => json!({"role": "assistant", "content": text}),
        Message::Assistant { text, calls } => {
            let calls = calls.iter().map(|call| {
                let arguments = Value::Object(call.arguments.clone()).to_string();
                json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
            });
            json!({"role": "assistant", "content": text, "tool_calls": calls.collect::<Vec<_>>()})
        }
        Message::Tool { call, content, .. } => json!({"role": "tool", "tool_call_id": call, "content": content}),
    }
}

/// Takes in the data of one event. An error is what the server said of one.
pub(super) fn take_in(partial: &mut Partial, data: &str, on_text: &mut dyn FnMut(&str)) -> Result<(), String> {
    if data.trim() == "[DONE]" {
        partial.ended = true;
        return Ok(());
    }
    let event: Value = serde_json::from_str(data).map_err(|error| format!("an event is no JSON: {error}"))?;
    if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
        return Err(error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned));
    }
    take_usage(partial, &event);
    if let Some(choice) = event.pointer("/choices/0") {
        take_choice(partial, choice, choice.get("delta").unwrap_or(&Value::Null), on_text);
    }
    Ok(())
}

/// An answer that came whole.
pub(super) fn whole(answer: &Value, on_text: &mut dyn FnMut(&str)) -> Result<Partial, String> {
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

fn take_choice(partial: &mut Partial, choice: &Value, said: &Value, on_text: &mut dyn FnMut(&str)) {
    if let Some(text) = said.get("content").and_then(Value::as_str) {
        partial.text.push_str(text);
        on_text(text);
    }
    let calls = said.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (n, call) in (0u64..).zip(calls) {
        let part = partial.calls.entry(call.get("index").and_then(Value::as_u64).unwrap_or(n)).or_default();
        let piece = |path: &str| call.pointer(path).and_then(Value::as_str).unwrap_or_default();
        part.id.push_str(piece("/id"));
        part.name.push_str(piece("/function/name"));
        part.arguments.push_str(piece("/function/arguments"));
    }
    match choice.get("finish_reason").and_then(Value::as_str) {
        Some("length") => (partial.truncated, partial.ended) = (true, true),
        Some(_) => partial.ended = true,
        None => {}
    }
}
