use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn containers_are_merged_by_name() {
    let mut base = json!({"containers": [{"name": "agent", "image": "a", "env": [{"name": "A", "value": "1"}]}]});
    let over = json!({"containers": [{"name": "agent", "image": "b", "env": [{"name": "A", "value": "2"}]},
        {"name": "side", "image": "c"}]});
    merge(&mut base, &over);
    assert_eq!(base, over);
}

/// Ours, the user's and what comes of it, for each field of which an object may have one, and for each list without a key.
#[test]
fn what_excludes_ours_takes_its_place() {
    for (ours, users, merged) in [
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]}),
            json!({"env": [{"name": "A", "value": "x"}]}),
            json!({"env": [{"name": "A", "value": "x"}]}),
        ),
        (
            json!({"env": [{"name": "A", "value": "x"}]}),
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]}),
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]}),
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {}}}]}),
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {}}}]}),
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {}}}]}),
        ),
        (
            json!({"volumes": [{"name": "tmp", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}]}),
            json!({"volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}]}),
        ),
        (
            json!({"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]}),
            json!({"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]}),
            json!({"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]}),
        ),
        (
            json!({"livenessProbe": {"httpGet": {"port": 1}, "periodSeconds": 5}}),
            json!({"livenessProbe": {"exec": {"command": ["a"]}}}),
            json!({"livenessProbe": {"exec": {"command": ["a"]}, "periodSeconds": 5}}),
        ),
        (json!({"args": ["a", "b"]}), json!({"args": ["c"]}), json!({"args": ["c"]})),
        (
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
    ] {
        let mut base = ours.clone();
        merge(&mut base, &users);
        assert_eq!(base, merged, "{users} over {ours}");
    }
}

#[test]
fn null_takes_ours_away_and_stays() {
    let mut base = json!({"securityContext": {"runAsUser": 1, "runAsNonRoot": true}, "ports": [{"containerPort": 1}]});
    merge(&mut base, &json!({"securityContext": {"runAsUser": null}, "ports": null}));
    assert_eq!(base, json!({"securityContext": {"runAsUser": null, "runAsNonRoot": true}, "ports": null}));
}

/// A list of ours and what tells its elements apart.
const LISTS: [(&str, &str); 7] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("volumeMounts", "mountPath"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
];

/// Elements with keys of their own, each with something to tell whose it is.
fn elements(key: &'static str, of: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let keys = proptest::collection::btree_set(0u8..6, 0..5);
    keys.prop_map(move |keys| keys.iter().map(|n| json!({ key: format!("k{n}"), of: true })).collect())
}

/// As the API server takes them: no name twice, and no number of one protocol twice.
fn ports() -> impl Strategy<Value = Vec<Value>> {
    let port = (prop_oneof![Just(8080), 9000..9003], prop_oneof![Just(None), Just(Some("TCP")), Just(Some("UDP"))]);
    let name = prop_oneof![Just(None), Just(Some("lifecycle")), Just(Some("web")), Just(Some("grpc"))];
    proptest::collection::vec((port, name), 0..5).prop_map(|all| {
        let mut kept: Vec<Value> = Vec::new();
        for ((number, protocol), name) in all {
            let mut port = json!({ "containerPort": number });
            let fields = port.as_object_mut().unwrap();
            fields.extend(protocol.map(|protocol| ("protocol".to_owned(), json!(protocol))));
            fields.extend(name.map(|name| ("name".to_owned(), json!(name))));
            if !kept.iter().any(|other| names_the_same(other, &port)) {
                kept.push(port);
            }
        }
        kept
    })
}

fn names_the_same(one: &Value, other: &Value) -> bool {
    let number = |port: &Value| (port["containerPort"].clone(), port["protocol"].as_str().unwrap_or("TCP").to_owned());
    (one["name"].is_string() && one["name"] == other["name"]) || number(one) == number(other)
}

proptest! {
    /// Whatever a user lists, ours are there as they were unless the user names the very same one, then with what the
    /// user says of it; and so is all that the user lists.
    #[test]
    fn ours_stay_in_every_list_unless_the_user_names_them(
        (list, ours, users) in proptest::sample::select(&LISTS[..])
            .prop_flat_map(|(list, key)| (Just((list, key)), elements(key, "ours"), elements(key, "users"))),
    ) {
        let (list, key) = list;
        let mut merged = json!({ list: ours.clone() });
        merge(&mut merged, &json!({ list: users.clone() }));
        let all: BTreeMap<&str, &Value> =
            merged[list].as_array().unwrap().iter().map(|item| (item[key].as_str().unwrap(), item)).collect();
        prop_assert_eq!(all.len(), merged[list].as_array().unwrap().len(), "none is there twice");
        for item in &ours {
            // Of a volume everything but its name is a source, of which it has one.
            let replaced = list == "volumes" && users.iter().any(|other| other[key] == item[key]);
            prop_assert!(replaced || all[item[key].as_str().unwrap()]["ours"] == true);
        }
        for item in &users {
            prop_assert_eq!(&all[item[key].as_str().unwrap()]["users"], true);
        }
        prop_assert!(merged[list].as_array().unwrap().iter().zip(&ours).all(|(now, was)| now[key] == was[key]), "in our order");
    }

    #[test]
    fn our_port_stays_unless_the_user_names_it(users in ports()) {
        let ours = json!({ "name": "lifecycle", "containerPort": 8080, "protocol": "TCP" });
        let mut merged = json!({ "ports": [ours.clone()] });
        merge(&mut merged, &json!({ "ports": users.clone() }));
        let all = merged["ports"].as_array().unwrap();
        if !users.iter().any(|port| names_the_same(port, &ours)) {
            prop_assert_eq!(&all[0], &ours);
            prop_assert_eq!(all.len(), users.len() + 1);
        }
        for port in &users {
            let there = all.iter().any(|one| {
                port.as_object().unwrap().iter().all(|(field, value)| one.get(field) == Some(value))
            });
            // Two of the user's may both mean ours, one by name and one by number: then it is said to be at fault.
            let both = users.iter().filter(|port| names_the_same(port, &ours)).count() > 1;
            prop_assert!(there || both, "{:?} is not in {:?}", port, all);
        }
    }
}
