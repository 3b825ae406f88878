//! The typed client of the contract: one deadline per call, capped answers, no redirects, no proxy.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use tower::util::MapResponse;

use crate::brake::BRAKE;
use crate::signature::{READ, Seal};
use crate::state::Verb;
use crate::wire::{BrakeCommand, Command, Problem, Status};

/// The largest answer that is read. A status is under 4 KiB; a pod that sends more is not one of ours.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// The detail of a refusal, in words that stay while its cause does: what changes with each call would have a status
/// written for each.
fn lasting(problem: &Problem) -> &str {
    match problem.kind.as_str() {
        "signature_expired" => "the signature ran out by the pod's clock, which is ahead of the operator's",
        "signature_not_yet_valid" => {
            "the signature does not hold yet by the pod's clock, which is behind the operator's"
        }
        _ => &problem.detail,
    }
}

/// Why a call gave no status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing came in time, or the connection failed. The command may have been obeyed.
    #[error("no answer from {address}: {reason}")]
    Unreachable {
        /// Who was asked.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The pod holds a newer epoch.
    #[error("{address} holds epoch {}, which is newer", .status.epoch)]
    Stale {
        /// Who was asked.
        address: SocketAddr,
        /// Its status.
        status: Box<Status>,
    },
    /// The pod refused the command.
    #[error("{address} refused with {code}: {}", lasting(.problem))]
    Refused {
        /// Who was asked.
        address: SocketAddr,
        /// The HTTP status.
        code: u16,
        /// The body.
        problem: Box<Problem>,
    },
    /// The image does not know brakes: it is held by a command with an epoch, as ever.
    #[error("{address} knows no brakes: it answered {code}")]
    NoBrakes {
        /// Who was asked.
        address: SocketAddr,
        /// The HTTP status: 404, 405 or 501.
        code: u16,
    },
    /// The answer is not one of the contract.
    #[error("{address} answered {code} with something that is not the contract's: {reason}")]
    Foreign {
        /// Who was asked.
        address: SocketAddr,
        /// The HTTP status.
        code: u16,
        /// What was wrong.
        reason: String,
    },
}

impl Error {
    /// A short stable word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Stale { .. } => "stale_epoch",
            Self::Refused { .. } => "refused",
            Self::NoBrakes { .. } => "no_brakes",
            Self::Foreign { .. } => "foreign",
        }
    }
}

/// Whether a command has been obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// True for 200, false for 202.
    pub reached: bool,
    /// The whole status at that moment.
    pub status: Status,
}

/// Calls pods, each call over a connection of its own: one that is kept costs 24 KB, and the next call to a pod that has
/// converged comes half a minute later. Connections are reset at their end, when their answer has been read. A node
/// tracks one that is closed for two more minutes, and drops packets when it tracks too many; a reset one for ten
/// seconds. The kubelet's probes have filled nodes in that way (kubernetes/kubernetes#115143).
#[derive(Clone, Debug)]
pub struct Client {
    http: Hyper<Connector, Full<Bytes>>,
}

type Connector = MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> TokioIo<TcpStream>>;

fn reset_at_its_end(stream: TokioIo<TcpStream>) -> TokioIo<TcpStream> {
    // One that cannot be is closed, which is only dearer.
    let _ = stream.inner().set_zero_linger();
    stream
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Duration::from_secs(2))
    }
}

