//! The dashboard in the cluster, as the chart installs it: through its Service, to look at and not to change.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::json;

use crate::browser::Browser;
use crate::removal::{WAIT, install, tags};
use crate::space::{RELEASE, SYSTEM, Space, attempt, cluster, kubectl, runtime};

/// Code and body of one request to the Service, under a name.
fn ask(address: &str, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn the_chart_serves_the_dashboard_to_look_at_and_not_to_change() {
    let space = Space::alone("dashboard-inside");
    let tags = tags();
    let tag = tags[0].rsplit('=').next().unwrap();
    let image = format!("--set=dashboard.image.tag={tag}");
    let on = [WAIT.as_slice(), &[&image, "--set=dashboard.enabled=true,dashboard.logs=true"]].concat();
    install(&tags, &on).unwrap();
    space.start(&runtime("demo", 1, &json!({})));
    let name = format!("{RELEASE}-dashboard");

    let account = format!("--as=system:serviceaccount:{SYSTEM}:{name}");
    // As `get pods/log`: a resource, and what is below it.
    let may = |right: &str| {
        let (verb, what) = right.split_once(' ').unwrap();
        let (what, below) = what.split_once('/').unwrap_or((what, ""));
        let below = format!("--subresource={below}");
        let asked = ["auth", "can-i", verb, what, &below, "--all-namespaces", &account];
        attempt(&asked, None).is_ok_and(|said| said.trim() == "yes")
    };
    for right in ["watch agentruntimes.agents.hive.dev", "get pods/log"] {
        assert!(may(right), "{right}");
    }
    let changes = ["patch agentruntimes.agents.hive.dev", "create agentfreezes.agents.hive.dev"];
    for right in changes.into_iter().chain(["get secrets", "get pods/proxy", "create pods/exec"]) {
        assert!(!may(right), "{right}");
    }

    let at = kubectl(&["-n", SYSTEM, "get", "service", &name, "-o", "jsonpath={.spec.clusterIP}"]);
    let at = format!("{at}:8080");
    let (code, page) = ask(&at, "GET", "/", &at);
    assert!(code == 200 && page.contains("This page only shows.") && page.contains(&space.name), "{code} {page}");
    assert_eq!(ask(&at, "GET", "/", &format!("{name}.{SYSTEM}.svc:8080")).0, 200);
    assert_eq!(ask(&at, "GET", "/", "evil.example:8080").0, 421, "another site has pointed its name here");
    assert_eq!(ask(&at, "POST", "/act", &at).0, 403);
    assert_eq!(ask(&at, "GET", "/readyz", "kubelet").0, 200);

    let service = format!("service/{name}");
    let forward = || {
        let mut kubectl = cluster().kubectl();
        kubectl.args(["-n", SYSTEM, "port-forward", &service, ":8080"]).stdout(Stdio::piped()).spawn().unwrap()
    };
    if let Some(browser) = Browser::look((1280, 900), forward, "Forwarding from ") {
        let state = format!("#row-{}--demo [data-label='State']", space.name);
        browser.shows("#connection", "live");
        browser.shows(&state, "running");
        assert_eq!(browser.run("return document.querySelectorAll('#rows input, .actions').length"), 0);
        space.patch("demo", &json!({ "desiredState": "paused" }));
        browser.shows(&state, "paused");
        browser.visit(&format!("/runtimes/{}/demo", space.name));
        browser.shows("#timeline", "Paused");
        browser.shows("#executions", "pods/proxy");
        browser.press("Follow the log");
        browser.shows("#log", "demo-");
    }
    // It ends at once when it is asked to.
    let begun = std::time::Instant::now();
    install(&tags, &WAIT).unwrap();
    let left = || {
        attempt(
            &["-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/name=agentruntime-dashboard", "-o", "name"],
            None,
        )
    };
    crate::space::eventually(
        "its pod is gone",
        || left().is_ok_and(|pods| pods.is_empty()),
        || format!("{:?}", left()),
    );
    println!("the dashboard was taken away in {:.0} s", begun.elapsed().as_secs_f32());
}
