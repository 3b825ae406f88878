//! The plant: what a Deployment's controller, the kubelet and the garbage collector do, by what the operator wrote.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use lifecycle::BootFile;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::plane::{number, text};
use crate::pod::{self, Pod};
use crate::world::World;

/// How long the kubelet takes to show a changed ConfigMap.
const SYNC: Duration = Duration::from_millis(60);

/// What the plant is told.
pub(crate) enum Note {
    /// The Deployment was written.
    Deployment(Value),
    /// The boot ConfigMap was written.
    Boot(Value),
    /// The kubelet has synced this file.
    Synced(BootFile),
    /// Some pod changed its state, or was started anew.
    Changed,
    /// A pod's process has ended for good.
    Exited(String),
    /// The AgentRuntime is gone: its children go too.
    Collect,
}

struct Plant {
    world: Arc<World>,
    deployment: Option<Value>,
    boot: Option<BootFile>,
    /// The Deployment's status as written last.
    written: Value,
    made: usize,
    members: Vec<Member>,
}

struct Member {
    pod: Arc<Pod>,
    terminating: bool,
    /// The readiness and container that the API server was told.
    told: (bool, u32),
}

/// Works until the world ends.
pub(crate) async fn run(world: Arc<World>, mut notes: mpsc::UnboundedReceiver<Note>) {
    let mut plant = Plant { world, deployment: None, boot: None, written: Value::Null, made: 0, members: Vec::new() };
    while let Some(note) = notes.recv().await {
        plant.take(note).await;
        plant.settle().await;
        plant.world.noted();
    }
}

impl Plant {
    async fn take(&mut self, note: Note) {
        match note {
            Note::Deployment(deployment) => self.deployment = Some(deployment),
            Note::Boot(map) => {
                let file: Option<BootFile> = serde_json::from_str(text(&map, "/data/boot.json")).ok();
                self.boot = file.clone();
                let Some(file) = file else { return };
                let world = Arc::clone(&self.world);
                tokio::spawn(async move {
                    tokio::time::sleep(SYNC).await;
                    world.note(Note::Synced(file));
                });
            }
            Note::Synced(file) => self.members.iter().for_each(|member| member.pod.mount(&file)),
            Note::Changed => {}
            Note::Exited(uid) => {
                let Some(at) = self.members.iter().position(|member| member.pod.uid == uid) else { return };
                let member = self.members.remove(at);
                let path = format!("{}?gracePeriodSeconds=0", self.pod_path(&member.pod.name));
                self.world.write(Method::DELETE, &path, None).await;
                self.publish();
            }
            Note::Collect => self.collect().await,
        }
    }

    async fn collect(&mut self) {
        self.deployment = None;
        self.boot = None;
        self.written = Value::Null;
        let world = Arc::clone(&self.world);
        for (path, names) in world.children().await {
            for name in names {
                world.write(Method::DELETE, &format!("{path}/{name}"), None).await;
            }
        }
    }

    /// Brings pods to what the Deployment wants, and tells what is so.
    async fn settle(&mut self) {
        let Some(deployment) = self.deployment.clone() else {
            self.delete(|_| true).await;
            return;
        };
        let template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
        let hash = short_hash(&template.to_string());
        let want = usize::try_from(number(&deployment, "/spec/replicas")).unwrap_or(0);
        let kind = text(&deployment, "/spec/strategy/type");
        let all_at_once = deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable") == Some(&json!("100%"));
        let living = |plant: &Self, fresh: bool| {
            plant.members.iter().filter(|m| !m.terminating && (m.pod.hash == hash) == fresh).count()
        };
        let ready = self.members.iter().filter(|m| !m.terminating && m.pod.hash == hash && m.pod.ready()).count();
        // Old pods go all at once, or when enough new ones are ready, or when they are not ready themselves.
        let spare = kind == "Recreate" || all_at_once || ready >= want;
        self.delete(|member| member.pod.hash != hash && (spare || !member.pod.ready())).await;
        while living(self, true) > want {
            let surplus = self.members.iter().rev().find(|m| !m.terminating && m.pod.hash == hash);
            let Some(uid) = surplus.map(|m| m.pod.uid.clone()) else { break };
            self.delete(|member| member.pod.uid == uid).await;
        }
        let blocked = kind == "Recreate" && self.members.iter().any(|m| m.pod.hash != hash);
        while !blocked && living(self, true) < want {
            self.create(&deployment, &template, &hash).await;
        }
        self.tell_pods().await;
        self.tell_deployment(&deployment, &hash).await;
    }

