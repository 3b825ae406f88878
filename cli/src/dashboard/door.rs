//! Who may use the page: its own address only, a token that was printed for this user, and headers that trust nothing foreign.

use std::net::{IpAddr, SocketAddr};
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
    /// Names by which a page that only shows is reached, beside addresses and localhost.
    names: Vec<String>,
}

impl Door {
    /// A page that only shows has no token: whoever reaches it may look.
    pub(super) fn new(address: SocketAddr, read_only: bool, names: Vec<String>) -> Self {
        let token = (!read_only).then(|| format!("{:032x}", rand::rng().random::<u128>()));
        Self { address, token, names }
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
            return match text(header::HOST) {
                _ if changes => Verdict::ReadOnly,
                Some(host) if self.answers_to(host) => Verdict::Pass,
                _ => Verdict::Foreign,
            };
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

    /// Whether a page that only shows is meant. A site that points its own name here has a name, never an address;
    /// the port may be that of a port-forward.
    fn answers_to(&self, host: &str) -> bool {
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || address.parse::<IpAddr>().is_ok()
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
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
        let door = Door::new("127.0.0.1:8200".parse().unwrap(), false, Vec::new());
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
    fn a_page_that_only_shows_needs_no_token_changes_nothing_and_has_no_name_but_its_own() {
        let door = Door::new("0.0.0.0:8080".parse().unwrap(), true, vec!["hive.example".to_owned()]);
        let get = |host: &str| judged(&door, &Method::GET, &[(header::HOST, host)], "");
        for own in [
            "localhost",
            "localhost:9999",
            "127.0.0.1:8200",
            "10.96.0.7",
            "[::1]:8080",
            "[fd00::1]",
            "hive.example",
            "Hive.Example:80",
        ] {
            assert_eq!(get(own), Verdict::Pass, "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "hive.example.evil:80",
            "127.0.0.1.evil",
            "",
        ] {
            assert_eq!(get(foreign), Verdict::Foreign, "{foreign}");
        }
        assert_eq!(judged(&door, &Method::GET, &[], ""), Verdict::Foreign);
        assert_eq!(judged(&door, &Method::POST, &[(header::HOST, "localhost")], ""), Verdict::ReadOnly);
    }
}
