//! The operator: observe, plan, act.
//!
//! `observe` holds what was seen, `plan` every rule as a pure function, `act` the writes and the calls to pods;
//! `watches` and `fleet` feed what is observed, `queue` says who is looked at next, `context` takes one object through the
//! three, `controller` wires it all, `lease` lets one replica act at a time.

pub mod act;
mod census;
pub mod config;
mod context;
pub mod controller;
mod fleet;
pub mod health;
mod lanes;
pub mod lease;
mod merged;
pub mod observe;
pub mod plan;
pub mod queue;
mod runtimes;
pub mod selftest;
pub mod telemetry;
mod text;
pub mod trace;
mod watches;

use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::telemetry::Telemetry;

/// Why the operator ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no cluster to talk to.
    #[error("no way to the API server: {0}. Run in a pod, or set KUBECONFIG")]
    Client(#[from] kube::Error),
    /// The settings of the cluster could not be read.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(#[from] kube::config::InferConfigError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}. Set --listen to a free address")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another replica holds the lease now.
    #[error("the lease was lost: another replica leads now, and this one starts over")]
    LeaseLost,
    /// The self-test fails.
    #[error(transparent)]
    SelfTest(#[from] selftest::Error),
}

/// Serves health and metrics at once, waits for the CRD and the lease, then reconciles until `stop`.
///
/// # Errors
/// See [`Error`].
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let config = config.cleaned();
    let mut kube_config = kube::Config::infer().await?;
    // A command in a pod may be silent for as long as its hook has time.
    let exec = config.exec_hooks.then(|| Client::try_from(kube_config.clone())).transpose()?;
    kube_config.read_timeout = Some(config.api_silence());
    let client = Client::try_from(kube_config)?;
    let telemetry = Arc::new(Telemetry::default());
    let server = health::serve(config.listen, Arc::clone(&telemetry), stop.clone()).await?;
    let outcome = lead(&config, (client, exec), &telemetry, &stop).await;
    stop.cancel();
    if let Err(error) = server.await {
        tracing::warn!(%error, "the health server ended badly");
    }
    outcome
}

/// Walks a runtime of its own through its states, with the operator that is installed.
///
/// # Errors
/// There is no cluster, or a step fails.
pub async fn self_test(namespace: &str, test: &selftest::SelfTest) -> Result<(), Error> {
    let client = Client::try_from(kube::Config::infer().await?)?;
    selftest::run(client, namespace, test).await.map_err(Error::from)
}

async fn lead(
    config: &Config,
    (client, exec): (Client, Option<Client>),
    telemetry: &Arc<Telemetry>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let lease = lease::Elector::new(client.clone(), config);
    let elected = stop.run_until_cancelled(async {
        controller::wait_for_crd(&client, config.watch_namespaces.first()).await;
        telemetry.set_ready();
        lease.acquire().await;
    });
    if elected.await.is_none() {
        return Ok(());
    }
    telemetry.set_leading(true);
    let keyring = Arc::new(act::keys::Keyring::new(lease.end()));
    let clients = (client, exec);
    let reconciling = controller::run(config, clients, lease.tenure(), keyring, Arc::clone(telemetry), stop.clone());
    let outcome = tokio::select! {
        () = reconciling => Ok(()),
        () = lease.keep() => Err(Error::LeaseLost),
    };
    telemetry.set_leading(false);
    if outcome.is_ok() {
        lease.release().await;
    }
    outcome
}
