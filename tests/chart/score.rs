//! What kube-score makes of the objects, and which of its findings are waived and why.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use cluster::Silent;
use serde_json::Value;

use crate::chart::{EVERYTHING, read, render};

static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| cluster::kube_score(&Silent).expect("kube-score, which Go builds"));

/// The grade of a check that found nothing.
const FINE: i64 = 10;

/// A finding that is not mended: of which objects (the end of their names; of all if empty), and the reason.
struct Waiver {
    check: &'static str,
    finding: &'static str,
    of: &'static str,
    #[expect(dead_code, reason = "it is for people")]
    because: &'static str,
}

const WAIVED: [Waiver; 7] = [
    Waiver {
        check: "container-resources",
        finding: "CPU limit is not set",
        of: "",
        because: "a CPU limit throttles a leader in the middle of an emergency; the request says what it needs",
    },
    Waiver {
        check: "container-ephemeral-storage-request-and-limit",
        finding: "Ephemeral Storage limit is not set",
        of: "",
        because: "nothing is written: root file systems are read-only, and there is no volume",
    },
    Waiver {
        check: "container-ephemeral-storage-request-and-limit",
        finding: "Ephemeral Storage request is not set",
        of: "",
        because: "as above",
    },
    Waiver {
        check: "container-image-pull-policy",
        finding: "ImagePullPolicy is not set to Always",
        of: "",
        because: "an operator must come up while its registry is away; a tag is never given to another image, and a digest cannot be",
    },
    Waiver {
        check: "deployment-has-host-podantiaffinity",
        finding: "Deployment does not have a host podAntiAffinity set",
        of: "operator",
        because: "topologySpreadConstraints spread it over nodes and zones, and let two replicas share the only node",
    },
    Waiver {
        check: "deployment-replicas",
        finding: "Deployment few replicas",
        of: "-dashboard",
        because: "a page that is away for seconds harms nobody; the value replicas gives more",
    },
    Waiver {
        check: "pod-networkpolicy",
        finding: "The pod does not have a matching NetworkPolicy",
        of: "-selftest",
        because: "it serves nothing and is gone after its test",
    },
];

/// Every finding: object, check and words.
fn findings(manifests: &str) -> Vec<(String, String, String)> {
    let mut command = Command::new(&*PROGRAM);
    command.args(["score", "--output-format", "json", "--kubernetes-version", "v1.35", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let objects: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mut found = Vec::new();
    for object in &objects {
        for check in object["checks"].as_array().unwrap() {
            if check["skipped"] == true || check["grade"].as_i64().unwrap() >= FINE {
                continue;
            }
            for comment in check["comments"].as_array().unwrap() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                found.push((
                    text(&object["object_meta"]["name"]),
                    text(&check["check"]["id"]),
                    text(&comment["summary"]),
                ));
            }
        }
    }
    found
}

#[test]
fn the_chart_has_no_finding_but_those_that_are_waived_and_no_waiver_is_left_over() {
    let found = findings(&render(&EVERYTHING).unwrap());
    let fits = |waiver: &Waiver, (object, check, finding): &(String, String, String)| {
        waiver.check == check && waiver.finding == finding && object.ends_with(waiver.of)
    };
    let open: Vec<_> = found.iter().filter(|one| !WAIVED.iter().any(|waiver| fits(waiver, one))).collect();
    assert!(open.is_empty(), "{open:#?}");
    for waiver in &WAIVED {
        assert!(found.iter().any(|one| fits(waiver, one)), "{}: nothing is found any more", waiver.finding);
    }
}

#[test]
fn a_bad_manifest_has_findings() {
    let bad = read("examples/kubernetes/deployment.yaml")
        .replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false");
    let found = findings(&bad);
    assert!(
        found.iter().any(|(_, check, _)| check == "container-security-context-readonlyrootfilesystem"),
        "{found:#?}"
    );
}
