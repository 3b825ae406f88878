//! The site that executions ask while they are paused: it knows when the last one ended and whether one began.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// How long each answer takes: the length of an execution's work.
const WORK: Duration = Duration::from_millis(5);

/// What has been asked so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) begun: usize,
    pub(crate) ended: usize,
    /// When the last answer was sent.
    pub(crate) last: Option<Instant>,
}

/// A site that listens.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    seen: Arc<Mutex<Seen>>,
    pub(crate) address: SocketAddr,
}

impl Site {
    /// Serves in the background of the runtime that this is called in.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let site = Self { seen: Arc::default(), address: listener.local_addr()? };
        let serving = site.clone();
        tokio::spawn(async move {
            // An error of accept would show as executions that fail to begin.
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let site = serving.clone();
                let service = service_fn(move |_| {
                    let site = site.clone();
                    async move { Ok::<_, Infallible>(site.answer().await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(site)
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.lock()
    }

    async fn answer(&self) -> Response<Full<Bytes>> {
        self.lock().begun += 1;
        tokio::time::sleep(WORK).await;
        let mut seen = self.lock();
        seen.ended += 1;
        seen.last = Some(Instant::now());
        Response::new(Full::new(Bytes::from_static(b"{}")))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
