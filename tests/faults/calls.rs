//! Row B6: each call of a start, failing. As root every one; as an ordinary user a sample.
//!
//! Checked: with the error of RLIMIT_NPROC or of capset(2) dropped in the lock both fail, for each role; with any error of
//! PR_CAPBSET_READ taken for the last capability's, the first.

use crate::support::daemon::{DM, Setup, walk};
use crate::support::fault::{Site, Start, start};
use crate::support::not_root;
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

/// A uid that nobody has.
const ORDINARY: u32 = 23_404;
/// Traced starts at a time.
const WORKERS: usize = 4;

/// Calls without which a role goes on, and the optional step of the lock (SECURITY.md) that is then said to be missing; `None` for
/// what Rust's runtime does before main, or has another way for.
const OPTIONAL: [(&str, Option<&str>); 29] = [
    ("keyctl(0x1)", Some("session keyring")),
    ("unshare(0x10000000)", Some("user namespace")),
    ("openat(/proc/self/setgroups)", Some("user namespace")),
    ("openat(/proc/self/uid_map)", Some("user namespace")),
    ("openat(/proc/self/gid_map)", Some("user namespace")),
    ("write(/proc/N/setgroups)", Some("user namespace")),
    ("write(/proc/N/uid_map)", Some("user namespace")),
    ("write(/proc/N/gid_map)", Some("user namespace")),
    ("unshare(0x4e000000)", Some("network, IPC, UTS and cgroup namespaces")),
    ("unshare(0x20000)", Some("empty root")),
    ("mount(/, 0x44000)", Some("empty root")),
    ("mount(/proc, 0xf)", Some("empty root")),
    ("chroot(/proc)", Some("empty root")),
    ("chdir(/)", Some("empty root")),
    ("prctl(0x4, 0x1)", Some("user namespace")),
    ("prctl(0x17)", Some("bounding set")),
    ("prctl(0x18)", Some("bounding set")),
    ("prctl(0x1c, 0xef)", Some("securebits")),
    ("prctl(0x41, 0x1)", Some("memory-deny-write-execute")),
    ("landlock_create_ruleset(0x0)", Some("Landlock")),
    ("landlock_create_ruleset(0x1)", Some("Landlock")),
    ("landlock_restrict_self()", Some("Landlock")),
    ("memfd_secret()", Some("secret memory")),
    ("ftruncate()", Some("secret memory")),
    // Rust's runtime: the main thread's guard page, the seed of hash maps, a file's size as a hint.
    ("prlimit64(0x3)", None),
    ("sched_getaffinity()", None),
    ("getrandom()", None),
    ("rt_sigaction()", None),
    ("statx(/proc/sys/kernel/random/boot_id)", None),
];

/// Names of calls that the supervisor cannot do without, whatever they are made on. What only looks at something is not among
/// them: much of that is done by libc's look-ups of users, or has a default.
const SUPERVISORS: [&str; 18] = [
    "bind",
    "capget",
    "capset",
    "clone",
    "close_range",
    "fchmod",
    "fchown",
    "fchownat",
    "fchmodat",
    "flock",
    "listen",
    "openat2",
    "pidfd_open",
    "pipe2",
    "signalfd4",
    "socketpair",
    "prctl(0x4, 0x0)",
    "prctl(0x26, 0x1)",
];

/// The same between fork and exec.
const FORKS: [&str; 5] = ["close_range", "dup2", "execveat", "fcntl", "setsid"];

/// The entry of [`OPTIONAL`] that this call is.
fn optional(call: &str) -> Option<Option<&'static str>> {
    // Where a tracer may not read another's memory a path is not shown.
    let hidden = |name: &str| match name.split_once("(/") {
        Some((name, rest)) => format!("{name}({}", rest.split_once(", ").map_or(")", |(_, numbers)| numbers)),
        None => name.into(),
    };
    let maps = call.contains("/proc/N/maps") || call.contains("/proc/self/maps");
    let listed = OPTIONAL.iter().find(|(name, _)| *name == call || hidden(name) == call).map(|(_, step)| *step);
    listed.or(maps.then_some(None))
}

