//! Simulated pods: one process that answers the lifecycle contract on every loopback address it is called at.
//!
//! Which address was called says which pod is meant. It executes nothing, so a command is obeyed at once; signatures
//! are not judged, since peers send none.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lifecycle::wire::{Command, CounterScope, Health, Problem, Status};
use lifecycle::{State, Verb};
use tokio::net::TcpListener;

/// Where they listen.
#[derive(Debug, Args)]
pub(crate) struct Pods {
    port: u16,
}

/// The address of a pod by its number.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    // 127.64 and up: what else listens on loopback is on 127.0.
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 1).to_bits() + number)
}

#[derive(Debug, Default)]
struct Field {
    pods: Mutex<HashMap<IpAddr, Pod>>,
    hung: Mutex<HashSet<IpAddr>>,
}

#[derive(Clone, Debug)]
struct Pod {
    epoch: i64,
    state: State,
    version: u64,
    uid: Option<String>,
}

impl Default for Pod {
    fn default() -> Self {
        Self { epoch: 0, state: State::Running, version: 1, uid: None }
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(task: &Pods) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // One socket for all addresses; callers from elsewhere are hung up on.
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, task.port))).await?;
        let field = Arc::new(Field::default());
        loop {
            let Ok((stream, from)) = listener.accept().await else { continue };
            let Ok(local) = stream.local_addr() else { continue };
            if !from.ip().is_loopback() {
                continue;
            }
            let _ = stream.set_nodelay(true);
            let field = Arc::clone(&field);
            let service = service_fn(move |request| {
                let field = Arc::clone(&field);
                async move { field.answer(local.ip(), request).await }
            });
            // A client that hangs up is no fault.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

impl Field {
    async fn answer(&self, at: IpAddr, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        if let Some(order) = path.strip_prefix("/control/") {
            return Ok(text(self.control(order)));
        }
        let is_hung = lock(&self.hung).contains(&at);
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if is_hung {
            std::future::pending::<()>().await;
        }
        let mut pods = lock(&self.pods);
        let pod = pods.entry(at).or_default();
        let verb = path.strip_prefix("/api/v1/lifecycle/").and_then(|verb| verb.parse::<Verb>().ok());
        Ok(match verb.map(|verb| pod.obey(verb, &body)) {
            None | Some(Ok(())) => json(200, &pod.status(at)),
            Some(Err(problem)) => {
                let runtime = Some(Box::new(pod.status(at)));
                json(problem.status, &Problem { runtime, ..problem })
            }
        })
    }

    /// `hang/<address>`, `heal/<address>`, or `unpaused/<number of the first>/<count>`.
    fn control(&self, order: &str) -> String {
        let mut words = order.split('/');
        let (verb, first, count) = (words.next(), words.next().unwrap_or_default(), words.next());
        if let Ok(address) = first.parse::<IpAddr>() {
            let mut hung = lock(&self.hung);
            let _ = if verb == Some("hang") { hung.insert(address) } else { hung.remove(&address) };
            return String::new();
        }
        let first: u32 = first.parse().unwrap_or(0);
        let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or(0);
        let pods = lock(&self.pods);
        let paused = |number| pods.get(&IpAddr::V4(address(number))).is_some_and(|pod| pod.state == State::Paused);
        (first..first + count).filter(|number| !paused(*number)).count().to_string()
    }
}

impl Pod {
    fn obey(&mut self, verb: Verb, body: &[u8]) -> Result<(), Problem> {
        let refused = |status, kind: &str| Problem {
            kind: kind.to_owned(),
            title: kind.to_owned(),
            status,
            detail: kind.to_owned(),
            runtime: None,
        };
        let command: Command = serde_json::from_slice(body).map_err(|_| refused(400, "invalid"))?;
        let epoch = command.epoch.ok_or_else(|| refused(400, "invalid"))?;
        if epoch < self.epoch {
            return Err(refused(409, "stale_epoch"));
        }
        self.state = match verb {
            Verb::Start | Verb::Resume => State::Running,
            Verb::Pause => State::Paused,
            Verb::Stop => State::Stopped,
            Verb::Restart => self.state,
        };
        (self.epoch, self.version, self.uid) = (epoch, self.version + 1, command.pod_uid.or(self.uid.take()));
        Ok(())
    }

    fn status(&self, at: IpAddr) -> Status {
        let held = self.state != State::Running;
        Status {
            state: self.state,
            uptime_seconds: 0,
            active_streams: 0,
            total_executions: 0,
            failed_executions: 0,
            entry_points: vec!["work".to_owned()],
            health: Health::default(),
            in_flight: Some(0),
            waiting_for_input: 0,
            queued: 0,
            epoch: self.epoch,
            holds: held.then(|| "operator".to_owned()).into_iter().collect(),
            // It knows none.
            brakes: None,
            features: Vec::new(),
            drain_deadline: None,
            held_by: Vec::new(),
            boot_id: at.to_string(),
            version: format!("{at}.{}", self.version),
            counter_scope: CounterScope::Pod,
            pod_uid: self.uid.clone(),
            awaiting_confirmation: false,
            keys: Vec::new(),
            message: None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json<T: serde::Serialize>(code: u16, body: &T) -> Response<Full<Bytes>> {
    let mut response = text(serde_json::to_string(body).unwrap_or_default());
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn text(body: String) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_an_address_of_its_own_on_loopback() {
        let all: HashSet<Ipv4Addr> = (0..70_000).map(address).collect();
        assert_eq!(all.len(), 70_000);
        assert!(all.iter().all(Ipv4Addr::is_loopback));
    }

    #[test]
    fn a_pod_obeys_its_newest_epoch_and_no_older_one() {
        let mut pod = Pod::default();
        let body = |epoch: i64| format!("{{\"epoch\":{epoch}}}").into_bytes();
        pod.obey(Verb::Pause, &body(2)).unwrap();
        assert_eq!((pod.state, pod.epoch), (State::Paused, 2));
        assert_eq!(pod.obey(Verb::Resume, &body(1)).unwrap_err().status, 409);
        assert_eq!(pod.state, State::Paused);
        assert_eq!(pod.obey(Verb::Resume, b"{}").unwrap_err().status, 400, "a command without an epoch");
    }
}
