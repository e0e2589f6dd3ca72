//! `nsecctl doctor` on the machine that runs the tests: it agrees with what a started nsecd says is missing.
//!
//! Checked: with the probe of memory-deny-write-execute or of secret memory turned round, or with a directory's mode not looked
//! at, these fail.
//! Without the look at what a mount has above the admin directory, the test of mounts fails.

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

#[test]
fn doctor_finds_a_mount_through_which_the_admin_directory_can_be_reached() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    if crate::support::not_root("a mount namespace") || crate::support::missing("unshare", "--version") {
        return;
    }
    let nsecd = Nsecd::start(DM);
    const CHECK: &str = "mounts of the admin directory";
    assert_eq!(state(&doctor(&nsecd.dir).1, CHECK), "ok", "control: nobody has mounted it");
    let below = nsecd.dir.subdir("below", 0o755, None);
    for (from, to) in [("", "/admin"), ("/admin", ""), ("/admin/control.sock", "/s")] {
        // Another mount namespace, as a container's.
        let from = format!("{}{from}", nsecd.dir.path().display());
        let script = format!(
            ": >{below}/s; mount --bind {from} {below}{target} && echo ready && exec cat",
            below = below.display(),
            target = if to == "/s" { "/s" } else { "" }
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        crate::support::sys::die_with_us(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{from}");
        let name = format!("/proc/{}/comm", child.id());
        crate::support::until("it is cat", || std::fs::read_to_string(&name).is_ok_and(|name| name == "cat\n"));
        let (code, findings) = doctor(&nsecd.dir);
        drop(child.stdin.take());
        child.wait().unwrap();
        let finding = findings.iter().find(|f| f.0 == CHECK).unwrap();
        assert_eq!((code, finding.1.as_str()), (1, "problem"), "{from}: {finding:?}");
        let way = format!("process {} (cat) at {}{to}", child.id(), below.display());
        assert!(finding.2.contains(&way), "{way}: {finding:?}");
        assert!(finding.3.as_str().unwrap().contains("admin directory"), "{finding:?}");
    }
}

#[test]
fn doctor_tries_each_socket_as_the_containers_uid_without_groups() {
    if crate::support::not_root("becoming another user") {
        return;
    }
    use std::os::unix::fs::{PermissionsExt, chown};
    let nsecd = Nsecd::start(DM);
    let config = nsecd.dir.join("nsecd.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("/run/nsecd-test.sock", nsecd.socket.to_str().unwrap())).unwrap();
    const UID: u32 = 23_450;
    let tried = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
        command.args(["doctor", "--json", "--config"]).arg(&config).args(more);
        let findings: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let found = findings.as_array().unwrap().iter().find(|f| f["check"] == "agent socket").unwrap().clone();
        (found["state"].as_str().unwrap().to_owned(), found["found"].as_str().unwrap().to_owned(), found["fix"].clone())
    };
    let uid = format!("--as={UID}");
    let (state, found, fix) = tried(&[&uid]);
    assert!(state == "problem" && found.contains("may not connect"), "{found}");
    assert!(fix.as_str().unwrap().contains(&format!("owner = \"{UID}\"")), "{fix}");
    // Of a group that the uid has on the host, and not in a container.
    chown(&nsecd.socket, None, Some(1)).unwrap();
    std::fs::set_permissions(&nsecd.socket, std::fs::Permissions::from_mode(0o660)).unwrap();
    assert_eq!(tried(&[&uid]).0, "problem");
    chown(&nsecd.socket, Some(UID), None).unwrap();
    assert_eq!(tried(&[&uid]).0, "ok");
    assert_eq!(tried(&[]).0, "missing", "nobody is named");
    drop(nsecd);
}
