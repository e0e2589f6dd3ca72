//! The documents are tried out: their configurations by the real `nsecd --check`, their exchanges on a running nsecd.
//!
//! Checked: with a key taken out of a table or added to the parser, with a default or an example altered, with a reply's text
//! or the order of its fields altered, these fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "documents/keys.rs"]
mod keys;
#[path = "documents/policy.rs"]
mod policy;
#[path = "documents/wire.rs"]
mod wire;

use std::path::Path;

/// A document's text.
fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The blocks of this language in it.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("\n```{language}\n");
    let parts = text.split(&begin).skip(1);
    parts.map(|part| part.split("\n```").next().unwrap().to_owned() + "\n").collect()
}

/// All documents, from the root of the source tree.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |dir: &str| {
        let entries = std::fs::read_dir(root.join(dir)).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let inside = names("docs").into_iter().map(|name| format!("docs/{name}"));
    names("").into_iter().chain(inside).filter(|name| name.ends_with(".md")).collect()
}

/// As the package has them: side by side, with the examples below, and without the sources (debian/side-by-side).
///
/// Checked: with any of its three replacements taken out, this fails.
#[test]
fn every_link_leads_somewhere_in_the_packages_documents_too() {
    let (root, dir) = (Path::new(env!("CARGO_MANIFEST_DIR")), support::Dir::new(None));
    dir.subdir("examples", 0o755, None);
    std::fs::copy(root.join("docs/nsecd.example.toml"), dir.join("examples/nsecd.example.toml")).unwrap();
    let packaged: Vec<String> = read("debian/nsecd.docs").lines().map(String::from).collect();
    let name = |path: &str| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
    for path in &packaged {
        std::fs::copy(root.join(path), dir.join(&name(path))).unwrap();
    }
    let done = std::process::Command::new(root.join("debian/side-by-side")).arg(dir.path()).status().unwrap();
    assert!(done.success());
    for path in &packaged {
        let text = std::fs::read_to_string(dir.join(&name(path))).unwrap();
        for link in links(&text) {
            let file = link.split('#').next().unwrap();
            assert!(file.is_empty() || dir.join(file).exists(), "{path}: no file {link}");
        }
        assert_eq!(text.lines().count(), read(path).lines().count(), "{path}");
    }
}

/// The links in a document that lead to files or headings.
fn links(text: &str) -> Vec<&str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    links.filter(|link| !link.contains("://") && !link.contains(' ')).collect()
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut followed = 0;
    for document in documents() {
        let text = read(&document);
        let dir = root.join(&document).parent().unwrap().to_owned();
        for link in links(&text) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            assert!(file.is_empty() || dir.join(file).exists(), "{document}: no file {link}");
            if file.is_empty() {
                let heading = |line: &&str| line.starts_with('#') && anchor(line) == section;
                assert!(text.lines().any(|line| heading(&line)), "{document}: no heading {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "the links were not found: {followed}");
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
}
