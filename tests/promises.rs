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

/// All tests of this tree.
fn all_tests() -> Vec<String> {
    let mut tests = Vec::new();
    tests_below(Path::new(env!("CARGO_MANIFEST_DIR")), &mut tests);
    assert!(tests.len() > 100, "the tests were not found: {tests:?}");
    tests
}

/// A chapter of SECURITY.md, up to the next.
fn chapter(title: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).unwrap();
    let from = text.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no chapter {title}"));
    from.split("\n## ").next().unwrap().into()
}

#[test]
fn every_promise_of_security_md_names_a_test_that_exists() {
    let (tests, promises) = (all_tests(), chapter("What is promised"));
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

/// A1 to A18 and B1 to B30 each name a test, and what was taken out to see it fail.
#[test]
fn every_known_mistake_has_a_row_with_a_test_that_exists() {
    let (tests, mistakes) = (all_tests(), chapter("Known mistakes and their tests"));
    let wanted = (1..=18).map(|n| format!("A{n}")).chain((1..=30).map(|n| format!("B{n}")));
    for mistake in wanted {
        let row = mistakes.lines().find(|line| line.starts_with(&format!("| {mistake} |")));
        let row = row.unwrap_or_else(|| panic!("{mistake} has no row"));
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, named, taken_out] = cells[..] else { panic!("{mistake} has not four cells: {row}") };
        assert!(!taken_out.is_empty() && quoted(named).count() > 0, "{row}");
        for name in quoted(named) {
            assert!(tests.iter().any(|test| test == name), "there is no test {name}: {row}");
        }
    }
}

/// The contents at the top lead to chapters that are there.
#[test]
fn every_link_within_security_md_leads_somewhere() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).unwrap();
    let anchor = |title: &str| -> String {
        let kept =
            title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c)).collect::<String>();
        kept.replace(' ', "-")
    };
    let titles: Vec<String> = text.lines().filter_map(|l| l.split_once("# ")).map(|(_, title)| anchor(title)).collect();
    let links: Vec<&str> = text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 10, "the contents were not found");
    for link in links {
        assert!(titles.iter().any(|title| title == link), "nothing is called {link}: {titles:?}");
    }
}