impl Client {
    /// A client whose connections must be made within `connect`.
    #[must_use]
    pub fn new(connect: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(connect));
        connector.set_nodelay(true);
        let connector: Connector = connector.map_response(reset_at_its_end);
        let http = Hyper::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { http }
    }

    /// Sends a verb and reads the status. `deadline` bounds the whole call.
    ///
    /// # Errors
    /// See [`Error`]; after `Unreachable` the command may have been obeyed all the same.
    pub async fn send(
        &self,
        address: SocketAddr,
        verb: Verb,
        command: &Command,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        self.command(address, verb, command, None, deadline).await
    }

    /// Sets a brake and reads the status, which lists it once it is held on disk.
    ///
    /// # Errors
    /// See [`Error`]; after `Unreachable` the brake may be set all the same.
    pub async fn brake(&self, address: SocketAddr, brake: &BrakeCommand, deadline: Duration) -> Result<Answer, Error> {
        self.set_brake(address, brake, None, deadline).await
    }

    /// Asks for the status. With `after`, waits up to `wait` for a version other than it; `deadline` comes on top.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(
        &self,
        address: SocketAddr,
        after: Option<(&str, Duration)>,
        deadline: Duration,
    ) -> Result<Status, Error> {
        self.read(address, after, None, deadline).await
    }

    /// Asks a probe, and gives the HTTP status that it answers.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn probe(&self, address: SocketAddr, path: &str, deadline: Duration) -> Result<u16, Error> {
        self.code(address, Request::get(format!("http://{address}{path}")), deadline).await.map(|code| code.as_u16())
    }

    /// Calls a hook of the user's: a POST without a body, with a key that is the same for each repetition. Redirects
    /// are not followed, and of the answer only the code is read.
    ///
    /// # Errors
    /// No answer within `deadline`, or a code other than 200 to 299.
    pub async fn hook(&self, address: SocketAddr, path: &str, key: &str, deadline: Duration) -> Result<(), Error> {
        let request = Request::post(format!("http://{address}{path}")).header("idempotency-key", key);
        let code = self.code(address, request, deadline).await?;
        if code.is_success() { Ok(()) } else { Err(foreign(address, code.as_u16(), &"a hook answers 200 to 299")) }
    }

    /// Makes a request without a body, and gives the code of the answer.
    async fn code(
        &self,
        address: SocketAddr,
        request: http::request::Builder,
        deadline: Duration,
    ) -> Result<StatusCode, Error> {
        let unreachable = |reason: String| Error::Unreachable { address, reason };
        let request = request.body(Full::default()).map_err(|e| unreachable(e.to_string()))?;
        match tokio::time::timeout(deadline, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response.status()),
            Ok(Err(error)) => Err(unreachable(chain(&error))),
            Err(_) => Err(unreachable(format!("nothing within {} s", deadline.as_secs_f32()))),
        }
    }

    /// The same calls, signed.
    #[must_use]
    pub fn signed<'a>(&'a self, seal: &'a Seal<'a>) -> Signed<'a> {
        Signed { client: self, seal }
    }

    async fn command(
        &self,
        address: SocketAddr,
        verb: Verb,
        command: &Command,
        seal: Option<&Seal<'_>>,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        let body = serde_json::to_vec(command).map_err(|e| foreign(address, 0, &e))?;
        self.post(address, verb.as_str(), body, seal, deadline).await
    }

    async fn set_brake(
        &self,
        address: SocketAddr,
        brake: &BrakeCommand,
        seal: Option<&Seal<'_>>,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        let body = serde_json::to_vec(brake).map_err(|e| foreign(address, 0, &e))?;
        match self.post(address, BRAKE, body, seal, deadline).await {
            // Whatever the body: an image that knows no brakes says so in its own words.
            Err(
                Error::Refused { code: code @ (404 | 405 | 501), .. }
                | Error::Foreign { code: code @ (404 | 405 | 501), .. },
            ) => Err(Error::NoBrakes { address, code }),
            answer => answer,
        }
    }

    async fn post(
        &self,
        address: SocketAddr,
        word: &str,
        body: Vec<u8>,
        seal: Option<&Seal<'_>>,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        let token = seal.map(|seal| seal.token(word, &body));
        let path = format!("/api/v1/lifecycle/{word}");
        self.call(address, Method::POST, &path, body, token, deadline).await
    }

    async fn read(
        &self,
        address: SocketAddr,
        after: Option<(&str, Duration)>,
        seal: Option<&Seal<'_>>,
        deadline: Duration,
    ) -> Result<Status, Error> {
        let (path, whole) = match after {
            Some((version, wait)) if is_version(version) => {
                (format!("/api/v1/status?after={version}&wait={}", wait.as_secs()), deadline + wait)
            }
            Some(_) | None => ("/api/v1/status".to_owned(), deadline),
        };
        let token = seal.map(|seal| seal.token(READ, &[]));
        self.call(address, Method::GET, &path, Vec::new(), token, whole).await.map(|answer| answer.status)
    }

    async fn call(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        body: Vec<u8>,
        token: Option<String>,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        let unreachable = |reason: String| Error::Unreachable { address, reason };
        let uri = Uri::builder()
            .scheme("http")
            .authority(address.to_string())
            .path_and_query(path)
            .build()
            .map_err(|e| unreachable(e.to_string()))?;
        let mut request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| unreachable(e.to_string()))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|e| unreachable(chain(&e)))?;
            let code = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let bytes = body.map_err(|e| {
                if e.is::<LengthLimitError>() {
                    foreign(address, code.as_u16(), &format!("more than {MAX_ANSWER_BYTES} bytes"))
                } else {
                    unreachable(e.to_string())
                }
            })?;
            read(address, code, &bytes.to_bytes())
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(format!("nothing within {} s", deadline.as_secs_f32()))),
        }
    }
}

