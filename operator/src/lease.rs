//! The Lease: one replica acts at a time. It makes the operator efficient; the fence makes it correct.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};

use crate::config::Config;

/// The Lease's name in the operator's namespace.
pub const LEASE_NAME: &str = "agentruntime-operator";

/// What a replica does about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is ours: write a new renewal time.
    Renew,
    /// It is free or was not renewed in time: write our name.
    Take,
    /// Another replica holds it: look again after this long.
    Wait(Duration),
}

/// Decides from what was read. `unchanged` is how long this process has seen the same version: the
/// holder's clock is never compared with ours.
#[must_use]
pub fn decide(holder: Option<&str>, me: &str, unchanged: Duration, lease: Duration) -> Step {
    match holder {
        None | Some("") => Step::Take,
        Some(holder) if holder == me => Step::Renew,
        Some(_) if unchanged >= lease => Step::Take,
        Some(_) => Step::Wait((lease - unchanged).min(lease / 5)),
    }
}

/// How long this replica may act by the Lease as it was renewed last, by a clock that nobody sets.
#[derive(Clone, Debug, Default)]
pub struct Tenure {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Tenure {
    /// Whether no other replica can have taken the Lease. A process that was stopped for longer finds out here before
    /// it acts on what it saw before; one that took no Lease has nobody beside it.
    #[must_use]
    pub fn lasts(&self) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() < until)
    }

    /// One that has an end.
    #[cfg(test)]
    pub(crate) fn until(end: Instant) -> Self {
        Self { until: Arc::new(Mutex::new(Some(end))) }
    }

    fn extend(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// Takes and keeps the Lease.
pub struct Elector {
    api: Api<Lease>,
    me: String,
    lease: Duration,
    /// The end of the lease that was written last, in Unix seconds.
    end: Arc<AtomicI64>,
    tenure: Tenure,
}

impl Elector {
    /// An elector for this replica.
    #[must_use]
    pub fn new(client: Client, config: &Config) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { api, me: config.identity.clone(), lease: config.lease(), end: Arc::default(), tenure: Tenure::default() }
    }

    /// The end of the lease in Unix seconds, moved on with each renewal: what is signed must not outlive it.
    #[must_use]
    pub fn end(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.end)
    }

    /// For those who write what no compare-and-swap guards.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Returns when the Lease is ours.
    pub async fn acquire(&self) {
        let mut version = None;
        let mut since = Instant::now();
        loop {
            let read = self.read().await;
            let pause = match read {
                Ok(current) => {
                    let seen = current.as_ref().and_then(ResourceExt::resource_version);
                    if seen != version {
                        version = seen;
                        since = Instant::now();
                    }
                    match decide(holder(current.as_ref()), &self.me, since.elapsed(), self.lease) {
                        Step::Wait(pause) => pause,
                        Step::Renew | Step::Take => match self.write(current, &self.me).await {
                            Ok(()) => {
                                tracing::info!(identity = %self.me, "leading");
                                return;
                            }
                            Err(error) => {
                                tracing::warn!(%error, "the Lease could not be taken");
                                self.lease / 5
                            }
                        },
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the Lease could not be read");
                    self.lease / 5
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews at a third of the lease. Returns when it is lost, or could not be renewed for two thirds:
    /// before another replica may take it.
    pub async fn keep(&self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.lease * 2 / 3 {
            tokio::time::sleep(self.lease / 3 / if renewed.elapsed() > self.lease / 3 { 4 } else { 1 }).await;
            let begun = Instant::now();
            match self.renew().await {
                Ok(true) => renewed = begun,
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "the Lease could not be renewed"),
            }
        }
    }

    /// Gives the Lease back, so that another replica need not wait for its end.
    pub async fn release(&self) {
        let outcome = match self.read().await {
            Ok(Some(current)) if holder(Some(&current)) == Some(self.me.as_str()) => {
                self.write(Some(current), "").await
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the Lease could not be given back and runs out by itself");
        }
    }

    async fn renew(&self) -> Result<bool, kube::Error> {
        let current = self.read().await?;
        if holder(current.as_ref()) != Some(self.me.as_str()) {
            return Ok(false);
        }
        self.write(current, &self.me).await.map(|()| true)
    }

    async fn read(&self) -> Result<Option<Lease>, kube::Error> {
        self.bounded(self.api.get_opt(LEASE_NAME)).await
    }

    /// The version that was read goes with the write: of two replicas that take it at once, one fails.
    async fn write(&self, current: Option<Lease>, identity: &str) -> Result<(), kube::Error> {
        let (begun, until) = (Timestamp::now(), Instant::now() + self.lease);
        let now = Some(MicroTime(begun));
        let before = current.as_ref().and_then(|lease| lease.spec.as_ref());
        let changes = before.and_then(|spec| spec.holder_identity.as_deref()) != Some(identity);
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0) + i32::from(changes);
        let spec = LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: i32::try_from(self.lease.as_secs()).ok(),
            acquire_time: if changes { now.clone() } else { before.and_then(|spec| spec.acquire_time.clone()) },
            renew_time: now,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let params = PostParams::default();
        let metadata = ObjectMeta {
            name: Some(LEASE_NAME.to_owned()),
            resource_version: current.as_ref().and_then(ResourceExt::resource_version),
            ..ObjectMeta::default()
        };
        let exists = current.is_some();
        let lease = Lease { metadata, spec: Some(spec) };
        if exists {
            self.bounded(self.api.replace(LEASE_NAME, &params, &lease)).await?;
        } else {
            self.bounded(self.api.create(&params, &lease)).await?;
        }
        let seconds = if identity == self.me { i64::try_from(self.lease.as_secs()).unwrap_or(0) } else { 0 };
        self.end.store(begun.as_second().saturating_add(seconds), Ordering::Relaxed);
        self.tenure.extend(if identity == self.me { until } else { Instant::now() });
        Ok(())
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
        let late = |_| kube::Error::Service(format!("nothing within {} s", (self.lease / 5).as_secs_f32()).into());
        tokio::time::timeout(self.lease / 5, call).await.map_err(late)?
    }
}

fn holder(lease: Option<&Lease>) -> Option<&str> {
    lease?.spec.as_ref()?.holder_identity.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    #[test]
    fn a_free_lease_is_taken_and_our_own_renewed() {
        assert_eq!(decide(None, "a", Duration::ZERO, LEASE), Step::Take);
        assert_eq!(decide(Some(""), "a", Duration::ZERO, LEASE), Step::Take);
        assert_eq!(decide(Some("a"), "a", Duration::ZERO, LEASE), Step::Renew);
    }

    #[test]
    fn a_tenure_ends_with_the_lease_and_goes_on_with_its_renewal() {
        let tenure = Tenure::default();
        assert!(tenure.lasts(), "nobody else can have a Lease that there is not");
        tenure.extend(Instant::now());
        assert!(!tenure.lasts());
        tenure.extend(Instant::now() + LEASE);
        assert!(tenure.clone().lasts());
    }

    #[test]
    fn another_holder_is_left_alone_until_it_was_silent_for_a_whole_lease() {
        assert_eq!(decide(Some("b"), "a", Duration::from_secs(14), LEASE), Step::Wait(Duration::from_secs(1)));
        assert_eq!(decide(Some("b"), "a", LEASE, LEASE), Step::Take);
    }
}
