//! What each value does to the objects.

use serde_json::{Value, json};

use crate::chart::{EVERYTHING, none, objects, one, render, render_json, with};

fn pod(objects: &[Value]) -> &Value {
    &one(objects, "Deployment", "agentruntime-operator")["spec"]["template"]["spec"]
}

fn container(objects: &[Value]) -> &Value {
    &pod(objects)["containers"][0]
}

#[test]
fn the_chart_as_it_comes() {
    insta::assert_snapshot!(render(&[]).unwrap());
}

#[test]
fn the_chart_with_everything_switched_on() {
    let set: Vec<&str> = EVERYTHING.into_iter().chain(["crds.install=false", "dashboards.enabled=false"]).collect();
    insta::assert_snapshot!(render(&set).unwrap());
}

#[test]
fn definitions_are_upgraded_with_the_chart_and_kept_on_uninstall() {
    let objects = with(&["crds.install=true"]);
    for name in ["agentruntimes.agents.hive.dev", "agentfreezes.agents.hive.dev"] {
        let definition = one(&objects, "CustomResourceDefinition", name);
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    none(&with(&[]), "CustomResourceDefinition");
}

#[test]
fn the_operator_may_write_no_spec_of_a_user() {
    for set in [&[][..], &["operator.watchNamespaces={red,blue}"]] {
        let objects = with(set);
        let bindings = objects.iter().filter(|o| o["kind"].as_str().unwrap().ends_with("RoleBinding"));
        let ours = bindings.filter(|binding| {
            let account = &pod(&objects)["serviceAccountName"];
            binding["subjects"].as_array().unwrap().iter().any(|subject| subject["name"] == *account)
        });
        let mut seen = 0;
        for role in ours.map(|binding| &binding["roleRef"]) {
            let same = |o: &&Value| o["kind"] == role["kind"] && o["metadata"]["name"] == role["name"];
            let rules = objects.iter().filter(same).flat_map(|role| role["rules"].as_array().unwrap());
            for rule in rules.filter(|rule| rule["apiGroups"][0] == "agents.hive.dev") {
                let words = |field: &str| {
                    let list = rule[field].as_array().unwrap().iter();
                    list.map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
                };
                for resource in words("resources") {
                    let allowed: &[&str] = match resource.as_str() {
                        "agentruntimes/status" | "agentfreezes/status" => &["update"],
                        _ => &["get", "list", "watch"],
                    };
                    assert!(words("verbs").iter().all(|verb| allowed.contains(&verb.as_str())), "{rule}");
                }
                seen += 1;
            }
        }
        assert!(seen >= 3, "{seen} rules");
    }
}

#[test]
fn a_single_replica_has_no_budget_as_it_could_never_be_evicted() {
    none(&with(&["replicas=1"]), "PodDisruptionBudget");
    none(&with(&["podDisruptionBudget.enabled=false"]), "PodDisruptionBudget");
    let budget = with(&["replicas=3", "podDisruptionBudget.maxUnavailable=2"]);
    assert_eq!(one(&budget, "PodDisruptionBudget", "operator")["spec"]["maxUnavailable"], 2);
}

#[test]
fn an_image_is_taken_by_its_digest_where_there_is_one() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let objects = with(&[&format!("image.digest={digest}"), &format!("runtimeImage.digest={digest}"), "image.tag=v1"]);
    assert_eq!(container(&objects)["image"], format!("agentruntime-operator@{digest}"));
    let env = container(&objects)["env"].as_array().unwrap();
    assert_eq!(env[0], json!({ "name": "AGENT_RUNTIME_IMAGE", "value": format!("agent-runtime@{digest}") }));
    let tagged = with(&["image.repository=r.example/o", "image.tag=v7"]);
    assert_eq!(container(&tagged)["image"], "r.example/o:v7");
}

