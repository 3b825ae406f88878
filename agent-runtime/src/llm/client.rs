//! Asking a model: tried again where that helps, bounded in time and size.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use serde_json::Value;

use super::stream::Events;
use super::{Answer, Format, Partial, Request, Settings, anthropic, openai};
use crate::trace::{self, TraceContext};

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// What is shown of a refusal, in bytes.
const MAX_DETAIL: usize = 500;
/// The pause before the second attempt; it doubles up to `MAX_PAUSE`.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, whatever the server asks for.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting is not what it should be.
    #[error("{name}: {reason}")]
    Setting {
        /// The environment variable.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The server refused, and would again.
    #[error("{host} answered {status}: {detail}{}", hint(*.status))]
    Refused {
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// The server could not be reached or failed, at every attempt.
    #[error("{host} gave no answer at {attempts} attempts: {reason}")]
    Unavailable {
        /// The server.
        host: String,
        /// How often it was tried.
        attempts: u32,
        /// The last reason.
        reason: String,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ". Check HIVE_LLM_API_KEY",
        404 => ". Check HIVE_LLM_MODEL and HIVE_LLM_BASE_URL",
        _ => "",
    }
}

/// Why one attempt failed.
enum Failed {
    /// It would fail again.
    ForGood(Error),
    /// It may not; the server may say when.
    ForNow(String, Option<Duration>),
}

/// Asks one server.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    host: String,
    http: reqwest::Client,
}

