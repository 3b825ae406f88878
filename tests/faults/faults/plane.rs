//! Owns etcd and the API server: real ones, on loopback, without root, gone with the test.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;

/// The only client's token.
const TOKEN: &str = "faults";

pub(crate) struct Plane {
    pub(crate) api: Api,
    children: Vec<Child>,
    _folder: TempDir,
}

impl Plane {
    /// Starts both, and defines the custom resources.
    pub(crate) async fn start() -> Self {
        let programs = cluster::control_plane(&cluster::Silent).expect("the programs of the control plane");
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let (client, peer, secure) = (free_port(), free_port(), free_port());
        let etcd = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let mut children = vec![spawn(
            Command::new(programs.etcd).args([
                format!("--data-dir={}", place.join("etcd").display()),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
                "--unsafe-no-fsync".to_owned(),
            ]),
            &place.join("etcd.log"),
        )];
        let (key, public) = account_key();
        std::fs::write(place.join("accounts.key"), key).unwrap();
        std::fs::write(place.join("accounts.pub"), public).unwrap();
        std::fs::write(place.join("tokens.csv"), format!("{TOKEN},faults,faults,\"system:masters\"\n")).unwrap();
        let file = |name: &str| place.join(name).display().to_string();
        children.push(spawn(
            Command::new(programs.api_server).args([
                format!("--etcd-servers={etcd}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                format!("--secure-port={secure}"),
                format!("--cert-dir={}", file("certificates")),
                format!("--token-auth-file={}", file("tokens.csv")),
                "--authorization-mode=AlwaysAllow".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", file("accounts.pub")),
                format!("--service-account-signing-key-file={}", file("accounts.key")),
                "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
                // There is no controller that would make each namespace its account.
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                "--enable-priority-and-fairness=false".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                "--event-ttl=10m".to_owned(),
                "--profiling=false".to_owned(),
            ]),
            &place.join("apiserver.log"),
        ));
        let mut plane = Self { api: Api::unready(), children, _folder: folder };
        plane.api = plane.connect(secure).await;
        plane.define().await;
        plane
    }

    async fn connect(&mut self, port: u16) -> Api {
        let folder = self._folder.path().to_owned();
        let begun = Instant::now();
        loop {
            // It makes its own certificate as it starts.
            if let Ok(pem) = std::fs::read(folder.join("certificates/apiserver.crt")) {
                let api = Api::new(format!("https://127.0.0.1:{port}"), TOKEN, &pem);
                if api.call(Method::GET, "/readyz", None).await.0 == 200 {
                    return api;
                }
            }
            let ended = self.children.iter_mut().any(|child| child.try_wait().is_ok_and(|ended| ended.is_some()));
            let tail = || tail(&folder.join("apiserver.log"));
            assert!(!ended && begun.elapsed() < Duration::from_secs(60), "no API server:\n{}", tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn define(&self) {
        for definition in crds::definitions() {
            let body = serde_json::to_value(&definition).unwrap();
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            let (code, answer) = self.api.call(Method::POST, path, Some(&body)).await;
            assert_eq!(code, 201, "{answer}");
            let list = format!("/apis/{}/v1alpha1/{}", crds::GROUP, definition.spec.names.plural);
            while self.api.call(Method::GET, &list, None).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(command: &mut Command, log: &Path) -> Child {
    let output = File::create(log).unwrap();
    let errors = output.try_clone().unwrap();
    command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap()
}

/// A port that nobody has now. It is asked for again right away.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The key that signs accounts' tokens, and its public half. Nobody uses them; the API server wants them.
fn account_key() -> (String, String) {
    // SubjectPublicKeyInfo of a point on P-256, up to the point.
    const PREFIX: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).unwrap();
    let public = [&PREFIX, pair.public_key().as_ref()].concat();
    (pem("PRIVATE KEY", key.as_ref()), pem("PUBLIC KEY", &public))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The text at a path of a JSON object; empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a path of a JSON object; 0 when there is none.
pub(crate) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}
