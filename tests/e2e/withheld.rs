//! Rollouts that cannot go on: what runs stays, is known, and obeys.

use serde_json::{Value, json};

use crate::law::{BRAKE, Fault, said, serving};
use crate::space::{Space, condition, eventually, runtime, within};

#[test]
fn a_paused_rollout_drains_nothing_says_so_and_holds_up_no_brake() {
    let space = Space::new("rollout-paused");
    let lifecycle = json!({ "drainBeforeRestart": true, "drainTimeoutSeconds": 5 });
    space.start(&runtime("demo", 1, &json!({ "lifecycle": lifecycle })));
    let pods = serving(&space, "demo");
    space.kubectl(&["rollout", "pause", "deployment/demo"]);
    space.patch("demo", &json!({ "restartNonce": "two" }));
    let fault = Fault {
        space: &space,
        runtime: "demo",
        reason: "RolloutPaused",
        names: "kubectl rollout resume deployment/demo",
    };
    fault.is_told("running by its spec", |status| status["state"] == "running" && status["source"] == "Spec");
    assert_eq!(space.pod("demo")["metadata"]["uid"], pods[0]["metadata"]["uid"]);
    fault.lets_brakes_through();
    assert_eq!(space.pod("demo")["metadata"]["uid"], pods[0]["metadata"]["uid"], "nothing has replaced it");
    fault.ends(&["demo"], || drop(space.kubectl(&["rollout", "resume", "deployment/demo"])));
    assert_eq!(space.get("agentruntime", "demo")["status"]["restartNonce"], "two");
    assert_ne!(space.pod("demo")["metadata"]["uid"], pods[0]["metadata"]["uid"]);
}

/// The ConfigMaps of definitions, by name.
fn definitions(space: &Space) -> Vec<String> {
    let all = space.list("configmaps", "agents.hive.dev/runtime=demo");
    let names = all.iter().map(|map| map["metadata"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| name.starts_with("demo-agent-")).collect()
}

/// The ports that the policy of the runtime lets in.
fn open_ports(space: &Space) -> Vec<Value> {
    let ports = space.get("networkpolicy", "demo")["spec"]["ingress"][0]["ports"].clone();
    ports.as_array().unwrap().iter().map(|port| port["port"].clone()).collect()
}

#[test]
fn what_old_pods_need_stays_while_new_ones_cannot_come_up() {
    let space = Space::new("withheld");
    space.start(&runtime("demo", 1, &json!({ "lifecycle": { "drainTimeoutSeconds": 5 } })));
    let old = serving(&space, "demo");
    let before = definitions(&space);
    assert_eq!(before.len(), 1);
    space.patch(
        "demo",
        &json!({
            "progressDeadlineSeconds": 10,
            "lifecycle": { "port": 8081 },
            "agent": { "inline": { "agent": { "name": "Another" } } },
            "template": { "spec": { "nodeSelector": { "e2e": "nowhere" } } },
        }),
    );
    // By then the operator has looked at it many times.
    let wanted = ("True".to_owned(), "ProgressDeadlineExceeded".to_owned());
    let stalled = space.wait("demo", "stalled", |status| condition(status, "Stalled") == wanted);
    let known = |object: &Value| {
        let pods = object["status"]["pods"].as_array().unwrap().clone();
        pods.iter().find(|pod| pod["uid"] == old[0]["metadata"]["uid"]).map(|pod| pod["state"].clone())
    };
    assert_eq!(known(&stalled), Some(json!("running")), "{stalled}");
    let kept = definitions(&space);
    assert!(kept.len() == 2 && kept.contains(&before[0]), "{kept:?} and {before:?}");
    let open = open_ports(&space);
    assert!(open.contains(&json!(8080)) && open.contains(&json!(8081)), "{open:?}");

    // The old pod is commanded by the port that it has. Paused pods are replaced at once, so it may be on its way out.
    let epoch = stalled["status"]["epoch"].as_i64();
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let obeys = || {
        let said = said(&old[0]);
        said["epoch"].as_i64() > epoch && said["state"].is_string() && said["state"] != "running"
    };
    within(BRAKE, "the old pod obeys", obeys, || said(&old[0]).to_string());
    // What never comes up can acknowledge nothing, which is said in time.
    space.wait("demo", "what is waited for", |status| condition(status, "Stalled").1 == "PodsNotStarting");
    space.patch("demo", &json!({ "desiredState": "running", "template": null }));
    space.ready("demo");
    let tell = || format!("{:?} {:?}", definitions(&space), open_ports(&space));
    eventually("the old definition is gone", || !definitions(&space).contains(&before[0]), tell);
    eventually("the old port is closed", || open_ports(&space) == [json!(8081)], tell);
}
