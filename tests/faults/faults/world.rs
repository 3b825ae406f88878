//! One namespace with an operator, its proxies, simulated pods and an oracle.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::api::Api;
use crate::lasting::{Answer, Lasting};
use crate::operator::Operator;
use crate::oracle::Oracle;
use crate::places::Places;
use crate::plane::text;
use crate::plant::{self, Note};
use crate::pod::Pod;
use crate::proxy;

/// The object's name.
pub(crate) const NAME: &str = "demo";
/// How long a partition lasts.
const PARTITION: Duration = Duration::from_millis(700);

pub(crate) struct World {
    pub(crate) ns: String,
    pub(crate) api: Api,
    pub(crate) oracle: Oracle,
    pub(crate) places: Places,
    pub(crate) operators: [Operator; 2],
    /// The AgentRuntime and the AgentFreeze, as last written by anybody.
    pub(crate) seen: watch::Sender<Seen>,
    /// Moved to break every watch.
    pub(crate) cut: watch::Sender<u64>,
    /// Moved to have watches that missed something listed anew.
    pub(crate) relist: watch::Sender<u64>,
    /// False while a request of a stopped operator is kept back.
    pub(crate) released: watch::Sender<bool>,
    /// Steps of the operators' clocks that have not ended.
    wrong_clocks: watch::Sender<usize>,
    notes: mpsc::UnboundedSender<Note>,
    noted: AtomicUsize,
    pods: Mutex<Vec<Arc<Pod>>>,
    /// resourceVersions that are not the operator's doing.
    foreign: Mutex<HashSet<String>>,
    /// What the operator's accepted writes gave: the place and the resourceVersion.
    writes: Mutex<Vec<(String, String)>>,
    /// Writes under way.
    pub(crate) pending: AtomicUsize,
    /// Pods go on though they say that they are paused.
    lies: AtomicBool,
    /// What is answered in the same way all the time.
    lasting: watch::Sender<Option<Lasting>>,
    /// The kinds that the first operator's present process watches.
    watching: watch::Sender<HashSet<String>>,
}

/// The kinds that an operator watches.
const WATCHED: usize = 11;

/// The last known objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) runtime: Value,
    pub(crate) freeze: Value,
}

impl World {
    pub(crate) async fn new(api: &Api, ns: &str, folder: &Path) -> Arc<Self> {
        let mut listeners = Vec::new();
        for _ in 0..2 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let port = |number: usize| listeners[number].local_addr().unwrap().port();
        let (notes, told) = mpsc::unbounded_channel();
        let world = Arc::new(Self {
            ns: ns.to_owned(),
            api: api.clone(),
            oracle: Oracle::default(),
            places: Places::default(),
            operators: [0, 1].map(|number| Operator::new(ns, number, port(number), folder)),
            seen: watch::Sender::default(),
            cut: watch::Sender::default(),
            relist: watch::Sender::default(),
            released: watch::Sender::new(true),
            wrong_clocks: watch::Sender::default(),
            notes,
            noted: AtomicUsize::new(0),
            pods: Mutex::default(),
            foreign: Mutex::default(),
            writes: Mutex::default(),
            pending: AtomicUsize::new(0),
            lies: AtomicBool::new(false),
            lasting: watch::Sender::default(),
            watching: watch::Sender::default(),
        });
        let namespace = json!({ "metadata": { "name": ns, "labels": { "faults": ns } } });
        let (code, answer) = world.api.call(Method::POST, "/api/v1/namespaces", Some(&namespace)).await;
        assert_eq!(code, 201, "{answer}");
        tokio::spawn(plant::run(Arc::clone(&world), told));
        for (number, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(proxy::serve(Arc::clone(&world), number, listener));
            let supervised = Arc::clone(&world);
            tokio::spawn(async move { supervised.operators[number].supervise().await });
        }
        world
    }

    /// Ends the processes and the pods.
    pub(crate) async fn end(&self) {
        self.operators[0].stop().await;
        self.operators[1].stop().await;
        self.pods().iter().for_each(|pod| pod.end());
    }

