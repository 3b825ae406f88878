//! logs: what the pods of a runtime print, all of them together, or of one execution.

use futures::io::AsyncBufReadExt as _;
use futures::stream::SelectAll;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::LogParams;

use crate::arguments::Logs;
use crate::error::Error;
use crate::kubernetes::{Kubernetes, api, identity};

/// The container that the operator makes for the agent.
const CONTAINER: &str = "agent";

/// Prints the lines of every pod as they come, each with its pod's name when there are several.
pub(crate) async fn run(cluster: &Kubernetes, task: &Logs) -> Result<(), Error> {
    let runtime = cluster.get(&task.name).await?;
    let pods = cluster.some_pods(&runtime).await?;
    let (namespace, _) = identity(&runtime);
    let parameters = LogParams {
        container: Some(CONTAINER.to_owned()),
        follow: task.follow,
        tail_lines: task.tail,
        since_seconds: task.since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        previous: task.previous,
        ..LogParams::default()
    };
    let named = pods.len() > 1;
    let mut all = SelectAll::new();
    for pod in pods {
        let what = format!("the log of pod {namespace}/{pod} cannot be read");
        let stream = cluster.pods_of(namespace).log_stream(&pod, &parameters).await.map_err(|e| api(&what, &e))?;
        all.push(stream.lines().map_ok(move |line| (pod.clone(), line)).boxed_local());
    }
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
