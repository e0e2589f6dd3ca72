//! B7 and B9: ids, groups, capabilities, filters, arguments and environment of every role, exactly.
//!
//! Checked: with the runtime's signal handlers kept, with no signal blocked before the exec, with only the effective uid changed, with supplementary groups kept, with capset or the bounding set left out, with roles left dumpable, or with
//! the supervisor's environment passed on, tests of this file fail.

use crate::support::daemon::{DM, ROLES, Setup};
use crate::support::{KEY_HEX, KEY_NSEC, Nsecd, not_root, process, root, sys};
use std::collections::BTreeMap;
use std::fs;

/// An ordinary user for whom nothing is set up.
const ORDINARY: u32 = 23_401;
const NO_CAPABILITY: &str = "0000000000000000";

fn field<'a>(status: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    status.get(name).unwrap_or_else(|| panic!("no {name}"))
}

/// What holds for every role whoever started nsecd.
fn locked(role: &str, status: &BTreeMap<String, String>) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(status, set), NO_CAPABILITY, "{role} {set}");
    }
    assert_eq!(field(status, "NoNewPrivs"), "1", "{role}");
    assert_eq!(field(status, "Seccomp"), "2", "{role}");
    assert_eq!(field(status, "Threads"), "1", "{role}");
    // SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM and SIGTSTP.
    let blocked = u64::from_str_radix(field(status, "SigBlk"), 16).unwrap();
    for signal in [1, 2, 3, 10, 12, 15, 20] {
        assert!(blocked >> (signal - 1) & 1 == 1, "{role}: signal {signal} is not blocked: {blocked:x}");
    }
    // No handler runs in a role, not even the one with which Rust's runtime reports a stack overflow.
    assert_eq!(field(status, "SigCgt"), "0000000000000000", "{role}");
}

/// Real, effective, saved and file-system id, which must be one.
fn one_id(role: &str, status: &BTreeMap<String, String>, name: &str) -> u32 {
    let ids: Vec<u32> = field(status, name).split(' ').map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids.len(), 4, "{role}");
    assert!(ids.iter().all(|id| *id == ids[0]), "{role} {name}: {ids:?}");
    ids[0]
}

#[test]
fn started_as_root_each_role_has_a_uid_of_its_own_and_nothing_else() {
    if not_root("a daemon started as root") {
        return;
    }
    let mut setup = Setup::new(DM);
    sys::with_groups(&mut setup.command, &[4, 24]);
    let nsecd = setup.start();
    assert_eq!(field(&process::status(nsecd.pid()), "Groups"), "4 24", "control: there are groups to give up");
    let mut uids = vec![0];
    for role in ROLES {
        let status = process::status(nsecd.role(role));
        locked(role, &status);
        assert_eq!(field(&status, "CapBnd"), NO_CAPABILITY, "{role}");
        assert_eq!(field(&status, "Groups"), "", "{role}");
        let (uid, gid) = (one_id(role, &status, "Uid"), one_id(role, &status, "Gid"));
        assert!(gid != 0 && !uids.contains(&uid), "{role}: uid {uid} gid {gid}, others {uids:?}");
        uids.push(uid);
    }
}

#[test]
fn started_by_an_ordinary_user_each_role_keeps_that_user_and_nothing_else() {
    let (uid, nsecd) = if root() {
        (ORDINARY, Setup::of(Some(ORDINARY), DM).start())
    } else {
        (nix::unistd::geteuid().as_raw(), Nsecd::start(DM))
    };
    let supervisor = process::status(nsecd.pid());
    assert_eq!(one_id("nsecd", &supervisor, "Uid"), uid);
    for role in ROLES {
        let status = process::status(nsecd.role(role));
        locked(role, &status);
        assert_eq!(one_id(role, &status, "Uid"), uid, "{role}");
        one_id(role, &status, "Gid");
        assert_eq!(field(&status, "Groups"), field(&supervisor, "Groups"), "{role}");
    }
}

