//! logs: what the pods of a runtime print, all of them together, or of one execution.

use crds::AgentRuntime;
use futures::io::AsyncBufReadExt as _;
use futures::stream::SelectAll;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::api::LogParams;

use crate::arguments::Logs;
use crate::error::Error;
use crate::kubernetes::{Kubernetes, api, identity};

/// The container that the operator makes for the agent.
const CONTAINER: &str = "agent";

/// A line and the pod that printed it.
type Line = Result<(String, String), std::io::Error>;

/// Of the agent's container; `tail` is in lines of each pod.
pub(crate) fn parameters(follow: bool, tail: Option<i64>) -> LogParams {
    LogParams { container: Some(CONTAINER.to_owned()), follow, tail_lines: tail, ..LogParams::default() }
}

/// The lines of every pod that runs now, as they come.
pub(crate) async fn lines(
    cluster: &Kubernetes,
    runtime: &AgentRuntime,
    parameters: &LogParams,
) -> Result<impl Stream<Item = Line> + Send + use<>, Error> {
    let (namespace, _) = identity(runtime);
    let mut all = SelectAll::new();
    for pod in cluster.some_pods(runtime).await? {
        let what = format!("the log of pod {namespace}/{pod} cannot be read");
        let stream = cluster.pods_of(namespace).log_stream(&pod, parameters).await.map_err(|e| api(&what, &e))?;
        all.push(stream.lines().map_ok(move |line| (pod.clone(), line)).boxed());
    }
    Ok(all)
}

/// Prints the lines of every pod as they come, each with its pod's name when there are several.
pub(crate) async fn run(cluster: &Kubernetes, task: &Logs) -> Result<(), Error> {
    let runtime = cluster.get(&task.name).await?;
    let parameters = LogParams {
        since_seconds: task.since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        previous: task.previous,
        ..parameters(task.follow, task.tail)
    };
    let named = runtime.spec.replicas > 1;
    let mut all = lines(cluster, &runtime, &parameters).await?;
    while let Some(line) = all.next().await {
        let (pod, line) = line.map_err(|e| api("a log broke off", &e))?;
        if is_of(&line, task.execution.as_deref()) {
            println!("{}", if named { format!("{pod}: {line}") } else { line });
        }
    }
    Ok(())
}

/// Every line of an execution names it: ids are unique, so that a mention is enough.
fn is_of(line: &str, execution: Option<&str>) -> bool {
    execution.is_none_or(|id| line.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_execution_are_kept() {
        let line = r#"{"fields":{"message":"step"},"span":{"execution":"0197-a"}}"#;
        assert!(is_of(line, None));
        assert!(is_of(line, Some("0197-a")));
        assert!(!is_of(line, Some("0197-b")));
    }
}
