//! Bad input is refused with the field's name, or reported with a reason.

use serde_json::{Value, json};

use crate::space::{Space, attempt, condition, eventually, http, kubectl, runtime};

#[test]
fn an_invalid_spec_is_refused_with_the_fields_name() {
    let space = Space::new("refused");
    let postgres = json!({ "urlSecretRef": { "name": "database", "key": "url" } });
    for (spec, field) in [
        (json!({ "desiredState": "resting" }), "spec.desiredState"),
        (json!({ "replicas": -1 }), "spec.replicas"),
        (json!({ "lifecycle": { "port": 80 } }), "spec.lifecycle.port"),
        (json!({ "lifecycle": { "shutdownSeconds": 1 } }), "spec.lifecycle.shutdownSeconds"),
        (json!({ "lifecycle": { "pauseMode": "abruptly" } }), "spec.lifecycle.pauseMode"),
        (json!({ "agent": { "configMapRef": { "name": "a", "key": "b" } } }), "spec.agent"),
        (json!({ "sparkle": 1 }), "spec.sparkle"),
        (json!({ "lifecycle": { "prePause": { "timeoutSeconds": 5 } } }), "give a hook exactly one of http and exec"),
        (json!({ "storage": {} }), "spec.storage: give exactly one"),
        (json!({ "storage": { "ephemeral": {}, "volumeClaim": { "size": "1Gi" } } }), "spec.storage: give exactly one"),
        (
            json!({ "storage": { "ephemeral": {}, "postgres": postgres } }),
            "spec.storage: give exactly one of ephemeral, volumeClaim and postgres",
        ),
        (json!({ "storage": { "postgres": {} } }), "spec.storage.postgres.urlSecretRef"),
        (json!({ "storage": { "volumeClaim": { "size": "much" } } }), "spec.storage.volumeClaim.size"),
        (json!({ "storage": { "volumeClaim": { "size": "1Gi" } }, "replicas": 2 }), "spec.replicas: at most 1"),
        (json!({ "lifecycle": { "whilePaused": "queue" } }), "spec.lifecycle.whilePaused: queue needs storage"),
        (json!({ "storage": { "volumeClaim": { "size": "0Gi" } } }), "spec.storage.volumeClaim.size"),
        (
            json!({ "storage": { "volumeClaim": { "size": "1Gi", "storageClassName": "Fast Disk" } } }),
            "spec.storage.volumeClaim.storageClassName",
        ),
        (
            json!({ "storage": { "postgres": { "urlSecretRef": { "name": "a b", "key": "url" } } } }),
            "spec.storage.postgres.urlSecretRef.name",
        ),
        (
            json!({ "lifecycle": { "prePause": { "exec": { "command": [""] } } } }),
            "exec.command: the program's name is empty",
        ),
        (
            json!({ "lifecycle": { "prePause": { "exec": { "command": ["a"], "container": "a_b" } } } }),
            "spec.lifecycle.prePause.exec.container",
        ),
        (
            json!({ "maintenanceWindows": [{ "name": "w", "start": "2027-13-01T22:00:00Z", "durationSeconds": 5 }] }),
            "spec.maintenanceWindows[0].start",
        ),
    ] {
        let refused = space.apply(&runtime("bad", 1, &spec)).expect_err(field);
        assert!(refused.contains(field), "{field}: {refused}");
    }
    space.apply(&runtime("kept", 1, &json!({ "desiredState": "stopped" }))).unwrap();
    let moved = runtime("kept", 1, &json!({ "storage": { "volumeClaim": { "size": "1Gi" } } }));
    assert!(space.apply(&moved).unwrap_err().contains("spec.storage: its kind cannot change"));
    let moved = runtime("kept", 1, &json!({ "storage": { "postgres": postgres } }));
    assert!(space.apply(&moved).unwrap_err().contains("spec.storage: its kind cannot change"));
    let sized = |size: &str| {
        runtime("sized", 1, &json!({ "desiredState": "stopped", "storage": { "volumeClaim": { "size": size } } }))
    };
    space.apply(&sized("2Gi")).unwrap();
    let shrunk = space.apply(&sized("1500Mi")).unwrap_err();
    assert!(shrunk.contains("spec.storage.volumeClaim.size: a volume cannot shrink"), "{shrunk}");
    space.apply(&sized("2.5Gi")).unwrap();
    // A timer would come due in each pod; the helper leaves it out when it makes several.
    let mut timers = runtime("bad", 1, &json!({}));
    timers["spec"]["replicas"] = json!(2);
    let refused = space.apply(&timers).unwrap_err();
    assert!(refused.contains("spec.replicas: at most 1 while the agent has a timer"), "{refused}");
    // Pods that share a database share its timers, and it keeps what is queued.
    timers["spec"]["storage"] = json!({ "postgres": postgres });
    timers["spec"]["lifecycle"]["whilePaused"] = json!("queue");
    timers["spec"]["desiredState"] = json!("stopped");
    timers["metadata"]["name"] = json!("shared");
    space.apply(&timers).unwrap();
    let mut bare = runtime("bad", 1, &json!({}));
    bare["spec"] = json!({});
    assert!(space.apply(&bare).unwrap_err().contains("spec: give agent"));
    for name in ["a.b", "1a", "kubernetes", "default", "demo-pods"] {
        let refused = space.apply(&runtime(name, 1, &json!({}))).expect_err(name);
        assert!(refused.contains("metadata.name"), "{name}: {refused}");
    }
    for (name, key, field) in
        [("site watch", "agent.yaml", "configMapRef.name"), ("agent", "../agent", "configMapRef.key")]
    {
        let mut far = runtime("bad", 1, &json!({}));
        far["spec"]["agent"] = json!({ "configMapRef": { "name": name, "key": key } });
        assert!(space.apply(&far).expect_err(field).contains(field), "{field}");
    }
    let long = runtime(&"n".repeat(53), 1, &json!({}));
    assert!(space.apply(&long).unwrap_err().contains("at most 52 characters"));
}

