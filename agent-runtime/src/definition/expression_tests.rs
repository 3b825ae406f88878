use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn holds(text: &str) -> Result<bool, Error> {
    let Value::Object(memory) = json!({
        "score": 7, "ratio": 0.5, "kind": "a", "flag": true, "off": false, "nothing": null, "word": "True",
        "items": [1, 2, 3], "deep": {"x": {"y": 1}}, "shadowed": "memory", "text": "a".repeat(1000),
    }) else {
        panic!("an object")
    };
    let outputs = Map::from_iter([("shadowed".to_owned(), json!("output")), ("status".to_owned(), json!(200))]);
    Expression::parse(text)?.holds(&memory, &outputs)
}

#[test]
fn python_expressions_mean_what_they_mean_in_python() {
    for (text, wanted) in [
        ("str(word).lower() == 'true'", true),
        ("str(flag).lower() != 'true'", false),
        ("score > 5 and kind in ['a', 'b']", true),
        ("not flag or score >= 8", false),
        ("output.get('status') is not None", true),
        ("output.get('other') is None", true),
        ("missing is None", true),
        ("missing == 'x'", false),
        ("nothing is not None", false),
        ("'is not' == 'is' + ' not'", true),
        ("flag == true and off == false and nothing == null", true),
        ("len(items) == 3 and sum(items) == 6 and max(items) - min(items) == 2", true),
        ("round(2.5) == 2 and round(3.5) == 4 and round(ratio, 1) == 0.5 and abs(-3) == 3", true),
        ("all([x > 0 for x in items]) and any([x == 3 for x in items])", true),
        ("deep['x']['y'] * 2 == 2", true),
        ("memory['kind'] == 'a' and shadowed == 'output'", true),
        ("10 if flag else 0", true),
        ("items[-1] == 3 and items[0:2] == [1, 2]", true),
        ("score % 2 == 1 and score // 2 == 3 and score / 2 == 3.5", true),
        ("int('42') == 42 and float('1.5') == 1.5 and str(score) == '7'", true),
        ("kind.startswith('a') and 'b' not in kind", true),
        ("0", false),
        ("''", false),
    ] {
        assert_eq!(holds(text), Ok(wanted), "{text}");
    }
}

#[test]
fn what_a_condition_must_not_do_is_refused_when_the_agent_is_loaded() {
    for text in [
        "",
        "x = 1",
        "dict(a=1)",
        "print(1)",
        "open('/etc/passwd')",
        "range(10)",
        "(lambda: 1)()",
        "load('x', 'y')",
        "x; y",
        "1 << 99",
        "2 ** 99",
        ") or (",
        "'open",
        "text.replace('a', 'aa')",
        "','.join(items)",
        "a b",
        "x if",
        "§",
    ] {
        assert!(Expression::parse(text).is_err(), "{text}");
    }
    let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    assert!(Expression::parse(&deep).is_err());
    assert!(Expression::parse(&"not ".repeat(900)).is_err());
    assert!(Expression::parse(&format!("{}1", "1 + ".repeat(1000))).is_err(), "it nests as brackets do");
    assert!(Expression::parse(&format!("{}1", "1 + ".repeat(100))).is_ok());
    assert!(Expression::parse(&"x".repeat(5000)).is_err());
}

#[test]
fn what_would_take_too_much_is_an_error_and_takes_little() {
    let nested =
        "[0 for a in text.split('a') for b in text.split('a') for c in text.split('a') for d in text.split('a')]";
    for text in ["'a' * 1000000000", "[0] * 1000000000", nested, "items.nothing()", "1 / 0", "int('x')", "kind > 3"] {
        let begun = Instant::now();
        assert!(holds(text).is_err(), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{text}: {:?}", begun.elapsed());
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = holds(&text);
    }

    #[test]
    fn words_of_the_language_in_any_order_end_quickly(
        words in prop::collection::vec(prop::sample::select(vec![
            "(", ")", "[", "]", "{", "}", "and", "or", "not", "in", "is", "if", "else", "for", "x", "score", "items", "'a'",
            "1", "*", "+", "-", "==", "<", ".", ",", ":", "len", "str", "get", "lower", "text", "%", "/",
        ]), 0..30)
    ) {
        let begun = Instant::now();
        let text = words.join(" ");
        let first = holds(&text);
        prop_assert_eq!(holds(&text), first, "the same twice");
        prop_assert!(begun.elapsed() < Duration::from_secs(2), "{}", text);
    }
}
