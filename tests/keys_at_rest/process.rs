//! What nsecctl shows of a key while it has one: nothing.

use crate::support::{KEY_NSEC, missing, not_root, sys, until};
use crate::{NPUB, NSEC, Store, cannot};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

#[test]
fn a_key_being_typed_is_out_of_reach_of_its_users_other_processes_and_leaves_no_core() {
    if not_root("a user of its own") {
        return;
    }
    let store = Store::new();
    let program = store.dir.program(env!("CARGO_BIN_EXE_nsecctl").as_ref());
    const UID: u32 = 23_440;
    let start = |program: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().uid(UID).gid(UID).stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(Stdio::null()).current_dir("/");
        sys::die_with_us(&mut command);
        command.spawn().unwrap()
    };
    // The kernel gives what is not dumpable to root (proc_pid_environ(5)). Control: cat is its user's own.
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    let mut cat = start("/bin/cat".as_ref(), &[]);
    until("cat runs", || fs::read_to_string(format!("/proc/{}/comm", cat.id())).is_ok_and(|comm| comm == "cat\n"));
    assert_eq!(owner(cat.id()), UID);
    drop(cat.stdin.take());
    cat.wait().unwrap();
    let mut nsecctl = start(&program, &["key", "add", "--to", "keyring:nsecd-test"]);
    let pid = nsecctl.id();
    let reads = || fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("0 0x0 "));
    until("nsecctl reads its standard input", reads);
    nsecctl.stdin.as_mut().unwrap().write_all(&NSEC.as_bytes()[..40]).unwrap();
    assert_eq!(owner(pid), 0);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    sys::kill(&sys::pidfd(pid as i32).unwrap());
    assert!(!nsecctl.wait().unwrap().core_dumped());
}

#[test]
fn what_is_typed_at_the_terminal_is_not_shown() {
    if cannot() || missing("script", "--version") {
        return;
    }
    let store = Store::new();
    // util-linux's script gives the program a terminal of its own, and passes on what comes and goes.
    let at_terminal = |program: &str, prompt: &str, typed: &str| {
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", program, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("SYSTEMD_CREDENTIAL_SECRET", store.dir.join("host-key"));
        let mut child = command.spawn().unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&shown).contains(prompt) {
            assert!(stdout.read(&mut byte).unwrap() == 1, "no prompt: {}", String::from_utf8_lossy(&shown));
            shown.push(byte[0]);
        }
        stdin.write_all(typed.as_bytes()).unwrap();
        stdout.read_to_end(&mut shown).unwrap();
        drop(stdin);
        let code = child.wait().unwrap().code().unwrap();
        (code, String::from_utf8_lossy(&shown).into_owned())
    };
    let add = format!("{} key add --to {}", env!("CARGO_BIN_EXE_nsecctl"), store.ring());
    // A slip, and taken back.
    let (code, shown) = at_terminal(&add, "(not shown): ", &format!("x\u{7f}{NSEC}\r"));
    assert!(code == 0 && shown.contains(NPUB), "{code} {shown}");
    assert!(!shown.contains(&NSEC[..20]), "{shown}");
    assert_eq!(store.in_keyring(), NSEC);
    // Control: where nobody switches the echo off it is shown.
    let (_, shown) = at_terminal("echo ready; head -n 1 >/dev/null", "ready", &format!("{NSEC}\r"));
    assert!(shown.contains(NSEC), "{shown}");
    let (code, shown) = at_terminal(&format!("{add} --replace"), "(not shown): ", "nsec1\u{3}");
    assert!(code == 2 && shown.contains("broken off"), "{code} {shown}");
}

#[test]
fn a_key_in_the_arguments_is_refused_and_not_repeated() {
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_nsecctl")).args(arguments).output().unwrap();
    let hex = "7".repeat(64);
    for arguments in [
        &["key", "add", KEY_NSEC][..],
        &["key", "add", &hex],
        &["key", "import", &format!("--from-env={hex}")],
        &["sign", "--kind", "1", "--content", KEY_NSEC],
        &["pubkey", &hex],
        &["key", "add", "--to", KEY_NSEC],
    ] {
        let output = run(arguments);
        let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains("7777777") && !said.contains("qqqqqq"), "{said}");
        assert!(said.contains("is a private key") || arguments[0] == "pubkey", "{said}");
    }
}
