//! One watch on its way from the API server to an operator, event by event.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::fault::{Fault, Layer};
use crate::proxy::{Cut, LATE, lines};
use crate::world::World;

/// A quiet watch says at least this often that it lives, as the API server does each minute.
const BOOKMARK: Duration = Duration::from_secs(1);

/// Why a watch ends.
enum End {
    /// The connection breaks.
    Cut,
    /// The API server says that the version is too old.
    Gone,
    /// The operator or the API server has closed it.
    Closed,
}

pub(crate) struct Pump {
    world: Arc<World>,
    number: usize,
    resource: String,
    version: Option<String>,
    out: mpsc::Sender<Result<Bytes, Cut>>,
    /// An event that the next one is to overtake.
    kept: Option<Bytes>,
    /// Something was lost or came in the wrong order.
    wrong: bool,
    stalled: bool,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: Option<String>,
}

impl Pump {
    pub(crate) fn new(
        world: &Arc<World>,
        number: usize,
        resource: &str,
        path: &str,
        out: mpsc::Sender<Result<Bytes, Cut>>,
    ) -> Self {
        let version = path.split(['?', '&']).find_map(|pair| pair.strip_prefix("resourceVersion="));
        let version = version.filter(|version| !version.is_empty() && *version != "0").map(str::to_owned);
        let (world, resource) = (Arc::clone(world), resource.to_owned());
        Self { world, number, resource, version, out, kept: None, wrong: false, stalled: false }
    }

    pub(crate) async fn run(mut self, mut upstream: Incoming) {
        let mut cut = self.world.cut.subscribe();
        let mut relist = self.world.relist.subscribe();
        match self.pass(&mut upstream, &mut cut, &mut relist).await {
            End::Cut => drop(self.out.send(Err(Cut)).await),
            End::Gone => {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
                    "code": 410, "message": "too old resource version, by the harness" });
                let line = format!("{}\n", json!({ "type": "ERROR", "object": status }));
                drop(self.out.send(Ok(Bytes::from(line))).await);
            }
            End::Closed => {}
        }
    }

    async fn pass(
        &mut self,
        upstream: &mut Incoming,
        cut: &mut watch::Receiver<u64>,
        relist: &mut watch::Receiver<u64>,
    ) -> End {
        let mut buffer = BytesMut::new();
        loop {
            let wait = if self.kept.is_some() { LATE } else { BOOKMARK };
            tokio::select! {
                frame = upstream.frame() => {
                    let Some(Ok(frame)) = frame else { return End::Closed };
                    let Ok(data) = frame.into_data() else { continue };
                    buffer.extend_from_slice(&data);
                    for line in lines(&mut buffer) {
                        if let Some(end) = self.event(line).await {
                            return end;
                        }
                    }
                }
                _ = cut.changed(), if self.number == 0 => return End::Cut,
                _ = relist.changed(), if self.wrong => return End::Gone,
                () = self.out.closed() => return End::Closed,
                () = tokio::time::sleep(wait) => {
                    if let Some(kept) = self.kept.take() {
                        self.give(kept).await;
                    } else {
                        self.bookmark().await;
                    }
                }
            }
        }
    }

    /// Passes one event on, or does to it what is to be done.
    async fn event(&mut self, line: Bytes) -> Option<End> {
        let Ok(read) = serde_json::from_slice::<Line>(&line) else {
            self.give(line).await;
            return None;
        };
        let fault = if read.kind == "BOOKMARK" || self.number != 0 {
            None
        } else {
            self.world.places.pass(Layer::Event, &self.resource)
        };
        match fault {
            Some(Fault::CrashBefore) => {
                self.world.crash(0).await;
                return Some(End::Closed);
            }
            Some(Fault::Gone) => return Some(End::Gone),
            Some(Fault::Cut) => return Some(End::Cut),
            Some(Fault::Dropped) => {
                self.wrong = true;
                return None;
            }
            Some(Fault::Stalled) => self.stalled = true,
            Some(Fault::Delayed) => tokio::time::sleep(LATE).await,
            Some(Fault::Doubled) => self.give(line.clone()).await,
            Some(Fault::Reordered) => {
                self.wrong = true;
                self.kept = Some(line);
                return None;
            }
            _ => {}
        }
        self.version = read.object.metadata.resource_version.or(self.version.take());
        self.give(line).await;
        if let Some(kept) = self.kept.take() {
            self.give(kept).await;
        }
        None
    }

    async fn bookmark(&mut self) {
        let Some(version) = &self.version else { return };
        let object = json!({ "kind": "Bookmark", "apiVersion": "v1", "metadata": { "resourceVersion": version } });
        let line = format!("{}\n", json!({ "type": "BOOKMARK", "object": object }));
        self.give(Bytes::from(line)).await;
    }

    async fn give(&self, line: Bytes) {
        if !self.stalled {
            drop(self.out.send(Ok(line)).await);
        }
    }
}
