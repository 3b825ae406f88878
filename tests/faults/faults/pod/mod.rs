//! A simulated pod: the real state machine, fence and signatures behind the real wire, on an address of its own.
//!
//! It always has work: while its gate is open, one execution follows the other.

mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lifecycle::fence::{self, Record};
use lifecycle::machine::{Event, GateMode, Next, Phase};
use lifecycle::{BootFile, Keys, Machine, State};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::plant::Note;
use crate::world::World;

/// Where every pod listens, each on its own address.
pub(crate) const PORT: u16 = 28_080;
/// How long an execution takes.
const WORK: Duration = Duration::from_millis(12);
/// As the spec's bootHoldSeconds.
const BOOT_HOLD: Duration = Duration::from_secs(4);

static ADDRESSES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) hash: String,
    pub(crate) address: IpAddr,
    runtime_uid: String,
    world: Arc<World>,
    core: Mutex<Core>,
    /// Moves with each change.
    changed: watch::Sender<u64>,
    /// The number of the process that runs; 0 when none ever will again.
    process: watch::Sender<u32>,
}

struct Core {
    machine: Machine,
    record: Option<Record>,
    keys: Option<Keys>,
    mount: Option<BootFile>,
    executing: u32,
    begun: Instant,
    /// By how many seconds the clock is wrong.
    clock: i64,
}

/// A free loopback address.
pub(crate) fn address() -> IpAddr {
    let number = ADDRESSES.fetch_add(1, Ordering::Relaxed) + 1;
    let [_, a, b, c] = number.to_be_bytes();
    // 127.64 and up: what else listens on loopback is on 127.0.
    IpAddr::V4(Ipv4Addr::new(127, 64 + (a % 128), b, c))
}

impl Pod {
    /// Starts the first process. The mount is what the boot ConfigMap holds now.
    pub(crate) async fn start(
        world: &Arc<World>,
        (name, uid, hash): (String, String, String),
        address: IpAddr,
        runtime_uid: String,
        mount: Option<BootFile>,
    ) -> Arc<Self> {
        let (machine, keys) = boot(&runtime_uid, None, mount.as_ref());
        let core = Core { machine, record: None, keys, mount, executing: 0, begun: Instant::now(), clock: 0 };
        let pod = Arc::new(Self {
            name,
            uid,
            hash,
            address,
            runtime_uid,
            world: Arc::clone(world),
            core: Mutex::new(core),
            changed: watch::Sender::new(1),
            process: watch::Sender::new(1),
        });
        let listener = TcpListener::bind(SocketAddr::new(address, PORT)).await.expect("a loopback address");
        // From here on it boots without a pause: before that there is nothing that could execute or acknowledge.
        world.oracle.appear(&pod.uid);
        tokio::spawn(Arc::clone(&pod).serve(listener));
        tokio::spawn(Arc::clone(&pod).work());
        tokio::spawn(Arc::clone(&pod).hold_boot());
        pod.loaded();
        pod
    }

    /// Which container runs, for the pod's status.
    pub(crate) fn container(&self) -> u32 {
        *self.process.borrow()
    }

    pub(crate) fn ready(&self) -> bool {
        self.state() == State::Running
    }

    pub(crate) fn state(&self) -> State {
        self.lock().machine.state()
    }

    /// The kubelet's mount shows a newer file.
    pub(crate) fn mount(&self, file: &BootFile) {
        self.lock().mount = Some(file.clone());
    }

    /// SIGTERM: drains, and ends.
    pub(crate) fn terminate(&self) {
        let mut core = self.lock();
        let idle = core.executing == 0;
        core.machine.event(Event::Terminate, idle);
        core.machine.event(Event::Idle, idle);
        self.after(&mut core);
    }

