use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Any JSON, deeper and wider than most.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\\\\\"\\[\\]{},:a-z\u{0}é]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(12, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[\"{\\[\\\\a-z]{0,4}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth_of).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A list in a list, so many levels deep in all.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "k": inner }) })
}

fn fields(value: Value) -> Map<String, Value> {
    Map::from_iter([("k".to_owned(), value)])
}

proptest! {
    #[test]
    fn shape_of_any_text_is_as_deep_as_its_value(value in any_value()) {
        prop_assert_eq!(Shape::of(value.to_string().as_bytes()).depth, depth_of(&value));
    }

    #[test]
    fn shape_of_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let shape = Shape::of(&bytes);
        prop_assert!(shape.depth <= bytes.len() && shape.values <= bytes.len() + 1);
    }

    #[test]
    fn text_and_object_of_any_depth_are_judged_alike(levels in 0usize..140) {
        let object = fields(nested(levels));
        let text = serde_json::to_vec(&object).unwrap();
        prop_assert_eq!(check_text("body", &text).is_ok(), levels < MAX_DEPTH);
        prop_assert_eq!(check("output", &object).is_ok(), levels < MAX_DEPTH);
    }

    #[test]
    fn whatever_was_let_in_is_read_again_inside_a_record(levels in 0usize..140, wraps in 0usize..60) {
        let text = serde_json::to_vec(&fields(nested(levels))).unwrap();
        prop_assume!(check_text("body", &text).is_ok());
        let record = (0..wraps).fold(nested(levels), |inner, _| json!({ "in": inner }));
        let written = serde_json::to_vec(&record).unwrap();
        prop_assert_eq!(read::<Value>(&written).unwrap(), record);
    }
}

#[test]
fn reading_at_its_bound_fits_into_the_stack_of_a_worker() {
    let read_all = || {
        for levels in [127, 128, 132, READ_DEPTH] {
            let written = serde_json::to_vec(&nested(levels)).unwrap();
            assert!(read::<Value>(&written).is_ok(), "{levels} levels");
        }
        let written = serde_json::to_vec(&nested(READ_DEPTH + 1)).unwrap();
        assert!(read::<Value>(&written).unwrap_err().to_string().contains("levels"));
    };
    // As tokio's workers have it.
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(read_all).unwrap().join().unwrap();
}

#[test]
fn more_values_or_bytes_than_are_let_in_are_refused_by_name() {
    let many = fields(Value::from(vec![0; MAX_VALUES]));
    let text = serde_json::to_vec(&many).unwrap();
    for error in [check_text("the body", &text).unwrap_err(), check("output", &many).unwrap_err()] {
        assert!(matches!(error, OutOfBoundsError::Many(_)), "{error}");
    }
    let large = check("output", &fields(Value::from("x".repeat(MAX_BYTES + 1)))).unwrap_err();
    assert_eq!(large, OutOfBoundsError::Large("output \"k\"".to_owned()));
}

#[test]
fn text_after_a_record_is_refused() {
    let deep = serde_json::to_string(&nested(140)).unwrap() + "x";
    assert!(read::<Value>(deep.as_bytes()).is_err());
}
