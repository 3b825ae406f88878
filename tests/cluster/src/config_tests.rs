//! Settings without which the node doesn't start, or does harm.

use super::*;

fn place() -> Place {
    Place::find().unwrap()
}

#[test]
fn kubelet_runs_where_cgroups_are_old_and_swap_is_on() {
    let kubelet = kubelet(&place());
    assert_eq!(kubelet["failCgroupV1"], false);
    assert_eq!(kubelet["failSwapOn"], false);
    assert_eq!(kubelet["featureGates"]["KubeletInUserNamespace"], true);
    assert_eq!(kubelet["clusterDNS"][0], "10.96.0.10");
}

#[test]
fn loaded_images_are_never_collected() {
    assert_eq!(kubelet(&place())["imageGCHighThresholdPercent"], 100);
}

#[test]
fn answers_are_translated_back_even_without_the_filter() {
    assert_eq!(proxy(&place(), true)["iptables"]["masqueradeAll"], false);
    assert_eq!(proxy(&place(), false)["iptables"]["masqueradeAll"], true);
}

#[test]
fn everything_of_containerd_is_below_our_folder() {
    let place = place();
    let text = containerd(&place);
    for key in ["root", "state", "  address", "  path", "    conf_dir"] {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        assert!(line.contains(&place.root().display().to_string()), "{line}");
    }
}

#[test]
fn the_audit_log_has_every_request_once() {
    let policy = audit();
    assert_eq!(policy["rules"][0]["level"], "Metadata");
    assert_eq!(policy["omitStages"][0], "RequestReceived");
}

#[test]
fn the_name_servers_service_points_at_the_node() {
    let objects = objects();
    let find =
        |kind: &str| objects["items"].as_array().unwrap().iter().find(|item| item["kind"] == kind).unwrap().clone();
    assert_eq!(find("Service")["spec"]["clusterIP"], "10.96.0.10");
    assert_eq!(find("Service")["spec"]["ports"][0]["targetPort"], find("EndpointSlice")["ports"][0]["port"]);
    assert_eq!(find("EndpointSlice")["endpoints"][0]["addresses"][0], "10.244.0.1");
}

#[test]
fn corefile_is_whole() {
    let text = corefile(&place());
    assert_eq!(text.matches('{').count(), text.matches('}').count());
    assert!(text.contains("kubernetes cluster.local") && text.contains("bind 10.244.0.1"), "{text}");
}
