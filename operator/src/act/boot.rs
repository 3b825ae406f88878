//! Writes the boot ConfigMap, whatever has become of the one that was there.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions};
use serde_json::Value;

use super::{Actor, Error, posted, within};
use crate::observe::BootConfigMap;
use crate::observe::child::{Whose, whose_is};
use crate::plan::BootWrite;

/// What has become of a compare-and-swap of the boot ConfigMap.
#[derive(Debug)]
pub enum Swapped {
    /// It stands in the store as it was to be written.
    Written(BootConfigMap),
    /// Another version of it was there, which the watch has not shown.
    Found(BootConfigMap),
}

impl Actor {
    /// Creates or replaces it by compare-and-swap, and gives what stands in the store then.
    ///
    /// One of ours that the watch does not show, as it lost its labels, is found by its name and mended. One that was made
    /// immutable is made again. What is not ours is left alone, whatever it says.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when it belongs to somebody else, a conflict when somebody else wrote first, or what the API
    /// server answered.
    pub(super) async fn write_boot(
        &self,
        namespace: &str,
        runtime_uid: &str,
        boot: &BootWrite,
    ) -> Result<Swapped, Error> {
        let what = format!("ConfigMap {}", boot.name);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let mut object: ConfigMap = serde_json::from_value(Value::Object(boot.manifest.clone()))
            .map_err(|source| Error::Manifest { what: what.clone(), source })?;
        let tried = match &boot.replaces {
            Some(_) => within(&what, api.replace(&boot.name, &posted(), &object)).await,
            None => within(&what, api.create(&posted(), &object)).await,
        };
        let written = match tried {
            Err(Error::Conflict { .. }) if boot.replaces.is_none() => {
                let Some(there) = within(&what, api.get_opt(&boot.name)).await? else {
                    return Err(Error::Conflict { what });
                };
                must_be_ours(&what, &there, runtime_uid)?;
                object.metadata.resource_version = there.resource_version();
                match within(&what, api.replace(&boot.name, &posted(), &object)).await {
                    Err(error) if is_immutable(&error) => self.make_anew(&api, &what, &there, object).await?,
                    written => written?,
                }
            }
            Err(Error::Conflict { .. }) => {
                let Some(there) = within(&what, api.get_opt(&boot.name)).await? else {
                    return Err(Error::Conflict { what });
                };
                must_be_ours(&what, &there, runtime_uid)?;
                if there.resource_version() == boot.replaces {
                    // It is as it was seen, and the API server refuses all the same.
                    return Err(Error::Conflict { what });
                }
                return Ok(Swapped::Found(BootConfigMap::read(&there)));
            }
            Err(error) if is_immutable(&error) => {
                let Some(there) = within(&what, api.get_opt(&boot.name)).await? else {
                    return Err(Error::Conflict { what });
                };
                must_be_ours(&what, &there, runtime_uid)?;
                self.make_anew(&api, &what, &there, object).await?
            }
            written => written?,
        };
        let resource_version = written.resource_version().unwrap_or_default();
        let (file, hooks) = (Some(boot.file.clone()), boot.hooks.clone());
        Ok(Swapped::Written(BootConfigMap { resource_version, file, hooks }))
    }

    /// Puts one in the place of one that cannot be changed. Pods keep what they have mounted meanwhile.
    async fn make_anew(
        &self,
        api: &Api<ConfigMap>,
        what: &str,
        there: &ConfigMap,
        mut object: ConfigMap,
    ) -> Result<ConfigMap, Error> {
        let name = there.name_any();
        let this = Preconditions { uid: there.uid(), resource_version: there.resource_version() };
        let params = DeleteParams { preconditions: Some(this), ..DeleteParams::background() };
        within(what, api.delete(&name, &params)).await?;
        object.metadata.resource_version = None;
        within(what, api.create(&posted(), &object)).await
    }
}

fn must_be_ours(what: &str, there: &ConfigMap, runtime_uid: &str) -> Result<(), Error> {
    let whose = match whose_is(&there.metadata, runtime_uid) {
        Whose::Own => return Ok(()),
        Whose::Nobody => "it has no controller, so it is not the operator's; delete or rename it".to_owned(),
        Whose::Other(whose) => format!("{whose}; delete or rename it"),
    };
    Err(Error::NameTaken { what: what.to_owned(), whose })
}

fn is_immutable(error: &Error) -> bool {
    matches!(error, Error::Api { source: kube::Error::Api(status), .. }
        if status.code == 422 && status.message.contains("immutable"))
}
