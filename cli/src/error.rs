//! What can go wrong, what to do about it, and the exit code of each.

use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No cluster to talk to.
    #[error("the kubeconfig cannot be used: {0}\nSet KUBECONFIG, or give --context")]
    Kubeconfig(String),
    /// The API server refused or did not answer.
    #[error("{what}: {reason}")]
    Api {
        /// What was being done.
        what: String,
        /// The API server's words.
        reason: String,
    },
    /// A pod refused.
    #[error("pod {pod} answered {code}: {detail}")]
    Pod {
        /// The pod's name.
        pod: String,
        /// The HTTP status.
        code: u16,
        /// The runtime's words.
        detail: String,
    },
    /// doctor, validate or conformance found something wrong.
    #[error("{0} of the above are wrong")]
    Unwell(usize),
    /// What was asked does not fit.
    #[error("{0}")]
    Input(String),
    /// Not reached in time; what was asked stays asked.
    #[error("{0}")]
    TimedOut(String),
    /// Nothing was changed, as it was not confirmed or another owns the field.
    #[error("{0}")]
    NotConfirmed(String),
}

impl Error {
    /// 1: it failed; 2: the arguments do not fit; 3: not reached in time; 4: not confirmed, nothing was changed.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Kubeconfig(_) | Self::Api { .. } | Self::Pod { .. } | Self::Unwell(_) => 1,
            Self::Input(_) => 2,
            Self::TimedOut(_) => 3,
            Self::NotConfirmed(_) => 4,
        })
    }
}
