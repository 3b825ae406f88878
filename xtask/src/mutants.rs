//! Owns the task `mutants`: breaks one rule at a time in a copy, and sees that the test that guards it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::workspace;

/// A rule that is broken, by the number that it has in docs/TESTING.md.
struct Mutant {
    rule: u8,
    file: &'static str,
    /// Stands in the file exactly once.
    from: &'static str,
    to: &'static str,
    package: &'static str,
    test: &'static str,
}

const READING: &str = "operator/src/plan/reading.rs";
const PODS: &str = "operator/src/plan/pods.rs";
const CHILDREN: &str = "operator/src/plan/children.rs";
const FENCE: &str = "lifecycle/src/fence.rs";

/// The rules that are pure functions. What guards the others needs processes or a cluster.
const MUTANTS: &[Mutant] = &[
    Mutant {
        rule: 1,
        file: READING,
        from: "    if any(RuntimeState::Unknown) {\n        return RuntimeState::Unknown;\n    }\n",
        to: "",
        package: "operator",
        test: "a_pod_that_hangs_is_unknown_and_never_paused",
    },
    Mutant {
        rule: 2,
        file: READING,
        from: "let reached = standings.iter().all(|s| s.reached);",
        to: "let reached = !standings.is_empty() && standings.iter().all(|s| s.reached);",
        package: "operator",
        test: "created_paused_with_no_pods_is_reached",
    },
    Mutant {
        rule: 7,
        file: PODS,
        from: "is_some_and(|gone| gone >= patience)",
        to: "is_some_and(|gone| gone >= patience * 1000)",
        package: "operator",
        test: "a_sick_pod_does_not_block_a_stop",
    },
    Mutant {
        rule: 8,
        file: "operator/src/plan/mod.rs",
        from: "if runtime.metadata.deletion_timestamp.is_some() {",
        to: "if false {",
        package: "operator",
        test: "a_deleted_object_is_left_alone",
    },
    Mutant {
        rule: 11,
        file: "lifecycle/src/wire.rs",
        from: "self.in_flight == Some(0)",
        to: "self.in_flight.unwrap_or(0) == 0",
        package: "operator",
        test: "a_pod_that_says_nothing_of_its_work_counts_as_busy",
    },
    Mutant {
        rule: 13,
        file: PODS,
        from: ".filter(|a| a.container == pod.container)",
        to: ".filter(|_| true)",
        package: "operator",
        test: "a_restarted_container_has_acknowledged_nothing",
    },
    Mutant {
        rule: 14,
        file: READING,
        from: "let complete = shown\n        && deployment.observed",
        to: "let complete = (shown || true)\n        && deployment.observed",
        package: "operator",
        test: "a_changed_template_is_not_ready_before_its_rollout_is_seen",
    },
    Mutant {
        rule: 15,
        file: "operator/src/plan/conditions.rs",
        from: "Kind::Freeze => (\"Ready\", \"True\", \"Frozen\"",
        to: "Kind::Freeze => (\"Ready\", \"False\", \"Frozen\"",
        package: "operator",
        test: "frozen_is_ready_and_the_end_of_the_freeze_gives_back_its_own_state",
    },
    Mutant {
        rule: 18,
        file: CHILDREN,
        from: "if standings.iter().all(|s| s.may_be_taken_away(policy.deadline_seconds)) => 0,",
        to: "=> 0,",
        package: "operator",
        test: "a_stop_takes_the_pods_away_only_when_they_have_stopped",
    },
    Mutant {
        rule: 18,
        file: CHILDREN,
        from: "if policy.desired == Desired::Stopped && replicas > 0 {",
        to: "if false {",
        package: "operator",
        test: "a_stop_that_takes_pods_away_is_not_taken_back_by_a_picture_from_before",
    },
    Mutant {
        rule: 20,
        file: "operator/src/observe/pod.rs",
        from: "(!owned).then(||",
        to: "(!owned && false).then(||",
        package: "operator",
        test: "a_pod_that_is_not_of_the_objects_chain_is_never_called",
    },
    Mutant {
        rule: 22,
        file: READING,
        from: "known.map_or_else(|| seen.pods.iter().any(|p| p.uid == *uid && p.ended), |s| s.reached)",
        to: "known.is_none_or(|s| s.reached)",
        package: "operator",
        test: "a_pod_that_no_watch_has_shown_blocks_paused",
    },
    Mutant {
        rule: 23,
        file: FENCE,
        from: "(None, None) => Boot { holds: Holds { operator: Desired::Paused, ..Holds::default() }, ..nothing },",
        to: "(None, None) => nothing,",
        package: "lifecycle",
        test: "managed_pod_without_record_and_file_stays_paused",
    },
    Mutant {
        rule: 24,
        file: PODS,
        from: "heard.is_some_and(|s| s.epoch >= epoch && !s.awaiting_confirmation)",
        to: "heard.is_some()",
        package: "operator",
        test: "a_pause_is_two_writes",
    },
    Mutant {
        rule: 27,
        file: CHILDREN,
        from: "(Desired::Paused, current) => current.map_or(asked, |current| asked.min(current)),",
        to: "(Desired::Paused, _) => asked,",
        package: "operator",
        test: "while_paused_replicas_fall_and_do_not_rise",
    },
    Mutant {
        rule: 28,
        file: FENCE,
        from: "std::cmp::Ordering::Less => Freshness::Stale,",
        to: "std::cmp::Ordering::Less => Freshness::Newer,",
        package: "lifecycle",
        test: "stale_epoch_changes_nothing",
    },
];

