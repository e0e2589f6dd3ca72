//! SECURITY.md names a test for every promise; here each name must be that of a test which exists.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

/// Names of all tests in the Rust files below `dir`.
fn tests_below(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if !["target", "node_modules", ".git"].iter().any(|skip| path.ends_with(skip)) {
                tests_below(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut attributed = false;
            for line in text.lines().map(str::trim) {
                match line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
                    Some(name) if attributed => found.push(name.into()),
                    _ => {}
                }
                attributed = line == "#[test]" || attributed && (line.starts_with("#[") || line.starts_with("//"));
            }
        }
    }
}

/// What stands between backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_promise_of_security_md_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Vec::new();
    tests_below(root, &mut tests);
    assert!(tests.len() > 100, "the tests were not found: {tests:?}");
    let security = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let promises = security.split("## What is promised").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> =
        promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")).collect();
    assert!(rows.len() > 25, "the promises were not found");
    for row in rows {
        let named = row.rsplit("| ").find(|cell| cell.contains('`')).unwrap_or_else(|| panic!("no test named: {row}"));
        for name in quoted(named) {
            assert!(tests.iter().any(|test| test == name), "there is no test {name}: {row}");
        }
    }
}
