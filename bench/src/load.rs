//! The load generator: one thread that spins over its connections, so that no timer and no wake-up of
//! its own is part of a latency.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::figures;
use crate::http;

/// Answers are read within this after the last request.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer.
const BUFFER: usize = 16 * 1024;

/// What is asked, of whom, over how many connections.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) request: Vec<u8>,
    pub(crate) connections: usize,
    /// The status code that every answer must have.
    pub(crate) expect: u16,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Answers in a second.
    pub(crate) rate: f64,
    /// Latencies in milliseconds, sorted.
    pub(crate) latencies: Vec<f64>,
}

impl Outcome {
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        figures::quantile(&self.latencies, share)
    }

    fn new(latencies: Vec<Duration>, length: Duration) -> Self {
        Self { rate: latencies.len() as f64 / length.as_secs_f64(), latencies: figures::milliseconds(latencies) }
    }
}

/// One connection, and since when its request is due.
struct Connection {
    stream: TcpStream,
    due: Option<Instant>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Load {
    /// Every connection asks again as soon as it is answered. What is answered in the warm-up does not count.
    pub(crate) fn closed(&self, warm_up: Duration, length: Duration) -> anyhow::Result<Outcome> {
        let mut connections = self.connect()?;
        let begin = Instant::now() + warm_up;
        let end = begin + length;
        let mut latencies = Vec::new();
        loop {
            let mut now = Instant::now();
            for connection in &mut connections {
                if let Some(due) = connection.due {
                    if !connection.receive(self.expect)? {
                        continue;
                    }
                    now = Instant::now();
                    if (begin..end).contains(&now) {
                        latencies.push(now.duration_since(due));
                    }
                }
                if now < end {
                    connection.send(&self.request, now)?;
                }
            }
            if now >= end && is_done(&connections, end)? {
                return Ok(Outcome::new(latencies, length));
            }
        }
    }

    /// Requests come at a fixed rate whatever the answers do; one that finds no free connection has
    /// been waiting since it was due.
    pub(crate) fn open(&self, rate: f64, length: Duration) -> anyhow::Result<Outcome> {
        let mut connections = self.connect()?;
        let begin = Instant::now();
        let end = begin + length;
        let mut latencies = Vec::new();
        let mut asked = 0u32;
        loop {
            let mut due = begin + Duration::from_secs_f64(f64::from(asked) / rate);
            for connection in &mut connections {
                if let Some(since) = connection.due
                    && connection.receive(self.expect)?
                {
                    latencies.push(since.elapsed());
                }
                if connection.due.is_none() && due < end && due <= Instant::now() {
                    connection.send(&self.request, due)?;
                    asked += 1;
                    due = begin + Duration::from_secs_f64(f64::from(asked) / rate);
                }
            }
            if due >= end && is_done(&connections, end)? {
                return Ok(Outcome::new(latencies, length));
            }
            if Instant::now() > end + PATIENCE {
                bail!("{asked} requests at {rate:.0} a second were not answered in time");
            }
        }
    }

    fn connect(&self) -> anyhow::Result<Vec<Connection>> {
        let one = |_| {
            let stream =
                TcpStream::connect(self.address).with_context(|| format!("cannot connect to {}", self.address))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Connection { stream, due: None, buffer: vec![0; BUFFER], filled: 0 })
        };
        (0..self.connections).map(one).collect()
    }
}

fn is_done(connections: &[Connection], end: Instant) -> anyhow::Result<bool> {
    let open = connections.iter().filter(|connection| connection.due.is_some()).count();
    if open > 0 && Instant::now() > end + PATIENCE {
        bail!("{open} requests were not answered within {} s", PATIENCE.as_secs());
    }
    Ok(open == 0)
}

impl Connection {
    fn send(&mut self, request: &[u8], due: Instant) -> anyhow::Result<()> {
        self.due = Some(due);
        self.filled = 0;
        // A request is far smaller than a socket's buffer, so it is taken whole or something is wrong.
        self.stream.write_all(request).context("a request could not be sent")
    }

    /// Reads what has come; true when it is the whole answer.
    fn receive(&mut self, expect: u16) -> anyhow::Result<bool> {
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        match self.stream.read(free) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(count) => self.filled += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
            Err(error) => return Err(error).context("an answer could not be read"),
        }
        let got = self.buffer.get(..self.filled).unwrap_or_default();
        let Some(answer) = http::parse(got)? else { return Ok(false) };
        if answer.code != expect {
            bail!("answered {} instead of {expect}: {}", answer.code, String::from_utf8_lossy(got));
        }
        self.due = None;
        Ok(true)
    }
}
