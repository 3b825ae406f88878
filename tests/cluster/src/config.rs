//! Owns the configuration files of the components. All are JSON where the program reads YAML.

use serde_json::{Value, json};

use crate::Error;
use crate::components::{API_PORT, KUBELET_HEALTH_PORT, PROXY_HEALTH_PORT};
use crate::image::PAUSE;
use crate::network::{BRIDGE, CNI_NAME, DNS_PORT, GATEWAY, NODE, PODS, SERVICE_DNS};
use crate::packages::CNI_PLUGINS;
use crate::pki::pair;
use crate::place::{Place, private_folder, write_private};

/// The components that speak with the API server, named like their certificates.
const CLIENTS: [&str; 6] = ["admin", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns"];

/// Writes every file. `bridge_filter` tells whether iptables sees what crosses the bridge.
pub(crate) fn write(place: &Place, bridge_filter: bool) -> Result<(), Error> {
    let folder = place.config();
    let cni = folder.join("cni");
    private_folder(&cni)?;
    for client in CLIENTS {
        write_json(&folder.join(format!("{client}.kubeconfig")), &kubeconfig(place, client))?;
    }
    write_json(&folder.join("kubelet.json"), &kubelet(place))?;
    write_json(&folder.join("kube-proxy.json"), &proxy(place, bridge_filter))?;
    write_json(&folder.join("audit.json"), &audit())?;
    write_json(&cni.join("10-bridge.conflist"), &network_list(place))?;
    write_private(&folder.join("containerd.toml"), &containerd(place))?;
    write_private(&folder.join("Corefile"), &corefile(place))
}

fn write_json(path: &std::path::Path, value: &Value) -> Result<(), Error> {
    write_private(path, &format!("{value:#}\n"))
}

fn kubeconfig(place: &Place, client: &str) -> Value {
    let own = pair(place, client);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "local",
            "cluster": {
                "server": format!("https://{GATEWAY}:{API_PORT}"),
                "certificate-authority": pair(place, "ca").certificate,
            },
        }],
        "users": [{
            "name": client,
            "user": { "client-certificate": own.certificate, "client-key": own.key },
        }],
        "contexts": [{ "name": "local", "context": { "cluster": "local", "user": client } }],
        "current-context": "local",
    })
}

fn kubelet(place: &Place) -> Value {
    let server = pair(place, "kubelet-server");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": GATEWAY,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pair(place, "ca").certificate },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": server.certificate,
        "tlsPrivateKeyFile": server.key,
        "containerRuntimeEndpoint": format!("unix://{}", place.socket().display()),
        "clusterDNS": [SERVICE_DNS],
        "clusterDomain": "cluster.local",
        // The host's name servers are none of the pods' business.
        "resolvConf": "/dev/null",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "failCgroupV1": false,
        "failSwapOn": false,
        // Where /dev/kmsg and oom_score_adj are out of reach, this makes kubelet do without them.
        "featureGates": { "KubeletInUserNamespace": true },
        // A loaded image can't be pulled again, and a busy machine must not drive pods away.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "podLogsDir": place.logs().join("pods"),
        "volumePluginDir": place.data().join("volume-plugins"),
    })
}

fn proxy(place: &Place, bridge_filter: bool) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": { "kubeconfig": place.config().join("kube-proxy.kubeconfig") },
        "hostnameOverride": NODE,
        "clusterCIDR": PODS,
        "healthzBindAddress": format!("127.0.0.1:{PROXY_HEALTH_PORT}"),
        "metricsBindAddress": "127.0.0.1:10249",
        // The host's limits stay as they are.
        "conntrack": { "maxPerCore": 0, "min": 0 },
        // Without the filter the answer of a pod on the same bridge would bypass the translation.
        "iptables": { "masqueradeAll": !bridge_filter, "minSyncPeriod": "0s" },
    })
}

/// One line for each request, without bodies.
fn audit() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata" }],
    })
}

fn network_list(place: &Place) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": CNI_NAME,
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": PODS, "gateway": GATEWAY }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                    "dataDir": place.run().join("addresses"),
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
            // Docker and many firewalls forbid forwarding; this allows it for each pod.
            { "type": "firewall" },
        ],
    })
}

fn containerd(place: &Place) -> String {
    let root = place.data().join("containerd");
    let state = place.containerd_state();
    let socket = place.socket();
    let cni = place.config().join("cni");
    let opt = place.data().join("opt");
    let (root, state, socket) = (root.display(), state.display(), socket.display());
    let runc = place.run().join("runc");
    let (cni, opt, runc) = (cni.display(), opt.display(), runc.display());
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # An ordinary container of this machine may not lower its score.
  restrict_oom_score_adj = true
  # Below our own folder, where they are found again.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{runc}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
"#
    )
}

fn corefile(place: &Place) -> String {
    let kubeconfig = place.config().join("coredns.kubeconfig");
    format!(
        "cluster.local:{DNS_PORT} in-addr.arpa:{DNS_PORT} {{\n    \
             bind {GATEWAY}\n    \
             errors\n    \
             kubernetes cluster.local in-addr.arpa {{\n        \
                 kubeconfig {} local\n        \
                 ttl 5\n    \
             }}\n\
         }}\n\
         .:{DNS_PORT} {{\n    \
             bind {GATEWAY}\n    \
             template ANY ANY {{\n        \
                 rcode NXDOMAIN\n    \
             }}\n\
         }}\n",
        kubeconfig.display()
    )
}

/// What the API server must hold before the node can work: rights, and the Service of the name server.
///
/// The name server runs beside kubelet and not in a pod: it needs no image, and it is there before
/// the first pod. The Service reaches it on the node's address.
pub(crate) fn objects() -> Value {
    let name = json!({ "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } });
    let ports = |target: Value| {
        ["UDP", "TCP"].map(|protocol| {
            let mut port = json!({ "name": format!("dns-{}", protocol.to_lowercase()), "protocol": protocol });
            if let (Some(port), Some(target)) = (port.as_object_mut(), target.as_object()) {
                port.extend(target.clone());
            }
            port
        })
    };
    let role = |name: &str, role: &str, user: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        })
    };
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        role("apiserver-kubelet", "system:kubelet-api-admin", "kube-apiserver-kubelet-client"),
        role("system:coredns", "system:coredns", "system:coredns"),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": name,
            "spec": {
                "clusterIP": SERVICE_DNS,
                "ports": ports(json!({ "port": 53, "targetPort": DNS_PORT })),
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": "kube-dns" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [GATEWAY], "conditions": { "ready": true } }],
            "ports": ports(json!({ "port": DNS_PORT })),
        },
    ]})
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
