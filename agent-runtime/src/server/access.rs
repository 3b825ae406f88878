//! Who may do what: the operator's signature for a managed pod's verbs, the token for all else that changes
//! something, and probes for everybody.

use axum::http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;
use lifecycle::Keys;
use lifecycle::signature::{Claims, Expected, READ, Rejected, verify};

use super::App;
use super::problem::Refusal;

/// The paths of verbs begin so.
const VERBS: &str = "/api/v1/lifecycle/";
/// The one path that the operator reads.
const STATUS: &str = "/api/v1/status";

/// What a request must bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// The token of `HIVE_LIFECYCLE_TOKEN`.
    Token,
    /// The operator's signature of this verb, for this pod.
    Signature,
    /// The token, or for the status the operator's signature.
    Read,
}

/// What it depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// Verbs must be signed.
    pub(super) signs: bool,
    /// There is a token.
    pub(super) token: bool,
    /// Reads are protected too.
    pub(super) protects_reads: bool,
}

impl Rules {
    pub(super) fn of(app: &App) -> Self {
        let config = app.controller.config();
        Self {
            signs: config.managed() && app.controller.keys().is_none_or(|keys| !keys.public.is_empty()),
            token: config.token.is_some(),
            protects_reads: config.protect_reads,
        }
    }

    /// `signed_by_sender` says that the path is a webhook's with a signature of its own.
    pub(super) fn need(self, method: &Method, path: &str, signed_by_sender: bool) -> Need {
        let reads = method == Method::GET || method == Method::HEAD;
        match path {
            "/health/live" | "/health/ready" => Need::Nothing,
            _ if reads && self.protects_reads => Need::Read,
            _ if reads => Need::Nothing,
            _ if self.signs && path.starts_with(VERBS) => Need::Signature,
            _ if self.token && !signed_by_sender => Need::Token,
            _ => Need::Nothing,
        }
    }
}

/// Refuses what can be refused before a body is read. A verb's signature is checked with its body, in `signed`.
pub(super) async fn admit(app: &App, need: Need, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let detail = "send the token of HIVE_LIFECYCLE_TOKEN as Authorization: Bearer";
    match need {
        Need::Nothing => Ok(()),
        Need::Token | Need::Read if bears_token(app, headers) => Ok(()),
        Need::Token => Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)),
        Need::Read if path == STATUS && Rules::of(app).signs => check(app, headers, READ, &[]).await.map(|_| ()),
        Need::Read => Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)),
        Need::Signature if bearer(headers).is_none() && app.controller.keys().is_none() => {
            Err(refusal(&Rejected::KeysUnknown))
        }
        Need::Signature if bearer(headers).is_none() => Err(refusal(&Rejected::Missing)),
        Need::Signature => Ok(()),
    }
}

/// Checks the signature of a verb; none where verbs are not signed.
pub(super) async fn signed(app: &App, headers: &HeaderMap, verb: &str, body: &[u8]) -> Result<Option<Claims>, Refusal> {
    if !Rules::of(app).signs {
        return Ok(None);
    }
    check(app, headers, verb, body).await.map(Some)
}

/// A signature by a key that is not known may be by one that the mounted file has just brought.
async fn check(app: &App, headers: &HeaderMap, verb: &str, body: &[u8]) -> Result<Claims, Refusal> {
    let config = app.controller.config();
    let expected = Expected { pod_uid: &config.pod_uid, runtime_uid: &config.runtime_uid, verb, body };
    let token = bearer(headers);
    let verdict = match judge(token, app.controller.keys(), &expected) {
        Err(Rejected::WrongKey | Rejected::KeysUnknown) => {
            app.controller.look_for_keys().await.map_err(|error| Refusal::storage(&error))?;
            judge(token, app.controller.keys(), &expected)
        }
        verdict => verdict,
    };
    verdict.map_err(|rejected| {
        tracing::debug!(verb, kind = rejected.kind(), "a request is not the operator's");
        refusal(&rejected)
    })
}

fn judge(token: Option<&str>, keys: Option<Keys>, expected: &Expected<'_>) -> Result<Claims, Rejected> {
    let keys = keys.ok_or(Rejected::KeysUnknown)?;
    verify(token.ok_or(Rejected::Missing)?, &keys.public, expected, Timestamp::now().as_second())
}

/// 401, with the stable word that says why.
pub(super) fn refusal(rejected: &Rejected) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, rejected.kind(), rejected.to_string())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Compares digests, so that the time taken tells nothing of the token.
fn bears_token(app: &App, headers: &HeaderMap) -> bool {
    use sha2::{Digest as _, Sha256};
    let Some(token) = &app.controller.config().token else { return false };
    Sha256::digest(token.as_bytes()) == Sha256::digest(bearer(headers).unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rules = Rules { signs: true, token: true, protects_reads: true };
    const PAUSE: &str = "/api/v1/lifecycle/pause";
    const TRIGGER: &str = "/api/v1/entry-points/a/trigger";

    #[test]
    fn probes_are_for_everybody_under_every_rule() {
        for path in ["/health/live", "/health/ready"] {
            assert_eq!(ALL.need(&Method::GET, path, false), Need::Nothing);
        }
    }

    #[test]
    fn a_verb_needs_the_signature_where_there_is_one_and_else_the_token() {
        assert_eq!(ALL.need(&Method::POST, PAUSE, false), Need::Signature);
        assert_eq!(ALL.need(&Method::POST, TRIGGER, false), Need::Token);
        let standalone = Rules { signs: false, ..ALL };
        assert_eq!(standalone.need(&Method::POST, PAUSE, false), Need::Token);
        assert_eq!(Rules::default().need(&Method::POST, PAUSE, false), Need::Nothing);
    }

    #[test]
    fn a_webhook_with_a_secret_has_a_signature_of_its_own() {
        assert_eq!(ALL.need(&Method::POST, "/hooks/push", true), Need::Nothing);
        assert_eq!(ALL.need(&Method::POST, "/hooks/push", false), Need::Token);
    }

    #[test]
    fn reads_are_open_unless_they_are_protected() {
        let open = Rules { protects_reads: false, ..ALL };
        for path in [STATUS, "/metrics", "/api/v1/executions"] {
            assert_eq!(ALL.need(&Method::GET, path, false), Need::Read);
            assert_eq!(open.need(&Method::GET, path, false), Need::Nothing);
            assert_eq!(open.need(&Method::HEAD, path, false), Need::Nothing);
        }
    }
}
