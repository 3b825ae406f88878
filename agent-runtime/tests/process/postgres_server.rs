//! A PostgreSQL server of the test's own: Debian's, in a folder of its own, reached over a Unix socket, or at an
//! address by those who know its password.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Known to those who come by the network.
const PASSWORD: &str = "of-the-test";
/// The user `nobody` and its group: PostgreSQL does not run as root.
const NOBODY: u32 = 65534;
/// Ends the server when the test does, however it ends: its input ends then. A line on it names another signal.
const KEEPER: &str = "\"$@\" & pid=$!; read -r signal; kill -${signal:-QUIT} $pid; wait $pid";

/// A server, up or down.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    keeper: Option<Child>,
    /// Where it listens besides its socket, for those who know the password.
    host: Option<IpAddr>,
    /// Of the socket's name, and of the address that it listens at.
    port: u16,
    settings: Vec<String>,
}

/// The port of servers that listen on no address.
const PORT: u16 = 5432;

/// A port of the loopback that nobody has.
pub(crate) fn free_port() -> u16 {
    free_port_at(Ipv4Addr::LOCALHOST.into())
}

/// Asked for and given back: whoever takes it meanwhile makes the test fail at once.
fn free_port_at(host: IpAddr) -> u16 {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

impl Server {
    /// A server that is up; none where PostgreSQL is not installed, which is said.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(None, PORT, &["-c", "listen_addresses="], &[])
    }

    /// One that also listens at an address of this machine, for pods of its network.
    pub(crate) fn start_at(host: IpAddr) -> Option<Self> {
        let listens = format!("listen_addresses={host}");
        let server = Self::start_with(Some(host), free_port_at(host), &["-c", &listens], &[])?;
        server.sql("postgres", &format!("ALTER ROLE runtime PASSWORD '{PASSWORD}'"));
        Some(server)
    }

    /// One that listens on this port of the loopback too, with settings and with files in its data.
    pub(crate) fn start_on(port: u16, settings: &[&str], files: &[(&str, Vec<u8>)]) -> Option<Self> {
        Self::start_with(None, port, &[&["-c", "listen_addresses=127.0.0.1"], settings].concat(), files)
    }

    fn start_with(host: Option<IpAddr>, port: u16, settings: &[&str], files: &[(&str, Vec<u8>)]) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("skipped: PostgreSQL is not installed: apt-get install postgresql");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { folder, programs, keeper: None, host, port, settings };
        let mut initdb = server.program("initdb");
        initdb.args(["--auth=trust", "--username=runtime", "--no-sync", "--encoding=UTF8", "--pgdata=data"]);
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for (name, content) in files {
            server.put(&server.folder.path().join("data").join(name), content);
        }
        if let Some(host) = host {
            let rules = server.folder.path().join("data/pg_hba.conf");
            let mut rules = std::fs::OpenOptions::new().append(true).open(rules).unwrap();
            writeln!(rules, "host all all {host}/24 scram-sha-256").unwrap();
        }
        server.up();
        Some(server)
    }

    /// Writes a file that nobody but the server may read: it takes no other key.
    fn put(&self, path: &Path, content: &[u8]) {
        use std::os::unix::fs::{OpenOptionsExt as _, chown};
        let _ = std::fs::remove_file(path);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(content).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server and waits until it takes connections.
    pub(crate) fn up(&mut self) {
        let postgres = self.programs.join("postgres");
        let mut keeper = self.program_at(Path::new("/bin/sh"));
        keeper.args(["-c", KEEPER, "sh"]).arg(postgres);
        keeper.args(["-D", "data", "-c", "fsync=on", "-c", "max_connections=200"]).args(&self.settings);
        keeper.arg("-k").arg(self.folder.path());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let keeper = keeper.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.keeper = Some(keeper);
        let begun = Instant::now();
        let is_up = || {
            let mut ready = self.program("pg_isready");
            ready.arg("--host").arg(self.folder.path()).stdout(Stdio::null()).status().unwrap().success()
        };
        while !is_up() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server: `INT` rolls back what is under way, `QUIT` is a crash.
    pub(crate) fn down(&mut self, signal: &str) {
        let Some(mut keeper) = self.keeper.take() else { return };
        // It may have ended by itself.
        let _ = writeln!(keeper.stdin.take().unwrap(), "{signal}");
        keeper.wait().unwrap();
    }

    /// Makes a database and gives its address.
    pub(crate) fn database(&self, name: &str) -> String {
        let mut createdb = self.program("createdb");
        let made = createdb.arg("--host").arg(self.folder.path()).args(["--username=runtime", name]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        match self.host {
            Some(host) => format!("postgres://runtime:{PASSWORD}@{host}:{}/{name}", self.port),
            None => format!("postgres://runtime@localhost:{}/{name}?host={}", self.port, self.folder.path().display()),
        }
    }

    /// Runs statements in a database, and gives the rows, their columns separated by `|`.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> Vec<String> {
        let mut psql = self.program("psql");
        psql.arg("--host").arg(self.folder.path()).args(["--username=runtime", "--no-psqlrc", "--quiet", "-At"]);
        let done = psql.args(["-v", "ON_ERROR_STOP=1", "-c", statements, database]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn program(&self, name: &str) -> Command {
        self.program_at(&self.programs.join(name))
    }

    fn program_at(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command.current_dir(self.folder.path()).env("PGPORT", self.port.to_string());
        // What is pressed at the terminal is for the test, which ends the server itself.
        command.process_group(0);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down("QUIT");
    }
}

/// The folder of the server's programs, of the newest version that Debian has installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let path = version.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            Some((number, path.join("bin"))).filter(|(_, bin)| bin.join("initdb").exists())
        })
        .collect();
    folders.sort();
    folders.pop().map(|(_, bin)| bin)
}