#[derive(Debug, Args)]
pub(crate) struct Mutants {
    /// Only the mutants of this rule, by its number in docs/TESTING.md
    #[arg(long)]
    rule: Option<u8>,
}

/// Tries each mutant; one that its test does not notice is a fault of the test.
pub(crate) fn run(task: &Mutants) -> anyhow::Result<ExitCode> {
    let tree = copy()?;
    let mut survived = 0;
    for mutant in MUTANTS.iter().filter(|mutant| task.rule.is_none_or(|rule| rule == mutant.rule)) {
        let path = tree.join(mutant.file);
        let whole = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        fs::write(&path, broken(mutant, &whole)?)?;
        let noticed = noticed(mutant, &tree);
        fs::write(&path, whole)?;
        let noticed = noticed?;
        survived += u32::from(!noticed);
        println!("rule {}: {} {}", mutant.rule, mutant.test, if noticed { "fails, as it is to" } else { "SURVIVED" });
    }
    Ok(if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn broken(mutant: &Mutant, whole: &str) -> anyhow::Result<String> {
    if whole.matches(mutant.from).count() != 1 {
        bail!("{}: what rule {} changes does not stand there exactly once", mutant.file, mutant.rule);
    }
    Ok(whole.replace(mutant.from, mutant.to))
}

/// Whether the test fails. That the copy builds is a part of it: a mutant that does not is none.
fn noticed(mutant: &Mutant, tree: &Path) -> anyhow::Result<bool> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", workspace::target()).env("INSTA_UPDATE", "no");
    cargo.args(["test", "--quiet", "--package", mutant.package, "--lib", mutant.test]);
    let output = cargo.output().context("cargo cannot be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains("test result: ") || said.contains(" 0 passed; 0 failed;") {
        bail!("rule {}: {} was not run: {}", mutant.rule, mutant.test, String::from_utf8_lossy(&output.stderr));
    }
    Ok(!output.status.success())
}

/// What is under version control, in a folder of its own: the checkout itself is never changed.
fn copy() -> anyhow::Result<PathBuf> {
    let tree = workspace::target().join("mutants");
    let listed = Command::new("git").current_dir(workspace::root()).args(["ls-files", "-z"]).output()?;
    if !listed.status.success() {
        bail!("git does not list the files of the checkout");
    }
    for name in String::from_utf8(listed.stdout)?.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (workspace::root().join(name), tree.join(name));
        if !from.is_file() {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_changes_one_place_and_names_a_test() {
        for mutant in MUTANTS {
            let text = fs::read_to_string(workspace::root().join(mutant.file)).unwrap();
            assert_ne!(broken(mutant, &text).unwrap(), text);
        }
    }
}
