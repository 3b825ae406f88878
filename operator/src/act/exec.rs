//! Commands that are run in a pod, by way of the API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, AttachParams};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of what a command complains of that are kept.
const SAID: usize = 512;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The operator is not to run commands.
    #[error("this operator may not exec into pods: set operator.execHooks in its chart")]
    Off,
    /// The API server refused, or the node could not be reached.
    #[error("exec in container {container}: {source}")]
    Api {
        /// Where it was to run.
        container: String,
        /// What came back.
        source: kube::Error,
    },
    /// It ended otherwise than with 0, or was not begun.
    #[error("exec in container {container}: {reason}{}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// Where it ran.
        container: String,
        /// What Kubernetes says of it.
        reason: String,
        /// What it complained of.
        said: String,
    },
    /// It did not end in time, and goes on.
    #[error("exec in container {container}: it did not end within {} s, and goes on there", deadline.as_secs())]
    Timeout {
        /// Where it runs.
        container: String,
        /// How long it had.
        deadline: Duration,
    },
}

impl Error {
    /// A short stable word for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Api { .. } => "api",
            Self::Failed { .. } => "failed",
            Self::Timeout { .. } => "timeout",
        }
    }
}

/// Runs a command to its end. Its output is not taken, apart from the head of what it complains of.
pub(super) async fn run(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    command: &[String],
    deadline: Duration,
) -> Result<(), Error> {
    let failed = |reason: String, said: String| Error::Failed { container: container.to_owned(), reason, said };
    let parameters = AttachParams::default().container(container).stdin(false).stdout(false).stderr(true);
    let ended = async {
        let mut process = pods
            .exec(pod, command, &parameters)
            .await
            .map_err(|source| Error::Api { container: container.to_owned(), source })?;
        let (Some(stderr), Some(status)) = (process.stderr(), process.take_status()) else {
            return Err(failed("the API server opened no streams".to_owned(), String::new()));
        };
        let (said, status) = tokio::join!(head(stderr), status);
        match status {
            Some(status) if status.status.as_deref() == Some("Success") => Ok(()),
            Some(status) => Err(failed(status.message.unwrap_or_default(), said)),
            None => Err(failed("the connection ended before it did".to_owned(), said)),
        }
    };
    let timeout = || Err(Error::Timeout { container: container.to_owned(), deadline });
    tokio::time::timeout(deadline, ended).await.unwrap_or_else(|_| timeout())
}

/// An API of a namespace's pods.
pub(super) fn pods(client: &Client, namespace: &str) -> Api<Pod> {
    Api::namespaced(client.clone(), namespace)
}

/// Reads to the end, as a process whose output is not read comes to a halt, and keeps the head.
async fn head(mut stream: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let room = SAID.saturating_sub(kept.len()).min(read);
        kept.extend(buffer.iter().take(room));
    }
    String::from_utf8_lossy(&kept).trim().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_what_a_command_complains_of_the_head_is_kept_and_the_rest_is_read() {
        let long = "no\nroom ".repeat(1000);
        let kept = head(long.as_bytes()).await;
        assert!(kept.len() <= SAID && kept.starts_with("no room no room"), "{kept}");
        assert_eq!(head(&b""[..]).await, "");
    }
}
