//! Pauses under load: how long after the last work has ended a pause is acknowledged, and whether anything
//! begins after that. The work is a request to a site in this process, so one clock sees both ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::contender::{Arena, Contender, Work};
use crate::disk::Disk;
use crate::figures::{self, Runs};
use crate::plan::Plan;
use crate::site::Site;
use crate::table::{Row, Samples, Target};
use crate::triggers::Syncs;

/// The row that must be 0.
pub(crate) const LATE: &str = "work begun or unfinished after it";
/// The row that is what is left of the excess without the disk's own time, taken just before; it may be below 0.
pub(crate) const BEYOND: &str = "  less the p99 of fdatasync just before, ms";
/// Executions that wait when a round begins: more than it can run.
const LINE: usize = 64;
/// Connections that triggers come by.
const FEEDERS: usize = 8;
/// From an acknowledgement to the next resume nothing may begin; that is this long at least.
const WATCH: Duration = Duration::from_millis(5);
/// No pause takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Milliseconds within which 99 of 100 are acknowledged.
const SOON: f64 = 1.0;

pub(crate) fn measure(arena: &Arena, plan: &Plan, disk: &mut Disk, syncs: &Syncs) -> anyhow::Result<Vec<Row>> {
    let mut quantiles = [0.5, 0.99, 1.0].map(|share| (share, Samples::default()));
    let (mut late, mut counted, mut beyond) = (Samples::default(), Samples::default(), Samples::default());
    for run in 1..=plan.runs {
        for contender in arena.contenders().into_iter().filter(|contender| *contender != Contender::Null) {
            disk.settle()?;
            let sync = figures::quantile(&disk.sync_times(plan.disk)?, 0.99);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let outcome = runtime.block_on(once(arena, contender, plan.pauses));
            let outcome = outcome.with_context(|| format!("pauses of {contender}"))?;
            for (share, samples) in &mut quantiles {
                samples.push(contender, figures::quantile(&outcome.excess, *share));
            }
            beyond.push(contender, figures::quantile(&outcome.excess, 0.99) - sync);
            late.push(contender, outcome.late as f64);
            counted.push(contender, outcome.excess.len() as f64);
            eprintln!(
                "pause, run {run}, {contender}: {} pauses, excess p50 {:.3} ms, p99 {:.3} ms, {} begun or unfinished after",
                outcome.excess.len(),
                figures::quantile(&outcome.excess, 0.5),
                figures::quantile(&outcome.excess, 0.99),
                outcome.late
            );
        }
    }
    let [p50, p99, most] = quantiles.map(|(_, samples)| samples);
    let row = |samples: Samples, name, target, limit: &Runs| {
        samples.row(name, target, "").against(limit.clone(), "one fdatasync")
    };
    Ok(vec![
        counted.row("pauses with work in flight", Target::None, ""),
        row(p50, "pause excess, p50 ms", Target::None, &syncs.p50),
        row(p99, "pause excess, p99 ms", Target::AtMost(SOON), &syncs.p99),
        beyond.row(BEYOND, Target::None, ""),
        row(most, "pause excess, max ms", Target::None, &syncs.most),
        late.row(LATE, Target::AtMost(0.0), ""),
    ])
}

/// What came of many pauses of one server.
#[derive(Debug, Default)]
struct Outcome {
    /// Acknowledgement minus the end of the last work, in milliseconds, sorted.
    excess: Vec<f64>,
    /// Work that began after an acknowledgement, or had not ended by then.
    late: usize,
}

async fn once(arena: &Arena, contender: Contender, pauses: usize) -> anyhow::Result<Outcome> {
    let site = Site::start().await?;
    let server = arena.start(contender, &Work::Ask(format!("http://{}/", site.address)))?;
    let mut control = Client::connect(server.address).await?;
    let mut feeders = Vec::new();
    for _ in 0..FEEDERS {
        feeders.push(Client::connect(server.address).await?);
    }
    let mut accepted = 0;
    control.pause().await?;
    let (mut excess, mut late, mut ended) = (Vec::new(), 0, 0);
    for round in 0..pauses {
        // While it is paused, so that what is accepted then is tempted to begin.
        let wanted = (site.seen().begun + LINE).saturating_sub(accepted);
        feeders = feed(feeders, wanted).await?;
        accepted += wanted;
        let before = site.seen().begun;
        late += before - ended;
        control.demand("POST", "/api/v1/lifecycle/resume").await?;
        until(|| site.seen().begun > before).await.context("nothing began after a resume")?;
        // Pauses come at all points of the work.
        tokio::time::sleep(Duration::from_millis(round as u64 % 7)).await;
        let asked = Instant::now();
        let acknowledged = control.pause().await?;
        let seen = site.seen();
        if let Some(last) = seen.last.filter(|last| *last > asked) {
            excess.push(acknowledged.saturating_duration_since(last));
        }
        ended = seen.ended;
        tokio::time::sleep(WATCH).await;
    }
    late += site.seen().begun - ended;
    Ok(Outcome { excess: figures::milliseconds(excess), late })
}

/// Sends triggers over all connections at once.
async fn feed(feeders: Vec<Client>, triggers: usize) -> anyhow::Result<Vec<Client>> {
    let share = triggers.div_ceil(feeders.len().max(1));
    let mut left = triggers;
    let mut tasks = JoinSet::new();
    for mut feeder in feeders {
        let own = share.min(left);
        left -= own;
        tasks.spawn(async move {
            for _ in 0..own {
                feeder.demand("POST", "/api/v1/entry-points/main/trigger").await?;
            }
            anyhow::Ok(feeder)
        });
    }
    let mut feeders = Vec::new();
    while let Some(fed) = tasks.join_next().await {
        feeders.push(fed??);
    }
    Ok(feeders)
}

async fn until(is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > PATIENCE {
            bail!("waited {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// One connection that is kept.
struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is seen by the next request.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Pauses, and gives the time at which the server said that it is paused: in the answer, or in the
    /// status that is polled after a 202.
    async fn pause(&mut self) -> anyhow::Result<Instant> {
        let (mut at, mut status) = self.demand("POST", "/api/v1/lifecycle/pause").await?;
        let begun = Instant::now();
        while status.get("state").and_then(Value::as_str) != Some("paused") {
            if begun.elapsed() > PATIENCE {
                bail!("not paused after {} s: {status}", PATIENCE.as_secs());
            }
            let version = status.get("version").and_then(Value::as_str).context("a status without a version")?;
            let path = format!("/api/v1/status?after={version}&wait=10");
            (at, status) = self.demand("GET", &path).await?;
        }
        Ok(at)
    }

    /// A request that must succeed; the answer and when it was there.
    async fn demand(&mut self, method: &str, path: &str) -> anyhow::Result<(Instant, Value)> {
        self.sender.ready().await?;
        let request = hyper::Request::builder().method(method).uri(path).header("host", "bench");
        let answer = tokio::time::timeout(PATIENCE * 2, async {
            let response = self.sender.send_request(request.body(Full::default())?).await?;
            let code = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((Instant::now(), code, body))
        });
        let (at, code, body) = answer.await.with_context(|| format!("{method} {path}: no answer"))??;
        if !code.is_success() {
            bail!("{method} {path} was answered {code}: {}", String::from_utf8_lossy(&body));
        }
        Ok((at, serde_json::from_slice(&body)?))
    }
}
