//! What the API server gets, and what is said of what it does not take.

use std::convert::Infallible;
use std::sync::Mutex;

use crds::AgentRuntimeSpec;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use super::*;

/// What was sent, and both ends towards an API server that gives this answer to everything.
fn answering(code: StatusCode) -> (Arc<Mutex<Vec<Value>>>, Arc<Telemetry>, Announcer, Publisher) {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&sent);
    let service = tower::service_fn(move |request: Request<Body>| {
        let noted = Arc::clone(&noted);
        async move {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            noted.lock().unwrap().push(serde_json::from_slice(&bytes).unwrap());
            let mut answer = Response::new(Body::from(bytes.to_vec()));
            *answer.status_mut() = code;
            Ok::<_, Infallible>(answer)
        }
    });
    let telemetry = Arc::new(Telemetry::default());
    let (announcer, publisher) = channel(&Client::new(service, "agents"), Arc::clone(&telemetry));
    (sent, telemetry, announcer, publisher)
}

fn runtime(name: &str) -> AgentRuntime {
    let mut runtime = AgentRuntime::new(name, AgentRuntimeSpec::default());
    runtime.metadata.namespace = Some("agents".to_owned());
    runtime.metadata.uid = Some(format!("uid-{name}"));
    runtime
}

fn announcement(reason: &str, note: &str, freeze: bool) -> Announcement {
    Announcement { warning: false, freeze, reason: reason.to_owned(), note: note.to_owned() }
}

/// The API server counts bytes, and refuses an Event that is too long.
#[tokio::test]
async fn an_event_is_cut_to_what_the_api_server_takes() {
    let (sent, _, announcer, publisher) = answering(StatusCode::CREATED);
    for (name, letter) in [("a", "x"), ("b", "é"), ("c", "€"), ("d", "😀")] {
        announcer.announce(&runtime(name), &announcement(&letter.repeat(200), &letter.repeat(2000), false));
    }
    publisher.finish().await;
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 4);
    for event in sent.iter() {
        for (field, most) in [("note", 1024), ("reason", 128), ("action", 128)] {
            assert!(event[field].as_str().unwrap().len() <= most, "{field}: {event}");
        }
        assert!(event["note"].as_str().unwrap().ends_with('…'), "{event}");
    }
}

#[tokio::test]
async fn the_record_of_a_freeze_outlives_all_else_that_waits() {
    let (sent, telemetry, announcer, publisher) = answering(StatusCode::CREATED);
    for n in 0..WAITING {
        announcer.announce(&runtime(&format!("r{n}")), &announcement("Running", "runs", false));
    }
    announcer.announce(&runtime("held"), &announcement("Frozen", "held", true));
    let next = publisher.shared.lock().waiting.take().unwrap();
    assert_eq!((next.event.reason.as_str(), next.about.name.as_deref()), ("Frozen", Some("held")));
    let text = telemetry.text().unwrap();
    assert!(text.contains(r#"agentruntime_events_lost_total{reason="overflow"} 1"#), "{text}");
    assert!(sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lost_events_are_counted_and_told_in_one_line() {
    let (_, telemetry, announcer, mut publisher) = answering(StatusCode::UNPROCESSABLE_ENTITY);
    for name in ["a", "b", "c"] {
        announcer.announce(&runtime(name), &announcement("Running", "runs", false));
    }
    for _ in 0..3 {
        let entry = publisher.shared.lock().waiting.take().unwrap();
        publisher.publish(entry).await;
    }
    let now = Instant::now();
    let last = |publisher: &Publisher| {
        let inner = publisher.shared.lock();
        (inner.lost, inner.last.as_ref().map(|loss| (loss.namespace.clone(), loss.name.clone())))
    };
    assert_eq!(last(&publisher), (3, Some(("agents".to_owned(), "c".to_owned()))));
    publisher.tell(now);
    assert_eq!(last(&publisher), (0, None));
    publisher.shared.lose(
        &Entry { about: runtime("d").object_ref(&()), event: event(), important: false },
        "refused",
        String::new(),
    );
    publisher.tell(now + TELL / 2);
    assert_eq!(last(&publisher).0, 1, "it waits for its turn to be told");
    publisher.tell(now + TELL);
    assert_eq!(last(&publisher).0, 0);
    let text = telemetry.text().unwrap();
    assert!(text.contains(r#"agentruntime_events_lost_total{reason="refused"} 4"#), "{text}");
}

fn event() -> Event {
    Event { type_: EventType::Normal, reason: "R".to_owned(), note: None, action: "A".to_owned(), secondary: None }
}
