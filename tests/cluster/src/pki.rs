//! Owns keys and certificates: an authority of the cluster's own and what it signs.

use std::path::{Path, PathBuf};

use crate::network::{GATEWAY, NODE, SERVICE_API};
use crate::packages::debian;
use crate::place::{Place, write_private};
use crate::{Error, tool};

/// The tool's own defaults would add extensions of an authority to every certificate.
const OPENSSL: &str = "[req]\ndistinguished_name = name\n[name]\n";

/// A certificate the authority signs.
struct Certificate {
    name: &'static str,
    /// User and groups, as Kubernetes reads them from the subject.
    subject: &'static str,
    usage: Usage,
}

enum Usage {
    Client,
    Server(String),
    /// For etcd, whose gateway is a client of its own server.
    Both(String),
}

/// Certificate, key and authority of one component.
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

/// Where the pair of this name is.
pub(crate) fn pair(place: &Place, name: &str) -> Pair {
    let folder = place.pki();
    Pair { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
}

/// Makes everything anew.
pub(crate) fn create(place: &Place) -> Result<(), Error> {
    let config = place.pki().join("openssl.cnf");
    write_private(&config, OPENSSL)?;
    authority(place, &config, "ca", "/CN=kubernetes")?;
    // Requests passed on by the API server are trusted by an authority of their own.
    authority(place, &config, "front-proxy-ca", "/CN=front-proxy")?;
    for certificate in certificates() {
        sign(place, &config, "ca", &certificate)?;
    }
    let proxy = Certificate { name: "front-proxy", subject: "/CN=front-proxy-client", usage: Usage::Client };
    sign(place, &config, "front-proxy-ca", &proxy)?;
    account_keys(&place.pki())
}

fn certificates() -> [Certificate; 11] {
    let api = format!(
        "IP:127.0.0.1,IP:{SERVICE_API},IP:{GATEWAY},DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    );
    let client = |name, subject| Certificate { name, subject, usage: Usage::Client };
    [
        Certificate { name: "apiserver", subject: "/CN=kube-apiserver", usage: Usage::Server(api) },
        Certificate { name: "etcd", subject: "/CN=etcd", usage: Usage::Both("IP:127.0.0.1".to_owned()) },
        Certificate {
            name: "kubelet-server",
            subject: "/O=system:nodes/CN=system:node:local",
            usage: Usage::Server(format!("IP:{GATEWAY},DNS:{NODE}")),
        },
        client("apiserver-etcd", "/CN=kube-apiserver"),
        client("apiserver-kubelet", "/CN=kube-apiserver-kubelet-client"),
        client("admin", "/O=system:masters/CN=admin"),
        client("kube-controller-manager", "/CN=system:kube-controller-manager"),
        client("kube-scheduler", "/CN=system:kube-scheduler"),
        client("kubelet", "/O=system:nodes/CN=system:node:local"),
        client("kube-proxy", "/CN=system:kube-proxy"),
        client("coredns", "/CN=system:coredns"),
    ]
}

fn authority(place: &Place, config: &Path, name: &str, subject: &str) -> Result<(), Error> {
    let extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"];
    request(place, config, name, subject, &[], &extensions.map(str::to_owned))
}

fn sign(place: &Place, config: &Path, authority: &str, certificate: &Certificate) -> Result<(), Error> {
    let signer = pair(place, authority);
    let signed_by = [
        "-CA".to_owned(),
        signer.certificate.display().to_string(),
        "-CAkey".to_owned(),
        signer.key.display().to_string(),
    ];
    request(place, config, certificate.name, certificate.subject, &signed_by, &extensions(&certificate.usage))
}

fn extensions(usage: &Usage) -> Vec<String> {
    let mut lines =
        vec!["basicConstraints=critical,CA:FALSE".to_owned(), "keyUsage=critical,digitalSignature".to_owned()];
    match usage {
        Usage::Client => lines.push("extendedKeyUsage=clientAuth".to_owned()),
        Usage::Server(names) => {
            lines.push("extendedKeyUsage=serverAuth".to_owned());
            lines.push(format!("subjectAltName={names}"));
        }
        Usage::Both(names) => {
            lines.push("extendedKeyUsage=serverAuth,clientAuth".to_owned());
            lines.push(format!("subjectAltName={names}"));
        }
    }
    lines
}

fn request(
    place: &Place,
    config: &Path,
    name: &str,
    subject: &str,
    signed_by: &[String],
    extensions: &[String],
) -> Result<(), Error> {
    let made = pair(place, name);
    let mut command = debian("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-sha256", "-days", "3650", "-subj", subject, "-config"]).arg(config);
    command.arg("-keyout").arg(made.key).arg("-out").arg(made.certificate).args(signed_by);
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    tool::run(&mut command, &format!("making the certificate {name}")).map(drop)
}

/// The key that signs the tokens of service accounts, and its public half.
pub(crate) fn account_keys(folder: &Path) -> Result<(), Error> {
    let key = folder.join("service-account.key");
    let curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-out"];
    let what = "making the keys of service accounts";
    tool::run(debian("openssl").args(["genpkey", "-algorithm", "EC"]).args(curve).arg(&key), what)?;
    let public = folder.join("service-account.pub");
    tool::run(debian("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(public), what).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_has_a_name_of_its_own() {
        let mut names: Vec<_> = certificates().iter().map(|certificate| certificate.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), certificates().len());
    }

    #[test]
    fn the_api_server_answers_to_all_its_names() {
        let [api, ..] = certificates();
        let lines = extensions(&api.usage).join("\n");
        for name in ["IP:127.0.0.1", "IP:10.96.0.1", "IP:10.244.0.1", "DNS:kubernetes.default.svc.cluster.local"] {
            assert!(lines.contains(name), "{name} in {lines}");
        }
        assert!(lines.contains("serverAuth") && !lines.contains("clientAuth"));
    }
}
