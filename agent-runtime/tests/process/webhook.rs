//! Webhooks through the real server: signed, bounded, and each delivery once.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use lifecycle::State;
use sha2::Sha256;

use crate::process::{Home, Runtime};

const AGENT: &str = r#"
graph:
  async_entry_points:
    - {id: signed, entry_node: a, trigger_type: webhook, trigger_config: {path: /hooks/signed, secret: '${TEST_HOOK_SECRET}', max_body_bytes: 100}}
    - {id: open, entry_node: a, trigger_type: webhook, trigger_config: {path: /hooks/open, methods: [POST, PUT], requests_per_minute: 3}}
    - {id: unset, entry_node: a, trigger_type: webhook, trigger_config: {path: /hooks/unset, secret: '${NOT_SET_ANYWHERE}'}}
  nodes: [{id: a, node_type: exec, command: [/bin/sh, -c, "echo {{action}} >> heard"]}]
"#;

fn sign(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

async fn started() -> (Home, Runtime) {
    let home = Home::new(AGENT).with("TEST_HOOK_SECRET", "s3cret").with("HIVE_LIFECYCLE_TOKEN", "token");
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    (home, runtime)
}

#[tokio::test]
async fn a_signed_request_begins_an_execution_and_no_other_does() {
    let (home, runtime) = started().await;
    let body = r#"{"action": "opened"}"#;
    let signature = sign("s3cret", body);
    let good = [("X-Hub-Signature-256", signature.as_str()), ("X-GitHub-Delivery", "d-1")];
    let (code, first) = runtime.post("/hooks/signed", &good, body).await;
    assert_eq!(code, 202, "the way in is open: {first}");
    let (code, again) = runtime.post("/hooks/signed", &good, body).await;
    assert_eq!((code, &again["execution"]), (202, &first["execution"]), "a delivery that is repeated");
    home.wait_for_lines("heard", 1).await;
    let wrong = sign("other", body);
    let altered = r#"{"action": "closed"}"#;
    for (headers, body) in [
        (vec![], body),
        (vec![("X-Hub-Signature-256", wrong.as_str())], body),
        (vec![("X-Hub-Signature-256", "sha256=00")], body),
        (vec![("X-Hub-Signature-256", signature.as_str())], altered),
        (vec![("Authorization", "Bearer token")], body),
    ] {
        let (code, problem) = runtime.post("/hooks/signed", &headers, body).await;
        assert_eq!((code, problem["type"].as_str()), (401, Some("bad_signature")), "{headers:?}");
    }
    let large = "x".repeat(101);
    let signature = sign("s3cret", &large);
    assert_eq!(runtime.post("/hooks/signed", &[("X-Hub-Signature-256", &signature)], &large).await.0, 413);
    assert_eq!(runtime.post("/hooks/unset", &[("X-Hub-Signature-256", &signature)], "{}").await.0, 503, "closed");
    assert_eq!(home.lines("heard"), ["opened"]);
}

#[tokio::test]
async fn an_unsigned_webhook_asks_for_the_token_and_keeps_its_rate() {
    let (_home, runtime) = started().await;
    let token = [("Authorization", "Bearer token")];
    assert_eq!(runtime.post("/hooks/open", &[], "{}").await.0, 401);
    assert_eq!(runtime.call("PATCH", "/hooks/open", &token, "{}").await.0, 405);
    assert_eq!(runtime.call("PUT", "/hooks/open", &token, "text").await.0, 202, "a body need not be JSON");
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(runtime.post("/hooks/open", &token, "{}").await.0);
    }
    assert_eq!(codes, [202, 202, 429, 429]);
    assert_eq!(runtime.post("/hooks/nowhere", &token, "{}").await.0, 404);
}
