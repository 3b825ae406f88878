//! Owns an API server and its etcd without any node: on loopback, without root, gone with the value.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::progress::Progress;
use crate::{Error, pki, place, tool, toolchain};

/// The only client's token.
const TOKEN: &str = "plane";

/// etcd and an API server that trusts one token with everything.
#[derive(Debug)]
pub struct Plane {
    url: String,
    folder: PathBuf,
    children: Vec<(&'static str, Child)>,
}

impl Plane {
    /// Starts both over an empty folder, after building them if need be. The API server is ready when its `/readyz`
    /// says so, some seconds later.
    ///
    /// # Errors
    /// A program cannot be built or started, or openssl, which makes a key, is missing.
    pub fn start(folder: &Path, progress: &dyn Progress) -> Result<Self, Error> {
        let programs = toolchain::control_plane(progress)?;
        place::private_folder(folder)?;
        pki::account_keys(folder)?;
        place::write_private(&folder.join("tokens.csv"), &format!("{TOKEN},plane,plane,\"system:masters\"\n"))?;
        let (client, peer, secure) = (free_port()?, free_port()?, free_port()?);
        let etcd = format!("http://127.0.0.1:{client}");
        let mut plane =
            Self { url: format!("https://127.0.0.1:{secure}"), folder: folder.to_owned(), children: Vec::new() };
        plane.spawn("etcd", Command::new(programs.etcd).args(store_flags(folder, &etcd, peer)))?;
        plane.spawn("apiserver", Command::new(programs.api_server).args(server_flags(folder, &etcd, secure)))?;
        Ok(plane)
    }

    /// Where the API server listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token that may do everything.
    #[must_use]
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// The API server's certificate and what signed it. It makes them itself as it starts.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certificates/apiserver.crt")
    }

    /// A kubeconfig of the client that may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "plane",
            "clusters": [{ "name": "plane",
                "cluster": { "server": self.url, "certificate-authority": self.certificates() } }],
            "users": [{ "name": "plane", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "plane", "context": { "cluster": "plane", "user": "plane" } }],
        })
    }

    /// Says what a program that has ended said last.
    ///
    /// # Errors
    /// One of the two has ended.
    pub fn alive(&mut self) -> Result<(), Error> {
        for (name, child) in &mut self.children {
            if child.try_wait().map_err(Error::os(*name))?.is_some() {
                let log = self.folder.join(format!("{name}.log"));
                return Err(Error::Died { component: (*name).to_owned(), tail: tool::quote(&log), log });
            }
        }
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, command: &mut Command) -> Result<(), Error> {
        let log = self.folder.join(format!("{name}.log"));
        let output = File::create(&log).map_err(Error::io("create", &log))?;
        let errors = output.try_clone().map_err(Error::io("open", &log))?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        self.children.push((name, child.map_err(|source| Error::Spawn { program: name.to_owned(), source })?));
        Ok(())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        for (_, child) in self.children.iter_mut().rev() {
            // Nothing of it is needed any more, so neither is asked to end in good order.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn store_flags(folder: &Path, url: &str, peer: u16) -> [String; 7] {
    let peers = format!("http://127.0.0.1:{peer}");
    [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn server_flags(folder: &Path, etcd: &str, port: u16) -> [String; 16] {
    let file = |name: &str| folder.join(name).display().to_string();
    [
        format!("--etcd-servers={etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("certificates")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=AlwaysAllow".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("service-account.pub")),
        format!("--service-account-signing-key-file={}", file("service-account.key")),
        "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
        // There is no controller that would make each namespace its account.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--event-ttl=10m".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

/// A port that nobody has now. It is asked for again right away.
fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(Error::os("looking for a free port"))
}
