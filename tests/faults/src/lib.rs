//! The harness is the test program in `faults/`. Here stands what needs no API server: that its documents are true.

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    /// The names of all functions in the sources below a folder.
    fn functions(folder: &Path, names: &mut HashSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            if path.is_dir() && !name.starts_with('.') && !["target", "modules", "peers"].contains(&name) {
                functions(&path, names);
            } else if name.ends_with(".rs") || name.ends_with("_test.go") {
                let text = std::fs::read_to_string(&path).unwrap();
                let word = if name.ends_with(".go") { "func " } else { "fn " };
                let found = text.lines().filter_map(|line| line.split_once(word)?.1.split(['(', '<']).next());
                names.extend(found.map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_rule_has_a_test_that_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let mut names = HashSet::new();
        functions(root, &mut names);
        let text = std::fs::read_to_string(root.join("docs/TESTING.md")).unwrap();
        let table = text.split("## Where others fell").nth(1).unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && line.contains(". ")).collect();
        assert_eq!(rows.len(), 29);
        for row in rows {
            let tests: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
            assert!(!tests.is_empty(), "no test: {row}");
            let missing: Vec<_> = tests.iter().filter(|name| !names.contains(**name)).collect();
            assert!(missing.is_empty(), "there is no test {missing:?}");
        }
    }
}
