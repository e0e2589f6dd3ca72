//! The keys that the parser knows, asked of itself: it answers an unknown key with those that it expected.

use super::policy::nsecd;
use crate::support::Dir;

/// A key that nobody will ever have.
const UNKNOWN: &str = "no_such_key";

/// All of them, with their sections, tables included, in order.
pub fn known() -> Vec<String> {
    let dir = Dir::new(None);
    let mut all = Vec::new();
    below(&dir, "", &mut all);
    all.sort_unstable();
    all
}

/// Adds the keys of a section, and of the tables in it.
fn below(dir: &Dir, section: &str, all: &mut Vec<String>) {
    for key in expected(dir, section).unwrap_or_else(|| panic!("no table: {section}")) {
        let name = if section.is_empty() { key } else { format!("{section}.{key}") };
        // The writer's own words are keys of this one.
        if name != "socket.rule.tag" && expected(dir, &name).is_some() {
            below(dir, &name, all);
        }
        all.push(name);
    }
}

/// The keys that a section may have; `None` if it is none.
fn expected(dir: &Dir, section: &str) -> Option<Vec<String>> {
    let needs = match section {
        "account" => "name = \"x\"\n",
        "socket.rule" => "kind = 1\n",
        _ => "",
    };
    let parent = if section.starts_with("socket.") { "[[socket]]\n" } else { "" };
    let single = format!("{parent}[{section}]\n{UNKNOWN} = 1\n");
    let several = format!("{parent}[[{section}]]\n{needs}{UNKNOWN} = 1\n");
    let top = format!("{UNKNOWN} = 1\n");
    let texts = if section.is_empty() { vec![top] } else { vec![single, several] };
    texts.iter().find_map(|text| {
        let (_, said) = nsecd(dir, &["--check"], text);
        let (what, keys) = said.trim().split_once(": expected one of ")?;
        let dot = if section.is_empty() { "" } else { "." };
        what.ends_with(&format!("unknown key {section}{dot}{UNKNOWN}"))
            .then(|| keys.split(", ").map(str::to_owned).collect())
    })
}
