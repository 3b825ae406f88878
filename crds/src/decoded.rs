//! Objects as a watch brings them, each decoded by itself: one that cannot be decoded is nobody else's trouble.
//!
//! kube decodes a page of a list as a whole, and serde_json gives up at 128 levels where the API server takes 10,000:
//! one object of any tenant would keep the list from ever being complete. `kube::core::DeserializeGuard` reads through
//! serde_json's tree and gives up at the same depth. A raw value is skipped without recursion.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::value::RawValue;

use crate::{AgentFreeze, AgentRuntime, AgentRuntimeSpec};

/// The longest text of an error that is kept.
const LONGEST_ERROR: usize = 256;

/// An object of a watch.
#[derive(Clone, Debug)]
pub struct Decoded<K> {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The object, or what could be read of it; none if nothing but its metadata could.
    pub object: Option<K>,
    /// What could not be read, and why.
    pub error: Option<String>,
}

/// What is made of an object that cannot be decoded as a whole.
pub trait Salvage: DeserializeOwned {
    /// What can be read of it, if leaving out a part of it helps. `fields` are those of the object.
    #[must_use]
    fn salvage(fields: &Fields<'_>) -> Option<Self> {
        let _ = fields;
        None
    }
}

/// The fields of an object, each unread.
pub type Fields<'a> = BTreeMap<String, &'a RawValue>;

impl<K> Decoded<K> {
    /// One that was read as a whole.
    #[must_use]
    pub fn whole(object: K) -> Self
    where
        K: Resource,
    {
        Self { metadata: object.meta().clone(), object: Some(object), error: None }
    }
}

impl Decoded<AgentRuntime> {
    /// The object, with an empty spec if nothing but its metadata can be read.
    #[must_use]
    pub fn into_runtime(self) -> AgentRuntime {
        let name = self.metadata.name.clone().unwrap_or_default();
        let mut runtime = self.object.unwrap_or_else(|| AgentRuntime::new(&name, AgentRuntimeSpec::default()));
        runtime.metadata = self.metadata;
        runtime
    }
}

impl<'de, K: Salvage> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <Box<RawValue>>::deserialize(deserializer)?;
        decode(&raw).map_err(serde::de::Error::custom)
    }
}

/// An object without metadata is an error: nobody knows whose it is.
fn decode<K: Salvage>(raw: &RawValue) -> Result<Decoded<K>, serde_json::Error> {
    let whole = serde_json::from_str::<K>(raw.get()).and_then(|object| {
        let Bare { metadata } = serde_json::from_str(raw.get())?;
        Ok(Decoded { metadata, object: Some(object), error: None })
    });
    whole.or_else(|error| salvage(raw, &error))
}

/// Who owns which field is as deep as the object, and stands in its metadata: it is left out first.
fn salvage<K: Salvage>(raw: &RawValue, error: &serde_json::Error) -> Result<Decoded<K>, serde_json::Error> {
    let mut fields: Fields<'_> = serde_json::from_str(raw.get())?;
    let metadata = fields.get("metadata").copied().ok_or_else(|| serde::de::Error::missing_field("metadata"))?;
    let metadata = without(&serde_json::from_str(metadata.get())?, &["managedFields"])?;
    fields.insert("metadata".to_owned(), &metadata);
    let bare = serde_json::from_str(metadata.get())?;
    if let Some(object) = read(&fields) {
        return Ok(Decoded { metadata: bare, object: Some(object), error: None });
    }
    let mut error = error.to_string();
    error.truncate(error.floor_char_boundary(LONGEST_ERROR));
    Ok(Decoded { metadata: bare, object: K::salvage(&fields), error: Some(error) })
}

#[derive(Deserialize)]
struct Bare {
    metadata: ObjectMeta,
}

/// Without the parts that only pods are made from; else without its status, which the operator writes again.
impl Salvage for AgentRuntime {
    fn salvage(fields: &Fields<'_>) -> Option<Self> {
        let spec: Fields<'_> = serde_json::from_str(fields.get("spec")?.get()).ok()?;
        let spec = without(&spec, &["agent", "template"]).ok()?;
        let mut fields = fields.clone();
        fields.insert("spec".to_owned(), &spec);
        read(&fields).or_else(|| {
            fields.remove("status");
            read(&fields)
        })
    }
}

/// What it selects, in its state or else paused; one whose selectors cannot be read selects nothing that is known.
impl Salvage for AgentFreeze {
    fn salvage(fields: &Fields<'_>) -> Option<Self> {
        let spec: Fields<'_> = serde_json::from_str(fields.get("spec")?.get()).ok()?;
        let kept: Fields<'_> = spec
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "namespaceSelector" | "runtimeSelector" | "state"))
            .map(|(name, value)| (name.clone(), *value))
            .collect();
        [kept.clone(), kept.into_iter().filter(|(name, _)| name != "state").collect()].iter().find_map(|spec| {
            let spec = without(spec, &[]).ok()?;
            let mut whole =
                Fields::from([("metadata".to_owned(), *fields.get("metadata")?), ("spec".to_owned(), &*spec)]);
            whole.extend(fields.get("status").map(|status| ("status".to_owned(), *status)));
            read(&whole).or_else(|| {
                whole.remove("status");
                read(&whole)
            })
        })
    }
}

fn without(fields: &Fields<'_>, left_out: &[&str]) -> Result<Box<RawValue>, serde_json::Error> {
    let kept: BTreeMap<_, _> = fields.iter().filter(|(name, _)| !left_out.contains(&name.as_str())).collect();
    serde_json::value::to_raw_value(&kept)
}

