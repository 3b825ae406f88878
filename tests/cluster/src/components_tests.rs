//! Flags that other parts rely on.

use super::*;

fn flags(component: Component) -> Vec<String> {
    component.flags(&Place::find().unwrap())
}

fn value(component: Component, flag: &str) -> String {
    let prefix = format!("{flag}=");
    let found = flags(component).into_iter().find_map(|given| given.strip_prefix(&prefix).map(str::to_owned));
    found.unwrap_or_else(|| panic!("{flag} of {}", component.name()))
}

#[test]
fn names_are_those_of_the_programs() {
    let names = Component::ALL.map(Component::name);
    assert_eq!(
        names,
        [
            "etcd",
            "containerd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "coredns"
        ]
    );
}

#[test]
fn no_port_is_wanted_twice() {
    let mut ports = PORTS.map(|(port, _)| port);
    ports.sort_unstable();
    assert!(ports.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn pods_can_reach_the_api_server() {
    assert_eq!(value(Component::ApiServer, "--advertise-address"), "10.244.0.1");
    assert_eq!(value(Component::Kubelet, "--node-ip"), "10.244.0.1");
    assert_eq!(value(Component::ApiServer, "--authorization-mode"), "Node,RBAC");
}

#[test]
fn the_store_speaks_only_with_the_api_server() {
    assert_eq!(value(Component::ApiServer, "--etcd-servers"), value(Component::Etcd, "--listen-client-urls"));
    assert!(flags(Component::Etcd).contains(&"--client-cert-auth".to_owned()));
}

#[test]
fn what_one_signs_the_other_verifies() {
    let signs = value(Component::ControllerManager, "--service-account-private-key-file");
    let verifies = value(Component::ApiServer, "--service-account-key-file");
    assert_eq!(signs.strip_suffix(".key"), verifies.strip_suffix(".pub"));
}

#[test]
fn no_flag_is_given_twice() {
    for component in Component::ALL {
        let mut names: Vec<_> =
            flags(component).into_iter().map(|flag| flag.split('=').next().unwrap().to_owned()).collect();
        let given = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), given, "{}", component.name());
    }
}
