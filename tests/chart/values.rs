//! Every value is documented, and a typo is refused.

use serde_json::Value;

use crate::chart::{objects, read, render, render_json};

fn schema() -> Value {
    serde_json::from_str(&read("charts/agentruntime-operator/values.schema.json")).unwrap()
}

#[test]
fn every_value_is_in_the_schema_and_has_a_comment_and_the_schema_has_no_other() {
    let text = read("charts/agentruntime-operator/values.yaml");
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let schema = schema();
    let mut known: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    known.retain(|key| key != "global");
    for (key, value) in values.as_object().unwrap() {
        let at = &schema["properties"][key];
        assert!(at.is_object(), "{key} is not in the schema");
        known.retain(|other| other != key);
        let nested = at["properties"].as_object();
        for (inner, inside) in nested.into_iter().flatten() {
            assert!(inside["description"].is_string(), "{key}.{inner} has no description");
            assert!(!value[inner].is_null(), "{key}.{inner} is not in values.yaml");
        }
        if nested.is_none() {
            assert!(at["description"].is_string(), "{key} has no description");
        }
    }
    assert_eq!(known, Vec::<String>::new(), "these are not in values.yaml");
    let mut before = "";
    let mut free = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if free.is_some_and(|depth| indent > depth) && !line.trim().is_empty() {
            continue;
        }
        free = None;
        if let Some((key, value)) =
            line.trim_start().split_once(':').filter(|_| !line.trim_start().starts_with(['#', '-']))
        {
            let section = value.is_empty() && schema["properties"][key]["properties"].is_object() && indent == 0;
            assert!(section || before.trim_start().starts_with('#'), "{key} has no comment above it");
            // What follows is of the user's own shape, such as resources.
            free = (value.is_empty() && !section).then_some(indent);
        }
        before = line;
    }
}

/// Every object of the schema says which fields it has, or is a map of strings.
fn closed(at: &str, node: &Value) {
    match node {
        Value::Object(fields) => {
            // A parent chart may give anything to all of its charts.
            if fields.get("type").is_some_and(|kind| kind == "object") && !at.ends_with("/global") {
                let more = &node["additionalProperties"];
                assert!(*more == false || more.is_object(), "{at} takes any field");
            }
            fields.iter().for_each(|(key, inner)| closed(&format!("{at}/{key}"), inner));
        }
        Value::Array(items) => items.iter().for_each(|inner| closed(at, inner)),
        _ => {}
    }
}

#[test]
fn every_object_of_the_schema_is_closed() {
    closed("", &schema());
}

#[test]
fn a_typo_at_any_depth_is_refused_by_name() {
    let typos = [
        r#"replicaz=3"#,
        r#"image.tagg="1""#,
        r#"operator.leaseSecond=15"#,
        r#"serviceMonitor.intervall="1s""#,
        r#"resources.limit={"memory":"1Gi"}"#,
        r#"tolerations=[{"kay":"a"}]"#,
        r#"affinity={"nodeAffinity":{"requiredDuringScheduling":{}}}"#,
        r#"extraVolumes=[{"name":"a","configMap":{"nam":"b"}}]"#,
        r#"extraEnv=[{"name":"a","valueFrom":{"secretKeyRef":{"nam":"b","key":"c"}}}]"#,
        r#"topologySpreadConstraints=[{"maxSkew":1,"topologyKey":"a","whenUnsatisfied":"ScheduleAnyway"}]"#,
        r#"networkPolicy.extraEgress=[{"too":[]}]"#,
        r#"securityContext={"privilegd":true}"#,
        r#"prometheusRule.disabled=["AgentRuntimeOperatorDwn"]"#,
        r#"dashboard.image.tagg="1""#,
        r#"dashboard.ingressFrom=[{"podSelecter":{}}]"#,
    ];
    for typo in typos {
        let refused = render_json(&[], &[typo]).expect_err(typo);
        assert!(refused.contains("values don't meet the specifications of the schema"), "{typo}: {refused}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for wrong in [
        "replicas=-1",
        "operator.leaseSeconds=1",
        "operator.keyRotationDays=0",
        "image.pullPolicy=Sometimes",
        "image.digest=sha256:abc",
        "service.port=70000",
        "serviceMonitor.interval=often",
        "fullnameOverride=Not_A_Name",
        "selftest.timeoutSeconds=1",
        "networkPolicy.apiServerCIDRs={everywhere}",
        "dashboard.service.port=0",
        "dashboard.hosts={a/b}",
        "dashboard.namespace=Not_A_Name",
    ] {
        render(&[wrong]).expect_err(wrong);
    }
}

#[test]
fn quantities_may_be_written_as_numbers() {
    let rendered = render_json(&[], &[r#"resources={"limits":{"cpu":1,"memory":"1Gi"}}"#]).unwrap();
    assert!(!objects(&rendered).is_empty());
}
