//! Records that cannot be read. Each is named once in the log and counted; everything else goes on without it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use super::Error;

/// As many are known by name. Of more, the ones that were found last are named again when they are found again.
const KNOWN: usize = 10_000;

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Unreadable {
    /// The execution.
    pub id: String,
    /// What is wrong with its record.
    pub reason: String,
}

/// The records that were found not to be readable since the process began.
#[derive(Debug, Default)]
pub(super) struct Unreadables {
    known: Mutex<BTreeMap<String, String>>,
}

impl Unreadables {
    /// Splits what was read of many records into those that can be used and those that cannot, which are noted.
    pub(super) fn sift<T>(&self, read: impl IntoIterator<Item = Result<T, Error>>) -> (Vec<T>, Vec<Unreadable>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for one in read {
            match one {
                Ok(one) => good.push(one),
                Err(error) => bad.extend(self.note(&error)),
            }
        }
        (good, bad)
    }

    /// Notes a record of which this error tells; none if it tells of anything else.
    pub(super) fn note(&self, error: &Error) -> Option<Unreadable> {
        let Error::Foreign { id, reason } = error else { return None };
        let mut known = self.known();
        if !known.contains_key(id) {
            tracing::error!(
                execution = id,
                reason,
                "a record cannot be read and is left out: cancel it, or run the version that wrote it"
            );
            if known.len() < KNOWN {
                known.insert(id.clone(), reason.clone());
            }
        }
        Some(Unreadable { id: id.clone(), reason: reason.clone() })
    }

    /// It is gone, or was written anew.
    pub(super) fn forget(&self, id: &str) {
        self.known().remove(id);
    }

    pub(super) fn count(&self) -> usize {
        self.known().len()
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.known().keys().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