    /// A write of the harness, with the plant's and the user's hands.
    pub(crate) async fn write(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (code, answer) = self.api.call(method, path, body).await;
        let version = text(&answer, "/metadata/resourceVersion").to_owned();
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).insert(version);
        (code, answer)
    }

    /// Notes a write of the operator that the API server accepted.
    pub(crate) fn accepted(&self, site: &str, version: &str) {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).push((site.to_owned(), version.to_owned()));
    }

    /// Where the operator's writes changed something, in their order, since the last call.
    pub(crate) fn effective(&self) -> Vec<String> {
        let mut known = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner));
        writes.into_iter().filter(|(_, version)| known.insert(version.clone())).map(|(site, _)| site).collect()
    }

    pub(crate) fn note(&self, note: Note) {
        self.noted.fetch_add(1, Ordering::SeqCst);
        if self.notes.send(note).is_err() {
            self.noted();
        }
    }

    /// A note has been worked off.
    pub(crate) fn noted(&self) {
        self.noted.fetch_sub(1, Ordering::SeqCst);
    }

    /// Neither the plant nor a write of the operator is under way.
    pub(crate) fn quiet(&self) -> bool {
        self.noted.load(Ordering::SeqCst) == 0 && self.pending.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish_pods(&self, pods: Vec<Arc<Pod>>) {
        *self.pods.lock().unwrap_or_else(PoisonError::into_inner) = pods;
        // Whoever waits for an end looks again.
        self.seen.send_modify(|_| {});
    }

    /// Answers may overtake each other: the newest version is what is shown.
    pub(crate) fn show_runtime(&self, runtime: Value) {
        let version = |runtime: &Value| text(runtime, "/metadata/resourceVersion").parse::<u64>().unwrap_or(0);
        self.seen.send_modify(|seen| {
            if version(&runtime) >= version(&seen.runtime) {
                seen.runtime = runtime;
            }
        });
    }

    pub(crate) fn forget_runtime(&self) {
        self.seen.send_modify(|seen| *seen = Seen::default());
    }

    /// From now on pods break the contract.
    pub(crate) fn lie(&self) {
        self.lies.store(true, Ordering::SeqCst);
    }

    pub(crate) fn lies(&self) -> bool {
        self.lies.load(Ordering::SeqCst)
    }

    /// From now on a request is answered in this way, or as ever.
    pub(crate) fn stay(&self, lasting: Option<Lasting>) {
        self.lasting.send_replace(lasting);
    }

    /// How a request is answered at present, if not as ever.
    pub(crate) fn lasting(&self, site: &str) -> Option<Answer> {
        self.lasting.borrow().filter(|lasting| site.starts_with(lasting.site)).map(|lasting| lasting.answer)
    }

    /// The first operator watches this now.
    pub(crate) fn watching(&self, resource: &str) {
        self.watching.send_if_modified(|watching| watching.insert(resource.to_owned()));
    }

    /// Waits until the first operator watches everything.
    pub(crate) async fn watched(&self) {
        let mut watching = self.watching.subscribe();
        let all = watching.wait_for(|watching| watching.len() >= WATCHED);
        let _ = tokio::time::timeout(Duration::from_secs(20), all).await;
    }

    pub(crate) fn show_freeze(&self, freeze: Value) {
        self.seen.send_modify(|seen| seen.freeze = freeze);
    }

    pub(crate) async fn crash(&self, number: usize) {
        if number == 0 {
            self.watching.send_modify(HashSet::clear);
        }
        self.operators[number].crash().await;
    }

    pub(crate) fn part_api(&self) {
        self.places.part_api(PARTITION);
        self.cut.send_modify(|cut| *cut += 1);
    }

    /// The clocks of the operators are wrong by so many seconds for a while.
    pub(crate) fn step_clock(self: &Arc<Self>, seconds: i64) {
        let set = |world: &Self, seconds| world.operators.iter().for_each(|operator| operator.set_clock(seconds));
        self.wrong_clocks.send_modify(|wrong| *wrong += 1);
        set(self, seconds);
        let world = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(PARTITION).await;
            world.wrong_clocks.send_modify(|wrong| {
                *wrong -= 1;
                if *wrong == 0 {
                    set(&world, 0);
                }
            });
        });
    }

    /// Waits until no clock is wrong.
    pub(crate) async fn right_clock(&self) {
        let _ = self.wrong_clocks.subscribe().wait_for(|wrong| *wrong == 0).await;
    }

    pub(crate) fn part_pods(&self) {
        self.places.part_pods(PARTITION);
    }

    pub(crate) fn path(&self, kind: &str) -> String {
        let group = match kind {
            "deployments" => "/apis/apps/v1",
            "poddisruptionbudgets" => "/apis/policy/v1",
            "networkpolicies" => "/apis/networking.k8s.io/v1",
            "agentruntimes" => "/apis/agents.hive.dev/v1alpha1",
            "leases" => "/apis/coordination.k8s.io/v1",
            _ => "/api/v1",
        };
        format!("{group}/namespaces/{}/{kind}", self.ns)
    }

    pub(crate) fn object(&self) -> String {
        format!("{}/{NAME}", self.path("agentruntimes"))
    }

    pub(crate) fn freeze(&self) -> String {
        format!("/apis/agents.hive.dev/v1alpha1/agentfreezes/{}", self.ns)
    }

    /// The children's paths and names.
    pub(crate) async fn children(&self) -> Vec<(String, Vec<String>)> {
        let mut all = Vec::new();
        for (path, items) in self.listed().await {
            all.push((path, items.iter().map(|item| text(item, "/metadata/name").to_owned()).collect()));
        }
        all
    }

    /// The children, by kind.
    pub(crate) async fn listed(&self) -> Vec<(String, Vec<Value>)> {
        let kinds =
            ["deployments", "configmaps", "services", "serviceaccounts", "poddisruptionbudgets", "networkpolicies"];
        let lists = kinds.map(|kind| async move {
            let path = self.path(kind);
            let query = format!("{path}?labelSelector=app.kubernetes.io/managed-by%3Dagentruntime-operator");
            let (code, answer) = self.api.call(Method::GET, &query, None).await;
            assert_eq!(code, 200, "{answer}");
            (path, answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
        });
        futures::future::join_all(lists).await
    }
}
