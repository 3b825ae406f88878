//! The key Secret and the keys in memory: read, made and rotated by compare-and-swap, and lent for signing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use lifecycle::signature::{Seal, SigningKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Error, FIELD_MANAGER, within};
use crate::plan::{KeyFacts, KeyStep, Signer};

/// The Secret's name in the operator's namespace.
pub const SECRET_NAME: &str = "agentruntime-operator-keys";

/// Set on the Secret to ask for a rotation; the operator takes it off as it rotates.
pub const ROTATE_ANNOTATION: &str = "agents.hive.dev/rotate-keys";

/// Where the keys stand in the Secret.
const FIELD: &str = "keys.json";

/// A key that signs, and when it was made.
#[derive(Clone, Debug)]
struct Key {
    signing: Arc<SigningKey>,
    stored: Stored,
}

/// A key as the Secret holds it.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    created: Timestamp,
    /// PKCS#8 in DER, in base64.
    pkcs8: String,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").field("created", &self.created).finish_non_exhaustive()
    }
}

/// The keys in memory, newest first, and until when this replica may use them.
#[derive(Debug)]
pub struct Keyring {
    keys: watch::Sender<Vec<Key>>,
    lease_end: Arc<AtomicI64>,
}

impl Keyring {
    /// An empty one. `lease_end` is the end of the operator's lease in Unix seconds, moved on with each renewal.
    #[must_use]
    pub fn new(lease_end: Arc<AtomicI64>) -> Self {
        Self { keys: watch::Sender::new(Vec::new()), lease_end }
    }

    /// Waits until there is a key.
    pub async fn ready(&self) {
        let mut keys = self.keys.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = keys.wait_for(|keys| !keys.is_empty()).await;
    }

    /// The public halves, newest first.
    #[must_use]
    pub fn public(&self) -> Arc<[String]> {
        self.keys.borrow().iter().map(|key| key.signing.public().to_owned()).collect()
    }

    /// The key with this public half, if it is still there.
    #[must_use]
    pub fn find(&self, public: &str) -> Option<Arc<SigningKey>> {
        self.keys.borrow().iter().find(|key| key.signing.public() == public).map(|key| Arc::clone(&key.signing))
    }

    /// A seal for one pod, good from now to the end of the lease.
    #[must_use]
    pub fn seal<'a>(&self, key: &'a SigningKey, signer: &'a Signer, pod_uid: &'a str) -> Seal<'a> {
        let (now, lease_end) = (Timestamp::now().as_second(), self.lease_end.load(Ordering::Relaxed));
        Seal { key, pod_uid, runtime_uid: &signer.runtime_uid, epoch: signer.epoch, now, lease_end }
    }

    /// Takes over what the Secret holds; true if that is something new.
    pub fn adopt(&self, found: &Found) -> bool {
        let same = |a: &[Key], b: &[Key]| a.iter().map(|k| k.signing.public()).eq(b.iter().map(|k| k.signing.public()));
        self.keys.send_if_modified(|keys| {
            let changed = !found.keys.is_empty() && !same(keys, &found.keys);
            if changed {
                keys.clone_from(&found.keys);
            }
            changed
        })
    }
}

/// The Secret, as read.
#[derive(Clone, Debug, Default)]
pub struct Found {
    version: Option<String>,
    keys: Vec<Key>,
    /// Somebody asks for a rotation.
    pub asked: bool,
}

impl Found {
    /// The keys, for a plan.
    #[must_use]
    pub fn facts(&self) -> Vec<KeyFacts> {
        let facts = |key: &Key| KeyFacts { public: key.signing.public().to_owned(), created: key.stored.created };
        self.keys.iter().map(facts).collect()
    }
}

/// Reads and writes the Secret.
#[derive(Clone)]
pub struct KeySecret {
    api: Api<Secret>,
}

impl KeySecret {
    /// The Secret of the operator in its own namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }

    /// Reads the Secret. One that cannot be made sense of counts as without keys, and is written anew.
    ///
    /// # Errors
    /// The API server refused or was out of reach.
    pub async fn read(&self) -> Result<Found, Error> {
        let secret = within(&format!("Secret {SECRET_NAME}"), self.api.get_opt(SECRET_NAME)).await?;
        Ok(secret.map(|secret| found(&secret)).unwrap_or_default())
    }