#[test]
fn an_agent_that_does_not_parse_is_stalled_with_file_line_and_reason() {
    let space = Space::new("stalled");
    let text = "graph:\n  nodes:\n    - {id: a, node_type: dream}\n";
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "agent" }, "data": { "agent.yaml": text } });
    space.apply(&map).unwrap();
    let mut object = runtime("demo", 1, &json!({}));
    object["spec"]["agent"] = json!({ "configMapRef": { "name": "agent", "key": "agent.yaml" } });
    space.apply(&object).unwrap();
    let stalled = space.wait("demo", "Stalled", |status| condition(status, "Stalled").0 == "True");
    let message = message(&stalled);
    assert_eq!(condition(&stalled["status"], "Stalled").1, "InvalidAgent");
    assert!(message.contains("agent.yaml:3") && message.contains("dream"), "{message}");
    // The fix gets through.
    let object = runtime("demo", 1, &json!({}));
    let fixed = json!({ "agent": { "configMapRef": null, "inline": object["spec"]["agent"]["inline"] } });
    space.patch("demo", &fixed);
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

fn message(object: &Value) -> String {
    let all = object["status"]["conditions"].as_array().unwrap();
    let stalled = all.iter().find(|condition| condition["type"] == "Stalled").unwrap();
    stalled["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_template_that_the_api_server_refuses_is_stalled() {
    let space = Space::new("template");
    let spec = json!({ "template": { "spec": { "containers": [{ "name": "agent", "sparkle": 1 }] } } });
    space.apply(&runtime("demo", 1, &spec)).unwrap();
    let stalled = space.wait("demo", "Stalled", |status| condition(status, "Stalled").0 == "True");
    assert_eq!(condition(&stalled["status"], "Stalled").1, "InvalidTemplate");
    assert!(message(&stalled).contains("sparkle"), "{}", message(&stalled));
    space.patch("demo", &json!({ "template": null }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

#[test]
fn a_template_that_cannot_work_is_stalled_with_its_field() {
    let space = Space::new("grace");
    let spec = json!({ "template": { "spec": { "terminationGracePeriodSeconds": 5 } } });
    space.apply(&runtime("demo", 1, &spec)).unwrap();
    let stalled = space.wait("demo", "Stalled", |status| condition(status, "Stalled").0 == "True");
    assert!(message(&stalled).contains("spec.template.spec.terminationGracePeriodSeconds"), "{}", message(&stalled));
    space.patch("demo", &json!({ "template": null }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

#[test]
fn a_missing_agent_is_named_and_found_once_it_is_made() {
    let space = Space::new("missing");
    let mut object = runtime("demo", 1, &json!({}));
    object["spec"]["agent"] = json!({ "configMapRef": { "name": "nowhere", "key": "agent.yaml" } });
    space.apply(&object).unwrap();
    let stalled = space.wait("demo", "Stalled", |status| condition(status, "Stalled").0 == "True");
    assert_eq!(condition(&stalled["status"], "Stalled").1, "AgentNotFound");
    assert!(message(&stalled).contains("nowhere"));
    // It is made after its object, as by one `kubectl apply` of both.
    let text = runtime("demo", 1, &json!({}))["spec"]["agent"]["inline"].to_string();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "nowhere" }, "data": { "agent.yaml": text } });
    space.apply(&map).unwrap();
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

#[test]
fn a_pod_refuses_what_it_must() {
    let space = Space::new("refuses");
    // Unsigned, so that what is wrong besides the signature is reached; signed.rs has the rest.
    let started = space.start(&runtime("demo", 1, &json!({ "lifecycle": { "auth": "none" } })));
    space.patch("demo", &json!({ "desiredState": "paused" }));
    space.ready("demo");
    let pod = space.pod("demo");
    let (uid, owner) = (&pod["metadata"]["uid"], &started["metadata"]["uid"]);
    let old = json!({ "epoch": 1, "pod_uid": uid, "runtime_uid": owner }).to_string();
    let large = "x".repeat(10 * 1024 * 1024);
    for (path, body, code, kind) in [
        ("/api/v1/lifecycle/start", old.as_str(), 409, "stale_epoch"),
        ("/api/v1/lifecycle/resume", "", 409, "held"),
        ("/api/v1/lifecycle/explode", "", 404, "unknown_verb"),
        ("/api/v1/lifecycle/start", r#"{"epoch":9,"pod_uid":"another"}"#, 421, "misdirected"),
        ("/api/v1/entry-points/quick/trigger", large.as_str(), 413, "body_too_large"),
        ("/api/v1/entry-points/quick/trigger", "{}", 503, "paused"),
    ] {
        let (got, problem) = http(&pod, "POST", path, body);
        assert_eq!((got, problem["type"].as_str()), (code, Some(kind)), "{path}: {problem}");
    }
    // Half a request: read to its end only because the pod cuts it.
    let mut stream =
        std::net::TcpStream::connect(format!("{}:8080", pod["status"]["podIP"].as_str().unwrap())).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"POST /api/v1/lifecycle/resume HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    )
    .unwrap();
    std::io::Read::read_to_end(&mut stream, &mut Vec::new()).expect("it is cut");
    assert_eq!(space.get("agentruntime", "demo")["status"]["state"], "paused");
}

#[test]
fn a_timer_in_an_agent_of_a_config_map_is_stalled_with_the_field() {
    let space = Space::new("timers");
    let mut object = runtime("demo", 1, &json!({}));
    let text = object["spec"]["agent"]["inline"].to_string();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "agent" }, "data": { "agent.json": text } });
    space.apply(&map).unwrap();
    object["spec"]["agent"] = json!({ "configMapRef": { "name": "agent", "key": "agent.json" } });
    space.start(&object);
    space.patch("demo", &json!({ "replicas": 2 }));
    let stalled = space.wait("demo", "Stalled", |status| condition(status, "Stalled").1 == "InvalidSpec");
    assert!(message(&stalled).contains("spec.replicas"), "{}", message(&stalled));
    assert_eq!(space.pods("demo").len(), 1, "nothing was changed");
    space.patch("demo", &json!({ "replicas": 1 }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

#[test]
fn an_object_from_before_a_rule_can_still_be_changed_elsewhere() {
    let space = Space::new("ratchet");
    // As if the rule had come after the object: the definition is loosened while the object is made.
    let definition = "customresourcedefinition/agentruntimes.agents.hive.dev";
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/lifecycle/properties/port/maximum";
    let bound = |value: u32| {
        let patch = json!([{ "op": "replace", "path": path, "value": value }]).to_string();
        kubectl(&["patch", definition, "--type", "json", "--patch", &patch]);
    };
    bound(70_000);
    let object = runtime("demo", 1, &json!({ "desiredState": "stopped", "lifecycle": { "port": 65_536 } }));
    let mut made = Err(String::new());
    eventually(
        "the definition is loosened",
        || {
            made = space.apply(&object);
            made.is_ok()
        },
        String::new,
    );
    bound(65_535);
    let patched = |spec: &Value| {
        let patch = json!({ "spec": spec }).to_string();
        attempt(&["-n", &space.name, "patch", "agentruntime", "demo", "--type", "merge", "--patch", &patch], None)
    };
    eventually(
        "the bound is back",
        || patched(&json!({ "lifecycle": { "port": 65_537 } })).is_err(),
        || space.get("agentruntime", "demo").to_string(),
    );
    patched(&json!({ "restartNonce": "two" })).unwrap();
}
