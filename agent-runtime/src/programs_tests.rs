use std::process::Stdio;

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::*;

/// Ways to get out of sight of whoever started a program.
const HIDES: [&str; 5] = [
    "sleep 300 & echo $!",
    "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!",
    "(setsid sh -c 'sleep 300 & echo $!; exit' &); sleep 0.2",
    "nohup setsid sh -c 'trap \"\" TERM HUP INT; echo $$; sleep 300 & wait' 2>/dev/null & sleep 0.2",
    "setsid sh -c 'setsid sh -c \"echo \\$\\$; sleep 300\" & sleep 0.2; kill -9 $$' & sleep 0.4",
];

fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| listed(&stat))
        .is_some_and(|one| !one.is_dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn family_that_hides_is_gone_when_its_end_returns() {
    begin().unwrap();
    for script in HIDES {
        for kills_leader_first in [false, true] {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::null());
            let (mut child, family) = spawn(&mut command, &BTreeMap::new(), &[]).unwrap();
            let mut text = String::new();
            let mut stdout = child.stdout.take().unwrap();
            let mut byte = [0];
            while !text.ends_with('\n') {
                assert_eq!(stdout.read(&mut byte).await.unwrap(), 1, "{script}");
                text.push(char::from(byte[0]));
            }
            let pid: i32 = text.trim().parse().unwrap();
            if kills_leader_first {
                child.wait().await.unwrap();
            }
            family.end().await;
            assert!(!lives(pid), "{script}: {pid}");
            child.wait().await.unwrap();
        }
    }
}

#[tokio::test]
async fn secret_reaches_a_program_only_where_it_is_set_for_it() {
    let hidden = ["TOUR_SECRET".to_owned()];
    for name in SECRETS.iter().copied().chain(["TOUR_SECRET"]) {
        for own in [false, true] {
            let set: BTreeMap<String, String> = own.then(|| (name.to_owned(), "own".to_owned())).into_iter().collect();
            let mut command = Command::new("/usr/bin/env");
            command.env(name, "inherited").stdout(Stdio::piped());
            let (child, family) = spawn(&mut command, &set, &hidden).unwrap();
            let text = String::from_utf8(child.wait_with_output().await.unwrap().stdout).unwrap();
            family.end().await;
            assert_eq!(text.contains(&format!("{name}=own")), own, "{text}");
            assert!(!text.contains("inherited"), "{text}");
        }
    }
}

#[test]
fn stat_of_a_process_with_any_name_is_read() {
    for name in ["sh", "a b", ") Z 1 (", "((", ") R"] {
        let stat = format!("42 ({name}) S 7 42 42 0 -1");
        assert_eq!(listed(&stat), Some(Listed { pid: 42, parent: 7, is_dead: false }), "{stat}");
    }
    assert_eq!(listed("42 (sh) Z 7 0"), Some(Listed { pid: 42, parent: 7, is_dead: true }));
    assert_eq!(listed("42"), None);
}

proptest! {
    #[test]
    fn whatever_is_listed_is_followed_to_its_end(parents in prop::collection::vec(0i32..12, 0..12)) {
        let one = |(pid, parent): (usize, &i32)| Listed { pid: i32::try_from(pid).unwrap(), parent: *parent, is_dead: false };
        let all: Vec<Listed> = parents.iter().enumerate().map(one).collect();
        let found = below(3, &all);
        // Each once at most, and each whose parent is in it.
        let set: BTreeSet<i32> = found.iter().copied().collect();
        prop_assert_eq!(set.len(), found.len());
        for one in &all {
            prop_assert_eq!(set.contains(&one.pid), one.parent == 3 || set.contains(&one.parent));
        }
    }
}
