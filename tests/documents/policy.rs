//! docs/policy.md: its examples, and its tables against the parser.

use super::{blocks, keys, read};
use crate::support::Dir;
use std::process::Command;

/// What nsecd says of a configuration: whether it is right, and its text.
pub fn nsecd(dir: &Dir, arguments: &[&str], config: &str) -> (bool, String) {
    let file = dir.file("nsecd.toml", 0o644, None, config.as_bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecd"));
    let output = command.args(arguments).arg(file).env_clear().env("HOME", "/home/you").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), text)
}

/// One row of the tables of keys.
struct Row {
    /// With their sections, as errors have them: `socket.max_ttl`.
    names: Vec<String>,
    /// As TOML, where it can be said so.
    default: Option<String>,
    /// A line of TOML.
    example: String,
}

fn rows(document: &str) -> Vec<Row> {
    let tables = document.split("\n## Every key\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let whole = |cell: &str| cell.strip_prefix('`').and_then(|c| c.strip_suffix('`')).map(str::to_owned);
        // Rules have no defaults.
        let default = if cells.len() == 4 { whole(cells[2]) } else { None };
        Row {
            names: quoted(cells[0]),
            default,
            example: whole(cells[cells.len() - 1]).unwrap_or_else(|| panic!("{line}")),
        }
    };
    tables.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

/// A configuration with what a key's section needs beside it, and the key itself as a line, if it is given.
fn with(name: &str, line: Option<&str>) -> String {
    let (section, key) = split(name);
    let path = "path = \"/run/nostr/signer.sock\"\n";
    let line = line.map(|line| format!("{line}\n")).unwrap_or_default();
    let unless = |name: &str, text: &str| if key == name { String::new() } else { text.to_owned() };
    let socket = |section_is_socket: bool| {
        let own = |name, text| if section_is_socket { unless(name, text) } else { text.to_owned() };
        format!("[[socket]]\n{}{}", own("path", path), own("kinds", "kinds = [1, 9734]\n"))
    };
    match section {
        "" => format!("{line}[[account]]\nname = \"main\"\n"),
        "account" => {
            let account = format!("[[account]]\n{}{line}", unless("name", "name = \"my-business\"\n"));
            format!("{account}[[socket]]\n{path}kinds = [1]\naccounts = [\"default\", \"my-business\"]\n")
        }
        "key" | "limits" | "holder" | "state" | "admin" => format!("[{section}]\n{line}"),
        "socket" => socket(true) + &line,
        "socket.rule" => {
            let kind = if key.contains("sats") { "kind = 9734\n" } else { "kind = 1\n" };
            let more = if key == "kind" { "per_day = 1\n" } else { "" };
            format!("{}[[socket.rule]]\n{}{line}{more}", socket(false), unless("kind", kind))
        }
        nested => format!("{}[{nested}]\n{line}", socket(false)),
    }
}

/// `socket.max_ttl` into its section and its name.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

#[test]
fn every_configuration_in_the_documents_is_right() {
    let dir = Dir::new(None);
    for (document, least) in [("docs/policy.md", 9), ("README.md", 0)] {
        let examples = blocks(&read(document), "toml");
        assert!(examples.len() >= least, "{document}: the examples were not found");
        for example in examples {
            let (right, said) = nsecd(&dir, &["--check"], &example);
            assert!(right, "{document}: {said}{example}");
            // Nothing in them is without effect, or wider than it looks.
            assert!(!said.contains("note"), "{document}: {said}{example}");
        }
    }
    let (right, said) = nsecd(&dir, &["--check"], "[[socket]]\npath = \"relative\"\n");
    assert!(!right && said.contains("expected"), "control: {said}");
}

#[test]
fn the_tables_of_keys_name_all_that_the_parser_knows_and_nothing_else() {
    let document = read("docs/policy.md");
    let mut named: Vec<String> = rows(&document).into_iter().flat_map(|row| row.names).collect();
    named.sort_unstable();
    // A table is named by its heading where it has no row.
    let known: Vec<String> = keys::known().into_iter().filter(|key| !is_heading(&document, key)).collect();
    assert!(known.len() > 60, "the parser's keys were not found: {known:?}");
    assert_eq!(named, known);
}

fn is_heading(document: &str, key: &str) -> bool {
    let forms = [format!("`[{key}]`"), format!("`[[{key}]]`")];
    key != "socket.rule"
        && document.lines().any(|line| line.starts_with("### ") && forms.iter().any(|f| line.contains(f)))
}

#[test]
fn every_example_in_the_tables_of_keys_is_taken() {
    let dir = Dir::new(None);
    for row in rows(&read("docs/policy.md")) {
        for name in &row.names {
            let (_, key) = split(name);
            assert!(row.example.starts_with(&format!("{key} = ")), "{name}: another key's example: {}", row.example);
            let (right, said) = nsecd(&dir, &["--check"], &with(name, Some(&row.example)));
            assert!(right, "{name}: {said}");
        }
    }
}

/// A default is what makes no difference when it is written.
#[test]
fn every_default_in_the_tables_of_keys_is_the_real_one() {
    let dir = Dir::new(None);
    let print = |name: &str, line: Option<&str>| {
        let (right, said) = nsecd(&dir, &["--print-config", "--config"], &with(name, line));
        assert!(right, "{name}: {said}");
        said
    };
    let mut compared = 0;
    for row in rows(&read("docs/policy.md")) {
        let Some(default) = &row.default else { continue };
        // Where no source is written for an account its name is in it: the text says so.
        for name in row.names.iter().filter(|name| *name != "account.source") {
            let line = format!("{} = {default}", split(name).1);
            assert_eq!(print(name, Some(&line)), print(name, None), "{line} is not the default of {name}");
            compared += 1;
        }
    }
    assert!(compared > 30, "the defaults were not found: {compared}");
}
