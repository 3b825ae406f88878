//! The condition of an edge: read, and evaluated over a small memory.
#![no_main]

use agent_runtime::definition::expression::Expression;
use serde_json::{Map, json};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(expression) = Expression::parse(text) {
        let memory = Map::from_iter([("x".to_owned(), json!([1, "a", {"b": null}])), ("s".to_owned(), json!("text"))]);
        let _ = expression.holds(&memory, &Map::new());
    }
});
