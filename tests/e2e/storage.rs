//! A volume outlives pods: what was accepted is there for the next one.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::law::Installed;
use crate::space::{Space, condition, eventually, execution, kubectl, runtime};

/// A volume on the node, writable for the runtime's user, which goes with the test.
struct Volume {
    name: String,
    _folder: tempfile::TempDir,
}

impl Volume {
    fn new(space: &Space, claim: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("{}-{claim}", space.name);
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": "1Gi" },
                "accessModes": ["ReadWriteOncePod"],
                "storageClassName": name,
                "hostPath": { "path": folder.path() },
                "claimRef": { "namespace": space.name, "name": claim },
            },
        });
        space.apply(&volume).unwrap();
        Self { name, _folder: folder }
    }

    fn storage(&self, when_deleted: &str) -> Value {
        json!({ "volumeClaim": { "size": "1Gi", "storageClassName": self.name, "whenDeleted": when_deleted } })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        kubectl(&["delete", "persistentvolume", &self.name, "--wait=false"]);
    }
}

#[test]
fn what_is_queued_while_paused_outlives_its_pod_and_runs_after_the_resume() {
    let space = Space::new("storage");
    let volume = Volume::new(&space, "demo-data");
    let lasting = json!({ "storage": volume.storage("Delete"), "lifecycle": { "whilePaused": "queue" } });
    space.start(&runtime("demo", 1, &lasting));
    space.patch("demo", &json!({ "desiredState": "paused" }));
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
    let before = space.pod("demo");
    let id = space.trigger(&before, "quick");
    assert_eq!(execution(&before, &id)["state"], "queued");
    space.kubectl(&["delete", "pod", before["metadata"]["name"].as_str().unwrap()]);
    // The new pod is ready though it is paused, as it takes triggers.
    space.kubectl(&["rollout", "status", "deployment/demo", "--timeout=120s"]);
    let after = space.pod("demo");
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(execution(&after, &id)["state"], "queued");
    space.patch("demo", &json!({ "desiredState": "running" }));
    space.ready("demo");
    eventually(
        "it has run",
        || execution(&space.pod("demo"), &id)["state"] == "succeeded",
        || execution(&space.pod("demo"), &id).to_string(),
    );
    space.kubectl(&["delete", "agentruntime", "demo"]);
    let gone = || space.list("persistentvolumeclaims", "agents.hive.dev/runtime=demo").is_empty();
    eventually("the claim went with its object", gone, String::new);
}

#[test]
fn a_claim_that_is_to_be_kept_is_found_again_by_a_new_object_of_the_name() {
    let space = Space::new("kept");
    let volume = Volume::new(&space, "demo-data");
    let object = runtime("demo", 1, &json!({ "storage": volume.storage("Retain") }));
    space.start(&object);
    let id = space.trigger(&space.pod("demo"), "quick");
    space.kubectl(&["delete", "agentruntime", "demo"]);
    let gone = || space.pods("demo").is_empty();
    eventually("the pods are gone", gone, String::new);
    space.start(&object);
    eventually(
        "the execution is known",
        || execution(&space.pod("demo"), &id)["state"] == "succeeded",
        || execution(&space.pod("demo"), &id).to_string(),
    );
}

#[test]
fn a_claim_that_somebody_has_grown_is_left_so_and_is_not_stalled() {
    let space = Space::new("grown");
    let volume = Volume::new(&space, "demo-data");
    // The API server lets a claim grow where its class says that it may; here nobody makes the volume larger.
    let class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": volume.name },
        "provisioner": "kubernetes.io/no-provisioner", "allowVolumeExpansion": true });
    let _class = Installed::apply(&class);
    space.start(&runtime("demo", 1, &json!({ "storage": volume.storage("Delete") })));
    let larger = json!({ "spec": { "resources": { "requests": { "storage": "2Gi" } } } }).to_string();
    space.kubectl(&["patch", "persistentvolumeclaim", "demo-data", "--type=merge", "--patch", &larger]);
    // Once by what the watch shows, and once by another spec, all children are compared with what is wanted.
    let claim = || space.list("persistentvolumeclaims", "agents.hive.dev/runtime=demo").remove(0);
    let is_applied = || {
        let fields =
            space.kubectl(&["get", "persistentvolumeclaim", "demo-data", "--show-managed-fields", "-o", "json"]);
        let claim: Value = serde_json::from_str(&fields).unwrap();
        let managers = claim["metadata"]["managedFields"].as_array().unwrap().clone();
        let own = managers.iter().filter(|entry| entry["operation"] == "Apply");
        own.into_iter().any(|entry| entry["fieldsV1"].to_string().contains("f:storage"))
    };
    eventually("the operator's size is that one", is_applied, || claim().to_string());
    for size in ["1Gi", "1500Mi"] {
        space.patch("demo", &json!({ "storage": { "volumeClaim": { "size": size } }, "progressDeadlineSeconds": 601 }));
        let ready = space.ready("demo");
        assert_eq!(condition(&ready["status"], "Stalled").0, "");
        assert_eq!(claim()["spec"]["resources"]["requests"]["storage"], "2Gi");
    }
}
