//! Applies, scales and deletes children: ours alone, each by itself.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::ResourceExt as _;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, ValidationDirective,
};
use serde_json::{Value, json};

use super::{Actor, Error, FIELD_MANAGER, within};
use crate::observe::child::{Whose, version, whose_is};
use crate::observe::memory::WrittenChild;
use crate::observe::{ChildKey, ChildKind};
use crate::plan::{Child, DeleteChild, MANAGED_BY, Scale};

/// Who set a label of the operator's on what it manages.
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

impl Actor {
    /// Applies a child. One that is to be made must not be there; one that is there must be the one that was seen.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when an object of the name belongs to somebody else, which then is left as it is; or what the
    /// API server answered.
    pub(crate) async fn apply(&self, namespace: &str, runtime_uid: &str, child: &Child) -> Result<WrittenChild, Error> {
        self.still_leads()?;
        let what = name_of(&child.key);
        let api = self.api(namespace, child.key.kind);
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.field_validation = Some(ValidationDirective::Strict);
        params.dry_run = child.trial;
        let mut manifest = child.manifest.clone();
        let found = match &child.uid {
            Some(uid) => Some(uid.clone()),
            None => self.find(&api, &what, runtime_uid, &child.key).await?,
        };
        if let Some(uid) = &found {
            // What others have written of it since is put back; what has taken its place is not touched.
            params.force = true;
            set_uid(&mut manifest, uid);
        }
        match within(&what, api.patch(&child.key.name, &params, &Patch::Apply(&manifest))).await {
            Ok(written) => Ok(described(&written)),
            // Somebody was faster, and owns fields of it.
            Err(Error::Conflict { .. }) if found.is_none() => {
                Err(Error::NameTaken { what, whose: "it was made by somebody else at the same time".to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// The UID of a child of ours that the watch does not show; none if there is no object of the name.
    async fn find(
        &self,
        api: &Api<DynamicObject>,
        what: &str,
        runtime_uid: &str,
        key: &ChildKey,
    ) -> Result<Option<String>, Error> {
        // By a list of one name, to which the role has the right anyway.
        let only = ListParams::default().fields(&format!("metadata.name={}", key.name));
        let found = within(what, api.list_metadata(&only)).await?;
        let Some(there) = found.items.into_iter().next() else { return Ok(None) };
        let whose = match whose_is(&there.metadata, runtime_uid) {
            Whose::Own => return Ok(there.uid()),
            // A claim that was kept is taken over by the next object of the name, if nobody else has had a hand in it.
            Whose::Nobody if key.kind == ChildKind::PersistentVolumeClaim && is_labeled(&there) => {
                return Ok(there.uid());
            }
            Whose::Nobody => "it has no controller".to_owned(),
            Whose::Other(whose) => whose,
        };
        Err(Error::NameTaken { what: what.to_owned(), whose })
    }

    /// Changes the number of pods and nothing else.
    ///
    /// # Errors
    /// What the API server answered; a conflict when another Deployment has taken the place of the one that was seen.
    pub(crate) async fn scale(&self, namespace: &str, scale: &Scale) -> Result<WrittenChild, Error> {
        self.still_leads()?;
        let name = &scale.deployment.name;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "metadata": { "uid": scale.uid }, "spec": { "replicas": scale.replicas } }));
        let api = self.api(namespace, scale.deployment.kind);
        within(&name_of(&scale.deployment), api.patch(name, &params, &patch)).await.map(|written| described(&written))
    }

    /// Deletes a child, and no other of its name.
    ///
    /// # Errors
    /// What the API server answered; that it is gone already is none.
    pub(crate) async fn delete(&self, namespace: &str, child: &DeleteChild) -> Result<(), Error> {
        self.still_leads()?;
        let this = Preconditions { uid: Some(child.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(this), ..DeleteParams::background() };
        match within(&name_of(&child.key), self.api(namespace, child.key.kind).delete(&child.key.name, &params)).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn api(&self, namespace: &str, kind: ChildKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
    }
}

fn name_of(key: &ChildKey) -> String {
    format!("{:?} {}", key.kind, key.name)
}

fn is_labeled(there: &impl kube::Resource) -> bool {
    there.labels().get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGED_BY)
}

fn set_uid(manifest: &mut serde_json::Map<String, Value>, uid: &str) {
    if let Some(Value::Object(metadata)) = manifest.get_mut("metadata") {
        metadata.insert("uid".to_owned(), json!(uid));
    }
}

fn described(written: &DynamicObject) -> WrittenChild {
    let replicas = written.data.pointer("/spec/replicas").and_then(Value::as_i64);
    WrittenChild {
        uid: written.uid(),
        version: version(written),
        resource_version: written.resource_version().unwrap_or_default(),
        replicas: replicas.and_then(|replicas| i32::try_from(replicas).ok()),
    }
}

fn resource(kind: ChildKind) -> ApiResource {
    match kind {
        ChildKind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
        ChildKind::Service => ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&()),
        ChildKind::ServiceAccount => ApiResource::erase::<k8s_openapi::api::core::v1::ServiceAccount>(&()),
        ChildKind::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
        ChildKind::PodDisruptionBudget => ApiResource::erase::<k8s_openapi::api::policy::v1::PodDisruptionBudget>(&()),
        ChildKind::NetworkPolicy => ApiResource::erase::<k8s_openapi::api::networking::v1::NetworkPolicy>(&()),
        ChildKind::Deployment => ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&()),
    }
}
