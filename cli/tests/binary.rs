//! The binary itself, where no API server answers: it says so, and neither hangs nor panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

/// Nothing listens on port 1.
const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: nowhere
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
clusters: [{name: nowhere, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: nobody, user: {}}]
";

fn hive(arguments: &[&str], environment: &[(&str, &str)]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, KUBECONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-hive"));
    command.args(arguments).env("KUBECONFIG", path).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

#[test]
fn without_an_api_server_it_says_what_could_not_be_done_and_exits_with_1() {
    let (output, said) = hive(&["status"], &[]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: agentruntimes cannot be listed: "), "{said}");
}

#[test]
fn an_unknown_context_is_named() {
    let (output, said) = hive(&["status", "--context", "elsewhere"], &[]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("elsewhere") && said.contains("--context"), "{said}");
}

#[test]
fn completion_of_names_is_silent_without_an_api_server() {
    let environment = [("COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", "2"), ("_CLAP_IFS", "\n")];
    let (output, said) = hive(&["--", "kubectl-hive", "pause", ""], &environment);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn what_a_shell_is_to_source_is_printed() {
    let (output, said) = hive(&["completion", "bash"], &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "source <(COMPLETE=bash kubectl-hive)\n", "{said}");
}
