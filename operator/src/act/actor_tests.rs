//! What an actor does no more once its Lease has run out.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Instant;

use crds::AgentRuntimeSpec;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;

use super::*;
use crate::observe::AgentText;
use crate::observe::fleet::FleetView;

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

fn seen() -> Observed {
    let mut runtime = AgentRuntime::new("demo", AgentRuntimeSpec::default());
    runtime.metadata.namespace = Some("agents".to_owned());
    Observed {
        runtime: Arc::new(runtime),
        outdated: false,
        boot: None,
        children: BTreeMap::new(),
        deployment: None,
        pods: Vec::new(),
        contacts: HashMap::new(),
        barrier: None,
        agent: AgentText::Builtin,
        epoch_since: None,
        reported: None,
        keys: Arc::default(),
        refusal: None,
        protected_since: None,
        fleet: FleetView::default(),
    }
}

#[tokio::test]
async fn no_child_is_touched_once_the_lease_has_run_out() {
    let key = ChildKey { kind: ChildKind::Service, name: "demo".to_owned() };
    let child = Child { key: key.clone(), hash: "1".to_owned(), manifest: serde_json::Map::new() };
    let scale = Scale { deployment: "demo".to_owned(), replicas: 0 };
    let plans = [
        (Method::PATCH, Plan { apply: vec![child], ..Plan::default() }),
        (Method::PATCH, Plan { scale: Some(scale), ..Plan::default() }),
        (Method::DELETE, Plan { delete: vec![key], ..Plan::default() }),
    ];
    for (method, plan) in plans {
        let (asked, actor) = refused(Tenure::default());
        let outcome = actor.carry_out(&seen(), &plan, &mut Memory::default()).await;
        assert!(matches!(outcome, Err(Error::Api { .. })), "{outcome:?}");
        assert_eq!(*asked.lock().unwrap(), [method], "it leads, and so it asks");

        let (asked, actor) = refused(Tenure::until(Instant::now()));
        let outcome = actor.carry_out(&seen(), &plan, &mut Memory::default()).await;
        assert!(matches!(outcome, Err(Error::Deposed)), "{outcome:?}");
        assert!(asked.lock().unwrap().is_empty(), "another replica may have changed it since");
    }
}
