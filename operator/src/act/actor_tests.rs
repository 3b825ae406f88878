//! What an actor does no more once its Lease has run out.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Instant;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;

use super::*;
use crate::observe::{ChildKey, ChildKind};
use crate::plan::{Child, DeleteChild, Scale};

/// The methods of the requests that were made, and an actor whose requests are all refused.
fn refused(tenure: Tenure) -> (Arc<Mutex<Vec<Method>>>, Actor) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        noted.lock().unwrap().push(request.method().clone());
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::FORBIDDEN;
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let client = Client::new(service, "agents");
    let (announcer, _) = events::channel(&client, Arc::default());
    (asked, Actor::new(client, announcer, tenure))
}

#[tokio::test]
async fn no_child_is_touched_once_the_lease_has_run_out() {
    let key = ChildKey { kind: ChildKind::Service, name: "demo".to_owned() };
    let uid = Some("uid-1".to_owned());
    let child = Child { key: key.clone(), hash: "1".to_owned(), trial: false, uid, manifest: serde_json::Map::new() };
    let scale = Scale { deployment: key.clone(), uid: "uid-1".to_owned(), replicas: 0 };
    let delete = DeleteChild { key, uid: "uid-1".to_owned() };
    for leads in [true, false] {
        let (asked, actor) = refused(if leads { Tenure::default() } else { Tenure::until(Instant::now()) });
        let outcomes = [
            actor.apply("agents", "runtime-1", &child).await.map(drop),
            actor.scale("agents", &scale).await.map(drop),
            actor.delete("agents", &delete).await,
        ];
        let asked = asked.lock().unwrap().clone();
        if leads {
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Api { .. }))), "{outcomes:?}");
            assert_eq!(asked, [Method::PATCH, Method::PATCH, Method::DELETE], "it leads, and so it asks");
        } else {
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Deposed))), "{outcomes:?}");
            assert!(asked.is_empty(), "another replica may have changed it since");
        }
    }
}