    /// The process is killed, and another is started in its place: what was recorded stays.
    pub(crate) fn crash(&self) {
        let mut core = self.lock();
        if core.machine.phase == Phase::Exited || *self.process.borrow() == 0 {
            return;
        }
        if core.machine.phase == Phase::Stopping(Next::Exit) {
            // No container of a pod that is on its way out is started again.
            core.executing = 0;
            core.machine.event(Event::Idle, true);
            self.after(&mut core);
            return;
        }
        let (machine, keys) = boot(&self.runtime_uid, core.record.as_ref(), core.mount.as_ref());
        (core.machine, core.keys, core.executing, core.begun) = (machine, keys, 0, Instant::now());
        self.world.oracle.restart(&self.uid);
        self.process.send_modify(|process| *process += 1);
        drop(core);
        self.loaded();
    }

    /// Nothing of it is left.
    pub(crate) fn end(&self) {
        self.process.send_modify(|process| *process = 0);
        self.world.oracle.vanish(&self.uid);
    }

    fn loaded(&self) {
        let mut core = self.lock();
        let idle = core.executing == 0;
        core.machine.event(Event::Ready, idle);
        self.after(&mut core);
    }

    /// Writes down what is to outlive the process, and tells of the change.
    fn after(&self, core: &mut Core) {
        let machine = &core.machine;
        let untouched = core.record.is_none() && machine.epoch == 0 && machine.brakes.is_empty();
        if !untouched {
            core.record = Some(Record {
                runtime_uid: self.runtime_uid.clone(),
                epoch: machine.epoch,
                state: machine.holds.operator,
                holds: machine.holds,
                keys: core.keys.clone(),
                brakes: machine.brakes.clone(),
            });
            self.world.oracle.accept(&self.uid, machine.epoch);
        }
        if machine.phase == Phase::Exited {
            self.end();
            self.world.note(Note::Exited(self.uid.clone()));
        } else {
            self.world.note(Note::Changed);
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// One execution after the other while the gate is open.
    async fn work(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        loop {
            let process = *self.process.borrow();
            if process == 0 {
                return;
            }
            if !self.begin() {
                if self.world.lies() {
                    // A pod that says that it is paused and goes on: what the oracle is for.
                    self.world.oracle.begin(&self.uid);
                    tokio::time::sleep(WORK).await;
                    self.world.oracle.end(&self.uid);
                    continue;
                }
                if changed.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::time::sleep(WORK).await;
            self.finish(process);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    fn begin(&self) -> bool {
        let mut core = self.lock();
        let open = core.machine.gate() == GateMode::Open && *self.process.borrow() != 0;
        if open {
            core.executing += 1;
            self.world.oracle.begin(&self.uid);
        }
        open
    }

    /// An execution ends, unless its process has ended before.
    fn finish(&self, process: u32) {
        let mut core = self.lock();
        if *self.process.borrow() != process {
            return;
        }
        core.executing -= 1;
        self.world.oracle.end(&self.uid);
        let before = core.machine.clone();
        core.machine.event(Event::Idle, true);
        if matches!(core.machine.phase, Phase::Starting(_)) {
            core.machine.event(Event::Ready, true);
        }
        if core.machine != before {
            self.after(&mut core);
        }
    }

    /// Looks at the mount while the boot hold lasts, and believes it at its end.
    async fn hold_boot(self: Arc<Self>) {
        while *self.process.borrow() != 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut core = self.lock();
            if !core.machine.boot_hold {
                continue;
            }
            let idle = core.executing == 0;
            let before = core.machine.clone();
            if let Some(file) = core.mount.clone() {
                core.machine.release_brakes(file.epoch, &file.releases, idle);
                core.machine.release(file.epoch, file.release_epoch);
                core.machine.adopt(file.epoch, file.state, file.mode, idle);
            }
            if core.begun.elapsed() >= BOOT_HOLD && core.machine.epoch > 0 {
                core.machine.event(Event::BootHoldEnded, idle);
                core.machine.event(Event::Ready, idle);
            }
            if core.machine != before {
                self.after(&mut core);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn boot(runtime_uid: &str, record: Option<&Record>, mount: Option<&BootFile>) -> (Machine, Option<Keys>) {
    let boot = fence::boot(true, runtime_uid, record, mount);
    (Machine::boot(boot.epoch, boot.holds, boot.brakes, boot.await_confirmation), boot.keys)
}
