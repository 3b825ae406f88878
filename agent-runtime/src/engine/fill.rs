//! Values of an execution's memory in the texts of a definition: `{{key}}`.

use serde_json::{Map, Value};

/// Fills in every `{{key}}`. Strings stand as they are, other values as JSON, missing ones as nothing.
pub(super) fn text(template: &str, memory: &Map<String, Value>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((key, after)) = after.split_once("}}") else { break };
        filled.push_str(before);
        match memory.get(key.trim()) {
            Some(Value::String(value)) => filled.push_str(value),
            Some(Value::Null) | None => {}
            Some(value) => filled.push_str(&value.to_string()),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Fills in every `{{key}}` of an address. What is filled in stays in its place: it ends no host, no path and no query
/// value, and none of it becomes another of these. Only an address that begins with a key is what that key says.
pub(super) fn url(template: &str, memory: &Map<String, Value>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((key, after)) = after.split_once("}}") else { break };
        filled.push_str(before);
        let value = match memory.get(key.trim()) {
            Some(Value::String(value)) => value.clone(),
            Some(Value::Null) | None => String::new(),
            Some(value) => value.to_string(),
        };
        if filled.is_empty() {
            filled.push_str(&value);
        } else {
            if ends_host(&filled, after) && !value.is_empty() && !value.starts_with('/') {
                filled.push('/');
            }
            let keeps = keeps(&filled, &value);
            value.bytes().for_each(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => filled.push(char::from(byte)),
                _ if keeps.contains(&byte) => filled.push(char::from(byte)),
                _ => filled.push_str(&format!("%{byte:02X}")),
            });
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Whether what comes next stands behind a host that is complete, and would make another of it.
fn ends_host(before: &str, after: &str) -> bool {
    let Some((_, authority)) = before.split_once("://") else { return false };
    let ends = after.is_empty() || after.starts_with(['/', '?', '#']);
    ends && !authority.is_empty() && !authority.contains(['/', '?', '#']) && !authority.ends_with([':', '.'])
}

/// The bytes besides letters and digits that stand as they are in what is filled in behind the beginning of an address.
fn keeps(before: &str, value: &str) -> &'static [u8] {
    let authority = before.split_once("://").map_or(before, |(_, rest)| rest);
    match (authority.is_empty(), authority.contains(['?', '#']), authority.contains('/')) {
        // A whole host, with its port.
        (true, ..) => b":[]",
        (false, true, _) => b"",
        (false, false, true) => b"/",
        // Right behind a host: a path that begins here.
        (false, false, false) if value.starts_with('/') => b"/",
        (false, false, false) => b"",
    }
}

/// Fills in `{key}` and `{{key}}` of the keys that a node reads. Other braces stand as they are: prompts show JSON.
pub(super) fn prompt(template: &str, keys: &[String], memory: &Map<String, Value>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let double = after.starts_with('{');
        let inner = if double { after.get(1..).unwrap_or_default() } else { after };
        let (open, close) = if double { ("{{", "}}") } else { ("{", "}") };
        let named = inner.split_once(close).filter(|(key, _)| keys.iter().any(|known| known == key.trim()));
        match named {
            Some((key, after)) => {
                match memory.get(key.trim()) {
                    Some(Value::String(value)) => filled.push_str(value),
                    Some(Value::Null) | None => {}
                    Some(value) => filled.push_str(&value.to_string()),
                }
                rest = after;
            }
            None => {
                filled.push_str(open);
                rest = inner;
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// Fills in the strings of a JSON value.
pub(super) fn json(template: &Value, memory: &Map<String, Value>) -> Value {
    match template {
        Value::String(string) => Value::String(text(string, memory)),
        Value::Array(items) => Value::Array(items.iter().map(|item| json(item, memory)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), json(value, memory))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    }
}

/// The keys that a node reads; one that is not set is null.
pub(super) fn inputs(keys: &[String], memory: &Map<String, Value>) -> Map<String, Value> {
    keys.iter().map(|key| (key.clone(), memory.get(key).cloned().unwrap_or(Value::Null))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_filled_in_and_nothing_else_changes() {
        let Value::Object(memory) = json!({"a": "x", "n": 3, "o": {"k": 1}, "e": null}) else { panic!("an object") };
        for (template, filled) in [
            ("{{a}}-{{ n }}-{{o}}", "x-3-{\"k\":1}"),
            ("{{e}}{{missing}}|", "|"),
            ("{{open", "{{open"),
            ("}} {a}", "}} {a}"),
        ] {
            assert_eq!(text(template, &memory), filled);
        }
        for (template, value, filled) in [
            ("http://h/s?q={{v}}&n=5", "a&n=1 C# 50% ü?", "http://h/s?q=a%26n%3D1%20C%23%2050%25%20%C3%BC%3F&n=5"),
            ("http://h/s/{{v}}/t", "a b/c?d#e", "http://h/s/a%20b/c%3Fd%23e/t"),
            ("http://h{{v}}", "@evil.example/", "http://h/%40evil.example/"),
            ("http://h{{v}}", ".evil.example/", "http://h/.evil.example/"),
            ("http://a-{{v}}.h/p", "x.y", "http://a-x.y.h/p"),
            ("http://h{{v}}", "/p?q", "http://h/p%3Fq"),
            ("http://h:{{v}}/p", "80@evil", "http://h:80%40evil/p"),
            ("http://{{v}}/p", "h.example:80", "http://h.example:80/p"),
            ("http://{{v}}/p", "a@b/c", "http://a%40b%2Fc/p"),
            ("{{v}}/p", "http://h", "http://h/p"),
        ] {
            let memory = Map::from_iter([("v".to_owned(), Value::from(value))]);
            assert_eq!(url(template, &memory), filled, "{template} {value}");
        }
        let keys = ["a".to_owned(), "n".to_owned(), "e".to_owned()];
        for (template, filled) in [
            ("{a} {{a}} {{ n }} {e}.", "x x 3 ."),
            ("{o} {missing} {\"a\": {a}}", "{o} {missing} {\"a\": x}"),
            ("{{a} {", "{{a} {"),
        ] {
            assert_eq!(prompt(template, &keys, &memory), filled, "{template}");
        }
        assert_eq!(json(&json!({"k": ["{{a}}", 1]}), &memory), json!({"k": ["x", 1]}));
    }
}
