//! The operator's process: the real program, started again whenever it ends, as the kubelet does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::watch;

/// Nobody listens where it ends at once.
const RESTART: Duration = Duration::from_millis(100);

pub(crate) struct Operator {
    program: PathBuf,
    namespace: String,
    kubeconfig: PathBuf,
    log: PathBuf,
    /// By how much its clock is wrong, for the library that it asks for the time.
    clock: PathBuf,
    /// Further settings of its next process.
    settings: Mutex<Vec<(&'static str, String)>>,
    /// What ends it when it is not wanted any more: not at once as a crash, but as the kubelet does.
    gently: AtomicBool,
    /// How it ended when it was asked to.
    ended: Mutex<Option<ExitStatus>>,
    pid: AtomicI32,
    wanted: watch::Sender<bool>,
    alive: watch::Sender<bool>,
}

impl Operator {
    /// One that talks to the API server by way of this port of a proxy. It is not started yet.
    pub(crate) fn new(namespace: &str, number: usize, port: u16, folder: &Path) -> Self {
        let kubeconfig = folder.join(format!("{namespace}-{number}.json"));
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
            "users": [{ "name": "c", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let clock = folder.join(format!("{namespace}-{number}.clock"));
        std::fs::write(&clock, "+0").unwrap();
        Self {
            clock,
            settings: Mutex::default(),
            gently: AtomicBool::new(false),
            ended: Mutex::default(),
            program: program(),
            namespace: namespace.to_owned(),
            kubeconfig,
            log: folder.join(format!("{namespace}-{number}.log")),
            pid: AtomicI32::new(0),
            wanted: watch::Sender::new(false),
            alive: watch::Sender::new(false),
        }
    }

    /// Keeps it going while it is wanted.
    pub(crate) async fn supervise(&self) {
        let mut wanted = self.wanted.subscribe();
        loop {
            if wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            let begun = Instant::now();
            let log = File::options().create(true).append(true).open(&self.log).unwrap();
            let mut child = Command::new(&self.program)
                .env_clear()
                .env("KUBECONFIG", &self.kubeconfig)
                .env("POD_NAMESPACE", &self.namespace)
                // Two replicas that both take themselves for the leader are what a Lease is to rule out.
                .env("POD_NAME", "operator")
                .env("OPERATOR_LISTEN", "127.0.0.1:0")
                .env("LEASE_SECONDS", "9")
                .env("API_SILENCE_SECONDS", "3")
                .env("ALLOW_LOOPBACK_PODS", "true")
                .envs(wrong_clock(&self.clock))
                // A build that counts which lines run says there what ran.
                .envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)))
                .envs(self.settings.lock().unwrap().clone())
                .env("OPERATOR_LOG", std::env::var("OPERATOR_LOG").unwrap_or_else(|_| "info,operator=debug".to_owned()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .expect("the operator's program");
            self.pid.store(i32::try_from(child.id().unwrap_or(0)).unwrap_or(0), Ordering::SeqCst);
            self.alive.send_replace(true);
            let unwanted = tokio::select! {
                _ = child.wait() => false,
                wanted = wanted.wait_for(|wanted| !*wanted) => wanted.is_ok(),
            };
            if unwanted && self.gently.load(Ordering::SeqCst) {
                self.signal(Signal::TERM);
                let ended = child.wait().await.ok();
                *self.ended.lock().unwrap() = ended;
            } else if unwanted {
                let _ = child.kill().await;
            }
            forget_clock(self.pid.swap(0, Ordering::SeqCst));
            self.alive.send_replace(false);
            if begun.elapsed() < RESTART {
                tokio::time::sleep(RESTART).await;
            }
        }
    }

    /// Its next process has this setting.
    pub(crate) fn set(&self, name: &'static str, value: &str) {
        self.settings.lock().unwrap().push((name, value.to_owned()));
    }

    /// Ends it as the kubelet does, and waits until it has ended, which it has to do well.
    pub(crate) async fn finish(&self) {
        self.gently.store(true, Ordering::SeqCst);
        self.wanted.send_replace(false);
        let _ = self.alive.subscribe().wait_for(|alive| !*alive).await;
        let ended = *self.ended.lock().unwrap();
        assert!(ended.is_some_and(|ended| ended.success()), "{ended:?}: {}", self.log());
    }

    /// What another of its commands gives: whether it succeeded, and what it says.
    pub(crate) async fn ask(&self, command: &str) -> (bool, String) {
        let mut program = Command::new(&self.program);
        program.env_clear().envs(self.settings.lock().unwrap().clone());
        let output = program.arg(command).output().await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn start(&self) {
        self.wanted.send_replace(true);
    }

    /// Ends it, and waits until it has ended.
    pub(crate) async fn stop(&self) {
        self.wanted.send_replace(false);
        self.signal(Signal::KILL);
        let _ = self.alive.subscribe().wait_for(|alive| !*alive).await;
    }

    /// As a crash: the supervisor starts another at once.
    pub(crate) async fn crash(&self) {
        let pid = self.pid.load(Ordering::SeqCst);
        self.signal(Signal::KILL);
        let mut alive = self.alive.subscribe();
        let _ = alive.wait_for(|alive| !*alive || self.pid.load(Ordering::SeqCst) != pid).await;
    }

    /// Its clock is wrong by so many seconds from now on.
    pub(crate) fn set_clock(&self, seconds: i64) {
        let next = self.clock.with_extension("next");
        // At once: a half-written file would be another time. At the end of all runs the folder is gone.
        let _ = std::fs::write(&next, format!("{seconds:+}")).and_then(|()| std::fs::rename(&next, &self.clock));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid.load(Ordering::SeqCst)) {
            let _ = kill_process(pid, signal);
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What is logged from here on is another run's.
    pub(crate) fn forget_log(&self) {
        let _ = File::options().write(true).open(&self.log).and_then(|file| file.set_len(0));
    }
}

/// Debian's library through which the operator's wall clock can be set; its timers go on as they are.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Whether the operator's clock can be set.
pub(crate) fn has_clock() -> bool {
    Path::new(FAKETIME).exists()
}

fn wrong_clock(file: &Path) -> Vec<(&'static str, PathBuf)> {
    if !has_clock() {
        return Vec::new();
    }
    vec![
        ("LD_PRELOAD", FAKETIME.into()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_owned()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

/// The library leaves what it shares with children behind when a process is killed.
fn forget_clock(pid: i32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

/// The debug build, beside this test program.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("agentruntime-operator")
}

/// Cargo builds only what a test depends on, and nothing depends on a program: it is to be there, and current.
pub(crate) fn check() {
    let program = program();
    let built = std::fs::metadata(&program).and_then(|file| file.modified());
    let built = built.unwrap_or_else(|_| panic!("no {}: run `cargo build --package operator`", program.display()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let newer = ["operator/src", "lifecycle/src", "crds/src"].iter().any(|folder| newest(&root.join(folder)) > built);
    assert!(!newer, "{} is older than its source: run `cargo build --package operator`", program.display());
}

fn newest(folder: &Path) -> SystemTime {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let times = entries.map(|entry| match entry.metadata().unwrap() {
        meta if meta.is_dir() => newest(&entry.path()),
        meta => meta.modified().unwrap(),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
