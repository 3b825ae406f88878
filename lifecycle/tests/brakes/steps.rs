//! What may happen next, in every order.

use lifecycle::Desired;
use stateright::Property;

use crate::leaders::Watch;
use crate::store::{Event, File, Id};
use crate::world::{Bounds, Broken, Proof, World};

pub(crate) const PROMISE: &str = "from the acknowledgement of a brake, while its reason stands, the pod is still";
pub(crate) const BRAKED: &str = "a brake is acknowledged";
pub(crate) const RELEASED: &str = "a release is reached";

/// What may happen next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// People do something.
    Happen(Event),
    /// A leader's watch catches up.
    Watch(usize, Watch),
    /// A leader brakes.
    Brake(usize),
    /// A leader writes a file that only tightens.
    Tighten(usize),
    /// A leader asks, plans, and writes if nobody has written since.
    Ask(usize),
    Plan(usize),
    Write(usize),
    /// A brake arrives.
    Arrive(Id, i64),
    /// The command of a stored file arrives, or of one that is not.
    Obey(usize),
    ObeyTold(File),
    /// The pod dies and comes up with a mount that may be old, or older than all that counts.
    Crash(Option<usize>),
    /// A pod that waits for a confirmation looks at a mount that may be old; and at last believes it.
    Look(usize, bool),
}

pub(crate) struct Model {
    pub(crate) bounds: Bounds,
}

impl Model {
    fn steps_of_leader(&self, world: &World, n: usize, steps: &mut Vec<Step>) {
        let (leader, store) = (&world.leaders[n], &world.store);
        let watches = [
            (Watch::Freezes, leader.seen.freezes != store.freezes),
            (Watch::Object, leader.seen.object != store.object),
            (Watch::Namespace, leader.seen.namespace != store.namespace),
        ];
        steps.extend(watches.into_iter().filter(|(_, lags)| *lags).map(|(watch, _)| Step::Watch(n, watch)));
        // Whether the pod is held already is known from its answers, which may be old.
        if leader.reason().is_some() {
            steps.push(Step::Brake(n));
        }
        if world.writes < self.bounds.writes {
            if self.bounds.proof != Proof::OneMoment {
                steps.push(Step::Ask(n));
            }
            steps.extend([Step::Tighten(n), Step::Plan(n)]);
            if leader.plan.is_some() {
                steps.push(Step::Write(n));
            }
        }
    }

    fn steps_of_pod(&self, world: &World, steps: &mut Vec<Step>) {
        let files = 0..world.files.len();
        steps.extend(world.sent.iter().map(|(id, epoch)| Step::Arrive(*id, *epoch)));
        steps.extend(files.clone().map(Step::Obey));
        steps.extend(world.told.iter().cloned().map(Step::ObeyTold));
        if world.crashes < self.bounds.crashes {
            steps.push(Step::Crash(None));
            steps.extend(files.clone().map(Some).map(Step::Crash));
        }
        if world.pod.machine.boot_hold {
            steps.extend(files.flat_map(|file| [Step::Look(file, false), Step::Look(file, true)]));
        }
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let is_over = world.happened == self.bounds.happens;
        if is_over && world.store.demand() == Desired::Running {
            // No freeze stands, and none will: there is nothing more to promise.
            return;
        }
        if !is_over {
            steps.extend(self.bounds.events.iter().copied().map(Step::Happen));
        }
        for n in 0..world.leaders.len() {
            self.steps_of_leader(world, n, steps);
        }
        self.steps_of_pod(world, steps);
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        let Bounds { freezes, proof, broken, .. } = self.bounds;
        match step {
            Step::Happen(event) => world.happen(event, freezes)?,
            Step::Watch(n, watch) => world.leaders[n].watch(watch, &before.store),
            Step::Brake(n) => world.brake(n, broken)?,
            Step::Tighten(n) => world.tighten(n, broken)?,
            Step::Ask(n) => world.ask(n, proof),
            Step::Plan(n) => world.plan(n, &self.bounds)?,
            Step::Write(n) => world.write(n)?,
            Step::Arrive(id, epoch) => world.arrive(id, epoch),
            Step::Obey(file) => world.pod.obey(&before.files[file], broken),
            Step::ObeyTold(file) => world.pod.obey(&file, Broken::Nothing),
            Step::Crash(file) => {
                world.pod.crash(file.map(|file| &before.files[file]));
                world.crashes += 1;
            }
            Step::Look(file, ends) => world.pod.look(&before.files[file], ends),
        }
        world.normalize();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISE, |_, world: &World| world.keeps_the_promise()),
            Property::sometimes(BRAKED, |_, world: &World| world.is_braked()),
            Property::sometimes(RELEASED, |_, world: &World| world.is_released()),
        ]
    }
}
