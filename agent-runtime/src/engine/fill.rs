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