impl Client {
    /// A client with these settings. Nothing is sent.
    ///
    /// # Errors
    /// The base URL is none.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Setting { name: "HIVE_LLM_BASE_URL".to_owned(), reason };
        let url: reqwest::Url =
            settings.base_url.parse().map_err(|error| invalid(format!("{}: {error}", settings.base_url)))?;
        let host = url.host_str().map(str::to_owned).ok_or_else(|| invalid(format!("{url} names no host")))?;
        let tls = otlp::trust::client().map_err(&invalid)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { settings, host, http })
    }

    /// The span of a call.
    pub(crate) fn span(&self, request: &Request<'_>) -> tracing::Span {
        let model = self.settings.named(request.model);
        trace::model(self.settings.format.provider(), model, &self.host, request.max_tokens)
    }

    /// Asks, and tries again with growing pauses while that may help. `on_text` hears the answer as it comes.
    ///
    /// # Errors
    /// See [`Error`]. Dropping the future closes the connection.
    pub async fn complete(&self, request: &Request<'_>, mut on_text: impl FnMut(&str) + Send) -> Result<Answer, Error> {
        let mut pause = PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = self.attempt(request, &mut on_text);
            let failed = match tokio::time::timeout(self.settings.timeout, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failed)) => failed,
                Err(_) => Failed::ForNow(format!("no whole answer within {} s", self.settings.timeout.as_secs()), None),
            };
            let (reason, after) = match failed {
                Failed::ForGood(error) => return Err(error),
                Failed::ForNow(reason, after) => (reason, after),
            };
            if attempts >= self.settings.attempts {
                return Err(Error::Unavailable { host: self.host.clone(), attempts, reason });
            }
            // Up to half as long again, so that those who failed together do not come back together.
            let spread = pause.mul_f64(f64::from(uuid::Uuid::now_v7().as_bytes().last().copied().unwrap_or(0)) / 510.0);
            let wait = after.unwrap_or(pause + spread).min(MAX_PAUSE);
            tracing::warn!(reason, attempts, wait_seconds = wait.as_secs_f32(), "the model is asked again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn attempt(&self, request: &Request<'_>, on_text: &mut (dyn FnMut(&str) + Send)) -> Result<Answer, Failed> {
        let response = self.send(request).await?;
        let streamed =
            response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let partial =
            if streamed { self.stream(response, on_text).await? } else { self.whole(response, on_text).await? };
        if partial.ended { Ok(partial.finish()) } else { Err(Failed::ForNow("the answer broke off".to_owned(), None)) }
    }

    async fn send(&self, request: &Request<'_>) -> Result<reqwest::Response, Failed> {
        let model = self.settings.named(request.model);
        let (path, body) = match self.settings.format {
            Format::OpenAi => (openai::PATH, openai::body(request, model)),
            Format::Anthropic => (anthropic::PATH, anthropic::body(request, model)),
        };
        let mut call = self.http.post(format!("{}{path}", self.settings.base_url)).json(&body);
        call = call.header("idempotency-key", request.idempotency_key);
        if let Some(here) = TraceContext::here(None) {
            call = here.headers().fold(call, |call, (name, value)| call.header(name, value));
        }
        call = match (self.settings.format, &self.settings.key) {
            (Format::OpenAi, Some(key)) => call.bearer_auth(key),
            (Format::OpenAi, None) => call,
            (Format::Anthropic, key) => {
                let call = call.header("anthropic-version", anthropic::VERSION);
                key.iter().fold(call, |call, key| call.header("x-api-key", key))
            }
        };
        let response = tokio::time::timeout(self.settings.idle_timeout, call.send()).await;
        let response = response.map_err(|_| self.silent())?.map_err(|error| for_now(&error))?;
        let status = response.status().as_u16();
        if status < 300 {
            return Ok(response);
        }
        let after = retry_after(response.headers());
        let detail = detail(&response.bytes().await.unwrap_or_default());
        match status {
            408 | 409 | 429 | 500..=599 => Err(Failed::ForNow(format!("{status}: {detail}"), after)),
            _ => Err(Failed::ForGood(Error::Refused { host: self.host.clone(), status, detail })),
        }
    }

    async fn stream(
        &self,
        mut response: reqwest::Response,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Partial, Failed> {
        let (mut events, mut partial) = (Events::default(), Partial::default());
        loop {
            let piece = tokio::time::timeout(self.settings.idle_timeout, response.chunk()).await;
            let Some(piece) = piece.map_err(|_| self.silent())?.map_err(|error| for_now(&error))? else {
                return Ok(partial);
            };
            for data in events.push(&piece) {
                let taken = match self.settings.format {
                    Format::OpenAi => openai::take_in(&mut partial, &data, on_text),
                    Format::Anthropic => anthropic::take_in(&mut partial, &data, on_text),
                };
                taken.map_err(|reason| Failed::ForNow(reason, None))?;
            }
            if partial.bytes() + events.waiting() > MAX_ANSWER {
                return Err(self.too_large());
            }
        }
    }

    async fn whole(
        &self,
        mut response: reqwest::Response,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Partial, Failed> {
        let mut body = Vec::new();
        loop {
            let piece = tokio::time::timeout(self.settings.idle_timeout, response.chunk()).await;
            let Some(piece) = piece.map_err(|_| self.silent())?.map_err(|error| for_now(&error))? else { break };
            body.extend_from_slice(&piece);
            if body.len() > MAX_ANSWER {
                return Err(self.too_large());
            }
        }
        let malformed = |reason: String| Failed::ForNow(format!("the answer cannot be read: {reason}"), None);
        let answer: Value = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
        let partial = match self.settings.format {
            Format::OpenAi => openai::whole(&answer, on_text),
            Format::Anthropic => anthropic::whole(&answer, on_text),
        };
        partial.map_err(malformed)
    }

    fn silent(&self) -> Failed {
        Failed::ForNow(format!("silent for {} s", self.settings.idle_timeout.as_secs()), None)
    }

    fn too_large(&self) -> Failed {
        let detail = format!("the answer has more than {MAX_ANSWER} bytes");
        Failed::ForGood(Error::Refused { host: self.host.clone(), status: 200, detail })
    }
}

fn for_now(error: &reqwest::Error) -> Failed {
    Failed::ForNow(lifecycle::client::chain(error), None)
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or(Duration::ZERO))
}

/// What a refusal says: the message of its JSON, or its first bytes.
fn detail(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(body).ok();
    let message = said.as_ref().and_then(|said| said.pointer("/error/message")?.as_str().map(str::to_owned));
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.chars().take(MAX_DETAIL).collect()
}
