//! Owns whether the API server is reached through a proxy: as kubectl decides it.

use std::net::IpAddr;

use http::Uri;
use http::uri::InvalidUri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::Kubeconfig;

/// Sets the proxy of a configuration that was read from this file. kube holds NO_PROXY against the proxy's own address, and
/// not against the API server's.
pub(crate) fn choose(config: &mut Config, file: &Kubeconfig, context: Option<&str>) -> Result<(), InvalidUri> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let proxy = named(file, context).or_else(|| by_environment(&config.cluster_url, variable));
    config.proxy_url = proxy.map(|proxy| proxy.parse()).transpose()?;
    Ok(())
}

/// The proxy that the file names for the cluster of a context. It is meant for this cluster alone, and used always.
fn named(file: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let name = context.or(file.current_context.as_deref())?;
    let context = file.contexts.iter().find(|context| context.name == name)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The proxy of the environment, unless NO_PROXY leaves out the server or it is this machine.
fn by_environment(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let either = |upper: &str, lower: &str| variable(upper).or_else(|| variable(lower));
    let proxy = match server.scheme_str() {
        Some("http") => either("HTTP_PROXY", "http_proxy"),
        Some(_) | None => either("HTTPS_PROXY", "https_proxy"),
    }?;
    let host = server.host()?.trim_matches(['[', ']']);
    if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return None;
    }
    let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
    let spared = spared(&either("NO_PROXY", "no_proxy").unwrap_or_default(), port);
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    Matcher::builder().all(proxy.clone()).no(spared).build().intercept(server).map(|_| proxy)
}

/// What is left out at this port: entries may name one.
fn spared(list: &str, port: u16) -> String {
    let entries = list.split(',').map(str::trim).filter_map(|entry| match entry.rsplit_once(':') {
        Some((host, of)) if !host.contains(':') || host.ends_with(']') => (of.parse() == Ok(port)).then_some(host),
        Some(_) | None => Some(entry),
    });
    entries.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(server: &str, environment: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        by_environment(&server.parse().unwrap(), variable)
    }

    #[test]
    fn a_proxy_is_used_unless_no_proxy_leaves_out_the_server() {
        let server = "https://api.example.com:6443";
        for (spared, server, used) in [
            ("", server, true),
            ("proxy.corp", server, true),
            ("api.example.com", server, false),
            ("other.com, api.example.com", server, false),
            ("api.example.com,", server, false),
            ("example.com", server, false),
            (".example.com", server, false),
            ("api.example.com:6443", server, false),
            ("api.example.com:443", server, true),
            ("*", server, false),
            ("ample.com", server, true),
            ("10.0.0.0/8", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://11.1.2.3", true),
            ("10.1.2.3:443", "https://10.1.2.3", false),
            ("fd00::/8", "https://[fd00::1]:6443", false),
            ("fd00::1", "https://[fd00::1]:6443", false),
            ("", "https://127.0.0.1:6443", false),
            ("", "https://[::1]:6443", false),
            ("", "https://localhost:6443", false),
        ] {
            let proxy = "http://user:word@proxy.corp:3128";
            let wanted = used.then(|| proxy.to_owned());
            assert_eq!(chosen(server, &[("HTTPS_PROXY", proxy), ("NO_PROXY", spared)]), wanted, "{server}: {spared}");
            assert_eq!(chosen(server, &[("https_proxy", proxy), ("no_proxy", spared)]), wanted, "{server}: {spared}");
            assert_eq!(chosen(server, &[("NO_PROXY", spared)]), None);
        }
        assert_eq!(chosen(server, &[("HTTPS_PROXY", "proxy.corp:3128")]).as_deref(), Some("http://proxy.corp:3128"));
        assert_eq!(chosen(server, &[("HTTP_PROXY", "http://proxy.corp:3128")]), None);
    }

    #[test]
    fn the_proxy_of_the_kubeconfig_is_that_of_the_context() {
        let text = r#"{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "far", "user": "u"}},
            {"name": "b", "context": {"cluster": "near", "user": "u"}}], "clusters": [
            {"name": "far", "cluster": {"server": "https://far", "proxy-url": "http://proxy.corp:3128"}},
            {"name": "near", "cluster": {"server": "https://near"}}]}"#;
        let file: Kubeconfig = serde_json::from_str(text).unwrap();
        assert_eq!(named(&file, None).as_deref(), Some("http://proxy.corp:3128"));
        assert_eq!(named(&file, Some("b")), None);
        assert_eq!(named(&file, Some("c")), None);
    }
}
