//! Reads that no cache may answer: of the API server's store, before something is let run and before it is said that
//! nothing runs.

use std::collections::{HashMap, HashSet};

use crds::{AgentFreeze, AgentRuntime};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Resource, ResourceExt as _};

use super::{Actor, Error, metadata, within};
use crate::observe::decoded::Decoded;
use crate::observe::index::{Owner, RUNTIME_LABEL};
use crate::observe::{Barrier, Observed};
use crate::plan::{Confirm, selector};

/// Pods in one page of a list. The API server makes a page as a whole, and looks for a page that is not the first
/// through all pods of the namespace, not always from its cache: few objects are to need a second one.
const PAGE: u32 = 5000;

impl Actor {
    /// Asks the store whether the object, and the freezes if they count, are as they were seen.
    pub(crate) async fn confirm(&self, seen: &Observed, confirm: Confirm) -> Result<(), Error> {
        let (runtime, client) = (seen.runtime.as_ref(), self.client.clone());
        let namespace = runtime.namespace().unwrap_or_default();
        let api: Api<Decoded<PartialObjectMeta<AgentRuntime>>> = Api::namespaced(client.clone(), &namespace);
        // Lists without a resourceVersion are answered from the store, and the role has the right to them.
        let only = ListParams::default().fields(&format!("metadata.name={}", runtime.name_any()));
        let what = format!("AgentRuntime {}", runtime.name_any());
        let found = within(&what, api.list(&only)).await?;
        if !found.items.iter().map(generation_of).eq([generation_of(runtime)])
            || found.items.iter().any(|found| found.labels() != runtime.labels())
        {
            return Err(Error::Conflict { what });
        }
        if confirm.freezes {
            let what = "the list of AgentFreezes";
            let api: Api<Decoded<PartialObjectMeta<AgentFreeze>>> = Api::all(client);
            let found = within(what, api.list(&ListParams::default())).await?;
            let found: HashSet<_> = found.items.iter().map(generation_of).collect();
            let shown = seen.fleet.freezes.iter().map(|freeze| generation_of(freeze.as_ref()));
            if found != shown.chain(seen.fleet.undecodable.iter().cloned()).collect() {
                return Err(Error::Conflict { what: what.to_owned() });
            }
        }
        Ok(())
    }

    /// Takes the barrier LIST, or has part in one with other objects of the namespace that is begun after this call.
    ///
    /// # Errors
    /// The API server refused or was out of reach.
    pub async fn barrier(&self, owner: &Owner, epoch: i64) -> Result<Barrier, Error> {
        let at = Timestamp::now();
        let list = async |names: &[String]| self.list_pods(&owner.namespace, names).await;
        let pods = self.lists.of(&owner.namespace, &owner.name, list).await?;
        Ok(Barrier { epoch, pods, at })
    }

    /// The UIDs of the pods of these objects. No resourceVersion, so that the API server answers from its store; the
    /// pages are of one moment.
    async fn list_pods(&self, namespace: &str, runtimes: &[String]) -> Result<HashMap<String, Vec<String>>, Error> {
        let what = "the barrier LIST of pods";
        let path = Pod::url_path(&(), Some(namespace));
        let mut params = ListParams::default().labels(&selector(runtimes)).limit(PAGE);
        let mut pods: HashMap<String, Vec<String>> = HashMap::new();
        loop {
            let found = |uid, mut labels: HashMap<String, String>| {
                pods.entry(labels.remove(RUNTIME_LABEL).unwrap_or_default()).or_default().push(uid);
            };
            params.continue_token = within(what, metadata::list(&self.client, &path, &params, found)).await?;
            if params.continue_token.is_none() {
                return Ok(pods);
            }
        }
    }
}

/// What changes with a spec: which object, and how often it was changed.
fn generation_of(object: &impl Resource) -> (Option<String>, Option<i64>) {
    (object.meta().uid.clone(), object.meta().generation)
}
