//! The barrier: a list of pods that no cache may answer, before it is said that nothing runs.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource as _;
use kube::api::ListParams;

use super::metadata::{self, Found};
use super::{Actor, Error, within};
use crate::observe::Barrier;
use crate::observe::index::{Owner, RUNTIME_LABEL};
use crate::plan::{managed, selector};

/// Pods in one page of a list. The API server makes a page as a whole, and looks for a page that is not the first
/// through all pods of the namespace, not always from its cache: few objects are to need a second one.
const PAGE: u32 = 5000;

impl Actor {
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
        let path = Pod::url_path(&(), Some(namespace));
        let mut pods: HashMap<String, Vec<String>> = HashMap::new();
        let found = |mut pod: Found| {
            pods.entry(pod.labels.remove(RUNTIME_LABEL).unwrap_or_default()).or_default().push(pod.uid);
        };
        self.list("the barrier LIST of pods", &path, &selector(runtimes), found).await?;
        Ok(pods)
    }

    /// The UIDs of all pods that this operator has made, in every namespace, with their owners.
    ///
    /// # Errors
    /// The API server refused or was out of reach.
    pub(crate) async fn list_all_pods(&self) -> Result<Vec<(Owner, String)>, Error> {
        let mut pods = Vec::new();
        let found = |mut pod: Found| {
            let name = pod.labels.remove(RUNTIME_LABEL).unwrap_or_default();
            pods.push((Owner { namespace: pod.namespace, name }, pod.uid));
        };
        self.list("the list of all pods", &Pod::url_path(&(), None), &managed(), found).await?;
        Ok(pods)
    }

    async fn list(&self, what: &str, path: &str, labels: &str, mut found: impl FnMut(Found)) -> Result<(), Error> {
        let mut params = ListParams::default().labels(labels).limit(PAGE);
        loop {
            params.continue_token = within(what, metadata::list(&self.client, path, &params, &mut found)).await?;
            if params.continue_token.is_none() {
                return Ok(());
            }
        }
    }
}