#[test]
fn pods_are_placed_as_the_values_say() {
    let json = [
        r#"tolerations=[{"key":"a","operator":"Exists","effect":"NoSchedule"}]"#,
        r#"affinity={"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[]}}"#,
        r#"topologySpreadConstraints=[{"maxSkew":2,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}]"#,
        r#"nodeSelector={"disk":"fast"}"#,
    ];
    let objects = objects(&render_json(&["priorityClassName=system-cluster-critical"], &json).unwrap());
    let pod = pod(&objects);
    assert_eq!(pod["tolerations"][0]["key"], "a");
    assert!(pod["affinity"]["podAntiAffinity"].is_object());
    assert_eq!(pod["nodeSelector"], json!({ "disk": "fast" }));
    assert_eq!(pod["priorityClassName"], "system-cluster-critical");
    let spread = &pod["topologySpreadConstraints"];
    assert_eq!((&spread[0]["maxSkew"], spread.as_array().unwrap().len()), (&json!(2), 1));
    let selector = &one(&objects, "Deployment", "operator")["spec"]["selector"];
    assert_eq!(&spread[0]["labelSelector"], selector, "it is filled in");
}

#[test]
fn what_is_extra_is_added_and_takes_nothing_away() {
    let json = [
        r#"extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy"}]"#,
        r#"extraEnvFrom=[{"configMapRef":{"name":"more"}}]"#,
        r#"extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}]"#,
        r#"extraVolumeMounts=[{"name":"ca","mountPath":"/ca","readOnly":true}]"#,
        r#"extraArgs=["--log=debug"]"#,
        r#"podAnnotations={"a":"1"}"#,
        r#"podLabels={"b":"2"}"#,
        r#"deploymentAnnotations={"c":"3"}"#,
        r#"service.annotations={"d":"4"}"#,
        r#"commonLabels={"team":"x"}"#,
        r#"commonAnnotations={"owner":"y"}"#,
        r#"podSecurityContext={"fsGroup":1}"#,
    ];
    let plain = with(&[]);
    let objects = objects(&render_json(&[], &json).unwrap());
    let (before, after) =
        (container(&plain)["env"].as_array().unwrap(), container(&objects)["env"].as_array().unwrap());
    assert_eq!((&after[..before.len()], &after[before.len()]["name"]), (&before[..], &json!("HTTPS_PROXY")));
    assert_eq!(container(&objects)["envFrom"][0]["configMapRef"]["name"], "more");
    assert_eq!(container(&objects)["args"], json!(["--log=debug"]));
    assert_eq!(container(&objects)["volumeMounts"][0]["mountPath"], "/ca");
    assert_eq!(pod(&objects)["volumes"][0]["name"], "ca");
    assert_eq!(pod(&objects)["securityContext"]["fsGroup"], 1);
    assert_eq!(pod(&objects)["securityContext"]["runAsNonRoot"], true, "what is not overridden stays");
    let deployment = one(&objects, "Deployment", "operator");
    assert_eq!(deployment["metadata"]["annotations"], json!({ "c": "3", "owner": "y" }));
    let pod = &deployment["spec"]["template"]["metadata"];
    assert_eq!((&pod["annotations"], &pod["labels"]["b"]), (&json!({ "a": "1", "owner": "y" }), &json!("2")));
    assert_eq!(one(&objects, "Service", "operator")["metadata"]["annotations"]["d"], "4");
    for object in &objects {
        assert_eq!(object["metadata"]["labels"]["team"], "x", "{object}");
    }
}

#[test]
fn an_account_and_roles_can_be_somebody_elses() {
    let objects = with(&["serviceAccount.create=false", "serviceAccount.name=given", "rbac.create=false"]);
    assert_eq!(pod(&objects)["serviceAccountName"], "given");
    assert!(objects.iter().all(|o| o["kind"] != "ClusterRoleBinding"));
    let refused = render(&["serviceAccount.create=false"]).unwrap_err();
    assert!(refused.contains("serviceAccount.name"), "{refused}");
    let bound = with(&["serviceAccount.name=mine"]);
    assert_eq!(one(&bound, "ClusterRoleBinding", "operator")["subjects"][0]["name"], "mine");
    none(&with(&["rbac.create=false", "rbac.aggregate=false", "rbac.freezeRole=false"]), "ClusterRole");
}

