//! Completion: what a shell is to source, and the names of objects that begin so.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use kube::api::ListParams;

use crate::error::Error;
use crate::kubernetes::{Kubernetes, Place};
use crate::values::Shell;

/// What the user's shell is to source.
pub(crate) fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => "source <(COMPLETE=bash kubectl-hive)",
        Shell::Zsh => "source <(COMPLETE=zsh kubectl-hive)",
        Shell::Fish => "COMPLETE=fish kubectl-hive | source",
    }
}

/// The place that stands on a command line which is not finished, and so cannot be parsed.
fn place(words: impl Iterator<Item = String>) -> Place {
    let mut place = Place::default();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word, words.peek().cloned()),
        };
        match flag.as_str() {
            "-n" | "--namespace" => place.namespace = value,
            "--context" => place.context = value,
            _ => {}
        }
    }
    place
}

/// The runtimes of the present namespace whose names begin so.
pub(crate) fn names(begun: &OsStr) -> Vec<CompletionCandidate> {
    candidates(begun, async {
        let runtimes = Kubernetes::connect(&place(std::env::args())).await?.list(None).await?;
        Ok(runtimes.into_iter().filter_map(|runtime| runtime.metadata.name).collect())
    })
}

/// The freezes whose names begin so.
pub(crate) fn freezes(begun: &OsStr) -> Vec<CompletionCandidate> {
    candidates(begun, async {
        let cluster = Kubernetes::connect(&place(std::env::args())).await?;
        let list = cluster.freezes().list(&ListParams::default()).await;
        let list = list.map_err(|error| Error::Input(error.to_string()))?;
        Ok(list.items.into_iter().filter_map(|freeze| freeze.metadata.name).collect())
    })
}

/// A shell wants silence rather than an error, and soon.
fn candidates(begun: &OsStr, asked: impl Future<Output = Result<Vec<String>, Error>>) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy().into_owned();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let listed = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), asked).await });
    let names = listed.ok().and_then(Result::ok).unwrap_or_default();
    names.into_iter().filter(|name| name.starts_with(&begun)).map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_finished_says_where() {
        let of = |line: &str| place(line.split(' ').map(str::to_owned));
        assert_eq!(of("kubectl-hive -n shop pause").namespace.as_deref(), Some("shop"));
        assert_eq!(of("kubectl-hive pause --namespace=shop --context east a").context.as_deref(), Some("east"));
        assert_eq!(of("kubectl-hive pause").namespace, None);
    }
}
