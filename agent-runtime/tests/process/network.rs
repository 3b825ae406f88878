//! The way to a shared store: a network that swallows what is sent, and TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lifecycle::State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::graph::until;
use crate::postgres_server::{Server, free_port};
use crate::process::{Home, agent, eventually};
use crate::replicas::{LEASE, Replicas};

/// Forwards connections, until it is told to swallow: it closes none, and nothing arrives any more.
struct Proxy {
    address: SocketAddr,
    swallows: watch::Sender<bool>,
}

impl Proxy {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (swallows, swallowed) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(forward(near_in, far_out, swallowed.clone()));
                tokio::spawn(forward(far_in, near_out, swallowed.clone()));
            }
        });
        Self { address, swallows }
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallowed: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !*swallowed.borrow() && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // The end of a connection is swallowed too, for as long as that lasts.
    let mut swallowed = swallowed;
    let _ = swallowed.wait_for(|swallows| !swallows).await;
}

const BEATS: &str = r#"
graph:
  entry_points: {slow: a}
  nodes:
    - {id: a, node_type: exec, max_retries: 0, command: [/bin/sh, -c, "while [ ! -e LEDGER/go ] && [ -e LEDGER ]; do echo $PPID beat >> LEDGER/log; sleep 0.05; done; echo $PPID end >> LEDGER/log"]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_behind_a_network_that_swallows_everything_has_ended_before_another_replica_takes_it() {
    let Some(replicas) = Replicas::on(BEATS, free_port()) else { return };
    let proxy = Proxy::start(replicas.server.port()).await;
    let url = format!("postgres://runtime@{}/runtime?sslmode=disable", proxy.address);
    let cut_off_home = replicas.home_at(&url);
    let cut_off = cut_off_home.start().await;
    cut_off.reach(State::Running).await;
    let id = cut_off.trigger().await;
    let by = |pid: u32| replicas.lines("log").iter().filter(|line| line.starts_with(&format!("{pid} "))).count();
    let first = cut_off.child.id().unwrap();
    eventually("it runs", || async { by(first) > 0 }).await;
    let (_home, other) = replicas.start().await;
    let second = other.child.id().unwrap();
    let begun = Instant::now();
    proxy.swallows.send_replace(true);
    eventually("it is interrupted", || async { cut_off.status().await.in_flight == Some(0) }).await;
    // It was renewed at most a third of the lease before, and is interrupted two thirds after that.
    let lease = Duration::from_secs(LEASE.parse().unwrap());
    assert!(begun.elapsed() < lease, "{:?}", begun.elapsed());
    assert_eq!(by(second), 0, "it ended before another had it");
    let last = by(first);
    let says_so = || async {
        let away = cut_off.status().await.health.storage.as_str() == "unhealthy";
        away && cut_off.get("/health/ready").await.0 == 503
    };
    eventually("it says that its database is away", says_so).await;
    eventually("another takes it", || async { by(second) > 0 }).await;
    assert_eq!(by(first), last, "nothing of it ran on");
    std::fs::write(replicas.path("go"), "").unwrap();
    until(&other, &id, "succeeded").await;

    proxy.swallows.send_replace(false);
    eventually("it is ready again", || async { cut_off.get("/health/ready").await.0 == 200 }).await;
    let next = cut_off.trigger().await;
    until(&cut_off, &next, "succeeded").await;
    let ends: Vec<String> = replicas.lines("log").into_iter().filter(|line| line.ends_with(" end")).collect();
    assert_eq!((by(first) >= last, ends.len(), &ends[0]), (true, 2, &format!("{second} end")), "each once");
    let outcomes = "SELECT execution, count(*) FROM journal WHERE convert_from(entry, 'UTF8')::jsonb->>'event' = 'succeeded' GROUP BY 1";
    let mut each = [format!("{id}|1"), format!("{next}|1")];
    let mut written = replicas.sql(outcomes);
    each.sort();
    written.sort();
    assert_eq!(written, each);
}

/// A CA and, signed by it, a certificate for `localhost` with its key, as files in a folder.
fn certificates(folder: &Path, name: &str) {
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl").current_dir(folder).args(arguments).output().expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(
        &[&["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", &format!("/CN={name}")][..], &key].concat(),
    );
    openssl(&[&["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"][..], &key].concat());
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "server.crt"];
    openssl(&[&["x509", "-req", "-in", "server.csr"][..], &signed].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_reached_over_tls_and_refused_where_its_certificate_proves_nothing() {
    let (ours, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(ours.path(), "ours");
    certificates(foreign.path(), "foreign");
    let read = |name: &str| std::fs::read(ours.path().join(name)).unwrap();
    let files = [
        ("server.crt", read("server.crt")),
        ("server.key", read("server.key")),
        // The test's own way in, and nobody over the network without TLS.
        ("pg_hba.conf", b"local all all trust\nhostssl all all 127.0.0.1/32 trust\n".to_vec()),
    ];
    let Some(server) = Server::start_on(free_port(), &["-c", "ssl=on"], &files) else { return };
    server.database("runtime");
    let url =
        |host: &str, parameters: &str| format!("postgres://runtime@{host}:{}/runtime?{parameters}", server.port());
    let verified =
        |host: &str, by: &Path| url(host, &format!("sslmode=verify-full&sslrootcert={}", by.join("ca.pem").display()));
    let home = Home::new(&agent(0.0)).with("HIVE_STORE_URL", &verified("localhost", ours.path()));
    let runtime = home.start().await;
    runtime.reach(State::Running).await;
    runtime.trigger().await;
    home.wait_for_lines("done", 1).await;
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE application_name = 'agent-runtime'";
    assert_eq!(server.sql("runtime", encrypted), ["t"]);
    for (url, why) in [
        (verified("localhost", foreign.path()), "invalid peer certificate: UnknownIssuer"),
        (verified("127.0.0.1", ours.path()), "invalid peer certificate: certificate not valid for name"),
        (url("localhost", "sslmode=disable"), "no encryption"),
    ] {
        let home = Home::new(&agent(0.0)).with("HIVE_STORE_URL", &url);
        let runtime = home.start().await;
        eventually("it says why", || async { runtime.status().await.message.is_some() }).await;
        let status = runtime.status().await;
        assert!(status.message.as_deref().is_some_and(|message| message.contains(why)), "{why}: {status:?}");
        assert_eq!((status.state, runtime.get("/health/ready").await.0), (State::Starting, 503));
    }
}
