//! The proxy between an operator and the API server: shows the operator its own world, and does what goes wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::fault::{Fault, Layer};
use crate::lasting::Answer;
use crate::plane::text;
use crate::plant::Note;
use crate::stream;
use crate::world::World;

/// How late what is late comes.
pub(crate) const LATE: Duration = Duration::from_millis(400);

type Body = UnsyncBoxBody<Bytes, Cut>;

/// The connection is cut.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut")
    }
}

impl std::error::Error for Cut {}

/// A request, as the harness names it.
struct Asked {
    method: Method,
    /// The path and query in the operator's own world.
    path: String,
    resource: String,
    subresource: String,
    layer: Layer,
    site: String,
    watch: bool,
    content_type: String,
    accept: String,
}

pub(crate) async fn serve(world: Arc<World>, number: usize, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&world, number, request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(world: &Arc<World>, number: usize, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let asked = Asked::of(&world.ns, &head);
    // Only the first operator's requests are disturbed, and counted.
    let fault = if number == 0 { world.places.pass(asked.layer, &asked.site) } else { None };
    if number == 0 && world.places.api_away() {
        return Err(Cut);
    }
    match world.lasting(&asked.site) {
        Some(Answer::Code(code)) => return Ok(refusal(code, "Injected", None)),
        Some(Answer::Reset) => return Err(Cut),
        Some(Answer::Silence) => std::future::pending().await,
        None => {}
    }
    if let Some(answered) = instead(world, fault).await? {
        return Ok(answered);
    }
    if asked.watch {
        return watch(world, number, &asked).await;
    }
    // In a task of its own: a request that has left goes its way, though who sent it is killed meanwhile.
    let outcome = tokio::spawn(pass_on(Arc::clone(world), asked, body)).await.map_err(|_| Cut)?;
    if fault == Some(Fault::Zombie) {
        world.operators[0].signal(Signal::CONT);
    }
    let (code, answer) = outcome?;
    match fault {
        Some(Fault::CrashAfter) => {
            world.crash(0).await;
            return Err(Cut);
        }
        Some(Fault::GatewayTimeout) => return Ok(refusal(504, "Timeout", None)),
        Some(Fault::Lost) => return Err(Cut),
        Some(Fault::Mute) => std::future::pending().await,
        Some(Fault::Slow) => tokio::time::sleep(LATE).await,
        _ => {}
    }
    Ok(whole(code, answer))
}

/// What happens before the request is passed on, or instead.
async fn instead(world: &Arc<World>, fault: Option<Fault>) -> Result<Option<Response<Body>>, Cut> {
    match fault {
        Some(Fault::CrashBefore) => {
            world.crash(0).await;
            Err(Cut)
        }
        Some(Fault::Refused) => Err(Cut),
        Some(Fault::Conflict) => Ok(Some(refusal(409, "Conflict", None))),
        Some(Fault::Gone) => Ok(Some(refusal(410, "Expired", None))),
        Some(Fault::TooMany) => Ok(Some(refusal(429, "TooManyRequests", Some("1")))),
        Some(Fault::Broken) => Ok(Some(refusal(500, "InternalError", None))),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Late) => {
            tokio::time::sleep(LATE).await;
            Ok(None)
        }
        Some(Fault::ApiPartition) => {
            world.part_api();
            Err(Cut)
        }
        Some(Fault::PodPartition) => {
            world.part_pods();
            Ok(None)
        }
        Some(fault @ (Fault::ClockAhead | Fault::ClockBack)) => {
            fault.clock().into_iter().for_each(|seconds| world.step_clock(seconds));
            Ok(None)
        }
        Some(Fault::SecondLeader) => {
            world.operators[1].start();
            Ok(None)
        }
        Some(Fault::Zombie) => {
            world.operators[0].signal(Signal::STOP);
            world.released.send_replace(false);
            world.operators[1].start();
            let mut released = world.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Passes a request on, and lets it be known that a write is under way.
async fn pass_on(world: Arc<World>, asked: Asked, body: Bytes) -> Result<(u16, Bytes), Cut> {
    if asked.method == Method::GET {
        return exchange(&world, &asked, body).await;
    }
    world.pending.fetch_add(1, Ordering::SeqCst);
    let outcome = exchange(&world, &asked, body).await;
    world.pending.fetch_sub(1, Ordering::SeqCst);
    outcome
}

/// Passes a request on and shows its answer to whoever wants to know.
async fn exchange(world: &World, asked: &Asked, body: Bytes) -> Result<(u16, Bytes), Cut> {
    let is_status = asked.resource == "agentruntimes" && asked.subresource == "status";
    if world.oracle.forbids(&asked.method, &asked.resource, &asked.subresource) {
        return Err(Cut);
    }
    let claim = is_status.then(|| {
        // The whole object; anything else is no status to the oracle.
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        world.oracle.claim(&sent["status"])
    });
    let sent = world.api.send(asked.method.clone(), &asked.path, &asked.content_type, &asked.accept, body).await;
    let response = sent.map_err(|_| Cut)?;
    let code = response.status().as_u16();
    let answer = response.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
    if asked.method == Method::GET || !(200..300).contains(&code) {
        return Ok((code, answer));
    }
    let written: Value = serde_json::from_slice(&answer).unwrap_or_default();
    world.accepted(&asked.site, text(&written, "/metadata/resourceVersion"));
    match (asked.resource.as_str(), asked.subresource.as_str()) {
        ("agentruntimes", "status") => {
            claim.into_iter().for_each(|claim| world.oracle.written(claim, &written));
            world.show_runtime(written);
        }
        ("agentfreezes", "status") => world.show_freeze(written),
        ("deployments", "") => world.note(Note::Deployment(written)),
        ("configmaps", "") if text(&written, "/metadata/name").ends_with("-boot") => world.note(Note::Boot(written)),
        _ => {}
    }
    Ok((code, answer))
}

async fn watch(world: &Arc<World>, number: usize, asked: &Asked) -> Result<Response<Body>, Cut> {
    let sent = world.api.send(Method::GET, &asked.path, &asked.content_type, &asked.accept, Bytes::new()).await;
    let response = sent.map_err(|_| Cut)?;
    let code = response.status().as_u16();
    if code != 200 {
        let answer = response.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
        return Ok(whole(code, answer));
    }
    if number == 0 {
        world.watching(&asked.resource);
    }
    let (out, lines) = mpsc::channel(64);
    let pump = stream::Pump::new(world, number, &asked.resource, &asked.path, out);
    tokio::spawn(pump.run(response.into_body()));
    let lines: BoxStream<'static, Result<Bytes, Cut>> =
        futures::stream::unfold(lines, |mut lines| async move { lines.recv().await.map(|line| (line, lines)) }).boxed();
    let body = StreamBody::new(lines.map(|line| line.map(Frame::data)));
    Ok(Response::builder().header("content-type", "application/json").body(body.boxed_unsync()).unwrap())
}

fn whole(code: u16, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn refusal(code: u16, reason: &str, retry_after: Option<&str>) -> Response<Body> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": format!("{reason}, by the harness") });
    let mut response = whole(code, Bytes::from(status.to_string()));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.parse().unwrap());
    }
    response
}

impl Asked {
    /// Names a request, and confines it to the operator's own world: what is cluster-wide is its namespace.
    fn of(ns: &str, head: &http::request::Parts) -> Self {
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        let watch = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let prefix = if parts.first() == Some(&"api") { 2 } else { 3 };
        let named = parts.split_off(prefix.min(parts.len()));
        let root = parts.join("/");
        let (namespaced, rest) = match named.as_slice() {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let (resource, name, subresource) = (part(0), part(1), part(2));
        let and = if query.is_empty() { "" } else { "&" };
        let path = match resource {
            _ if namespaced => format!("{path}?{query}"),
            "namespaces" => format!("{path}?{query}{and}fieldSelector=metadata.name%3D{ns}"),
            "agentfreezes" if name.is_empty() => format!("{path}?{query}{and}labelSelector=faults%3D{ns}"),
            "agentfreezes" => format!("{path}?{query}"),
            _ => format!("/{root}/namespaces/{ns}/{resource}?{query}"),
        };
        let verb = match (&head.method, watch, name) {
            (_, true, _) => "watch",
            (&Method::GET, _, "") if query.contains("hive.dev%2Fruntime") => "barrier",
            (&Method::GET, _, "") => "list",
            (method, ..) => method.as_str(),
        };
        // A freeze is named after its world, and an Event after its time.
        let name = match resource {
            "agentfreezes" if !name.is_empty() => "FREEZE",
            "events" => "",
            _ => name,
        };
        let site = [verb, resource, name, subresource].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>();
        let layer = if head.method == Method::GET { Layer::Read } else { Layer::Write };
        let header = |name: &str| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("application/json").to_owned()
        };
        Self {
            method: head.method.clone(),
            path,
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            layer,
            site: site.join(" "),
            watch,
            content_type: header("content-type"),
            accept: header("accept"),
        }
    }
}

/// Splits what has come into whole lines.
pub(crate) fn lines(buffer: &mut BytesMut) -> Vec<Bytes> {
    let mut lines = Vec::new();
    while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
        lines.push(buffer.split_to(end + 1).freeze());
    }
    lines
}
