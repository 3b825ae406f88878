//! A load generator for the tests of rolling updates: requests without any retry, every failure counted.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser as _;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Asks a server again and again and counts what fails.
#[derive(Clone, Debug, clap::Parser)]
struct Load {
    /// Host and port.
    address: String,
    /// What is asked for.
    #[arg(long, default_value = "/api/v1/status")]
    path: String,
    /// Sent as a POST with this body, if it is given.
    #[arg(long)]
    body: Option<String>,
    /// How long.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: u64,
    /// Clients that keep their connection.
    #[arg(long, default_value_t = 8)]
    keep_alive: usize,
    /// Clients that make a new connection for each request.
    #[arg(long, default_value_t = 4)]
    fresh: usize,
    /// Milliseconds between two requests of a client.
    #[arg(long, default_value_t = 10)]
    pause_ms: u64,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    succeeded: u64,
    failed: u64,
    failures: BTreeMap<String, u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let load = Load::parse();
    let report = Arc::new(Mutex::new(Report::default()));
    let end = Instant::now() + Duration::from_secs(load.seconds);
    let clients = (0..load.keep_alive + load.fresh).map(|n| {
        let (load, report, keeps) = (load.clone(), Arc::clone(&report), n < load.keep_alive);
        tokio::spawn(async move { client(&load, keeps, end, &report).await })
    });
    for client in clients.collect::<Vec<_>>() {
        if let Err(error) = client.await {
            eprintln!("a client ended badly: {error}");
            return ExitCode::FAILURE;
        }
    }
    let report = report.lock().unwrap_or_else(PoisonError::into_inner);
    match serde_json::to_string(&*report) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::SUCCESS
}

async fn client(load: &Load, keeps: bool, end: Instant, report: &Mutex<Report>) {
    let mut connection: Option<TcpStream> = None;
    while Instant::now() < end {
        let outcome = tokio::time::timeout(Duration::from_secs(10), exchange(load, keeps, &mut connection)).await;
        let failure = match outcome {
            Ok(Ok(code)) if (200..300).contains(&code) => None,
            Ok(Ok(code)) => Some(code.to_string()),
            Ok(Err(error)) => Some(error.kind().to_string()),
            Err(_) => Some("timeout".to_owned()),
        };
        if failure.is_some() {
            connection = None;
        }
        count(report, failure);
        tokio::time::sleep(Duration::from_millis(load.pause_ms)).await;
    }
}

fn count(report: &Mutex<Report>, failure: Option<String>) {
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    match failure {
        None => report.succeeded += 1,
        Some(failure) => {
            report.failed += 1;
            *report.failures.entry(failure).or_default() += 1;
        }
    }
}

/// One request. A connection that the server said it would close is not used again, as every client does.
async fn exchange(load: &Load, keeps: bool, connection: &mut Option<TcpStream>) -> io::Result<u16> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(&load.address).await?,
    };
    let body = load.body.as_deref().unwrap_or_default();
    let method = if load.body.is_some() { "POST" } else { "GET" };
    let wish = if keeps { "keep-alive" } else { "close" };
    let request = format!(
        "{method} {} HTTP/1.1\r\nHost: load\r\nConnection: {wish}\r\nContent-Length: {}\r\n\r\n{body}",
        load.path,
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let (head, length, mut got) = head(&mut stream).await?;
    while got < length {
        let mut rest = vec![0; 4096];
        match stream.read(&mut rest).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => got += more,
        }
    }
    if keeps && !head.to_ascii_lowercase().contains("connection: close") {
        *connection = Some(stream);
    }
    head.get(9..12).and_then(|code| code.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads up to the end of the head; gives it, the body's length, and how much of the body came with it.
async fn head(stream: &mut TcpStream) -> io::Result<(String, usize, usize)> {
    let mut bytes = Vec::new();
    loop {
        let mut more = vec![0; 4096];
        let count = stream.read(&mut more).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(more.into_iter().take(count));
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            return Ok((head.to_owned(), length.unwrap_or(0), body.len()));
        }
    }
}
