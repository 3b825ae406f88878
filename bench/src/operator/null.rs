//! The null operator: the same steps without any care. The sum of its parts is the limit of what an operator can reach.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crds::{AgentRuntime, DesiredState};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use lifecycle::Verb;
use lifecycle::wire::Command;
use serde_json::json;

use super::field::Field;
use super::observer::Observer;
use super::plan::APART;
use super::pods;
use crate::figures;

/// Calls to pods under way at once; as many as our operator has by default.
const PUSHES: usize = 128;
/// Status writes under way at once when their rate is measured.
const WRITES: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// The times of each step, in milliseconds, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    /// From the user's patch to the event of a watch.
    pub(crate) watch: Vec<f64>,
    /// The boot ConfigMap, by compare-and-swap.
    pub(crate) config_map: Vec<f64>,
    /// The command to every pod.
    pub(crate) push: Vec<f64>,
    /// The list of pods that no cache answers.
    pub(crate) list: Vec<f64>,
    /// The status.
    pub(crate) status: Vec<f64>,
    /// From the user's patch until the user's watch shows the status.
    pub(crate) whole: Vec<f64>,
}

impl Parts {
    /// ConfigMap, push and status: what no operator that does these steps can do without. A quantile, in milliseconds.
    pub(crate) fn bare(&self, share: f64) -> f64 {
        [&self.config_map, &self.push, &self.status].map(|times| figures::quantile(times, share)).iter().sum()
    }
}

/// A null operator of one object with its pods.
pub(crate) struct NullOperator<'a> {
    client: Client,
    field: &'a Field,
    port: u16,
    pods: lifecycle::client::Client,
}

type Runtimes = std::pin::Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<AgentRuntime>>> + Send>>;

impl<'a> NullOperator<'a> {
    pub(crate) fn new(client: &Client, field: &'a Field, port: u16) -> Self {
        Self { client: client.clone(), field, port, pods: lifecycle::client::Client::default() }
    }

    /// Pauses and resumes so many times; the figures are of the pauses.
    pub(crate) async fn measure(&self, rounds: usize) -> anyhow::Result<Parts> {
        let name = self.field.names.first().context("the field has an object")?;
        let runtimes: Api<AgentRuntime> = Api::namespaced(self.client.clone(), &self.field.namespace);
        let mut version = self.boot(name).await?;
        let observer = Observer::new(&self.client, &self.field.namespace);
        // The list's version: the object's own may be older than what the API server still has to tell.
        let from = runtimes.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
        let from = from.unwrap_or_default();
        let mut events: Runtimes = Box::pin(runtimes.watch(&WatchParams::default(), &from).await?);
        let mut parts = Parts::default();
        for round in 0..rounds * 2 + 2 {
            let pause = round % 2 == 0;
            let (state, verb) =
                if pause { (DesiredState::Paused, Verb::Pause) } else { (DesiredState::Running, Verb::Resume) };
            if pause {
                tokio::time::sleep(APART).await;
            }
            let begun = self.field.ask(state).await?;
            let seen = next(&mut events, state).await?;
            let watched = Instant::now();
            version = self.config_map(name, &version, i64::try_from(round)? + 1).await?;
            let written = Instant::now();
            self.push(verb, i64::try_from(round)? + 1).await?;
            let pushed = Instant::now();
            self.list(name, pause).await?;
            let listed = Instant::now();
            self.status(&runtimes, &seen).await?;
            let told = Instant::now();
            let end = observer.reached(state, &self.field.names, PATIENCE).await?;
            // The first round opens connections.
            if pause && round >= 2 {
                let add = |times: &mut Vec<f64>, from: Instant, to: Instant| {
                    times.push(figures::millisecond(to.saturating_duration_since(from)));
                };
                add(&mut parts.watch, begun, watched);
                add(&mut parts.config_map, watched, written);
                add(&mut parts.push, written, pushed);
                add(&mut parts.list, pushed, listed);
                add(&mut parts.status, listed, told);
                add(&mut parts.whole, begun, end);
            }
        }
        for times in [
            &mut parts.watch,
            &mut parts.config_map,
            &mut parts.push,
            &mut parts.list,
            &mut parts.status,
            &mut parts.whole,
        ] {
            times.sort_by(f64::total_cmp);
        }
        Ok(parts)
    }

