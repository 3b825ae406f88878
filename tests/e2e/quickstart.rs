//! The quick starts of docs/QUICKSTART.md, run as they stand, with a clock.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::removal::{WAIT, install, tags};
use crate::space::{RELEASE, SYSTEM, Space, attempt, cluster, helm, kubectl};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Each quick start takes less, once images are there.
const LIMIT: Duration = Duration::from_secs(300);

/// The commands of a section.
fn section(name: &str) -> String {
    let text = std::fs::read_to_string(format!("{ROOT}/docs/QUICKSTART.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(&format!("{name}\n")));
    let section = section.unwrap_or_else(|| panic!("a section {name}"));
    section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Runs the commands of a quick start from the root of the checkout, with kubectl and Helm of the cluster on the PATH.
fn run(name: &str, script: &str) -> String {
    let bin = tempfile::tempdir().unwrap();
    for (name, command) in [("kubectl", cluster().kubectl()), ("helm", cluster().helm())] {
        std::os::unix::fs::symlink(command.get_program(), bin.path().join(name)).unwrap();
    }
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-eux", "-c", script]).current_dir(ROOT).env("PATH", path).env("KUBECONFIG", cluster().kubeconfig());
    let begun = Instant::now();
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("the quick start with {name} took {:.0} s", begun.elapsed().as_secs_f32());
    assert!(begun.elapsed() < LIMIT, "it took {:?}", begun.elapsed());
    said
}

/// The plain manifests with the images of this checkout.
fn manifests(folder: &Path, tags: &[String; 2]) -> String {
    let tag = tags[0].rsplit('=').next().unwrap();
    let text = std::fs::read_to_string(format!("{ROOT}/dist/install.yaml")).unwrap();
    let changed = text
        .replace("operator:0.1.0\"", &format!("operator:{tag}\""))
        .replace("runtime:0.1.0\"", &format!("runtime:{tag}\""));
    assert_ne!(text, changed);
    let file = folder.join("install.yaml");
    std::fs::write(&file, changed).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn the_quick_start_with_kubectl() {
    let _space = Space::alone("quick-kubectl");
    let tags = tags();
    let folder = tempfile::tempdir().unwrap();
    let file = manifests(folder.path(), &tags);
    helm(&["--namespace", SYSTEM, "uninstall", RELEASE, "--wait", "--timeout", "60s"]).unwrap();
    let script = section("kubectl");
    assert!(script.contains("dist/install.yaml"));
    // What Helm made and keeps is taken over.
    let said = run(
        "kubectl",
        &script
            .replace("apply --server-side", "apply --server-side --force-conflicts")
            .replace("dist/install.yaml", &file),
    );
    // The namespace and the definitions stay, as other tests have objects of theirs.
    for kind in ["deployment,service,pdb,serviceaccount,role,rolebinding", "clusterrole,clusterrolebinding"] {
        let _ = attempt(&["-n", SYSTEM, "delete", kind, "-l", "app.kubernetes.io/name=agentruntime-operator"], None);
    }
    let mut again: Vec<&str> = WAIT.to_vec();
    again.push("--take-ownership");
    install(&tags, &again).unwrap();
    assert!(said.contains("paused"), "{said}");
}

#[test]
fn the_quick_start_with_helm() {
    let _space = Space::alone("quick-helm");
    let tags = tags();
    let script = section("Helm").replace("--create-namespace", &format!("--create-namespace {} {}", tags[0], tags[1]));
    let said = run("Helm", &script);
    assert!(said.contains("passed: made, paused, resumed and deleted"), "{said}");
}

#[test]
fn the_quick_starts_with_argo_cd_and_flux() {
    let space = Space::new("quick-gitops");
    // The ConfigMap of an Argo CD that is installed.
    space.kubectl(&["create", "configmap", "argocd-cm"]);
    let script = section("Argo CD").replace("-n argocd", &format!("-n {}", space.name));
    // The patch names its namespace, which kubectl holds against the one of the command.
    let folder = tempfile::tempdir().unwrap();
    let patch = std::fs::read_to_string(format!("{ROOT}/gitops/argocd/argocd-cm.yaml")).unwrap();
    let file = folder.path().join("argocd-cm.yaml");
    std::fs::write(&file, patch.replace("namespace: argocd", &format!("namespace: {}", space.name))).unwrap();
    let said = run("Argo CD", &script.replace("gitops/argocd/argocd-cm.yaml", file.to_str().unwrap()));
    for key in [
        "health.agents.hive.dev_AgentRuntime",
        "health.agents.hive.dev_AgentFreeze",
        "actions.agents.hive.dev_AgentRuntime",
    ] {
        assert!(said.contains(key), "{said}");
    }
    let said = run("Flux", &section("Flux"));
    assert!(said.contains("desiredState: paused") && said.contains("desiredState: running"), "{said}");
}

#[test]
fn the_quick_start_with_docker() {
    let script = section("Docker");
    assert!(script.contains("docker run"));
    let there = Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success());
    if there {
        run("Docker", &script);
    } else {
        eprintln!("left out: there is no Docker here");
        assert!(!kubectl(&["version"]).is_empty());
    }
}
