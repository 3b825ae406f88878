//! A one-node Kubernetes on a bare Debian machine, without Docker, for tests and demonstrations.
//!
//! [`Cluster::up`] starts etcd, the control plane, containerd, kubelet, kube-proxy and CoreDNS as
//! processes of this machine, with keys, configuration and data in one folder. [`Cluster::down`]
//! removes all of it. The programs are built from pinned Go modules and cached outside the checkout.
//! Instead of this, kind or a cluster that is there can be used: see [`Target`].

mod cluster;
mod components;
mod config;
mod containers;
mod error;
mod health;
mod host;
mod image;
mod iptables;
mod mounts;
mod network;
mod packages;
mod pki;
mod place;
mod plane;
mod preflight;
mod process;
mod program;
mod progress;
mod target;
mod tool;
mod toolchain;

pub use cluster::{Cluster, ComponentStatus, Signal, Status, host_programs};
pub use error::Error;
pub use place::DIR_VARIABLE;
pub use plane::Plane;
pub use preflight::free;
pub use progress::{Event, Progress, Silent};
pub use target::Target;
pub use tool::{quote, tail};
pub use toolchain::{
    ControlPlane, control_plane, control_plane_is_built, helm, kube_score, kubeconform, kustomize_controller,
    metrics_server, program_of, promql, source_of,
};
