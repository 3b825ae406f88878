//! A spec that was changed often ends where a new object with the same spec does.

use crds::{DesiredState, DrainTimeoutPolicy, Hook, HttpHook, MaintenanceWindow, PauseMode, WhilePaused};

use super::*;

/// Where executions are kept, which cannot change.
#[derive(Clone, Copy, Debug)]
enum Kept {
    InThePod,
    OnAVolume,
    InADatabase,
}

/// One change of the spec: of which part, and to what.
type Mutation = (u8, u8);

impl World {
    fn keeping(kept: Kept) -> Self {
        match kept {
            Kept::InThePod => Self::new(DesiredState::Running, 1),
            Kept::OnAVolume => on_a_volume(crds::WhenDeleted::Retain),
            Kept::InADatabase => on_a_database(1),
        }
    }

    /// Changes the spec into another that the API server takes.
    fn mutate(&mut self, kept: Kept, (part, n): Mutation) {
        let some = |n: u8| (n > 0).then(|| i32::from(n));
        let spec = &mut self.runtime.spec;
        let lifecycle = &mut spec.lifecycle;
        match part % 16 {
            0 => spec.desired_state = DesiredState::Running,
            1 => spec.desired_state = DesiredState::Paused,
            2 => spec.desired_state = DesiredState::Stopped,
            3 => spec.replicas = i32::from(n % if matches!(kept, Kept::OnAVolume) { 2 } else { 4 }),
            4 => {
                let container =
                    serde_json::json!({ "name": "agent", "env": [{ "name": "N", "value": n.to_string() }] });
                let template = serde_json::json!({ "spec": { "containers": [container] } });
                spec.template = template.as_object().cloned().filter(|_| n > 0);
            }
            5 => lifecycle.port = 8080 + i32::from(n),
            6 => lifecycle.pause_mode = if n == 0 { PauseMode::Drain } else { PauseMode::Checkpoint },
            7 => lifecycle.drain_timeout_seconds = i32::from(n) * 10,
            8 => {
                lifecycle.on_drain_timeout =
                    if n == 0 { DrainTimeoutPolicy::Wait } else { DrainTimeoutPolicy::Checkpoint }
            }
            9 => {
                let queues = n > 0 && !matches!(kept, Kept::InThePod);
                lifecycle.while_paused = if queues { WhilePaused::Queue } else { WhilePaused::Reject };
            }
            10 => lifecycle.drain_before_restart = n > 0,
            11 => spec.restart_nonce = (n > 0).then(|| n.to_string()),
            12 => spec.resume_nonce = (n > 0).then(|| n.to_string()),
            13 => {
                let http = Some(HttpHook { path: format!("/{n}"), port: None });
                lifecycle.pre_pause = (n > 0).then(|| Hook { http, timeout_seconds: 5, ..Hook::default() });
                (lifecycle.post_resume, lifecycle.resume_rate) = (lifecycle.pre_pause.clone(), some(n));
            }
            14 => {
                let window = MaintenanceWindow {
                    name: "now".to_owned(),
                    // The world begins at 2023-11-14T22:13:20Z.
                    start: Some("2023-11-01T00:00:00Z".to_owned()),
                    duration_seconds: 10_000_000,
                    ..MaintenanceWindow::default()
                };
                spec.maintenance_windows = (n % 2 > 0).then_some(window).into_iter().collect();
            }
            _ => self.agent = serde_json::json!({ "agent": { "id": n.to_string() } }).to_string(),
        }
        *self.runtime.metadata.generation.as_mut().unwrap() += 1;
    }

    /// Where it ended, without times, the number of changes, and the names of pods.
    fn end(&self) -> Value {
        let status = self.status();
        let spec = &self.runtime.spec;
        let mut conditions: Vec<_> = status.conditions.iter().map(|c| [&c.type_, &c.status, &c.reason]).collect();
        conditions.sort();
        let children = self.children.iter().filter(|(key, _)| key.kind != ChildKind::Deployment);
        let children: Vec<_> = children.map(|(key, facts)| (format!("{key:?}"), &facts.hash)).collect();
        let boot = self.boot.as_ref().and_then(|boot| boot.file.as_ref()).unwrap();
        serde_json::json!({
            "conditions": conditions, "children": children,
            "state": status.state, "desired": status.desired_state, "source": status.source, "reason": status.reason,
            "acknowledged": status.acknowledged_replicas == status.replicas, "inFlight": status.in_flight,
            "observed": Some(status.observed_generation) == self.runtime.metadata.generation,
            "restartNonce": status.restart_nonce,
            // One that is taken away asks for nothing, and the last one stays known.
            "resumeNonce": spec.resume_nonce.as_ref().and(status.resume_nonce.as_ref()),
            "template": self.deployment.as_ref().unwrap().template,
            "command": [serde_json::json!(boot.state), serde_json::json!(boot.mode), serde_json::json!(boot.on_timeout),
                serde_json::json!(boot.deadline_seconds)],
        })
    }
}

fn kept() -> impl Strategy<Value = Kept> {
    prop::sample::select(vec![Kept::InThePod, Kept::OnAVolume, Kept::InADatabase])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// 50 objects with 20 changes each, some settled in between and some overtaken by the next.
    #[test]
    fn a_thousand_changes_of_specs_end_where_new_objects_of_those_specs_do(
        kept in kept(),
        changes in prop::collection::vec(((any::<u8>(), 0u8..4), 0usize..6), 20),
    ) {
        let mut changed = World::keeping(kept);
        for (mutation, steps) in changes {
            changed.mutate(kept, mutation);
            for _ in 0..steps {
                changed.step();
                changed.now += jiff::SignedDuration::from_secs(2);
            }
        }
        changed.settle(200);
        let mut fresh = World::keeping(kept);
        (fresh.runtime.spec, fresh.agent) = (changed.runtime.spec.clone(), changed.agent.clone());
        fresh.settle(200);
        prop_assert_eq!(changed.end(), fresh.end());
        let (pods, new) = (changed.pods.len(), fresh.pods.len());
        // While it is held, pods are not added.
        let held = changed.status().desired_state != Some(DesiredState::Running);
        prop_assert!(pods == new || (held && pods < new), "{} pods, and {} of a new object", pods, new);
    }
}

#[test]
fn a_pause_draws_no_child_anew_and_a_changed_template_does() {
    let mut world = World::new(DesiredState::Running, 2);
    world.settle(30);
    let drawn = |world: &World| {
        let _ = world.plan();
        let sketch = world.sketch.borrow();
        let hashes = &sketch.children.as_ref().unwrap().hashes;
        (hashes.as_ptr(), hashes.clone())
    };
    let (at, hashes) = drawn(&world);
    world.ask(DesiredState::Paused);
    world.settle(30);
    assert_eq!(drawn(&world).0, at, "the hashes are those that stood there");
    world.runtime.spec.restart_nonce = Some("1".to_owned());
    assert_ne!(drawn(&world).1, hashes);
}
