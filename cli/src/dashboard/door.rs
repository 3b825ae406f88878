//! Who may use the page: its own address only, a token that was printed for this user, and headers that trust nothing foreign.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use rand::Rng as _;

const COOKIE: &str = "hive-dashboard";
/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What a request must show.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    token: Option<String>,
}

impl Door {
    /// A page that only shows has no token: whoever reaches it may look.
    pub(super) fn new(address: SocketAddr, read_only: bool) -> Self {
        let token = (!read_only).then(|| format!("{:032x}", rand::rng().random::<u128>()));
        Self { address, token }
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(super) fn read_only(&self) -> bool {
        self.token.is_none()
    }

    /// Whether a request may pass; `query` is its whole query.
    fn judge(&self, method: &Method, headers: &HeaderMap, query: &str) -> Verdict {
        let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        let Some(token) = &self.token else {
            return if changes { Verdict::ReadOnly } else { Verdict::Pass };
        };
        // A foreign name that leads here is another site's attempt to speak with this one.
        if !text(header::HOST).is_some_and(|host| self.is_own(host)) {
            return Verdict::Foreign;
        }
        if changes && text(header::ORIGIN).is_some_and(|origin| !self.is_own(origin.trim_start_matches("http://"))) {
            return Verdict::Foreign;
        }
        let given = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "token").map(|(_, value)| value);
        match given {
            Some(given) if same(&given, token) && *method == Method::GET => return Verdict::Enter,
            Some(_) => return Verdict::Unknown,
            None => {}
        }
        let cookies = text(header::COOKIE).unwrap_or_default();
        let own = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
        let known = own.into_iter().any(|(name, value)| name == COOKIE && same(value, token));
        if known { Verdict::Pass } else { Verdict::Unknown }
    }

    fn is_own(&self, host: &str) -> bool {
        let port = self.address.port();
        host == self.address.to_string() || host == format!("localhost:{port}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Enter,
    Foreign,
    Unknown,
    ReadOnly,
}

/// In a time that says nothing of how much was right.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Lets through what shows the token.
pub(super) async fn check(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    match door.judge(request.method(), request.headers(), query) {
        Verdict::Pass => next.run(request).await,
        Verdict::Enter => {
            let cookie = format!("{COOKIE}={}; HttpOnly; SameSite=Strict; Path=/", door.token().unwrap_or_default());
            (StatusCode::SEE_OTHER, [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, cookie)]).into_response()
        }
        Verdict::Foreign => {
            (StatusCode::MISDIRECTED_REQUEST, "this is not an address of the dashboard").into_response()
        }
        Verdict::Unknown => {
            (StatusCode::UNAUTHORIZED, "open the whole address that kubectl hive dashboard printed").into_response()
        }
        Verdict::ReadOnly => (StatusCode::FORBIDDEN, "this dashboard only shows").into_response(),
    }
}

/// What every answer says about itself.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // With no-referrer a browser would send the origin of its own forms as null.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn judged(door: &Door, method: &Method, headers: &[(header::HeaderName, &str)], query: &str) -> Verdict {
        let all = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        door.judge(method, &all.collect(), query)
    }

    #[test]
    fn only_the_one_who_has_the_token_passes_and_only_at_its_own_address() {
        let door = Door::new("127.0.0.1:8200".parse().unwrap(), false);
        let token = door.token().unwrap();
        let (host, cookie) = ((header::HOST, "localhost:8200"), format!("a=b; {COOKIE}={token}"));
        let cookie = (header::COOKIE, cookie.as_str());
        let get = |headers: &[(header::HeaderName, &str)], query: &str| judged(&door, &Method::GET, headers, query);
        assert_eq!(get(&[host.clone(), cookie.clone()], ""), Verdict::Pass);
        assert_eq!(get(slice::from_ref(&host), &format!("token={token}")), Verdict::Enter);
        assert_eq!(get(slice::from_ref(&host), ""), Verdict::Unknown);
        assert_eq!(get(slice::from_ref(&host), "token=0"), Verdict::Unknown);
        assert_eq!(get(&[(header::HOST, "evil.example:8200"), cookie.clone()], ""), Verdict::Foreign);
        let post =
            |origin: &str| judged(&door, &Method::POST, &[host.clone(), cookie.clone(), (header::ORIGIN, origin)], "");
        assert_eq!(post("http://localhost:8200"), Verdict::Pass);
        assert_eq!(post("http://evil.example"), Verdict::Foreign);
        assert_eq!(post("null"), Verdict::Foreign);
    }

    #[test]
    fn a_page_that_only_shows_needs_nothing_and_changes_nothing() {
        let door = Door::new("0.0.0.0:8080".parse().unwrap(), true);
        assert_eq!(judged(&door, &Method::GET, &[], ""), Verdict::Pass);
        assert_eq!(judged(&door, &Method::POST, &[], ""), Verdict::ReadOnly);
    }
}
