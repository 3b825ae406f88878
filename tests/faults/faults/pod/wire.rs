//! What a simulated pod answers on the wire, and the faults that calls to it meet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lifecycle::brake::{BRAKE, FEATURE};
use lifecycle::machine::{BrakeDecision, Decision, Event};
use lifecycle::signature::{Expected, Rejected, verify};
use lifecycle::wire::{BrakeCommand, Command, Problem, Status};
use lifecycle::{BootFile, Desired, Keys, Verb};
use tokio::net::TcpListener;

use super::{Core, Pod};
use crate::fault::{Fault, Layer};

/// How long a partition, a wrong clock and a slow answer last.
const WHILE: Duration = Duration::from_millis(500);

impl Pod {
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut process = self.process.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = process.wait_for(|process| *process == 0) => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let _ = stream.set_nodelay(true);
            let pod = Arc::clone(&self);
            tokio::spawn(async move {
                let mut process = pod.process.subscribe();
                process.mark_unchanged();
                let service = service_fn(|request| pod.answer(request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = connection => {}
                    // A killed process takes its connections with it.
                    _ = process.changed() => {}
                }
            });
        }
    }

    /// An error cuts the connection.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| "cut")?.to_bytes();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let word = path.strip_prefix("/api/v1/lifecycle/");
        let verb = word.and_then(|verb| verb.parse::<Verb>().ok());
        let brakes = word == Some(BRAKE);
        let site = match verb {
            Some(verb) => verb.as_str(),
            None if brakes => BRAKE,
            None if query.contains("after=") => "follow",
            None => "status",
        };
        let fault = self.world.places.pass(Layer::Call, site);
        if let Some(left) = self.world.places.pods_away() {
            tokio::time::sleep(left).await;
            return Err("partition");
        }
        self.before(fault).await?;
        let token = head.headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let token = token.and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
        let answer = || async {
            match verb {
                Some(verb) => self.command(verb, token.as_deref(), &body),
                None if brakes => self.brake(token.as_deref(), &body),
                None => self.follow(&query).await,
            }
        };
        let mut response = answer().await;
        if fault == Some(Fault::Twice) {
            response = answer().await;
        }
        match fault {
            Some(Fault::CrashAfter) => self.world.crash(0).await,
            Some(Fault::PodCrashAfter) => self.crash(),
            Some(Fault::Lost) => return Err("lost"),
            Some(Fault::Mute) => std::future::pending().await,
            Some(Fault::Slow) => tokio::time::sleep(WHILE).await,
            _ => {}
        }
        Ok(response)
    }

    async fn before(&self, fault: Option<Fault>) -> Result<(), &'static str> {
        match fault {
            Some(Fault::CrashBefore) => self.world.crash(0).await,
            Some(Fault::Refused | Fault::Garbage) => return Err("refused"),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Late) => tokio::time::sleep(WHILE).await,
            Some(Fault::PodCrashBefore) => {
                self.crash();
                return Err("crashed");
            }
            Some(Fault::PodPartition) => {
                self.world.places.part_pods(WHILE);
                return Err("partition");
            }
            Some(fault @ (Fault::ClockAhead | Fault::ClockBack)) => {
                fault.clock().into_iter().for_each(|seconds| self.world.step_clock(seconds));
            }
            Some(Fault::ClockStep) => {
                self.lock().clock = 3600;
                let (world, uid) = (Arc::clone(&self.world), self.uid.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(WHILE).await;
                    if let Some(pod) = world.pods().iter().find(|pod| pod.uid == uid) {
                        pod.lock().clock = 0;
                    }
                });
            }
            _ => {}
        }
        Ok(())
    }

    async fn follow(&self, query: &str) -> Response<Full<Bytes>> {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let known = value("after").map(str::to_owned);
        let wait = value("wait").and_then(|wait| wait.parse().ok()).unwrap_or(0);
        if let Some(known) = known {
            let mut changed = self.changed.subscribe();
            let other = changed.wait_for(|version| self.version(*version) != known);
            let _ = tokio::time::timeout(Duration::from_secs(wait), other).await;
        }
        json(200, &self.status(&self.lock()))
    }

    fn command(&self, verb: Verb, token: Option<&str>, body: &[u8]) -> Response<Full<Bytes>> {
        let mut core = self.lock();
        let command: Command = match serde_json::from_slice(body) {
            Ok(command) => command,
            Err(error) => return problem(400, "invalid", &error.to_string(), None),
        };
        if let Err(rejected) = self.signed(&mut core, verb.as_str(), token, body, command.epoch) {
            return problem(401, rejected.kind(), &rejected.to_string(), None);
        }
        if !self.is_meant(command.pod_uid.as_deref(), command.runtime_uid.as_deref()) {
            return problem(421, "misdirected", "another pod", None);
        }
        let Some(epoch) = command.epoch else { return problem(401, "unauthorized", "no epoch", None) };
        let idle = core.executing == 0;
        let wanted = match verb {
            Verb::Start | Verb::Resume => Desired::Running,
            Verb::Pause => Desired::Paused,
            Verb::Stop => Desired::Stopped,
            Verb::Restart => core.machine.holds.operator,
        };
        core.machine.release_brakes(epoch, &command.releases, idle);
        core.machine.release(epoch, command.release_epoch.unwrap_or(0));
        let decision = core.machine.command(epoch, wanted, verb, command.mode.unwrap_or_default(), idle);
        // There is nothing to load.
        core.machine.event(Event::Ready, idle);
        self.after(&mut core);
        let status = self.status(&core);
        match decision {
            Decision::Reached => json(200, &status),
            Decision::Accepted => json(202, &status),
            Decision::Stale => problem(409, "stale_epoch", "stale", Some(status)),
            Decision::Held => problem(409, "held", "held", Some(status)),
            Decision::Terminating => problem(409, "terminating", "terminating", Some(status)),
            Decision::Conflict => problem(409, "conflict", "conflict", Some(status)),
        }
    }

    /// On disk before it is answered, as all that [`Pod::after`] writes.
    fn brake(&self, token: Option<&str>, body: &[u8]) -> Response<Full<Bytes>> {
        let mut core = self.lock();
        let command: BrakeCommand = match serde_json::from_slice(body) {
            Ok(command) => command,
            Err(error) => return problem(400, "invalid", &error.to_string(), None),
        };
        if let Err(rejected) = self.signed(&mut core, BRAKE, token, body, Some(command.epoch)) {
            return problem(401, rejected.kind(), &rejected.to_string(), None);
        }
        if !self.is_meant(command.pod_uid.as_deref(), command.runtime_uid.as_deref()) {
            return problem(421, "misdirected", "another pod", None);
        }
        let brake = match command.brake() {
            Ok(brake) => brake,
            Err(error) => return problem(400, "invalid", &error.to_string(), None),
        };
        let idle = core.executing == 0;
        let decision = core.machine.brake(brake, idle);
        core.machine.event(Event::Ready, idle);
        self.after(&mut core);
        let status = self.status(&core);
        match decision {
            BrakeDecision::Reached => json(200, &status),
            BrakeDecision::Accepted => json(202, &status),
            BrakeDecision::Stale => problem(409, "stale_epoch", "stale", Some(status)),
            BrakeDecision::Full => problem(409, "brakes_full", "full", Some(status)),
        }
    }

    fn is_meant(&self, pod_uid: Option<&str>, runtime_uid: Option<&str>) -> bool {
        let mine = |given: Option<&str>, own: &str| given.is_none_or(|given| given == own);
        mine(pod_uid, &self.uid) && mine(runtime_uid, &self.runtime_uid)
    }

    fn signed(
        &self,
        core: &mut Core,
        verb: &str,
        token: Option<&str>,
        body: &[u8],
        epoch: Option<i64>,
    ) -> Result<(), Rejected> {
        let expected = Expected { pod_uid: &self.uid, runtime_uid: &self.runtime_uid, verb, body };
        let now = jiff::Timestamp::now().as_second() + core.clock;
        let judge = |keys: Option<&Keys>| {
            let keys = keys.ok_or(Rejected::KeysUnknown)?;
            verify(token.ok_or(Rejected::Missing)?, &keys.public, &expected, now)
        };
        let claims = match judge(core.keys.as_ref()) {
            Err(Rejected::WrongKey | Rejected::KeysUnknown) => {
                let named = core.mount.as_ref().map(BootFile::named_keys);
                if let Some(named) = named.filter(|named| named.is_newer(core.keys.as_ref())) {
                    core.keys = Some(named);
                }
                judge(core.keys.as_ref())?
            }
            verdict => verdict?,
        };
        claims.check_epoch(epoch)
    }

    fn version(&self, number: u64) -> String {
        format!("{}.{number}", self.boot_id())
    }

    fn boot_id(&self) -> String {
        format!("{}-{}", self.uid, self.container())
    }

    fn status(&self, core: &Core) -> Status {
        let machine = &core.machine;
        Status {
            state: machine.state(),
            uptime_seconds: 0,
            active_streams: 0,
            total_executions: 0,
            failed_executions: 0,
            entry_points: vec!["work".to_owned()],
            health: lifecycle::wire::Health::default(),
            in_flight: Some(i64::from(core.executing)),
            waiting_for_input: 0,
            queued: 0,
            epoch: machine.epoch,
            holds: machine.hold_names(),
            brakes: Some(machine.brakes.ids()),
            features: vec![FEATURE.to_owned()],
            drain_deadline: None,
            held_by: Vec::new(),
            boot_id: self.boot_id(),
            version: self.version(*self.changed.borrow()),
            counter_scope: lifecycle::wire::CounterScope::Pod,
            pod_uid: Some(self.uid.clone()),
            awaiting_confirmation: machine.boot_hold,
            keys: core.keys.as_ref().map(|keys| keys.public.clone()).unwrap_or_default(),
            message: None,
        }
    }
}

fn json<T: serde::Serialize>(code: u16, body: &T) -> Response<Full<Bytes>> {
    let body = Full::new(Bytes::from(serde_json::to_vec(body).unwrap()));
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn problem(code: u16, kind: &str, detail: &str, runtime: Option<Status>) -> Response<Full<Bytes>> {
    let (kind, detail) = (kind.to_owned(), detail.to_owned());
    json(code, &Problem { title: kind.clone(), kind, status: code, detail, runtime: runtime.map(Box::new) })
}
