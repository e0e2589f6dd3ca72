//! docs/operating.md is what nsecctl really prints: every command of it is run, in order, and its output compared.
//!
//! All in a mount namespace of its own, with /run, /var/lib and /etc of its own, so that the document's paths are the real ones.
//! Checked: with a word of a command's output changed, and where the document had other output than was printed, this fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use support::{Dir, KEY_NSEC, missing, not_root, sys};

/// Prepares the namespace, starts nsecd, runs the commands as a shell would: `N.command` gives `N.output`.
const SCRIPT: &str = include_str!("operating/namespace.sh");

/// A command of the document, and what it shows as its output.
struct Shown {
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The commands in the document's `console` blocks: a line that begins with `# `, and the lines up to the next.
fn shown(document: &str) -> Vec<Shown> {
    let (mut all, mut inside): (Vec<Shown>, bool) = (Vec::new(), false);
    for (at, line) in document.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            match (line.strip_prefix("# "), all.last_mut()) {
                (Some(command), _) => all.push(Shown { line: at + 1, command: command.into(), output: vec![] }),
                (None, Some(last)) => last.output.push(line.into()),
                (None, None) => panic!("line {}: no command yet", at + 1),
            }
        }
    }
    all
}

/// A line without what differs from run to run: keys, hashes, times.
fn plain(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        if rest.get(..24).is_some_and(is_time) {
            out += "@time";
            rest = &rest[24..];
            continue;
        }
        let word = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        let hex = word.len() >= 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let bech32 = ["npub1", "nsec1"].iter().any(|p| word.starts_with(p)) && word.len() > 50;
        let number = word.len() >= 10 && word.bytes().all(|b| b.is_ascii_digit());
        let shown = if word.is_empty() { &rest[..first.len_utf8()] } else { word };
        out += if hex || bech32 || number { "@" } else { shown };
        rest = &rest[shown.len()..];
    }
    out.trim_end().to_owned()
}

/// Whether this is a time as 2026-11-28T17:05:22.669Z.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

/// Whether a line is as shown.
fn is_line(shown: &str, printed: &str) -> bool {
    match shown.strip_suffix('…') {
        Some(beginning) => plain(printed).starts_with(&plain(beginning)),
        None => plain(printed) == plain(shown),
    }
}

/// Whether the output is as shown; `…` alone in a line stands for any lines.
fn is_as_shown(shown: &[String], printed: &[&str]) -> bool {
    match shown {
        [] => printed.is_empty(),
        [first, rest @ ..] if first.trim() == "…" => {
            (0..=printed.len()).any(|skip| is_as_shown(rest, &printed[skip..]))
        }
        [first, rest @ ..] => {
            printed.first().is_some_and(|line| is_line(first, line)) && is_as_shown(rest, &printed[1..])
        }
    }
}

#[test]
fn the_operators_document_shows_what_nsecctl_prints() {
    if not_root("a mount namespace") || missing("systemd-creds", "--version") || missing("unshare", "--version") {
        return;
    }
    let document = include_str!("../docs/operating.md");
    let dir = Dir::new(None);
    let all = shown(document);
    assert!(all.len() > 5, "the commands were not found");
    let run = dir.subdir("commands", 0o700, None);
    for (n, Shown { command, .. }) in all.iter().enumerate() {
        fs::write(run.join(format!("{n}.command")), command).unwrap();
    }
    fs::write(run.join("nsecd.toml"), configuration(document)).unwrap();
    fs::write(run.join("nsec"), KEY_NSEC).unwrap();
    let script = dir.file("namespace.sh", 0o700, None, SCRIPT.as_bytes());
    let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_nsecd")).parent().unwrap();
    let mut command = Command::new("unshare");
    // With a PID namespace of its own nothing outlives it.
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]).arg(script);
    command.arg(&run).arg(binaries).arg(all.len().to_string()).stdin(Stdio::null());
    sys::die_with_us(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let mut wrong = String::new();
    for (n, Shown { line, command, output }) in all.iter().enumerate() {
        let printed = fs::read_to_string(run.join(format!("{n}.output"))).unwrap();
        let lines: Vec<&str> = printed.lines().collect();
        let mut expected = output.clone();
        // Empty lines at a block's end are the document's own.
        while expected.last().is_some_and(|line| line.is_empty()) {
            expected.pop();
        }
        if !is_as_shown(&expected, &lines) {
            wrong += &format!("line {line}: {command}\n--- shown\n{}\n--- printed\n{printed}\n", expected.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "docs/operating.md is not what is printed:\n{wrong}");
}

/// The configuration that the document shows: its first `toml` block.
fn configuration(document: &str) -> &str {
    document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

#[test]
fn the_comparison_tells_a_difference() {
    let shown = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
    let hex = "ab".repeat(32);
    let times = "at 2026-11-24T02:55:22.669Z";
    assert!(is_as_shown(
        &shown(&format!("key {hex}\n…\n{times}")),
        &["key 0123456789abcdef", "x", "at 2027-01-02T00:00:00.001Z"]
    ));
    assert!(
        !is_as_shown(&shown("frozen"), &["thawed"])
            && !is_as_shown(&shown(""), &["x"])
            && !is_as_shown(&shown("x"), &[])
    );
    let json = |frozen| format!("{{\"frozen\":{frozen},\"since\":\"2026-11-24T02:55:22.669Z\"}}");
    assert!(is_as_shown(&shown(&json(true)), &[&json(true)]) && !is_as_shown(&shown(&json(true)), &[&json(false)]));
    assert!(is_as_shown(&shown("a b…"), &["a b c"]) && !is_as_shown(&shown("a b…"), &["b"]));
    assert!(!is_as_shown(&shown("…\nend"), &["end", "more"]));
}
