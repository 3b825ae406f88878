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

/// Refuses what a web page makes a browser send: a request of another origin, and one to a name that was made to lead
/// to the loopback. A page cannot set `Authorization`, so who bears that is none.
pub(super) fn check_browser(headers: &HeaderMap, on_loopback: bool) -> Result<(), Refusal> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let refused = |detail: &str| Err(Refusal::new(StatusCode::FORBIDDEN, "cross_origin", detail));
    if let Some(origin) = text(header::ORIGIN)
        && origin.split_once("://").is_none_or(|(_, of)| !of.eq_ignore_ascii_case(host))
    {
        return refused("a page of another origin may ask nothing here without the token");
    }
    if on_loopback && is_name_of_others(host) {
        return refused("this runtime listens on the loopback only: reach it as localhost or by its address");
    }
    Ok(())
}

/// Whether a Host is a name that others can give an address, and none of this machine's own.
fn is_name_of_others(host: &str) -> bool {
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(n, _)| n);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    !is_address && name.contains('.') && !name.ends_with(".localhost") && name != "localhost.localdomain"
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

    #[test]
    fn page_of_another_origin_and_name_led_to_the_loopback_are_refused() {
        for (host, origin, on_loopback, good) in [
            ("localhost:8080", None, true, true),
            ("127.0.0.1:8080", None, true, true),
            ("[::1]:8080", None, true, true),
            ("x", None, true, true),
            ("app.localhost:8080", None, true, true),
            ("evil.example", None, true, false),
            ("evil.example:8080", None, true, false),
            ("evil.example.", None, true, false),
            ("runtime.agents.svc:8080", None, false, true),
            ("localhost:8080", Some("http://localhost:8080"), true, true),
            ("localhost:8080", Some("http://localhost:3000"), true, false),
            ("runtime.example", Some("https://runtime.example"), false, true),
            ("runtime.example", Some("https://evil.example"), false, false),
            ("runtime.example", Some("null"), false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
            assert_eq!(check_browser(&headers, on_loopback).is_ok(), good, "{host} {origin:?}");
            headers.insert(header::AUTHORIZATION, "Bearer t".parse().unwrap());
            assert!(check_browser(&headers, on_loopback).is_ok(), "a page cannot send that");
        }
    }

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
