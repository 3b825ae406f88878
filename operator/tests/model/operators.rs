//! An operator of the model: the product's `plan`, fed with a picture that may be old.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crds::{AgentRuntime, AgentRuntimeSpec, AgentSource, DesiredState};
use jiff::Timestamp;
use lifecycle::Desired;
use lifecycle::wire::Status;
use operator::observe::{
    Barrier, BootConfigMap, ChildFacts, ChildKind, Contact, DeploymentFacts, Heard, Observed, PodFacts,
};
use operator::plan::{Call, Plan, STRATEGY_ANNOTATION, Settings, plan};

use crate::pods::{Pod, RUNTIME};
use crate::world::{Boot, Broken, Runtime, Sent, World};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Operator {
    picture: Option<Picture>,
    /// By pod: the container it was taken for, and the answer as JSON.
    heard: BTreeMap<u8, (u8, Arc<str>)>,
    /// The last barrier LIST.
    listed: Option<(i64, Vec<u8>)>,
    /// The last epoch that this process wrote or saw.
    epoch: Option<i64>,
}

/// What its watches have shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Picture {
    runtime: Runtime,
    boot: Option<Boot>,
    pods: Vec<(u8, u8)>,
}

/// What a plan does to the world.
#[derive(Clone, Debug)]
struct Effects {
    boot: Option<BootSwap>,
    commands: Vec<Sent>,
    barrier: Option<i64>,
    status: Option<Arc<str>>,
}

/// A compare-and-swap of the boot ConfigMap.
#[derive(Clone, Debug)]
struct BootSwap {
    replaces: Option<u32>,
    text: Arc<str>,
    /// Only if the store shows the spec as it was seen.
    confirm: bool,
}

/// Plans that were made before: many worlds look the same to an operator.
#[derive(Default)]
pub(crate) struct Plans {
    known: Mutex<HashMap<Operator, Arc<Effects>>>,
}

impl Plans {
    fn of(&self, operator: &Operator) -> Arc<Effects> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(operator).cloned();
        found.unwrap_or_else(|| {
            let effects = Arc::new(operator.plan());
            known().insert(operator.clone(), Arc::clone(&effects));
            effects
        })
    }
}

impl Operator {
    pub(crate) fn has_looked(&self) -> bool {
        self.picture.is_some()
    }

    pub(crate) fn look(world: &mut World, n: usize) {
        let pods: Vec<(u8, u8)> = world.pods.iter().map(|pod| (pod.uid, pod.container)).collect();
        let picture = Picture { runtime: world.runtime.clone(), boot: None, pods };
        let operator = &mut world.operators[n];
        // An answer is forgotten with its pod.
        operator.heard.retain(|uid, _| picture.pods.iter().any(|(known, _)| known == uid));
        operator.picture = Some(picture);
        Self::look_at_boot(world, n);
    }

    pub(crate) fn look_at_boot(world: &mut World, n: usize) {
        let boot = world.boot.clone();
        let operator = &mut world.operators[n];
        if operator.epoch.is_none() {
            operator.epoch = boot.as_ref().map(|boot| boot.file().epoch);
        }
        if let Some(picture) = &mut operator.picture {
            picture.boot = boot;
        }
    }

    /// An answer is taken for the container that the watch showed when it was asked for.
    pub(crate) fn hear(world: &mut World, n: usize, pod: usize) {
        let pod: &Pod = &world.pods[pod];
        let operator = &mut world.operators[n];
        let shown = operator.picture.iter().flat_map(|picture| &picture.pods).find(|(uid, _)| *uid == pod.uid);
        if let Some((_, container)) = shown {
            let text = serde_json::to_string(&pod.status()).unwrap();
            operator.heard.insert(pod.uid, (*container, text.into()));
        }
    }

    /// One round of the controller: compare-and-swap, pushes, barrier or status.
    pub(crate) fn act(world: &mut World, n: usize, dies: bool, broken: Broken, plans: &Plans) {
        let effects = plans.of(&world.operators[n]);
        if let Some(BootSwap { replaces, text, confirm }) = &effects.boot {
            let seen = world.operators[n].picture.as_ref().map(|picture| picture.runtime.generation);
            let confirmed = !*confirm || broken == Broken::Confirm || seen == Some(world.runtime.generation);
            if !confirmed || world.boot.as_ref().map(|boot| boot.version) != *replaces {
                return;
            }
            let version = world.next_version();
            world.old_files.extend(world.boot.take().map(|boot| boot.text));
            let boot = Boot { version, text: Arc::clone(text) };
            world.boot = Some(boot.clone());
            world.newest = world.newest.max(boot.file().epoch);
            let operator = &mut world.operators[n];
            operator.epoch = Some(boot.file().epoch);
            if let Some(picture) = &mut operator.picture {
                picture.boot = Some(boot);
            }
        }
        if dies {
            return;
        }
        world.sent.extend(effects.commands.iter().cloned());
        if let Some(epoch) = effects.barrier {
            world.operators[n].listed = Some((epoch, world.pods.iter().map(|pod| pod.uid).collect()));
        } else if let Some(status) = &effects.status {
            let planned_from = world.operators[n].picture.as_ref().map(|picture| picture.runtime.version);
            if planned_from == Some(world.runtime.version) {
                world.runtime.version = world.next_version();
                world.runtime.status = Some(Arc::clone(status));
                let runtime = world.runtime.clone();
                if let Some(picture) = &mut world.operators[n].picture {
                    picture.runtime = runtime;
                }
            }
        }
    }

