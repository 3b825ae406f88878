//! `doctor`: whether this person, with this cluster, can work with AgentRuntimes, and what to do where not.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};

use crate::error::Error;
use crate::kubernetes::Kubernetes;

/// Seconds that clocks may differ before drain deadlines and signed commands suffer.
const SKEW_SECONDS: i64 = 5;

/// What the commands of this plugin need: verb, group, resource, subresource.
const NEEDS: [(&str, &str, &str, &str); 7] = [
    ("get", crds::GROUP, "agentruntimes", ""),
    ("list", crds::GROUP, "agentruntimes", ""),
    ("watch", crds::GROUP, "agentruntimes", ""),
    ("patch", crds::GROUP, "agentruntimes", ""),
    ("list", "", "pods", ""),
    ("get", "", "pods", "proxy"),
    ("create", "", "pods", "proxy"),
];

/// What was found out; an error is kept as its text.
#[derive(Debug)]
struct Observed {
    server: Result<String, String>,
    resource: Result<bool, String>,
    operators: Result<Vec<(String, i32)>, String>,
    rights: Vec<(String, Result<bool, String>)>,
    skew_seconds: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Fine,
    Unsure,
    Wrong,
}

#[derive(Debug)]
struct Finding {
    level: Level,
    text: String,
}

/// Looks, says what was found, and fails if something is wrong.
pub(crate) async fn run(cluster: &Kubernetes) -> Result<(), Error> {
    let findings = findings(&observe(cluster).await);
    print!("{}", shown(&findings));
    let wrong = findings.iter().filter(|finding| finding.level == Level::Wrong).count();
    if wrong == 0 {
        return Ok(());
    }
    Err(Error::Unwell(wrong))
}

async fn observe(cluster: &Kubernetes) -> Observed {
    let (server, skew_seconds) = match cluster.version().await {
        Ok((version, skew)) => (Ok(version), skew),
        Err(error) => (Err(error.to_string()), None),
    };
    let mut rights = Vec::new();
    // Each question to a server that is away would take its own time to fail.
    if server.is_ok() {
        for need in NEEDS {
            rights.push(right(cluster, need).await);
        }
    }
    Observed {
        resource: cluster.serves(crds::GROUP).await.map_err(|error| error.to_string()),
        operators: cluster.operators().await.map_err(|error| error.to_string()),
        server,
        rights,
        skew_seconds,
    }
}

async fn right(cluster: &Kubernetes, need: (&str, &str, &str, &str)) -> (String, Result<bool, String>) {
    let (verb, group, resource, subresource) = need;
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()).filter(|text| !text.is_empty()),
                namespace: cluster.namespace().map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let slash = if subresource.is_empty() { "" } else { "/" };
    let name = format!("{verb} {resource}{slash}{subresource}");
    (name, cluster.may(&review).await.map_err(|error| error.to_string()))
}

fn findings(seen: &Observed) -> Vec<Finding> {
    let fine = |text: String| Finding { level: Level::Fine, text };
    let wrong = |text: String| Finding { level: Level::Wrong, text };
    let unsure = |text: String| Finding { level: Level::Unsure, text };
    let version = match &seen.server {
        Ok(version) => fine(format!("the API server answers: {version}")),
        Err(error) => return vec![wrong(format!("the API server does not answer: {error}"))],
    };
    let resource = match &seen.resource {
        Ok(true) => fine("it serves agentruntimes v1alpha1".to_owned()),
        Ok(false) => wrong("it does not know agentruntimes: install the chart agentruntime-operator".to_owned()),
        Err(error) => unsure(format!("whether it serves agentruntimes cannot be seen: {error}")),
    };
    let mut all = vec![version, resource];
    match &seen.operators {
        Ok(found) if found.is_empty() => {
            all.push(wrong("there is no operator: install the chart agentruntime-operator".to_owned()));
        }
        Ok(found) => all.extend(found.iter().map(|(name, ready)| match ready {
            0 => wrong(format!("operator {name} has no ready pod: what is asked for is not acted on")),
            ready => fine(format!("operator {name} has {ready} ready pods")),
        })),
        Err(_) => all.push(unsure("whether an operator runs cannot be seen: you may not list deployments".to_owned())),
    }
    all.extend(seen.rights.iter().map(|(need, answer)| match answer {
        Ok(true) => fine(format!("you may {need}")),
        Ok(false) => wrong(format!("you may not {need}: ask for a role that allows it")),
        Err(error) => unsure(format!("whether you may {need} cannot be seen: {error}")),
    }));
    all.push(match seen.skew_seconds {
        Some(skew) if skew.abs() > SKEW_SECONDS => {
            wrong(format!("this machine's clock is {skew} s off the API server's: set it, by NTP for one"))
        }
        Some(_) => fine("this machine's clock agrees with the API server's".to_owned()),
        None => unsure("the API server does not say what time it is".to_owned()),
    });
    all
}

fn shown(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let word = match finding.level {
            Level::Fine => "ok     ",
            Level::Unsure => "unsure ",
            Level::Wrong => "WRONG  ",
        };
        format!("{word}{}\n", finding.text)
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Observed {
        Observed {
            server: Ok("v1.35.0".to_owned()),
            resource: Ok(true),
            operators: Ok(vec![("agentruntime-system/agentruntime-operator".to_owned(), 2)]),
            rights: vec![("get agentruntimes".to_owned(), Ok(true))],
            skew_seconds: Some(-1),
        }
    }

    #[test]
    fn all_is_well() {
        insta::assert_snapshot!(shown(&findings(&well())));
    }

    #[test]
    fn each_thing_that_is_wrong_says_what_to_do() {
        let seen = Observed {
            resource: Ok(false),
            operators: Ok(vec![("a/b".to_owned(), 0)]),
            rights: vec![("patch agentruntimes".to_owned(), Ok(false)), ("list pods".to_owned(), Err("x".to_owned()))],
            skew_seconds: Some(90),
            ..well()
        };
        insta::assert_snapshot!(shown(&findings(&seen)));
        let none = Observed { operators: Ok(Vec::new()), skew_seconds: None, ..well() };
        insta::assert_snapshot!(shown(&findings(&none)));
    }

    #[test]
    fn nothing_more_is_said_of_a_server_that_does_not_answer() {
        let seen = Observed { server: Err("connection refused".to_owned()), ..well() };
        assert_eq!(shown(&findings(&seen)), "WRONG  the API server does not answer: connection refused\n");
    }
}
