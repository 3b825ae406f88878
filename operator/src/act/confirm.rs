//! Asks the API server's store whether what a write is planned from still stands: before something is let run, and before
//! a brake is let go of. Lists without a resourceVersion are answered from the store, and the role has the right to them.

use std::collections::HashSet;
use std::sync::Arc;

use crds::{AgentFreeze, AgentRuntime};
use http::header::{ACCEPT, DATE, HeaderValue};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ListParams, PartialObjectMeta, Request};
use kube::client::Body;
use kube::core::{ObjectList, Status};
use kube::{Client, Resource, ResourceExt as _};
use tokio::time::Instant;

use super::{Actor, Error, within};
use crate::observe::Observed;
use crate::observe::decoded::Decoded;
use crate::plan::{Confirm, ended};

const METADATA: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json");

/// The freezes in the store at one moment.
#[derive(Clone, Debug)]
struct Freezes {
    /// The UID and the generation of each.
    found: HashSet<(Option<String>, Option<i64>)>,
    /// The API server's clock.
    date: Option<Timestamp>,
}

/// The last list of freezes, which serves all who asked before it was begun.
#[derive(Debug, Default)]
pub(super) struct LastFreezes {
    /// None of one that failed.
    last: tokio::sync::Mutex<Option<(Instant, Option<Arc<Freezes>>)>>,
}

impl LastFreezes {
    /// What a list that was begun after this call shows.
    async fn of(&self, list: impl AsyncFnOnce() -> Result<Freezes, Error>) -> Result<Arc<Freezes>, Error> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((_, freezes)) = last.as_ref().filter(|(begun, _)| *begun > asked) {
            // The failure of one is that of all who waited for it: each would wait as long for its own.
            return freezes.clone().ok_or_else(|| Error::Conflict { what: "the list of AgentFreezes".to_owned() });
        }
        let begun = Instant::now();
        let listed = list().await.map(Arc::new);
        *last = Some((begun, listed.as_ref().ok().cloned()));
        listed
    }
}

impl Actor {
    /// Asks the store whether the object is as it was seen, and if they count the freezes and the labels by which its
    /// namespace is selected. A freeze that has ended by the operator's clock has to have ended by the API server's too.
    ///
    /// # Errors
    /// A conflict when the store shows something else, or what the API server answered.
    pub(crate) async fn confirm(&self, seen: &Observed, confirm: Confirm) -> Result<(), Error> {
        if confirm.freezes {
            self.confirm_freezes(seen).await?;
        }
        let namespace = seen.runtime.namespace().unwrap_or_default();
        self.confirm_object(seen, &namespace).await?;
        if confirm.freezes && !seen.fleet.freezes.is_empty() {
            self.confirm_namespace(seen, &namespace).await?;
            // Once more: what selects, and the labels that are selected, are then of one moment. Else a freeze that is
            // edited while labels change, and holds all the time, would be taken for one that does not.
            self.confirm_freezes(seen).await?;
        }
        Ok(())
    }

    async fn confirm_object(&self, seen: &Observed, namespace: &str) -> Result<(), Error> {
        let runtime = seen.runtime.as_ref();
        let api: Api<Decoded<PartialObjectMeta<AgentRuntime>>> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("AgentRuntime {}", runtime.name_any());
        let found = within(&what, api.list(&named(&runtime.name_any()))).await?;
        let same = found.items.iter().map(generation_of).eq([generation_of(runtime)]);
        if same && found.items.iter().all(|found| found.labels() == runtime.labels()) {
            return Ok(());
        }
        Err(Error::Conflict { what })
    }

    async fn confirm_freezes(&self, seen: &Observed) -> Result<(), Error> {
        let what = "the list of AgentFreezes";
        let fleet = &seen.fleet;
        let Freezes { found, date } =
            &*self.freezes.of(async || within(what, list_freezes(&self.client)).await).await?;
        let shown = fleet.freezes.iter().map(|freeze| generation_of(freeze.as_ref()));
        if *found != shown.chain(fleet.undecodable.iter().cloned()).collect() {
            return Err(Error::Conflict { what: what.to_owned() });
        }
        let early = fleet.freezes.iter().find_map(|freeze| ended(freeze, Timestamp::now(), *date));
        early.map_or(Ok(()), |name| Err(Error::NotEnded { freeze: name }))
    }

    async fn confirm_namespace(&self, seen: &Observed, namespace: &str) -> Result<(), Error> {
        let by_labels = |freeze: &Arc<AgentFreeze>| freeze.spec.namespace_selector != LabelSelector::default();
        if !seen.fleet.freezes.iter().any(by_labels) {
            return Ok(());
        }
        let what = format!("Namespace {namespace}");
        let api: Api<Decoded<PartialObjectMeta<Namespace>>> = Api::all(self.client.clone());
        let found = within(&what, api.list(&named(namespace))).await?;
        if found.items.iter().map(|space| Some(space.labels())).eq([seen.fleet.namespace.as_ref()]) {
            return Ok(());
        }
        Err(Error::Conflict { what })
    }
}

fn named(name: &str) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={name}"))
}

/// Lists the freezes, and reads the API server's clock.
async fn list_freezes(client: &Client) -> Result<Freezes, kube::Error> {
    let path = AgentFreeze::url_path(&(), None);
    let request = Request::new(path).list(&ListParams::default()).map_err(kube::Error::BuildRequest)?;
    let mut request = request.map(Body::from);
    request.headers_mut().insert(ACCEPT, METADATA);
    let answer = client.send(request).await?;
    let (code, date) = (answer.status(), answer.headers().get(DATE).and_then(read_date));
    let body = answer.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        let said = serde_json::from_slice::<Status>(&body);
        let said = said.unwrap_or_else(|_| Status::failure(String::from_utf8_lossy(&body).trim(), "Unknown"));
        return Err(kube::Error::Api(said.with_code(code.as_u16()).boxed()));
    }
    let list: ObjectList<Decoded<PartialObjectMeta<AgentFreeze>>> =
        serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
    Ok(Freezes { found: list.items.iter().map(generation_of).collect(), date })
}

fn read_date(value: &HeaderValue) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(value.as_bytes()).ok()
}

/// What changes with a spec: which object, and how often it was changed.
fn generation_of(object: &impl Resource) -> (Option<String>, Option<i64>) {
    (object.meta().uid.clone(), object.meta().generation)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::future::join_all;

    use super::*;

    #[test]
    fn clock_of_the_api_server_is_read_as_http_writes_it() {
        let read = |text: &'static str| read_date(&HeaderValue::from_static(text));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), "1994-11-06T08:49:37Z".parse().ok());
        assert_eq!(read("yesterday"), None);
    }

    #[tokio::test]
    async fn list_of_freezes_serves_all_who_asked_before_it_was_begun() {
        let (last, lists) = (LastFreezes::default(), Cell::new(0));
        let open = tokio::sync::Semaphore::new(0);
        let list = async || {
            lists.set(lists.get() + 1);
            drop(open.acquire().await);
            Ok(Freezes { found: HashSet::new(), date: None })
        };
        let first = last.of(list);
        let others = join_all([0; 5].map(|_| last.of(list)));
        let (first, others, ()) = tokio::join!(first, others, async { open.add_permits(9) });
        assert!(first.is_ok() && others.iter().all(Result::is_ok));
        assert_eq!(lists.get(), 2, "who came while the first was under way shares the second");
        assert!(last.of(list).await.is_ok());
        assert_eq!(lists.get(), 3, "nobody gets what was begun before");
    }
}
