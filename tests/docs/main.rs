//! The documents: every link leads somewhere, every page is in the book, and what is named exists.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)).into();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
    pages
}

/// The text without its blocks of code and its code in line, in which brackets mean something else.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

/// The targets of links in Markdown.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The anchors of a page, as GitHub and mdBook make them from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_')
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_in_it() {
    let mut count = 0;
    for page in pages() {
        for link in links(&prose(&read(&page))) {
            if link.starts_with("http://") || link.starts_with("https://") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if let Some(anchor) = anchor {
                assert!(anchors(&read(&target)).contains(anchor), "{}: {link} has no such heading", page.display());
            }
            count += 1;
        }
    }
    assert!(count > 40, "{count} links were followed");
}

#[test]
fn a_link_to_nowhere_is_found() {
    assert_eq!(links(&prose("a [b](c.md#d) `[e](f)`\n```\n[g](h)\n```\n")), ["c.md#d"]);
    assert!(anchors("## What `auth: none` means\n").contains("what-auth-none-means"));
    assert!(anchors("# A, b\n").contains("a-b"));
}

#[test]
fn every_page_is_in_the_book_once() {
    let summary = root().join("docs/SUMMARY.md");
    let mut listed = links(&read(&summary));
    let all = listed.len();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), all, "each page once");
    let mut there: Vec<String> = pages()
        .iter()
        .filter(|page| page.parent() == summary.parent() && **page != summary)
        .map(|page| page.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn every_path_in_the_map_of_the_code_exists() {
    let text = read(&root().join("docs/CODE_MAP.md"));
    let mut count = 0;
    for path in text.split('`').skip(1).step_by(2).filter(|word| word.contains('/') && !word.contains([' ', '*'])) {
        if path == "./..." {
            continue;
        }
        let there = root().join(path).exists() || root().join(format!("{path}.rs")).exists();
        // A rule's neighbour is named without its folder.
        assert!(there || root().join("agent-runtime/src").join(path).exists(), "{path}");
        count += 1;
    }
    assert!(count > 20, "{count} paths");
}

/// Test programs that `cargo test --workspace` leaves out, with the reason.
const LEFT_OUT: [(&str, &str); 3] = [
    ("chart", "builds Helm and the linters with Go"),
    ("e2e", "needs the cluster of `cargo xtask cluster up`"),
    ("faults", "needs an API server, which `cargo xtask faults` builds with Go"),
];

#[test]
fn programs_left_out_of_a_plain_run_are_named() {
    use std::io::Write as _;
    let manifests = read(&root().join("tests/Cargo.toml")) + &read(&root().join("tests/faults/Cargo.toml"));
    let targets = manifests.split("[[test]]\n").skip(1).filter(|target| target.contains("\ntest = false"));
    let mut names: Vec<&str> = targets.filter_map(|target| target.split('"').nth(1)).collect();
    names.sort_unstable();
    assert_eq!(names, LEFT_OUT.map(|(name, _)| name));
    let contributing = read(&root().join("CONTRIBUTING.md"));
    for (name, reason) in LEFT_OUT {
        assert!(contributing.contains(&format!("--test {name}")), "CONTRIBUTING.md says how to run {name}");
        if std::env::var_os("HIVE_ALL_TESTS").is_none() {
            // Written past the harness, which shows nothing of a test that passes.
            writeln!(std::io::stderr(), "skipped: the tests of {name}: {reason}").unwrap();
        }
    }
}

/// `cargo xtask test` runs test programs, and so no tests in comments.
#[test]
fn doc_comments_hold_no_code_to_test() {
    let listed = std::process::Command::new("git").current_dir(root()).args(["ls-files", "*.rs"]).output().unwrap();
    let files = String::from_utf8(listed.stdout).unwrap();
    let fenced = |file: &&str| {
        let text = read(&root().join(file));
        text.lines().map(str::trim_start).any(|line| line.starts_with("/// ```") || line.starts_with("//! ```"))
    };
    let found: Vec<&str> = files.lines().filter(|file| root().join(file).exists()).filter(fenced).collect();
    assert!(files.lines().count() > 100 && found.is_empty(), "{found:?}");
}