    fn plan(&self) -> Effects {
        let Some(picture) = &self.picture else {
            return Effects { boot: None, commands: Vec::new(), barrier: None, status: None };
        };
        let mut seen = self.observed(picture);
        // The children are taken for applied and the rollout for complete: the model is about the state. What the pods
        // need comes first, and they with the next plan.
        let pods = i32::try_from(picture.pods.len()).unwrap();
        for _ in 0..2 {
            let made = decide(&seen);
            for child in &made.children.apply {
                let (hash, uid) = (Some(child.hash.clone()), Some("uid".to_owned()));
                seen.children.insert(child.key.clone(), ChildFacts { hash, drifted: false, shown: true, uid });
                if child.key.kind == ChildKind::Deployment {
                    let strategy = &child.manifest["metadata"]["annotations"][STRATEGY_ANNOTATION];
                    seen.deployment = Some(DeploymentFacts {
                        wanted: pods,
                        observed: true,
                        replicas: pods,
                        updated: pods,
                        ready: pods,
                        failing: None,
                        paused: false,
                        strategy: strategy.as_str().unwrap().to_owned(),
                        template: String::new(),
                    });
                }
            }
        }
        effects(decide(&seen))
    }

    fn observed(&self, picture: &Picture) -> Observed {
        let pods: Vec<Arc<PodFacts>> = picture.pods.iter().map(|pod| Arc::new(facts(pod))).collect();
        let contacts = self.heard.iter().map(|(uid, (container, text))| {
            let status: Status = serde_json::from_str(text).unwrap();
            let heard = Heard::new(status, now(), Some(container.to_string().into()), true);
            (uid.to_string(), Contact { answer: Some(Arc::new(heard)), ..Contact::default() })
        });
        let boot = picture.boot.as_ref().map(|boot| BootConfigMap {
            resource_version: boot.version.to_string(),
            file: Some(boot.file()),
            hooks: None,
        });
        let seen = Observed {
            boot,
            contacts: contacts.collect(),
            barrier: self.listed.as_ref().map(|(epoch, pods)| Barrier {
                epoch: *epoch,
                pods: pods.iter().map(u8::to_string).collect(),
                at: Timestamp::UNIX_EPOCH,
            }),
            epoch_since: self.epoch.map(|epoch| (epoch, Timestamp::UNIX_EPOCH)),
            ..Observed::of(Arc::new(object(&picture.runtime, pods.len())))
        };
        Observed { pods, ..seen }
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn decide(seen: &Observed) -> Plan {
    plan(
        seen,
        &Settings {
            runtime_image: "agent-runtime:test".to_owned(),
            namespace: "system".to_owned(),
            exec_hooks: true,
            obey_freezes: true,
        },
        now(),
    )
}

fn effects(plan: Plan) -> Effects {
    let boot = plan.boot.map(|boot| {
        let text = serde_json::to_string(&boot.file).unwrap().into();
        let replaces = boot.replaces.map(|version| version.parse().unwrap());
        BootSwap { replaces, text, confirm: boot.confirm.is_some() }
    });
    let commands = plan.orders.into_iter().filter_map(|order| match order.call {
        Call::Command { verb, body } => {
            Some(Sent { pod: order.pod.parse().unwrap(), epoch: body.epoch.unwrap(), verb })
        }
        // Its pods are of an image that knows no brakes.
        Call::Ask { .. } | Call::Hook { .. } | Call::Brake { .. } => None,
    });
    let status = plan.status.map(|status| serde_json::to_string(&status).unwrap().into());
    Effects { boot, commands: commands.collect(), barrier: plan.barrier, status }
}

fn facts((uid, container): &(u8, u8)) -> PodFacts {
    PodFacts {
        name: format!("pod-{uid}"),
        uid: uid.to_string(),
        address: Some([10, 0, 0, 1].into()),
        terminating: false,
        ended: false,
        ready: true,
        port: None,
        container: Some(container.to_string().into()),
        created: Some(Timestamp::UNIX_EPOCH),
        started: Some(Timestamp::UNIX_EPOCH),
        waiting: None,
        unsafe_target: None,
    }
}

fn object(runtime: &Runtime, pods: usize) -> AgentRuntime {
    let spec = AgentRuntimeSpec {
        desired_state: match runtime.desired {
            Desired::Running => DesiredState::Running,
            Desired::Paused => DesiredState::Paused,
            Desired::Stopped => DesiredState::Stopped,
        },
        replicas: i32::try_from(pods).unwrap(),
        agent: Some(AgentSource { inline: Some(serde_json::Map::new()), config_map_ref: None }),
        ..AgentRuntimeSpec::default()
    };
    let mut object = AgentRuntime::new("demo", spec);
    object.metadata.namespace = Some("default".to_owned());
    object.metadata.uid = Some(RUNTIME.to_owned());
    object.metadata.generation = Some(runtime.generation);
    object.metadata.resource_version = Some(runtime.version.to_string());
    object.status = runtime.status.as_ref().map(|text| serde_json::from_str(text).unwrap());
    object
}
