//! The state of everything, and the promise.

use std::collections::BTreeSet;

use lifecycle::Desired;

use crate::leaders::{Leader, Listed};
use crate::pods::Pod;
use crate::store::{Event, File, Freeze, Id, RED, View};

/// How large the model is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// What people may do, in any order, and how often in all.
    pub(crate) events: &'static [Event],
    pub(crate) happens: u8,
    /// How many freezes there are at once.
    pub(crate) freezes: usize,
    /// How often the boot file is written. It is never written as long as nobody can.
    pub(crate) writes: u8,
    /// How often the pod crashes.
    pub(crate) crashes: u8,
    pub(crate) proof: Proof,
    pub(crate) broken: Broken,
}

/// What is taken away, to see that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// Rule 2: ids have no nonce.
    Nonce,
    /// Rule 7: a command of a higher epoch lets go of what it does not name.
    Names,
    /// Rule 9: commands speak of files that are not stored.
    Stored,
    /// Rule 11: a leader believes its watches that a brake's reason is gone.
    Proof,
    /// Rule 12: a file that lets run is written without a look at what the store demands.
    Confirm,
}

/// In which order a leader asks the pod, the store and for the boot file that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// All in one moment. What comes later in the world comes after all of them.
    OneMoment,
    /// The pod first, as rule 11 says; then the rest.
    PodFirst,
    /// Against rule 11: the store first, and then the pod.
    StoreFirst,
    /// Pod and store first, and then a boot file that is newer than what the store has said.
    FileLast,
    /// Pod and freezes first, and then the labels by which they select.
    LabelsLast,
    /// Pod and labels first, and then the freezes.
    FreezesLast,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) store: View,
    /// The uid of the last freeze, and how much people have done.
    uid: u8,
    pub(crate) happened: u8,
    /// Boot files that were stored, of which the last is: the others may still be mounted and told.
    pub(crate) files: Vec<File>,
    /// Boot files that were told before they were stored.
    pub(crate) told: BTreeSet<File>,
    /// Brakes on their way. They stay there: each may come late, and twice.
    pub(crate) sent: BTreeSet<(Id, i64)>,
    pub(crate) pod: Pod,
    /// In order, as each can be the other.
    pub(crate) leaders: [Leader; 2],
    pub(crate) writes: u8,
    pub(crate) crashes: u8,
    /// Brakes whose reason stands: first sent for a freeze that stands, and since it does.
    reasons: BTreeSet<Id>,
    /// The freezes that stand and of which the pod has acknowledged such a brake.
    acknowledged: BTreeSet<u8>,
}

