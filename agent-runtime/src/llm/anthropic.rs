//! The wire format of Anthropic's messages.

use serde_json::{Value, json};

use super::{Message, Partial, Request};

/// The path below the base URL.
pub(super) const PATH: &str = "/messages";
/// The version of the format.
pub(super) const VERSION: &str = "2023-06-01";

/// The body of a request.
pub(super) fn body(request: &Request<'_>, model: &str) -> Value {
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in request.messages {
        let (role, blocks) = blocks(message);
        // Roles take turns here: the results of parallel calls are one message.
        match messages.last_mut() {
            Some((last, said)) if *last == role => said.extend(blocks),
            Some(_) | None => messages.push((role, blocks)),
        }
    }
    let messages: Vec<Value> =
        messages.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    let mut body = json!({"model": model, "messages": messages, "max_tokens": request.max_tokens, "stream": true});
    let tools = request
        .tools
        .iter()
        .map(|tool| json!({"name": tool.name, "description": tool.description, "input_schema": tool.schema}));
    let tools: Vec<Value> = tools.collect();
    if let Some(fields) = body.as_object_mut() {
        if !request.system.is_empty() {
            fields.insert("system".to_owned(), request.system.into());
        }
        if !tools.is_empty() {
            fields.insert("tools".to_owned(), Value::Array(tools));
        }
    }
    body
}

fn blocks(message: &Message) -> (&'static str, Vec<Value>) {
    let words = |text: &str| (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
    match message {
        Message::User { text } => ("user", words(text).into_iter().collect()),
        Message::Assistant { text, calls } => {
            let calls = calls
                .iter()
                .map(|call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}));
            ("assistant", words(text).into_iter().chain(calls).collect())
        }
        Message::Tool { call, content, is_error, .. } => {
            let result = json!({"type": "tool_result", "tool_use_id": call, "content": content, "is_error": is_error});
            ("user", vec![result])
        }
    }
}

/// Takes in the data of one event. An error is what the server said of one.
pub(super) fn take_in(partial: &mut Partial, data: &str, on_text: &mut dyn FnMut(&str)) -> Result<(), String> {
    let event: Value = serde_json::from_str(data).map_err(|error| format!("an event is no JSON: {error}"))?;
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
    match text("/type") {
        "error" => return Err(text("/error/message").to_owned()),
        "message_start" => take_usage(partial, event.get("message").unwrap_or(&Value::Null)),
        "content_block_start" => block(partial, index, event.get("content_block").unwrap_or(&Value::Null), on_text),
        "content_block_delta" => {
            let words = text("/delta/text");
            partial.text.push_str(words);
            if !words.is_empty() {
                on_text(words);
            }
            if let Some(part) = partial.calls.get_mut(&index) {
                part.arguments.push_str(text("/delta/partial_json"));
            }
        }
        "message_delta" => {
            take_usage(partial, &event);
            partial.truncated |= text("/delta/stop_reason") == "max_tokens";
        }
        "message_stop" => partial.ended = true,
        // A ping, the end of a block, or something newer.
        _ => {}
    }
    Ok(())
}

/// An answer that came whole.
pub(super) fn whole(answer: &Value, on_text: &mut dyn FnMut(&str)) -> Result<Partial, String> {
    let content = answer.get("content").and_then(Value::as_array).ok_or("it has no content")?;
    let mut partial = Partial { ended: true, ..Partial::default() };
    take_usage(&mut partial, answer);
    partial.truncated = answer.get("stop_reason").and_then(Value::as_str) == Some("max_tokens");
    for (index, said) in (0..).zip(content) {
        block(&mut partial, index, said, on_text);
    }
    Ok(partial)
}

fn block(partial: &mut Partial, index: u64, said: &Value, on_text: &mut dyn FnMut(&str)) {
    let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "tool_use" => {
            let part = partial.calls.entry(index).or_default();
            text("id").clone_into(&mut part.id);
            text("name").clone_into(&mut part.name);
            // In a stream the input is empty here and follows in pieces.
            if let Some(input) = said.get("input").and_then(Value::as_object).filter(|input| !input.is_empty()) {
                part.arguments = Value::Object(input.clone()).to_string();
            }
        }
        "text" if !text("text").is_empty() => {
            partial.text.push_str(text("text"));
            on_text(text("text"));
        }
        _ => {}
    }
}

fn take_usage(partial: &mut Partial, of: &Value) {
    let count = |name: &str| of.pointer(&format!("/usage/{name}")).and_then(Value::as_i64);
    if let Some(tokens) = count("input_tokens") {
        partial.usage.input_tokens = tokens;
    }
    if let Some(tokens) = count("output_tokens") {
        partial.usage.output_tokens = tokens;
    }
}