#[test]
fn an_operator_of_some_namespaces_has_roles_in_these_alone() {
    let set = ["operator.watchNamespaces={red,blue}", "rbac.aggregate=false", "rbac.freezeRole=false"];
    let objects = with(&set);
    let env = container(&objects)["env"].as_array().unwrap().clone();
    assert!(env.contains(&json!({ "name": "WATCH_NAMESPACES", "value": "red,blue" })));
    let roles: Vec<&Value> = objects.iter().filter(|o| o["kind"] == "Role").collect();
    let places: Vec<&Value> = roles.iter().map(|role| &role["metadata"]["namespace"]).collect();
    assert_eq!(places, ["red", "blue", "system", "red"], "each namespace, the operator's own, and the self-test's");
    let whole = with(&[]);
    let everywhere = &one(&whole, "ClusterRole", "-agentruntime-operator")["rules"];
    let (all, few) = (everywhere.as_array().unwrap(), roles[0]["rules"].as_array().unwrap());
    assert!(few.iter().all(|rule| all.contains(rule)), "nothing but what the cluster's role has");
    let cluster = one(&objects, "ClusterRole", "-agentruntime-operator")["rules"].as_array().unwrap().clone();
    assert_eq!(cluster.len() + few.len() + 1, all.len(), "it writes no status of a freeze: it does not see all of it");
    assert!(cluster.iter().all(|rule| !rule.to_string().contains("agentruntimes")));
    let alone = with(&[set[0], set[1], set[2], "operator.obeyFreezes=false"]);
    none(&alone, "ClusterRole");
    none(&alone, "ClusterRoleBinding");
    assert!(
        container(&alone)["env"].as_array().unwrap().contains(&json!({ "name": "OBEY_FREEZES", "value": "false" }))
    );
}

/// As docs/OPERATIONS.md says: Helm refuses an object that another release has.
#[test]
fn a_second_release_makes_nothing_that_the_first_has() {
    let guide = include_str!("../../docs/OPERATIONS.md");
    let set =
        ["operator.watchNamespaces={red,blue}", "crds.install=false", "rbac.freezeRole=false", "rbac.aggregate=false"];
    assert!(set[1..].iter().all(|value| guide.contains(&format!("--set {value}"))));
    let of_the_cluster = |objects: &[Value]| -> Vec<String> {
        let whole = objects.iter().filter(|object| object["metadata"]["namespace"].is_null());
        whole.map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
    };
    let first = of_the_cluster(&with(&["crds.install=true"]));
    // As if its release had another name.
    let second: Vec<&str> = set.into_iter().chain(["fullnameOverride=second"]).collect();
    let second = of_the_cluster(&with(&second));
    assert!(!second.is_empty() && second.iter().all(|object| !first.contains(object)), "{second:?} beside {first:?}");
}

#[test]
fn the_operator_may_run_commands_in_pods_only_where_that_is_asked_for() {
    let may = |set: &[&str]| {
        let objects = with(set);
        let rules = one(&objects, "ClusterRole", "-agentruntime-operator")["rules"].to_string();
        let told = container(&objects)["env"].to_string().contains("EXEC_HOOKS");
        (rules.contains("pods/exec"), told)
    };
    assert_eq!((may(&[]), may(&["operator.execHooks=true"])), ((false, false), (true, true)));
}