impl World {
    /// The pod runs, a freeze has just been created, and nobody has seen it.
    pub(crate) fn new() -> Self {
        let before = View { freezes: Vec::new(), object: RED, namespace: true };
        let freeze = Freeze { uid: 1, generation: 1, selector: RED };
        let file = File { epoch: 1, state: Desired::Running, releases: Vec::new() };
        Self {
            store: View { freezes: vec![freeze], ..before.clone() },
            uid: 1,
            happened: 0,
            pod: Pod::new(&file),
            files: vec![file],
            told: BTreeSet::new(),
            sent: BTreeSet::new(),
            leaders: [Leader::new(before.clone()), Leader::new(before)],
            writes: 0,
            crashes: 0,
            reasons: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    pub(crate) fn newest(&self) -> &File {
        self.files.last().unwrap()
    }

    pub(crate) fn keeps_the_promise(&self) -> bool {
        self.acknowledged.is_empty() || !self.pod.is_open()
    }

    pub(crate) fn is_braked(&self) -> bool {
        !self.acknowledged.is_empty()
    }

    /// A file names what the pod had listed, the pod has obeyed it, and runs.
    pub(crate) fn is_released(&self) -> bool {
        let is_obeyed = |file: &File| file.epoch == self.pod.machine.epoch && !file.releases.is_empty();
        self.pod.is_open() && self.files.iter().any(is_obeyed)
    }

    pub(crate) fn happen(&mut self, event: Event, freezes: usize) -> Option<()> {
        self.store = event.happen(&self.store, self.uid + 1, freezes)?;
        self.uid += u8::from(event == Event::Create);
        self.happened += 1;
        let standing: BTreeSet<u8> = self.store.standing().map(|freeze| freeze.uid).collect();
        self.acknowledged.retain(|uid| standing.contains(uid));
        self.reasons.retain(|id| standing.contains(&id.uid));
        Some(())
    }

    /// A brake takes a new nonce if it is the first that this leader sends for what it has seen begin. Rule 3: its
    /// epoch is the pod's. With a lower one it would be refused and repeated, with a higher one it is harder to release.
    pub(crate) fn brake(&mut self, n: usize, broken: Broken) -> Option<()> {
        let (uid, generation) = self.leaders[n].reason()?;
        let nonce = match self.leaders[n].nonce {
            _ if broken == Broken::Nonce => 0,
            Some(nonce) => nonce,
            None => self.unused(uid, generation),
        };
        let id = Id { uid, generation, nonce };
        let is_first = self.leaders[n].nonce.replace(nonce).is_none();
        if is_first && self.store.standing().any(|freeze| freeze.uid == uid) {
            self.reasons.insert(id);
        }
        self.sent.insert((id, self.pod.machine.epoch));
        Some(())
    }

    /// A nonce that is nowhere: whether it was used before and forgotten makes no difference.
    fn unused(&self, uid: u8, generation: u8) -> u8 {
        let mut used: BTreeSet<Id> = self.reasons.clone();
        used.extend(self.pod.brakes().iter().chain(&self.sent).map(|(id, _)| *id));
        used.extend(self.files.iter().chain(&self.told).flat_map(|file| &file.releases));
        for leader in &self.leaders {
            used.extend(leader.sent());
            used.extend(leader.asked.0.iter().flatten().map(|(id, _)| *id));
            used.extend(leader.plan.iter().flat_map(|file| &file.releases));
        }
        (1..).find(|nonce| !used.contains(&Id { uid, generation, nonce: *nonce })).unwrap()
    }

    pub(crate) fn arrive(&mut self, id: Id, epoch: i64) {
        if self.pod.brake(id, epoch) && self.reasons.contains(&id) {
            self.acknowledged.insert(id.uid);
        }
    }

    /// The first of what a leader asks, where it does not ask all in one moment.
    pub(crate) fn ask(&mut self, n: usize, proof: Proof) {
        let (listed, store) = (self.pod.brakes(), self.store.clone());
        self.leaders[n].asked = match proof {
            Proof::OneMoment => (None, None),
            Proof::PodFirst => (Some(listed), None),
            Proof::StoreFirst => (None, Some(store)),
            Proof::FileLast | Proof::LabelsLast | Proof::FreezesLast => (Some(listed), Some(store)),
        };
    }

    /// A leader asks the rest, and plans a file to replace the newest.
    pub(crate) fn plan(&mut self, n: usize, bounds: &Bounds) -> Option<()> {
        let leader = &mut self.leaders[n];
        let (listed, store) = std::mem::take(&mut leader.asked);
        if bounds.proof != Proof::OneMoment && listed.is_none() && store.is_none() {
            return None;
        }
        let listed: Listed = listed.unwrap_or_else(|| self.pod.brakes());
        let found = match (bounds.proof, store) {
            (Proof::LabelsLast, Some(before)) => View { freezes: before.freezes, ..self.store.clone() },
            (Proof::FreezesLast, Some(before)) => View { freezes: self.store.freezes.clone(), ..before },
            (_, Some(before)) => before,
            (_, None) => self.store.clone(),
        };
        let plan = leader.plan(self.files.last()?, &listed, Some(&found), bounds.broken)?;
        if bounds.broken == Broken::Stored {
            self.told.insert(plan.clone());
        }
        leader.plan = Some(plan);
        Some(())
    }

    /// A file that only tightens needs no proof, and so is as good as planned when it is written.
    pub(crate) fn tighten(&mut self, n: usize, broken: Broken) -> Option<()> {
        let plan = self.leaders[n].plan(self.newest(), &Vec::new(), None, broken)?;
        if plan.state <= self.newest().state {
            return None;
        }
        self.store_file(plan);
        Some(())
    }

    pub(crate) fn write(&mut self, n: usize) -> Option<()> {
        let plan = self.leaders[n].plan.take()?;
        self.store_file(plan);
        Some(())
    }

    /// A compare-and-swap has one winner: what the other was about to write is refused.
    fn store_file(&mut self, file: File) {
        self.files.push(file);
        self.writes += 1;
        for leader in &mut self.leaders {
            leader.plan = None;
        }
    }

    /// Makes worlds that go on alike into one.
    pub(crate) fn normalize(&mut self) {
        let Self { reasons, acknowledged, leaders, sent, files, pod, .. } = self;
        // A pod's epoch never falls: what is below is refused for good, and a mount that is older says nothing.
        let epoch = pod.machine.epoch;
        sent.retain(|(_, sent)| *sent >= epoch);
        let newest = files.pop().unwrap();
        files.retain(|file| file.epoch >= epoch);
        // What is named with effect need not be named again.
        for leader in leaders.iter_mut() {
            if let Some(listed) = &mut leader.asked.0 {
                listed.retain(|(id, epoch)| *epoch >= newest.epoch || !newest.releases.contains(id));
            }
        }
        files.push(newest);
        // A brake counts when it arrives, and only the first.
        let is_under_way =
            |id: &Id| sent.iter().any(|(sent, _)| sent == id) || leaders.iter().any(|it| it.sent() == Some(*id));
        reasons.retain(|id| !acknowledged.contains(&id.uid) && is_under_way(id));
        leaders.sort();
    }
}