    async fn boot(&self, name: &str) -> anyhow::Result<String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.field.namespace);
        let body = serde_json::from_value(json!({ "metadata": { "name": boot(name) }, "data": { "epoch": "0" } }))?;
        match api.create(&PostParams::default(), &body).await {
            Ok(made) => Ok(made.resource_version().unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(api.get(&boot(name)).await?.resource_version().unwrap_or_default())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn config_map(&self, name: &str, version: &str, epoch: i64) -> anyhow::Result<String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.field.namespace);
        let body = serde_json::from_value(json!({
            "metadata": { "name": boot(name), "resourceVersion": version },
            "data": { "epoch": epoch.to_string() },
        }))?;
        let written = api.replace(&boot(name), &PostParams::default(), &body).await?;
        Ok(written.resource_version().unwrap_or_default())
    }

    async fn push(&self, verb: Verb, round: i64) -> anyhow::Result<()> {
        let first = self.field.first;
        let numbers = first..first + u32::try_from(self.field.size())?;
        // Above what an earlier measurement has pushed.
        let epoch = jiff::Timestamp::now().as_millisecond() + round;
        let command = Command { epoch: Some(epoch), ..Command::default() };
        let send = |number| {
            let address = SocketAddr::from((pods::address(number), self.port));
            self.pods.send(address, verb, &command, Duration::from_secs(3))
        };
        stream::iter(numbers).map(send).buffer_unordered(PUSHES).try_collect::<Vec<_>>().await?;
        Ok(())
    }

    /// No resourceVersion, so that the store answers. Loosening needs none.
    async fn list(&self, name: &str, pause: bool) -> anyhow::Result<()> {
        if !pause {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.field.namespace);
        let params = ListParams::default().labels(&format!("agents.hive.dev/runtime={name}"));
        let found = api.list_metadata(&params).await?.items.len();
        if found != self.field.size() {
            bail!("{found} pods instead of {}", self.field.size());
        }
        Ok(())
    }

    async fn status(&self, api: &Api<AgentRuntime>, seen: &AgentRuntime) -> anyhow::Result<()> {
        let status = json!({ "status": {
            "observedGeneration": seen.metadata.generation,
            "state": seen.spec.desired_state,
            "acknowledgedReplicas": self.field.size(),
        } });
        api.patch_status(&seen.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }
}

/// Status writes in a second, at `WRITES` at once over the objects of a field that nobody reconciles.
pub(crate) async fn write_rate(client: &Client, field: &Field, length: Duration) -> anyhow::Result<f64> {
    let api: Api<AgentRuntime> = Api::namespaced(client.clone(), &field.namespace);
    let begun = Instant::now();
    let numbered = field.names.iter().cycle().enumerate().take_while(|_| begun.elapsed() < length);
    let writes = stream::iter(numbered).map(|(number, name)| {
        let api = api.clone();
        async move {
            let status = json!({ "status": { "epoch": number, "observedGeneration": 1 } });
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
        }
    });
    let done = writes.buffer_unordered(WRITES).try_fold(0_u32, |count, ()| std::future::ready(Ok(count + 1))).await?;
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

fn boot(name: &str) -> String {
    format!("{name}-null")
}

/// The next event with this desired state that its status does not speak of yet.
async fn next(events: &mut Runtimes, state: DesiredState) -> anyhow::Result<AgentRuntime> {
    loop {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.context("the watch shows nothing")?;
        match event.context("the watch ended")?? {
            WatchEvent::Added(runtime) | WatchEvent::Modified(runtime) => {
                let told = runtime.status.as_ref().map(|status| status.observed_generation);
                if runtime.spec.desired_state == state && told != runtime.metadata.generation {
                    return Ok(runtime);
                }
            }
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => bail!("the watch failed: {}", status.message),
        }
    }
}
