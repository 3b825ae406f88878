//! Owns the installation of the chart into a cluster.

use cluster::Cluster;

use crate::images::Images;
use crate::workspace;

/// The release's name and namespace.
pub(crate) const RELEASE: &str = "agentruntime-operator";
pub(crate) const NAMESPACE: &str = "agentruntime-system";

/// The command that a user would type, with the images of this checkout.
pub(crate) fn install_arguments(images: &Images) -> Vec<String> {
    let tag = &images.tag;
    let words = ["upgrade", "--install", RELEASE, "charts/agentruntime-operator", "--namespace", NAMESPACE];
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    arguments.extend(["--create-namespace", "--wait", "--timeout", "120s"].map(str::to_owned));
    arguments.extend(["image", "runtimeImage", "dashboard.image"].map(|image| format!("--set={image}.tag={tag}")));
    arguments
}

/// Installs or upgrades the operator and waits until it is ready.
pub(crate) fn install(cluster: &Cluster, images: &Images) -> anyhow::Result<()> {
    workspace::read(cluster.helm().current_dir(workspace::root()).args(install_arguments(images))).map(drop)
}
