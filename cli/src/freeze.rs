//! freeze and unfreeze: the emergency stop over many runtimes, without touching any of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{AgentFreeze, AgentFreezeSpec, HeldState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;

use crate::arguments::{Freeze, Unfreeze};
use crate::confirm;
use crate::error::Error;
use crate::kubernetes::{Kubernetes, api};
use crate::values::Labels;
use crate::wait::{follow, spinner};

/// The label that every namespace has of its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What is to be made. `namespace` is the one that is meant; none for all.
pub(crate) fn object(task: &Freeze, namespace: Option<&str>, now: Timestamp) -> Result<AgentFreeze, Error> {
    let namespace_selector = match (&task.namespace_selector, namespace) {
        (Some(labels), _) => selector(labels.clone()),
        (None, Some(name)) => selector(Labels(BTreeMap::from([(NAME_LABEL.to_owned(), name.to_owned())]))),
        (None, None) => LabelSelector::default(),
    };
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let expires_at = match task.expires_in {
        None => None,
        Some(duration) => Some(
            now.checked_add(jiff::SignedDuration::from_secs(whole(duration)))
                .map_err(|_| Error::Input("--expires-in: that is further away than the calendar goes".to_owned()))?,
        ),
    };
    let deadline_seconds = match task.deadline.map(|deadline| i32::try_from(deadline.as_secs())) {
        None => None,
        Some(Ok(seconds)) if seconds <= 86_400 => Some(seconds),
        Some(_) => return Err(Error::Input("--deadline: give at most 24h".to_owned())),
    };
    let spec = AgentFreezeSpec {
        namespace_selector,
        runtime_selector: task.selector.clone().map(selector),
        state: if task.stop { HeldState::Stopped } else { HeldState::Paused },
        mode: task.mode.map(Into::into),
        deadline_seconds,
        reason: task.reason.clone().unwrap_or_default(),
        // In whole seconds, as Kubernetes writes times.
        expires_at: expires_at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        resume_per_second: task.resume_per_second,
    };
    let metadata = ObjectMeta { name: Some(task.name.clone()), ..ObjectMeta::default() };
    Ok(AgentFreeze { metadata, spec, status: None })
}

fn selector(labels: Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels.0), match_expressions: None }
}

/// Makes the freeze once the number of runtimes is confirmed.
pub(crate) async fn freeze(cluster: &Kubernetes, task: &Freeze) -> Result<(), Error> {
    let object = object(task, cluster.namespace(), Timestamp::now())?;
    match affected(cluster, task).await {
        Ok(count) => confirm::number("freeze", count, task.yes)?,
        // The role that may freeze need not be one that may look.
        Err(error) if !task.yes => {
            return Err(Error::NotConfirmed(format!(
                "how many runtimes this would freeze cannot be seen: {error}\nConfirm with --yes"
            )));
        }
        Err(_) => {}
    }
    cluster.create_freeze(&object).await?;
    println!("agentfreeze {}: asked for. It ends by kubectl hive unfreeze {}", task.name, task.name);
    if task.wait { reached(cluster, &task.name, task.timeout).await } else { Ok(()) }
}

async fn affected(cluster: &Kubernetes, task: &Freeze) -> Result<usize, Error> {
    let text = task.selector.as_ref().map(ToString::to_string);
    let Some(labels) = &task.namespace_selector else { return Ok(cluster.list(text.as_deref()).await?.len()) };
    let mut count = 0;
    for namespace in cluster.namespaces(&labels.to_string()).await? {
        count += cluster.list_in(&namespace, text.as_deref()).await?.len();
    }
    Ok(count)
}

async fn reached(cluster: &Kubernetes, name: &str, timeout: Duration) -> Result<(), Error> {
    let bar = spinner();
    let mut last = "the operator has not answered yet".to_owned();
    let what = format!("agentfreeze {name}");
    let freezes = cluster.freezes();
    let followed = follow(&freezes, (&what, name), &bar, &mut last, |now| (progress(now), is_reached(now)));
    let outcome = tokio::time::timeout(timeout, followed).await;
    bar.finish_and_clear();
    match outcome {
        Ok(outcome) => outcome.map(|()| println!("{what}: {last}")),
        Err(_) => Err(Error::TimedOut(format!(
            "not reached within {} s: {last}\nIt stays asked for. See kubectl get agentfreeze {name} -o yaml",
            timeout.as_secs()
        ))),
    }
}

