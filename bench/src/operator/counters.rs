//! The API server's own count of writes, by the resource that was written.

use std::collections::BTreeMap;

/// Verbs of apiserver_request_total that change something.
const VERBS: [&str; 6] = ["APPLY", "DELETE", "DELETECOLLECTION", "PATCH", "POST", "PUT"];

/// Writes by resource, such as `agentruntimes/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writes(BTreeMap<String, u64>);

impl Writes {
    /// Reads the Prometheus text of the API server.
    pub(crate) fn read(text: &str) -> Self {
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let Some((labels, count)) =
                line.strip_prefix("apiserver_request_total{").and_then(|rest| rest.split_once("} "))
            else {
                continue;
            };
            if !VERBS.contains(&label(labels, "verb")) {
                continue;
            }
            let (resource, part) = (label(labels, "resource"), label(labels, "subresource"));
            let name = if part.is_empty() { resource.to_owned() } else { format!("{resource}/{part}") };
            // The count is written as a float.
            *all.entry(name).or_default() += count.trim().parse::<f64>().unwrap_or(0.0) as u64;
        }
        Self(all)
    }

    /// What came on top of an earlier count.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let more = |name: &String, count: u64| count.saturating_sub(before.0.get(name).copied().unwrap_or(0));
        Self(self.0.iter().map(|(name, count)| (name.clone(), more(name, *count))).filter(|(_, n)| *n > 0).collect())
    }

    /// Those of Events.
    pub(crate) fn events(&self) -> u64 {
        self.0.get("events").copied().unwrap_or(0)
    }

    /// All but Events and the renewal of Leases.
    pub(crate) fn others(&self) -> u64 {
        self.0.iter().filter(|(name, _)| !["events", "leases"].contains(&name.as_str())).map(|(_, count)| count).sum()
    }

    /// How it is told.
    pub(crate) fn told(&self) -> String {
        self.0.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    }
}

fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let found = labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'));
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="PUT",version="v1"} 7
apiserver_request_total{code="409",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="PUT",version="v1"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",group="a",resource="agentruntimes",scope="resource",subresource="status",verb="APPLY",version="v1"} 1.2e+01
apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="events",scope="resource",subresource="",verb="POST",version="v1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="c",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 5
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 99
apiserver_request_duration_seconds{verb="PUT"} 4
"#;

    #[test]
    fn only_writes_count_and_each_under_what_was_written() {
        let writes = Writes::read(TEXT);
        assert_eq!((writes.others(), writes.events()), (20, 3));
        assert_eq!(writes.told(), "12 agentruntimes/status, 8 configmaps, 3 events, 5 leases");
    }

    #[test]
    fn what_was_there_before_is_taken_off() {
        let (before, after) = (Writes::read(TEXT), Writes::read(&TEXT.replace("} 7", "} 9")));
        assert_eq!(after.since(&before).told(), "2 configmaps");
        assert_eq!(before.since(&before), Writes::default());
    }
}