/// What is tried: every call of the roles from main until the filter, and of supervisor and forks those that must not fail. Of calls
/// with one name (a loop's, as a rule) the first and the last.
fn tried(sites: &[Site]) -> Vec<&Site> {
    let mut by_name: BTreeMap<(&str, &str), Vec<&Site>> = BTreeMap::new();
    for site in sites {
        let among =
            |names: &[&str]| names.iter().any(|name| site.call == *name || site.call.split('(').next() == Some(*name));
        let wanted = match site.role.as_str() {
            "nsecd" => among(&SUPERVISORS),
            role if role.starts_with("nsecd, fork") => among(&FORKS),
            _ => true,
        };
        if wanted {
            let alike = by_name.entry((&site.role, &site.call)).or_default();
            alike.truncate(1);
            alike.push(site);
        }
    }
    by_name.into_values().flatten().collect()
}

/// What is wrong with how this start went.
fn judge(site: &Site, end: &Start) -> Option<String> {
    // What cannot be looked at after bind(2) cannot be told from another's, and is left alone.
    let mut wrong = ended_wrongly(
        end,
        ["openat2(s.sock)", "openat2(control.sock)", "openat2(admin.sock)"].contains(&site.call.as_str()),
    );
    if !end.failed {
        wrong.push("was not made in this start".into());
    } else if end.ready {
        match optional(&site.call) {
            None => wrong.push("failed, and nsecd was ready".into()),
            Some(Some(step)) if !end.stderr.contains(step) => {
                wrong.push(format!("failed, and nobody was told: {step}"))
            }
            Some(_) => {}
        }
    }
    (!wrong.is_empty()).then(|| format!("{}: {}: {}\n{}", site.role, site.call, wrong.join("; "), end.stderr))
}

/// What is wrong with how a start ended, whatever for; nothing if it was ready. `unknown`: it may leave a file of a socket.
pub fn ended_wrongly(end: &Start, unknown: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |right: bool, what: String| wrong.extend((!right).then_some(what));
    check(end.left.is_empty(), format!("left running: {:?}", end.left));
    if end.ready {
        return wrong;
    }
    check(end.code != Some(0), "ended with exit code 0".into());
    check(!end.stderr.trim().is_empty(), "ended without a message".into());
    check(!end.stderr.contains("panicked"), "something panicked".into());
    walk(end.dir.path(), &mut |path| {
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
        if is_socket && !path.ends_with("notify") {
            check(UnixStream::connect(path).is_err(), format!("{} is still served", path.display()));
            check(unknown, format!("{} was left behind", path.display()));
        }
    });
    wrong
}

/// Makes every `step`-th call of a start by this user fail; what was wrong.
fn each(uid: Option<u32>, step: usize) {
    let clean = start(Setup::of(uid, DM), None);
    assert!(clean.ready, "control: a traced start is ready: {}", clean.stderr);
    let sites = tried(&clean.sites);
    for (role, call) in [
        ("nsecd", "bind"),
        ("nsecd", "clone"),
        ("nsecd-keyholder", "seccomp(0x1)"),
        ("nsecd-ecdh", "capset()"),
        ("nsecd-gate", "prctl(0x26, 0x1)"),
        ("nsecd-broker", "prlimit64(0x6)"),
    ] {
        let made = sites.iter().any(|site| site.role == role && site.call.starts_with(call));
        assert!(made, "control: {role} makes {call} when it starts");
    }
    let sampled: Vec<&&Site> = sites.iter().step_by(step).collect();
    let (next, wrong) = (Mutex::new(sampled.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(site) = next.lock().unwrap().next() else { return };
                    let end = start(Setup::of(uid, DM), Some(site));
                    wrong.lock().unwrap().extend(judge(site, &end));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    eprintln!("{} calls of {} were made to fail", sampled.len(), clean.sites.len());
    assert!(wrong.is_empty(), "{} of {} calls:\n{}", wrong.len(), sampled.len(), wrong.join("\n"));
}

#[test]
fn every_call_of_a_start_that_fails_ends_it_or_is_said_to_be_missing() {
    if !not_root("tracing what is not dumpable") {
        each(None, 1);
    }
}

#[test]
fn so_it_is_for_an_ordinary_user() {
    if !not_root("being another user") {
        each(Some(ORDINARY), 5);
    }
}