    async fn create(&mut self, deployment: &Value, template: &Value, hash: &str) {
        self.made += 1;
        let parent = format!("{}-{hash}", text(deployment, "/metadata/name"));
        let name = format!("{parent}-{}", self.made);
        let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
        labels["pod-template-hash"] = json!(hash);
        let mut spec = template.get("spec").cloned().unwrap_or_default();
        // Only a pod on a node is deleted with grace.
        spec["nodeName"] = json!("node");
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": parent,
            "uid": "00000000-0000-0000-0000-000000000000", "controller": true }]);
        let body = json!({ "metadata": { "name": name, "labels": labels, "ownerReferences": owner }, "spec": spec });
        let (code, made) = self.world.write(Method::POST, &self.path("pods"), Some(&body)).await;
        assert_eq!(code, 201, "{made}");
        let uid = text(&made, "/metadata/uid").to_owned();
        let runtime = text(deployment, "/metadata/ownerReferences/0/uid").to_owned();
        let (address, boot) = (pod::address(), self.boot.clone());
        let pod = Pod::start(&self.world, (name.clone(), uid, hash.to_owned()), address, runtime, boot).await;
        self.members.push(Member { pod, terminating: false, told: (false, 0) });
        self.publish();
    }

    async fn delete(&mut self, which: impl Fn(&Member) -> bool) {
        let mut paths = Vec::new();
        for member in self.members.iter_mut().filter(|member| !member.terminating) {
            if which(member) {
                member.terminating = true;
                paths.push((Arc::clone(&member.pod), member.pod.name.clone()));
            }
        }
        for (pod, name) in paths {
            self.world.write(Method::DELETE, &self.pod_path(&name), None).await;
            pod.terminate();
        }
    }

    /// What the kubelet says of its pods.
    async fn tell_pods(&mut self) {
        let root = self.path("pods");
        for member in &mut self.members {
            let now = (member.pod.ready(), member.pod.container());
            if member.told == now || now.1 == 0 {
                continue;
            }
            let (ready, container) = now;
            let started = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap().to_string();
            let state = json!({ "running": { "startedAt": started } });
            let mut status = json!({
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            });
            if member.told.1 != container {
                status["phase"] = json!("Running");
                status["podIP"] = json!(member.pod.address);
                status["podIPs"] = json!([{ "ip": member.pod.address }]);
                status["hostIP"] = json!("10.0.0.1");
                status["containerStatuses"] = json!([{ "name": "agent", "ready": ready, "image": "i", "imageID": "i",
                    "restartCount": container - 1, "containerID": format!("sim://{}-{container}", member.pod.uid), "state": state }]);
            }
            let path = format!("{root}/{}/status", member.pod.name);
            let (code, answer) = self.world.write(Method::PATCH, &path, Some(&json!({ "status": status }))).await;
            assert!(code == 200 || code == 404, "{answer}");
            member.told = now;
        }
    }

    async fn tell_deployment(&mut self, deployment: &Value, hash: &str) {
        let living = || self.members.iter().filter(|member| !member.terminating);
        let ready = living().filter(|member| member.pod.ready()).count();
        let status = json!({
            "observedGeneration": number(deployment, "/metadata/generation"),
            "replicas": living().count(),
            "updatedReplicas": living().filter(|member| member.pod.hash == hash).count(),
            "readyReplicas": ready,
            "availableReplicas": ready,
        });
        if self.written == status {
            return;
        }
        let path = format!("/apis/apps/v1/namespaces/{}/deployments", self.world.ns);
        let path = format!("{path}/{}/status", text(deployment, "/metadata/name"));
        let (code, answer) = self.world.write(Method::PATCH, &path, Some(&json!({ "status": status }))).await;
        assert!(code == 200 || code == 404, "{answer}");
        self.written = status;
    }

    fn publish(&self) {
        self.world.publish_pods(self.members.iter().map(|member| Arc::clone(&member.pod)).collect());
    }

    fn path(&self, kind: &str) -> String {
        format!("/api/v1/namespaces/{}/{kind}", self.world.ns)
    }

    fn pod_path(&self, name: &str) -> String {
        format!("{}/{name}", self.path("pods"))
    }
}

/// A stable name for a template's text.
fn short_hash(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")[..10].to_owned()
}
