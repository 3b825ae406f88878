//! Why a runtime is in the state it is in: each rule that holds, in words, from spec, status and conditions.

use crds::{AgentRuntime, AgentRuntimeStatus, DesiredState, RuntimeState};

use crate::kubernetes::identity;
use crate::owner;
use crate::show;

/// A headline and one line for each rule that holds.
pub(crate) fn text(runtime: &AgentRuntime) -> String {
    let (namespace, name) = identity(runtime);
    let Some(status) = runtime.status.as_ref().filter(|status| status.observed_generation >= 0) else {
        return format!(
            "{namespace}/{name}: the operator has not looked at it yet.\n\
             - Is it running? kubectl get deployment -A -l app.kubernetes.io/name=agentruntime-operator\n"
        );
    };
    let wanted = show::desired(status.desired_state.unwrap_or(runtime.spec.desired_state));
    let mut lines = format!("{namespace}/{name} is {} and is to be {wanted}.\n", show::state(status));
    for rule in rules(runtime, status) {
        lines.push_str(&format!("- {rule}\n"));
    }
    lines
}

fn rules(runtime: &AgentRuntime, status: &AgentRuntimeStatus) -> Vec<String> {
    let mut held = Vec::new();
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled" && c.status == "True");
    if status.observed_generation < runtime.metadata.generation.unwrap_or(0) {
        held.push("The spec has changed since: the operator has not answered the newest generation yet.".to_owned());
    }
    if let Some(effective) = status.desired_state
        && effective != runtime.spec.desired_state
    {
        held.push(format!(
            "spec.desiredState says {}, but {} decides and says {}: stopped beats paused beats running.",
            show::desired(runtime.spec.desired_state),
            status.source,
            show::desired(effective)
        ));
    }
    if runtime.spec.replicas == 0 {
        held.push("spec.replicas is 0, so there is no pod that could work: scale it up.".to_owned());
    }
    let behind = status.replicas - status.acknowledged_replicas;
    if behind > 0 {
        held.push(format!(
            "{behind} of {} pods have not acknowledged epoch {} durably.",
            status.replicas, status.epoch
        ));
    }
    held.extend(status.pods.iter().flat_map(|pod| {
        let unknown = (pod.state == RuntimeState::Unknown).then(|| {
            let why = pod.message.as_deref().unwrap_or("it gave no answer");
            format!("Pod {} is unknown, and unknown is never taken for paused: {why}.", pod.name)
        });
        let holders = pod.held_by.iter().map(|held| {
            format!(
                "Pod {} still works on execution {held}: it ends by itself, or by kubectl hive executions cancel.",
                pod.name
            )
        });
        unknown.into_iter().chain(holders).collect::<Vec<String>>()
    }));
    held.extend(drain(runtime, status));
    if let Some(condition) = stalled {
        held.push(format!("It is stalled, reason {}: {}.", condition.reason, condition.message));
    } else if let Some(condition) = ready.filter(|c| c.status != "True") {
        held.push(format!("Ready is {}, reason {}: {}.", condition.status, condition.reason, condition.message));
    }
    if let Some(reason) = runtime.metadata.annotations.as_ref().and_then(|all| all.get("agents.hive.dev/reason")) {
        held.push(format!("Whoever asked for it said: {reason}."));
    }
    if let Some(tool) = owner::gitops(runtime, "desiredState") {
        held.push(format!("{tool} owns spec.desiredState: change it by a commit."));
    }
    if held.is_empty() || ready.is_some_and(|c| c.status == "True") {
        held.push("What is asked for is reached: every pod has acknowledged it.".to_owned());
    }
    held
}

fn drain(runtime: &AgentRuntime, status: &AgentRuntimeStatus) -> Option<String> {
    let wanted = status.desired_state.unwrap_or(runtime.spec.desired_state);
    let count = status.in_flight.filter(|count| *count > 0 && wanted != DesiredState::Running)?;
    let until = status.drain_deadline.as_deref().map(|until| format!(", drain deadline {until}")).unwrap_or_default();
    Some(format!(
        "{count} executions are in flight{until}: {wanted} is reached when none is.",
        wanted = show::desired(wanted)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::pausing;

    #[test]
    fn without_replicas_it_says_why_nothing_runs() {
        let mut runtime = pausing();
        assert!(!text(&runtime).contains("spec.replicas is 0"));
        runtime.spec.replicas = 0;
        assert!(text(&runtime).contains("spec.replicas is 0"));
    }

    #[test]
    fn a_drain_under_way_says_what_it_waits_for() {
        insta::assert_snapshot!(text(&pausing()));
    }

    #[test]
    fn an_unknown_pod_a_freeze_and_a_new_generation_are_each_a_rule() {
        let mut runtime = pausing();
        runtime.metadata.generation = Some(5);
        runtime.spec.desired_state = DesiredState::Running;
        let status = runtime.status.as_mut().unwrap();
        status.source = "Freeze all".to_owned();
        status.acknowledged_replicas = 1;
        status.pods[0].state = RuntimeState::Unknown;
        status.pods[0].held_by.clear();
        status.pods[0].message = Some("no answer for 12 s".to_owned());
        insta::assert_snapshot!(text(&runtime));
    }

    #[test]
    fn reached_says_so_and_unseen_claims_nothing() {
        let mut runtime = pausing();
        let status = runtime.status.as_mut().unwrap();
        status.state = Some(RuntimeState::Paused);
        status.in_flight = Some(0);
        status.pods.clear();
        status.conditions[0].status = "True".to_owned();
        insta::assert_snapshot!(text(&runtime));
        runtime.status = None;
        insta::assert_snapshot!(text(&runtime));
    }
}
