//! How executions begin, and what they may use.

use std::time::Duration;

use super::Schedule;

/// A named trigger.
#[derive(Clone, Debug)]
pub struct EntryPoint {
    /// The node that an execution begins at.
    pub node: String,
    /// What triggers it.
    pub trigger: Trigger,
    /// Higher first.
    pub priority: i32,
    /// Executions at once.
    pub max_concurrent: usize,
    /// Executions that may wait; one more is refused.
    pub max_queued: usize,
    /// An execution has failed when it has not ended this long after it was begun.
    pub timeout: Option<Duration>,
}

/// What triggers an entry point.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// A POST.
    Api,
    /// The clock.
    Timer(Box<Schedule>),
    /// A request on a path of its own.
    Webhook(Webhook),
    /// Events by these names, from nodes of the agent or by POST.
    Event(Vec<String>),
}

/// A request on a path of its own, signed as GitHub signs.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The path, which begins with a slash.
    pub path: String,
    /// The methods that are let in.
    pub methods: Vec<http::Method>,
    /// The key of the HMAC; none lets everybody in.
    pub secret: Option<Secret>,
    /// Requests per minute.
    pub per_minute: std::num::NonZeroU32,
    /// The largest body, in bytes.
    pub max_body: usize,
}

/// Where a secret is found. It is read when it is needed, so that a rotated one is seen.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// It stands in the definition.
    Literal(String),
    /// An environment variable.
    Environment(String),
    /// A file, such as a mounted Secret.
    File(std::path::PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(..)"),
            Self::Environment(name) => write!(f, "Environment({name})"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl Secret {
    /// The secret.
    ///
    /// # Errors
    /// The variable is not set, or the file cannot be read.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Literal(secret) => Ok(secret.clone()),
            Self::Environment(name) => {
                std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))
            }
            Self::File(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("{}: {error}", path.display())),
        }
    }
}

/// Whether a tick begins an execution while one of the same timer has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is skipped.
    #[default]
    Skip,
    /// It begins one.
    Allow,
}

/// What executions may use. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of one execution.
    pub tokens: i64,
    /// Tokens of all executions in one day of UTC.
    pub tokens_per_day: i64,
    /// Node executions in one day of UTC.
    pub steps_per_day: i64,
    /// Seconds from an execution's beginning to its end.
    pub seconds: i64,
    /// Seconds that executions run for in one day of UTC, added up.
    pub seconds_per_day: i64,
}

/// Failures that pause the runtime: a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failed executions.
    pub failures: usize,
    /// Within this long.
    pub window: Duration,
}