    /// Carries out a step, from what was read. Of two replicas that write at once, one gets a conflict.
    ///
    /// # Errors
    /// A conflict when somebody else wrote since; or the API server refused or was out of reach.
    pub async fn write(&self, found: Found, step: KeyStep) -> Result<Found, Error> {
        let what = format!("Secret {SECRET_NAME}");
        let mut keys = found.keys;
        match step {
            KeyStep::Keep => return Ok(Found { keys, ..found }),
            KeyStep::Create | KeyStep::Rotate => keys.insert(0, new_key(&what)?),
            KeyStep::Retire => keys.truncate(1),
        }
        // A rotation that is asked for while one is under way waits for its end.
        let asked = found.asked && step == KeyStep::Retire;
        let secret = secret(&keys, found.version.clone(), asked).map_err(|source| Error::Manifest { what, source })?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let what = format!("Secret {SECRET_NAME}");
        let written = if found.version.is_some() {
            within(&what, self.api.replace(SECRET_NAME, &params, &secret)).await?
        } else {
            within(&what, self.api.create(&params, &secret)).await?
        };
        tracing::info!(?step, keys = keys.len(), "the key Secret was written");
        Ok(self::found(&written))
    }
}

fn new_key(what: &str) -> Result<Key, Error> {
    let failed = |source| Error::Key { what: what.to_owned(), source };
    let der = SigningKey::generate().map_err(failed)?;
    let stored = Stored { created: Timestamp::now(), pkcs8: BASE64.encode(&der) };
    Ok(Key { signing: Arc::new(SigningKey::from_pkcs8(&der).map_err(failed)?), stored })
}

fn secret(keys: &[Key], version: Option<String>, asked: bool) -> Result<Secret, serde_json::Error> {
    let stored: Vec<&Stored> = keys.iter().map(|key| &key.stored).collect();
    let labels = [("app.kubernetes.io/name", "agentruntime-operator"), ("app.kubernetes.io/component", "keys")];
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(SECRET_NAME.to_owned()),
            resource_version: version,
            labels: Some(owned(&labels)),
            annotations: asked.then(|| owned(&[(ROTATE_ANNOTATION, "after the present rotation")])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(FIELD.to_owned(), ByteString(serde_json::to_vec(&stored)?))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}

fn found(secret: &Secret) -> Found {
    let stored = secret.data.as_ref().and_then(|data| data.get(FIELD));
    let stored: Vec<Stored> = stored.and_then(|bytes| serde_json::from_slice(&bytes.0).ok()).unwrap_or_default();
    let keys: Option<Vec<Key>> = stored.into_iter().map(read_key).collect();
    if keys.as_ref().is_none_or(Vec::is_empty) {
        tracing::error!("the Secret {SECRET_NAME} holds no keys that can be read: it is written anew");
    }
    Found {
        version: secret.resource_version(),
        keys: keys.unwrap_or_default(),
        asked: secret.annotations().contains_key(ROTATE_ANNOTATION),
    }
}

fn read_key(stored: Stored) -> Option<Key> {
    let der = BASE64.decode(&stored.pkcs8).ok()?;
    Some(Key { signing: Arc::new(SigningKey::from_pkcs8(&der).ok()?), stored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_the_secret_is_read_back_newest_first() {
        let keys = vec![new_key("test").unwrap(), new_key("test").unwrap()];
        let back = found(&secret(&keys, Some("7".to_owned()), true).unwrap());
        let publics = |keys: &[Key]| keys.iter().map(|key| key.signing.public().to_owned()).collect::<Vec<_>>();
        assert_eq!((publics(&back.keys), back.asked, back.version.as_deref()), (publics(&keys), true, Some("7")));
        let ring = Keyring::new(Arc::default());
        assert!(ring.adopt(&back) && !ring.adopt(&back), "the second time it is nothing new");
        assert_eq!(ring.public().to_vec(), publics(&keys));
        assert!(!ring.adopt(&Found::default()), "a lost Secret does not take the keys in use away");
    }

    #[test]
    fn a_secret_that_somebody_broke_counts_as_empty() {
        let mut broken = secret(&[new_key("test").unwrap()], None, false).unwrap();
        for bytes in [&b"x"[..], b"[]", br#"[{"created":"2026-01-01T00:00:00Z","pkcs8":"AA=="}]"#] {
            broken.data = Some(BTreeMap::from([(FIELD.to_owned(), ByteString(bytes.to_vec()))]));
            assert!(found(&broken).keys.is_empty());
        }
    }

    #[test]
    fn neither_a_key_nor_its_bytes_are_ever_logged() {
        let key = new_key("test").unwrap();
        let bytes = key.stored.pkcs8.clone();
        assert!(!format!("{key:?}").contains(&bytes));
        assert!(!format!("{:?}", Found { keys: vec![key], ..Found::default() }).contains(&bytes));
    }
}
