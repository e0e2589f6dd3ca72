//! `nsecctl doctor` on the machine that runs the tests: it agrees with what a started nsecd says is missing.
//!
//! Checked: with the probe of memory-deny-write-execute or of secret memory turned round, or with a directory's mode not looked
//! at, these fail.

use crate::support::daemon::{DM, Setup};
use crate::support::{Dir, Nsecd};
use serde_json::Value;
use std::process::Command;

/// Exit code, and the findings by name: state, what was found, fix.
fn doctor(dir: &Dir) -> (i32, Vec<(String, String, String, Value)>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    command.args(["doctor", "--json"]);
    command.arg(format!("--state-dir={}", dir.join("state").display()));
    command.arg(format!("--admin-dir={}", dir.join("admin").display()));
    let output = command.output().unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |f: &Value, name: &str| f[name].as_str().unwrap().to_owned();
    let one = |f: &Value| (text(f, "check"), text(f, "state"), text(f, "found"), f["fix"].clone());
    (output.status.code().unwrap(), findings.as_array().unwrap().iter().map(one).collect())
}

fn state<'a>(findings: &'a [(String, String, String, Value)], check: &str) -> &'a str {
    &findings.iter().find(|f| f.0 == check).unwrap_or_else(|| panic!("no finding {check}")).1
}

#[test]
fn doctor_finds_missing_what_a_started_nsecd_says_is_missing() {
    let nsecd = Nsecd::start(DM);
    let said = nsecd.stderr();
    let (code, findings) = doctor(&nsecd.dir);
    for (check, name) in [
        ("secret memory", "secret memory"),
        ("memory-deny-write-execute", "memory-deny-write-execute"),
        ("Landlock", "Landlock (scopes)"),
        ("cgroup identity", "cgroup identity"),
    ] {
        assert_eq!(state(&findings, check) == "missing", said.contains(name), "{check}: {findings:?}\n{said}");
    }
    for (check, state, found, fix) in &findings {
        assert_eq!(state == "ok", fix.is_null(), "{check}: {found}");
        assert!(!found.is_empty() && fix.as_str().is_none_or(|fix| !fix.is_empty()), "{check}");
    }
    let worst = |name: &str| findings.iter().any(|f| f.1 == name);
    assert_eq!(
        code,
        if worst("problem") {
            1
        } else if worst("missing") {
            4
        } else {
            0
        }
    );
}

#[test]
fn doctor_names_a_directory_that_others_can_read_or_change_and_says_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new(DM);
    let dir = setup.dir.join("state");
    for (mode, problem) in [(0o700, false), (0o750, true), (0o777, true)] {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, findings) = doctor(&setup.dir);
        assert_eq!(state(&findings, "state directory") == "problem", problem, "{mode:o}: {findings:?}");
        if problem {
            assert_eq!(code, 1);
            let finding = findings.iter().find(|f| f.0 == "state directory").unwrap();
            let (path, fix) = (dir.to_str().unwrap(), finding.3.as_str().unwrap());
            assert!(finding.2.contains(path) && fix.contains("chmod") && fix.contains(path), "{finding:?}");
        }
    }
}

#[test]
fn doctor_in_words_says_the_same_and_refuses_what_it_does_not_know() {
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_nsecctl")).args(arguments).output().unwrap();
    let output = run(&["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1 | 4)), "{text}");
    assert!(text.lines().any(|line| line.contains("kernel: Linux ")), "{text}");
    for bad in [&["doctor", "--socket=/x"][..], &["doctor", "--state-dir", "relative"], &["pubkey", "--state-dir=/x"]] {
        assert_eq!(run(bad).status.code(), Some(2), "{bad:?}");
    }
}
