//! The API server of the measurement: its client, the definitions, and what it has counted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crds::AgentRuntime;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::counters::Writes;

/// An API server that is not ready by then never will be.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// An API server with the custom resources, of this process alone.
pub(crate) struct Plane {
    pub(crate) client: Client,
    /// The kubeconfig that contenders get.
    pub(crate) kubeconfig: PathBuf,
    _plane: cluster::Plane,
}

impl Plane {
    /// Starts it in an empty folder.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut plane = cluster::Plane::start(&folder.join("plane"), &cluster::Silent)?;
        let kubeconfig = folder.join("kubeconfig.json");
        std::fs::write(&kubeconfig, plane.kubeconfig().to_string())?;
        let begun = Instant::now();
        let client = loop {
            // It makes its own certificate as it starts.
            if let Ok(client) = connect(&plane).await {
                break client;
            }
            plane.alive()?;
            if begun.elapsed() > PATIENCE {
                bail!("the API server was not ready within {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        };
        define(&client).await.context("the custom resources cannot be defined")?;
        Ok(Self { client, kubeconfig, _plane: plane })
    }

    /// The writes that the API server has answered so far.
    pub(crate) async fn writes(&self) -> anyhow::Result<Writes> {
        let text = get(&self.client, "/metrics").await?;
        Ok(Writes::read(&text))
    }
}

async fn connect(plane: &cluster::Plane) -> anyhow::Result<Client> {
    if !plane.certificates().exists() {
        bail!("no certificate yet");
    }
    let kubeconfig: Kubeconfig = serde_json::from_value(plane.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    get(&client, "/readyz").await?;
    Ok(client)
}

async fn get(client: &Client, path: &str) -> anyhow::Result<String> {
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(client.request_text(request).await?)
}

async fn define(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crds::definitions() {
        api.create(&PostParams::default(), &definition).await?;
    }
    let runtimes: Api<AgentRuntime> = Api::all(client.clone());
    let begun = Instant::now();
    while let Err(error) = runtimes.list(&ListParams::default().limit(1)).await {
        if begun.elapsed() > PATIENCE {
            return Err(error.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