fn read<K: DeserializeOwned>(fields: &Fields<'_>) -> Option<K> {
    serde_json::from_str(&serde_json::to_string(fields).ok()?).ok()
}

impl Salvage for k8s_openapi::api::apps::v1::Deployment {}
impl Salvage for k8s_openapi::api::core::v1::ConfigMap {}
impl Salvage for k8s_openapi::api::core::v1::Service {}
impl Salvage for k8s_openapi::api::core::v1::PersistentVolumeClaim {}
impl<K> Salvage for kube::core::PartialObjectMeta<K> {}

impl<K: Resource> Resource for Decoded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// JSON nested so deep, as text: serde_json writes none that it does not read.
    fn nested(depth: usize) -> String {
        format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))
    }

    /// An object as the API server gives it, with who owns its fields, which is as deep as they are.
    fn runtime(name: &str, spec: &str, status: &str) -> String {
        let owned = format!(r#"[{{"manager":"kubectl","operation":"Update","fieldsV1":{{"f:spec":{spec}}}}}]"#);
        let metadata = format!(r#"{{"name":"{name}","managedFields":{owned}}}"#);
        format!(r#"{{"metadata":{metadata},"spec":{spec},"status":{status}}}"#)
    }

    fn broken() -> impl Strategy<Value = (String, bool)> {
        let deep = (130..3000_usize).prop_map(nested);
        let spec = |field: &'static str| {
            move |value: String| (runtime("bad", &format!(r#"{{"{field}":{value}}}"#), "{}"), true)
        };
        prop_oneof![
            deep.clone().prop_map(spec("template")),
            deep.clone().prop_map(|deep| format!(r#"{{"inline":{deep}}}"#)).prop_map(spec("agent")),
            deep.prop_map(|deep| (runtime("bad", "{}", &format!(r#"{{"epoch":{deep}}}"#)), true)),
            Just((runtime("bad", "{}", r#"{"state":"dancing"}"#), true)),
            Just((runtime("bad", r#"{"desiredState":"dancing"}"#, "{}"), false)),
            Just((runtime("bad", r#"{"replicas":"many"}"#, "{}"), false)),
            Just((runtime("bad", "7", "{}"), false)),
        ]
    }

    proptest! {
        /// Whatever is wrong with one object, its neighbors in a list and a watch are read, and its own metadata is.
        #[test]
        fn object_that_cannot_be_decoded_leaves_its_neighbors((text, salvaged) in broken()) {
            let good = runtime("good", r#"{"desiredState":"paused"}"#, "{}");
            let list = format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{}},"items":[{good},{text},{good}]}}"#);
            let list: ObjectList<Decoded<AgentRuntime>> = serde_json::from_str(&list).unwrap();
            let names: Vec<_> = list.items.iter().map(|item| item.metadata.name.clone().unwrap()).collect();
            prop_assert_eq!(names, ["good", "bad", "good"]);
            let bad = &list.items[1];
            prop_assert!(bad.error.as_ref().is_some_and(|error| error.len() <= LONGEST_ERROR));
            prop_assert_eq!(bad.object.is_some(), salvaged);
            prop_assert!([0, 2].iter().all(|place| list.items[*place].error.is_none()));
            let event = format!(r#"{{"type":"MODIFIED","object":{text}}}"#);
            let event: WatchEvent<Decoded<AgentRuntime>> = serde_json::from_str(&event).unwrap();
            prop_assert!(matches!(event, WatchEvent::Modified(object) if object.metadata.name.as_deref() == Some("bad")));
        }
    }

    #[test]
    fn deep_template_leaves_the_demand_and_the_status_readable() {
        let spec = format!(r#"{{"desiredState":"paused","template":{}}}"#, nested(200));
        let raw = RawValue::from_string(runtime("deep", &spec, r#"{"epoch":7}"#)).unwrap();
        let decoded: Decoded<AgentRuntime> = decode(&raw).unwrap();
        let object = decoded.object.unwrap();
        assert_eq!(object.spec.desired_state, crate::DesiredState::Paused);
        assert_eq!((object.status.unwrap().epoch, object.spec.template), (7, None));
    }

    #[test]
    fn object_whose_field_owners_are_deep_is_whole_without_them() {
        let text = runtime("deep", &format!(r#"{{"unknown":{}}}"#, nested(500)), "{}");
        let decoded: Decoded<AgentRuntime> = decode(&RawValue::from_string(text).unwrap()).unwrap();
        assert_eq!((decoded.error, decoded.metadata.managed_fields), (None, None));
        assert!(decoded.object.is_some());
    }

    #[test]
    fn freeze_that_cannot_be_decoded_keeps_what_it_selects() {
        let read = |spec: serde_json::Value| {
            let text = json!({"metadata": {"name": "stop"}, "spec": spec}).to_string();
            let decoded: Decoded<AgentFreeze> = decode(&RawValue::from_string(text).unwrap()).unwrap();
            (decoded.object.map(|freeze| freeze.spec.state), decoded.error.is_some())
        };
        let held = |state| (Some(state), true);
        let all = json!({"namespaceSelector": {}, "state": "stopped", "deadlineSeconds": "soon"});
        assert_eq!(read(all), held(crate::HeldState::Stopped));
        assert_eq!(read(json!({"namespaceSelector": {}, "state": "asleep"})), held(crate::HeldState::Paused));
        assert_eq!(read(json!({"namespaceSelector": 7})), (None, true), "what it selects is not known");
    }
}