/// Whether every runtime that it selects has reached it.
pub(crate) fn is_reached(freeze: &AgentFreeze) -> bool {
    freeze.status.as_ref().is_some_and(|status| {
        status.observed_generation >= freeze.metadata.generation.unwrap_or(0)
            && status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    })
}

/// How far it has come, in words.
pub(crate) fn progress(freeze: &AgentFreeze) -> String {
    let Some(status) = freeze.status.as_ref().filter(|status| status.observed_generation >= 0) else {
        return "the operator has not answered yet".to_owned();
    };
    let mut text = format!("{} of {} runtimes have reached it", status.reached, status.matched);
    if status.unreachable > 0 {
        text.push_str(&format!(", {} have a pod that cannot be asked", status.unreachable));
    }
    if let Some(first) = status.pending.first() {
        text.push_str(&format!(", pending: {first}"));
        if status.pending.len() > 1 {
            text.push_str(" and others");
        }
    }
    text
}

/// Takes a freeze away: what each runtime is to be otherwise holds again.
pub(crate) async fn unfreeze(cluster: &Kubernetes, task: &Unfreeze) -> Result<(), Error> {
    delete(cluster, &task.name).await?;
    println!("agentfreeze {}: taken away. Each runtime is again what its own spec and windows say", task.name);
    Ok(())
}

/// Deletes the object.
pub(crate) async fn delete(cluster: &Kubernetes, name: &str) -> Result<(), Error> {
    match cluster.freezes().delete(name, &kube::api::DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(Error::Input(format!("there is no agentfreeze {name}: see kubectl get agentfreezes")))
        }
        Err(error) => Err(api(&format!("agentfreeze {name} cannot be taken away"), &error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::arguments::{Cli, Command};

    fn made(line: &str, namespace: Option<&str>) -> Result<serde_json::Value, Error> {
        let words = ["kubectl-hive", "freeze", "f"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
        let Command::Freeze(task) = Cli::try_parse_from(words).unwrap().command else { panic!("another command") };
        let object = object(&task, namespace, "2026-11-25T10:00:00Z".parse().unwrap())?;
        Ok(serde_json::to_value(object.spec).unwrap())
    }

    #[test]
    fn a_freeze_is_of_the_namespace_unless_more_is_asked_for() {
        let one = made("", Some("shop")).unwrap();
        assert_eq!(one, json!({"namespaceSelector": {"matchLabels": {NAME_LABEL: "shop"}}, "state": "paused"}));
        assert_eq!(made("-A", None).unwrap(), json!({"namespaceSelector": {}, "state": "paused"}));
        let labelled = made("--namespace-selector team=a,tier=1 -l model=large", Some("shop")).unwrap();
        assert_eq!(labelled["namespaceSelector"], json!({"matchLabels": {"team": "a", "tier": "1"}}));
        assert_eq!(labelled["runtimeSelector"], json!({"matchLabels": {"model": "large"}}));
    }

    #[test]
    fn each_option_is_a_field() {
        let all = "--stop --mode checkpoint --deadline 5m --reason why --expires-in 2h --resume-per-second 20";
        assert_eq!(
            made(all, None).unwrap(),
            json!({"namespaceSelector": {}, "state": "stopped", "mode": "checkpoint", "deadlineSeconds": 300,
                "reason": "why", "expiresAt": "2026-11-25T12:00:00Z", "resumePerSecond": 20})
        );
        assert!(made("--deadline 25h", None).unwrap_err().to_string().contains("--deadline"));
    }

    #[test]
    fn reached_is_ready_at_its_own_generation() {
        let at = |generation: i64, observed: i64, ready: &str| -> AgentFreeze {
            serde_json::from_value(json!({
                "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentFreeze",
                "metadata": {"name": "f", "generation": generation}, "spec": {"namespaceSelector": {}},
                "status": {"observedGeneration": observed, "matched": 3, "reached": 1, "unreachable": 1,
                    "pending": ["shop/a", "shop/b"], "conditions": [{"type": "Ready", "status": ready,
                    "reason": "Freezing", "message": "", "lastTransitionTime": "2026-11-25T10:00:00Z"}]},
            }))
            .unwrap()
        };
        assert!(is_reached(&at(1, 1, "True")));
        assert!(!is_reached(&at(2, 1, "True")), "an answer to an older spec is none");
        assert!(!is_reached(&at(1, 1, "False")));
        let said = progress(&at(1, 1, "False"));
        assert_eq!(
            said,
            "1 of 3 runtimes have reached it, 1 have a pod that cannot be asked, pending: shop/a and others"
        );
        assert_eq!(progress(&at(1, -1, "False")), "the operator has not answered yet");
    }
}