#[test]
fn viewers_read_editors_change_and_neither_may_freeze() {
    let objects = with(&[]);
    for (end, label) in [("-view", "view"), ("-edit", "edit")] {
        let role = one(&objects, "ClusterRole", end);
        assert_eq!(role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{label}")], "true");
        assert!(!role["rules"].to_string().contains("agentfreezes"));
    }
    assert_eq!(one(&objects, "ClusterRole", "-view")["rules"][0]["verbs"], json!(["get", "list", "watch"]));
}

#[test]
fn the_network_policy_lets_the_operator_reach_the_api_server_and_agents_alone() {
    none(&with(&[]), "NetworkPolicy");
    let set = ["networkPolicy.enabled=true", "networkPolicy.apiServerCIDRs={10.0.0.1/32}"];
    let objects = objects(&render_json(&set, &[r#"networkPolicy.ingressFrom=[{"namespaceSelector":{}}]"#]).unwrap());
    let spec = &one(&objects, "NetworkPolicy", "operator")["spec"];
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(spec["ingress"][0]["from"], json!([{ "namespaceSelector": {} }]));
    let egress = spec["egress"].as_array().unwrap();
    assert_eq!(egress.len(), 2);
    assert_eq!(egress[0]["to"], json!([{ "ipBlock": { "cidr": "10.0.0.1/32" } }]));
    assert_eq!(egress[1]["to"][0]["podSelector"]["matchExpressions"][0]["key"], "agents.hive.dev/runtime");
}

#[test]
fn the_self_test_is_a_hook_with_rights_of_its_own_and_is_not_taken_for_the_operator() {
    let objects = with(&[]);
    let pod = one(&objects, "Pod", "-selftest");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    let selector = &one(&objects, "Deployment", "operator")["spec"]["selector"]["matchLabels"];
    assert_ne!(pod["metadata"]["labels"]["app.kubernetes.io/name"], selector["app.kubernetes.io/name"]);
    let rules = one(&objects, "Role", "-selftest")["rules"].as_array().unwrap().clone();
    assert_eq!((rules.len(), &rules[0]["resources"]), (1, &json!(["agentruntimes"])));
    let long = with(&["fullnameOverride=a-name-of-a-release-that-is-as-long-as-names-can-be-here-x"]);
    let name = one(&long, "Pod", "-selftest")["metadata"]["name"].as_str().unwrap();
    assert!(name.len() <= 52, "an AgentRuntime of this name must fit: {name}");
    none(&with(&["selftest.enabled=false"]), "Pod");
}

#[test]
fn every_object_bears_the_recommended_labels() {
    for object in with(&EVERYTHING).iter().filter(|object| object["kind"] != "CustomResourceDefinition") {
        for label in ["name", "instance", "version", "managed-by"] {
            let value = &object["metadata"]["labels"][format!("app.kubernetes.io/{label}")];
            assert!(value.as_str().is_some_and(|value| !value.is_empty()), "{label}: {object}");
        }
    }
}

#[test]
fn two_releases_share_no_name_but_those_of_the_group() {
    let names = |release: &str| -> Vec<String> {
        let objects = with(&[&format!("fullnameOverride={release}")]);
        objects.iter().map(|o| format!("{} {}", o["kind"], o["metadata"]["name"])).collect()
    };
    let (one, two) = (names("one"), names("two"));
    let shared: Vec<&String> = one.iter().filter(|name| two.contains(name)).collect();
    assert!(shared.iter().all(|name| name.contains("agentfreeze-operator")), "{shared:?}");
}

#[test]
fn dashboards_are_given_to_grafana_as_they_stand() {
    let objects = with(&["dashboards.enabled=true"]);
    let map = one(&objects, "ConfigMap", "-dashboards");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    for name in ["operator.json", "agent-runtime.json"] {
        let inside: Value = serde_json::from_str(map["data"][name].as_str().unwrap()).unwrap();
        let file: Value =
            serde_json::from_str(&crate::chart::read(&format!("charts/agentruntime-operator/dashboards/{name}")))
                .unwrap();
        assert_eq!(inside, file);
    }
}