#[test]
fn no_role_has_an_environment_or_a_key_in_its_arguments() {
    if not_root("reading the environment of a non-dumpable process") {
        return;
    }
    let mut setup = Setup::new(DM);
    setup.command.env("NSECD_TEST_MARK", "seen").env("LD_TEST", "seen");
    let nsecd = setup.start();
    for (name, pid) in nsecd.processes() {
        let arguments = process::arguments(pid).join(" ");
        for form in [KEY_HEX, &KEY_HEX.to_uppercase(), KEY_NSEC] {
            assert!(!arguments.contains(form), "{name}: {arguments}");
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        if name == "nsecd" {
            // Control: this is where a variable would show.
            assert!(environment.windows(15).any(|w| w == b"NSECD_TEST_MARK"));
        } else {
            assert_eq!(environment, b"", "{name}: {}", String::from_utf8_lossy(&environment));
        }
    }
}

#[test]
fn every_role_is_non_dumpable_and_leaves_no_core() {
    if not_root("reading the limits of a non-dumpable process") {
        return;
    }
    for uid in [None, Some(ORDINARY)] {
        let nsecd = Setup::of(uid, DM).start();
        for role in ROLES {
            let pid = nsecd.role(role);
            // The kernel gives /proc/PID/environ of a non-dumpable process to root (proc(5)).
            use std::os::unix::fs::MetadataExt;
            assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0, "{role}");
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let limit = |name: &str| {
                let line = limits.lines().find(|l| l.starts_with(name)).unwrap();
                line[name.len()..].split_whitespace().take(2).map(String::from).collect::<Vec<_>>()
            };
            for name in ["Max core file size", "Max processes", "Max locked memory"] {
                assert_eq!(limit(name), ["0", "0"], "{role} {name}");
            }
            if role != "nsecd-broker" {
                assert_eq!(limit("Max open files"), ["0", "0"], "{role}");
            }
        }
    }
}

#[test]
fn holders_and_gate_see_an_empty_root_and_no_network() {
    if not_root("reading the root of a non-dumpable process") {
        return;
    }
    for uid in [None, Some(ORDINARY)] {
        let nsecd = Setup::of(uid, DM).start();
        for role in ["nsecd-keyholder", "nsecd-ecdh", "nsecd-gate"] {
            let pid = nsecd.role(role);
            for namespace in ["net", "ipc", "uts", "mnt", "cgroup"] {
                let of = |p: i32| fs::read_link(format!("/proc/{p}/ns/{namespace}")).unwrap();
                assert_ne!(of(pid), of(std::process::id() as i32), "{role} {namespace}");
            }
            let root: Vec<_> = fs::read_dir(format!("/proc/{pid}/root")).unwrap().collect();
            assert!(root.is_empty(), "{role}: {root:?}");
        }
    }
}

#[test]
fn another_process_of_the_same_user_can_neither_trace_nor_read_a_role() {
    if not_root("starting a second process of the daemon's user") {
        return;
    }
    use std::os::unix::process::CommandExt;
    let nsecd = Setup::of(Some(ORDINARY), DM).start();
    for role in ROLES {
        let pid = nsecd.role(role);
        for file in ["mem", "environ", "maps", "fd", "root", "ns/net", "syscall"] {
            let path = format!("/proc/{pid}/{file}");
            let mut cat = std::process::Command::new(if file == "fd" || file == "root" { "ls" } else { "head" });
            let output = cat.arg(&path).uid(ORDINARY).gid(ORDINARY).output().unwrap();
            assert!(!output.status.success() && output.stdout.is_empty(), "{role}: {path} is readable");
        }
    }
}

/// Checked: with CAP_SYS_PTRACE kept, with the bounding set left, or without PR_SET_DUMPABLE, this fails.
#[test]
fn the_supervisor_keeps_these_capabilities_and_no_other_and_cannot_be_traced() {
    if not_root("a daemon started as root") {
        return;
    }
    // CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, SETPCAP, SYS_CHROOT, SYS_ADMIN.
    let kept = [0, 1, 5, 6, 7, 8, 18, 21].iter().fold(0u64, |set, capability| set | 1 << capability);
    let bits = |status: &BTreeMap<String, String>, set: &str| u64::from_str_radix(field(status, set), 16).unwrap();
    let ours = bits(&process::status(std::process::id() as i32), "CapEff");
    for (uid, kept) in [(None, kept & ours), (Some(ORDINARY), 0)] {
        let nsecd = Setup::of(uid, DM).start();
        let status = process::status(nsecd.pid());
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(bits(&status, set), kept, "{uid:?} {set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(bits(&status, set), 0, "{uid:?} {set}");
        }
        if uid.is_none() {
            assert_eq!(bits(&status, "CapBnd"), kept);
        }
        assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"), "{uid:?}");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(format!("/proc/{}/environ", nsecd.pid())).unwrap().uid(), 0, "{uid:?}");
    }
}
