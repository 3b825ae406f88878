//! Owns the gate between versions of the custom resources: what may not change for those who use a released one.

use serde_json::Value;

/// Numbers of a schema that tighten it when they fall.
const UPPER: [&str; 5] = ["maximum", "maxLength", "maxItems", "maxProperties", "exclusiveMaximum"];
/// Those that tighten it when they rise.
const LOWER: [&str; 5] = ["minimum", "minLength", "minItems", "minProperties", "exclusiveMinimum"];
/// Words that must stay as they are: they say how the API server stores, merges and fills in.
const FIXED: [&str; 6] = [
    "type",
    "format",
    "default",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
];

/// Everything in a new definition that would break objects or clients of the old one, with its field.
pub(crate) fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for pointer in ["/spec/group", "/spec/scope", "/spec/names/kind", "/spec/names/plural"] {
        if old.pointer(pointer) != new.pointer(pointer) {
            found.push(format!("{pointer} changes"));
        }
    }
    for version in versions(old) {
        let name = text(version, "name");
        let Some(next) = versions(new).find(|next| text(next, "name") == name) else {
            found.push(format!("version {name} is removed"));
            continue;
        };
        if version.get("served") != next.get("served") || version.get("storage") != next.get("storage") {
            found.push(format!("version {name}: served or storage changes"));
        }
        for name in ["status", "scale"] {
            let pointer = format!("/subresources/{name}");
            if version.pointer(&pointer) != next.pointer(&pointer) {
                found.push(format!("subresource {name} changes"));
            }
        }
        let schema = |version: &Value| version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
        walk("", &schema(version), &schema(next), &mut found);
    }
    found
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn walk(at: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let shown = if at.is_empty() { "the object" } else { at };
    for word in FIXED {
        if old.get(word) != new.get(word) {
            found.push(format!("{shown}: {word} changes"));
        }
    }
    match (old.get("pattern"), new.get("pattern")) {
        (was, Some(is)) if was != Some(is) => found.push(format!("{shown}: a new pattern: {}", text(new, "pattern"))),
        (Some(_), None) => found.push(format!("{shown}: pattern is removed")),
        _ => {}
    }
    for (words, tighter) in [(UPPER, -1.0), (LOWER, 1.0)] {
        for word in words {
            let number = |value: &Value| value.get(word).and_then(Value::as_f64);
            match (number(old), number(new)) {
                (None, Some(_)) => found.push(format!("{shown}: {word} is new")),
                (Some(was), Some(is)) if (is - was) * tighter > 0.0 => {
                    found.push(format!("{shown}: {word} is tighter"))
                }
                _ => {}
            }
        }
    }
    if old.get("nullable").is_some_and(|was| *was == true) && new.get("nullable").is_none_or(|is| *is != true) {
        found.push(format!("{shown}: null is no longer taken"));
    }
    for value in list(old, "enum").filter(|value| new.get("enum").is_some() && !list(new, "enum").any(|v| v == *value))
    {
        found.push(format!("{shown}: {value} is no longer taken"));
    }
    if old.get("enum").is_none() && new.get("enum").is_some() {
        found.push(format!("{shown}: only some values are taken now"));
    }
    for field in list(new, "required").filter(|field| !list(old, "required").any(|known| known == *field)) {
        found.push(format!("{shown}: {field} is required now"));
    }
    let rules = |value: &Value| -> Vec<String> {
        list(value, "x-kubernetes-validations").map(|rule| text(rule, "rule").to_owned()).collect()
    };
    let known = rules(old);
    for rule in rules(new).iter().filter(|rule| !known.contains(rule)) {
        found.push(format!("{shown}: a new rule: {rule}"));
    }
    for (name, inner) in old.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match new.pointer(&format!("/properties/{}", name.replace('~', "~0").replace('/', "~1"))) {
            Some(next) => walk(&path, inner, next, found),
            None => found.push(format!("{path} is removed")),
        }
    }
    for word in ["items", "additionalProperties"] {
        match (old.get(word), new.get(word)) {
            (Some(was @ Value::Object(_)), Some(is @ Value::Object(_))) => walk(&format!("{at}[]"), was, is, found),
            (was, is) if was != is => found.push(format!("{shown}: {word} changes")),
            _ => {}
        }
    }
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(spec: &Value) -> Value {
        json!({ "spec": { "group": "g", "scope": "Namespaced", "names": { "kind": "K", "plural": "ks" }, "versions": [{
            "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
        }]}})
    }

    fn old() -> Value {
        json!({ "type": "object", "required": ["a"], "properties": {
            "a": { "type": "string", "maxLength": 10, "enum": ["x", "y"] },
            "b": { "type": "array", "items": { "type": "integer", "minimum": 1 } },
        }})
    }

    /// What a change of the old schema breaks.
    fn change(pointer: &str, to: Value) -> Vec<String> {
        let mut new = old();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = new.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if to.is_null() {
            parent.remove(key);
        } else {
            parent.insert(key.to_owned(), to);
        }
        breaks(&definition(&old()), &definition(&new))
    }

    #[test]
    fn what_is_added_or_loosened_breaks_nobody() {
        assert!(change("/properties/c", json!({ "type": "string", "maxLength": 1 })).is_empty());
        assert!(change("/properties/a/maxLength", json!(20)).is_empty());
        assert!(change("/properties/a/maxLength", Value::Null).is_empty());
        assert!(change("/properties/a/enum", json!(["x", "y", "z"])).is_empty());
        assert!(change("/properties/b/items/minimum", json!(0)).is_empty());
        assert!(change("/properties/a/description", json!("other words")).is_empty());
        assert!(change("/required", Value::Null).is_empty());
    }

    #[test]
    fn what_is_removed_changed_or_tightened_is_named_with_its_field() {
        for (pointer, to, told) in [
            ("/properties/b", Value::Null, "spec.b is removed"),
            ("/properties/a/type", json!("integer"), "spec.a: type changes"),
            ("/properties/a/maxLength", json!(5), "spec.a: maxLength is tighter"),
            ("/properties/a/minLength", json!(1), "spec.a: minLength is new"),
            ("/properties/a/enum", json!(["x"]), "spec.a: \"y\" is no longer taken"),
            ("/properties/a/pattern", json!("^x"), "spec.a: a new pattern: ^x"),
            ("/properties/b/items/minimum", json!(2), "spec.b[]: minimum is tighter"),
            ("/required", json!(["a", "b"]), "spec: \"b\" is required now"),
            ("/x-kubernetes-validations", json!([{ "rule": "self.a != 'x'" }]), "spec: a new rule: self.a != 'x'"),
            ("/properties/a/default", json!("x"), "spec.a: default changes"),
        ] {
            assert_eq!(change(pointer, to), [told.to_owned()], "{pointer}");
        }
        let mut gone = definition(&old());
        *gone.pointer_mut("/spec/versions/0/name").unwrap() = json!("v2");
        assert_eq!(breaks(&definition(&old()), &gone), ["version v1 is removed"]);
        let mut scope = definition(&old());
        *scope.pointer_mut("/spec/scope").unwrap() = json!("Cluster");
        assert_eq!(breaks(&definition(&old()), &scope), ["/spec/scope changes"]);
    }
}
