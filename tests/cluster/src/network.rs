//! Owns the addresses, the bridge, and what the kernel must be told before pods can talk.

use std::fs;
use std::path::Path;

use crate::packages::debian;
use crate::place::{Place, remove, write_private};
use crate::{Error, iptables, tool};

/// The bridge that joins the pods.
pub(crate) const BRIDGE: &str = "cni0";
/// The pods' network.
pub(crate) const PODS: &str = "10.244.0.0/24";
/// The node's address: on the bridge, so that pods and host both reach it.
pub(crate) const GATEWAY: &str = "10.244.0.1";
/// The network of the Services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The Service of the API server.
pub(crate) const SERVICE_API: &str = "10.96.0.1";
/// The Service of the name server.
pub(crate) const SERVICE_DNS: &str = "10.96.0.10";
/// Where the name server listens; port 53 is often the host's own.
pub(crate) const DNS_PORT: u16 = 10053;
/// The node's name.
pub(crate) const NODE: &str = "local";
/// The name of the CNI network, which marks what its plugins leave behind.
pub(crate) const CNI_NAME: &str = "agentruntime";

/// A fixed address: a bridge otherwise takes that of its first port, and pods forget the way out.
const BRIDGE_ADDRESS: &str = "0a:58:0a:f4:00:01";

/// Where libcni keeps what each plugin answered; the folder can't be configured.
const CNI_RESULTS: &str = "/var/lib/cni/results";

const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Whether the bridge's name is free. To be asked once our own leftovers are gone.
pub(crate) fn check() -> Result<(), Error> {
    if bridge_exists() { Err(Error::BridgeTaken(BRIDGE)) } else { Ok(()) }
}

/// Makes the bridge and sets the kernel up. Tells whether iptables sees what crosses the bridge.
pub(crate) fn create(place: &Place) -> Result<bool, Error> {
    for module in ["overlay", "br_netfilter"] {
        // Built into some kernels, and then there is nothing to load.
        tool::attempt(debian("modprobe").arg(module));
    }
    set("/proc/sys/net/ipv4/ip_forward", 1)?;
    raise("/proc/sys/fs/inotify/max_user_instances", 8192)?;
    raise("/proc/sys/fs/inotify/max_user_watches", 524_288)?;
    let filter = Path::new(BRIDGE_FILTER).exists();
    if filter {
        set(BRIDGE_FILTER, 1)?;
    }
    write_private(&place.network_mark(), BRIDGE)?;
    let address = format!("{GATEWAY}/24");
    for arguments in [
        ["link", "add", BRIDGE, "address", BRIDGE_ADDRESS, "type", "bridge"].as_slice(),
        &["address", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
        // A machine without a default route would find no way to a Service.
        &["route", "add", SERVICES, "dev", BRIDGE],
    ] {
        tool::run(debian("ip").args(arguments), "making the bridge")?;
    }
    Ok(filter)
}

/// Removes bridge, pods' interfaces, rules and leases, if they are ours.
pub(crate) fn remove_all(place: &Place) -> Result<(), Error> {
    if !place.network_mark().exists() {
        return Ok(());
    }
    for port in ports() {
        tool::attempt(debian("ip").args(["link", "delete", &port]));
    }
    tool::attempt(debian("ip").args(["link", "delete", BRIDGE]));
    if bridge_exists() {
        return Err(Error::Remains {
            what: format!("the bridge {BRIDGE}"),
            advice: "see `ip link show`, then run `down` again",
        });
    }
    iptables::clean()?;
    remove_results(Path::new(CNI_RESULTS))?;
    remove(&place.network_mark())
}

fn bridge_exists() -> bool {
    Path::new("/sys/class/net").join(BRIDGE).exists()
}

/// The interfaces on the bridge: the host's ends of the pods' pairs.
fn ports() -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Removes the answers of our network's plugins, and those of the loopback of the same containers.
fn remove_results(folder: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    for name in our_results(&names) {
        remove(&folder.join(name))?;
    }
    // They go only when they are empty, that is, when nobody else uses CNI.
    for folder in folder.ancestors().take(2) {
        fs::remove_dir(folder).ok();
    }
    Ok(())
}

fn our_results(names: &[String]) -> Vec<&String> {
    let containers: Vec<&str> =
        names.iter().filter_map(|name| name.strip_prefix(CNI_NAME)?.strip_prefix('-')?.strip_suffix("-eth0")).collect();
    names.iter().filter(|name| containers.iter().any(|container| name.contains(container))).collect()
}

fn set(path: &str, value: u64) -> Result<(), Error> {
    fs::write(path, value.to_string()).map_err(Error::io("write", path))
}

fn raise(path: &str, least: u64) -> Result<(), Error> {
    let now = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if now.is_some_and(|now| now >= least) { Ok(()) } else { set(path, least) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_containers_results_go() {
        let names = ["agentruntime-abc-eth0", "cni-loopback-abc-lo", "podman-def-eth0", "cni-loopback-def-lo"];
        let names = names.map(str::to_owned);
        assert_eq!(our_results(&names), vec!["agentruntime-abc-eth0", "cni-loopback-abc-lo"]);
    }

    #[test]
    fn addresses_belong_together() {
        assert_eq!(PODS.replace(".0/24", ".1"), GATEWAY);
        assert!(
            SERVICE_API.starts_with("10.96.") && SERVICE_DNS.starts_with("10.96.") && SERVICES.starts_with("10.96.")
        );
    }
}
