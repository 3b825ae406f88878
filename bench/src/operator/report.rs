//! The report of the operators: the table with all that is needed to judge and to repeat it.

use std::path::Path;

use super::table::{self, Row};
use crate::report::Page;
use crate::table::mark_down;

const METHOD: &str = "\
An API server and an etcd of this run alone, without nodes and without syncing to disk. Pods are objects with a
loopback address each, as large as our operator's template makes them; one process answers for all of them and
executes nothing, so a command is obeyed at once. The program that measures makes the pods and says that their
Deployments are rolled out, as a Deployment's controller and the kubelet would. Priority and fairness is off, so
nobody's requests are held back.

`ours` is the operator's release build with one thing added: it may push to loopback addresses (the profile
`simulation`). `controller-runtime` and `kopf` are in `bench/peers`: operators of the same AgentRuntime that do the
same steps. They watch the object and its pods, write a boot ConfigMap with a raised epoch, push the verb to each
pod, take a LIST of the pods from the store before they say paused, and write the status once. The client of
controller-runtime has no limit of its rate, and 64 workers; kopf has no limit of its workers. They make no children,
keep no history, sign nothing and follow no freezes: ours does, and signs every command. The pods judge no signature.
The peers keep a connection to each pod for five seconds, so that each pause here but the first finds one open; ours
opens one for each call, which costs more time in a burst like this one and no memory.
Each contender has its own namespaces and watches one of them; one runs at a time, each time as a new process. They
alternate within every run. Nothing is pinned: API server, etcd and the contender share the cores, so another's work
on the machine shows in every figure. Ratios are those of medians.

- **patch to acknowledged**: from before the user's PATCH until the user's own watch shows a status that speaks of
  this generation and counts all pods. The limit is the sum of what the null operator needed for its ConfigMap
  write, its push and its status write, in the same run; the row below it adds what comes before, between and after:
  the user's patch, both watches and the LIST. Pauses are 120 ms apart, since the API server brings its cache up
  to date for such a LIST at most every 100 ms, and pauses in a row would measure that.
- **API writes**: by the API server's own count, apiserver_request_total, without Leases and without the user's
  patches. Events are told apart.
- **one object, many pods**: the limit is the null operator with 128 pushes at once.
- **one hangs**: from the user's PATCH until all pods but the one that never answers have obeyed, as they say
  themselves; the row above is the same with all well.
- **bytes for each watched pod**: the memory (VmRSS) after the pauses and seven seconds of rest, less that with one
  pod, by the number of pods. Memory that an allocator keeps after a burst counts.
- **busy while idle**: the time that its threads ran, by the kernel's count. Ours asks each pod every half minute how
  it stands; the peers ask nobody.
- **many objects**: all are asked for at once, 64 requests at a time. The limit is three writes for each, at the rate
  at which the API server took status writes just before. As many as `--crowd` says, if any, are made and
  measured once, after all else, and without kopf, which needs minutes for each pause of them.
- **leader killed**: two replicas; the leader is killed with SIGKILL, a pause is asked for right then, and the time
  runs until it is acknowledged. kopf's replicas find each other by a resource of their own and are left out.
";

/// Status writes whose rate differs more between runs were not the only work on the machine.
const STEADY: f64 = 1.3;

/// Why the figures may not be the contenders' own, if something says so.
pub(crate) fn doubts(rows: &[Row]) -> Vec<String> {
    let rates = rows.iter().find(|row| row.name.starts_with("status writes/s")).map(Row::limit);
    let uneven = rates.filter(|rates| rates.most() > STEADY * rates.least());
    let told = |least: f64, most: f64| {
        format!("the API server took {least:.0} to {most:.0} status writes/s: others used the machine")
    };
    let mut doubts: Vec<String> = uneven.map(|rates| told(rates.least(), rates.most())).into_iter().collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(2).and_then(|load| load.parse::<f64>().ok()).unwrap_or(0.0);
    if load > cores * 2.0 {
        doubts.push(format!("the machine had {load:.0} tasks for {cores:.0} cores in the last quarter of an hour"));
    }
    doubts
}

const OPENING: &str = "\
# Benchmarks of the operator

Written by `cargo xtask bench operator`. Absolute figures are of one machine and drift with it:
ratios that were measured together count. Those of the runtime are in [BENCHMARKS.md](BENCHMARKS.md).
";

const USAGE: &str = "    cargo xtask bench operator                # about an hour; three quarters of it with --crowd 0
    cargo xtask bench operator --quick        # some minutes, for a look
    cargo xtask bench operator --only many    # one part, without a report; without peers too by --alone

It needs Rust, Go for the API server and a peer, and Python 3 with venv and pip for the other. No root, no cluster.
Nothing else should run meanwhile.
";

/// Writes the report into a file.
pub(crate) fn write(path: &Path, rows: &[Row], facts: &[(&str, String)]) -> anyhow::Result<()> {
    Page { opening: OPENING, table: mark_down(&table::lines(rows)), method: METHOD, usage: USAGE }.write(path, facts)
}