/// A client whose calls bear a signature for one pod.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    client: &'a Client,
    seal: &'a Seal<'a>,
}

impl Signed<'_> {
    /// As [`Client::send`], signed.
    ///
    /// # Errors
    /// See [`Error`]; after `Unreachable` the command may have been obeyed all the same.
    pub async fn send(
        &self,
        address: SocketAddr,
        verb: Verb,
        command: &Command,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        self.client.command(address, verb, command, Some(self.seal), deadline).await
    }

    /// As [`Client::brake`], signed. The seal's epoch is the brake's.
    ///
    /// # Errors
    /// See [`Error`]; after `Unreachable` the brake may be set all the same.
    pub async fn brake(&self, address: SocketAddr, brake: &BrakeCommand, deadline: Duration) -> Result<Answer, Error> {
        self.client.set_brake(address, brake, Some(self.seal), deadline).await
    }

    /// As [`Client::status`], signed, for pods that protect their reads.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(
        &self,
        address: SocketAddr,
        after: Option<(&str, Duration)>,
        deadline: Duration,
    ) -> Result<Status, Error> {
        self.client.read(address, after, Some(self.seal), deadline).await
    }
}

/// Versions come from pods and go into a URL, so only the characters of one are let through.
fn is_version(word: &str) -> bool {
    !word.is_empty() && word.len() <= 128 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn read(address: SocketAddr, code: StatusCode, body: &[u8]) -> Result<Answer, Error> {
    match code {
        StatusCode::OK | StatusCode::ACCEPTED => {
            let status = serde_json::from_slice(body).map_err(|e| foreign(address, code.as_u16(), &e))?;
            Ok(Answer { reached: code == StatusCode::OK, status })
        }
        _ => {
            let problem: Problem = serde_json::from_slice(body).map_err(|e| foreign(address, code.as_u16(), &e))?;
            match (problem.kind.as_str(), problem.runtime.clone()) {
                ("stale_epoch", Some(status)) => Err(Error::Stale { address, status }),
                _ => Err(Error::Refused { address, code: code.as_u16(), problem: Box::new(problem) }),
            }
        }
    }
}

fn foreign(address: SocketAddr, code: u16, reason: &dyn std::fmt::Display) -> Error {
    Error::Foreign { address, code, reason: reason.to_string() }
}

/// An error with its causes. hyper's own words are no more than "client error".
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It stands in a status, which is written when it changes.
    #[test]
    fn a_refusal_is_told_in_the_same_words_each_time() {
        let told = |kind: &str, second: i64| {
            let detail = format!("at {second} this pod's clock says {}", second + 90);
            let problem = Problem { kind: kind.to_owned(), title: String::new(), status: 401, detail, runtime: None };
            let address = ([10, 0, 0, 1], 8080).into();
            Error::Refused { address, code: 401, problem: Box::new(problem) }.to_string()
        };
        for (kind, says) in [("signature_expired", "ahead of"), ("signature_not_yet_valid", "behind")] {
            assert_eq!(told(kind, 1), told(kind, 2));
            assert!(told(kind, 1).contains(says), "{}", told(kind, 1));
        }
        assert!(told("held", 1).contains("clock says 91"), "all else is told as the pod says it");
    }
}
