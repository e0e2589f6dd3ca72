//! B21: what a running role calls, against its policy: a rule that nothing uses is named, and has to have its reason here.
//!
//! That every call a role makes has a rule shows by itself, in every test: the filter ends who makes another. This is the other half. After an
//! upgrade of libc or std, `cargo test --test confinement rules -- --nocapture` says which rules have become redundant.
//!
//! Checked: with a rule added to the broker's policy that it does not need, and with a check made stricter in the policy that is read here
//! than in the filter, this fails.

use crate::support::daemon::{DM, ROLES, Setup};
use crate::support::{PUBLIC_KEY, client, missing, not_root, until};
use serde_json::{Value, json};
use std::path::Path;

/// Rules that a quiet half minute does not use, and why they stay: role and call.
const SELDOM: [(&str, &str, &str); 10] = [
    ("gate", "clock_gettime", "only where the clock is no vDSO's (hpet, acpi_pm)"),
    ("ecdh", "clock_gettime", "likewise"),
    ("broker", "clock_gettime", "likewise"),
    ("keyholder", "exit_group", "the other end closed: a signal may come first"),
    ("gate", "exit_group", "likewise"),
    ("ecdh", "exit_group", "likewise"),
    ("broker", "mremap", "a buffer that grows beyond malloc's threshold, where it can grow in place"),
    ("broker", "brk", "malloc, where the heap that it began with is not enough"),
    ("broker", "madvise", "std's, at the end of what is allocated"),
    ("broker", "getrandom", "an interrupted or a short read of it, as std and getrandom do it"),
];

/// A rule's conditions, of which each has to hold.
fn fits(rule: &Value, name: &str, arguments: &[u64]) -> bool {
    let holds = |condition: &Value| {
        let index = condition["index"].as_u64().unwrap() as usize;
        let Some(mut is) = arguments.get(index).copied() else { return false };
        if condition["type"] == "dword" {
            is &= 0xFFFF_FFFF;
        }
        let wanted = condition["val"].as_u64().unwrap();
        match &condition["op"] {
            op if *op == "eq" => is == wanted,
            op if *op == "ne" => is != wanted,
            op if *op == "le" => is <= wanted,
            op if *op == "lt" => is < wanted,
            op if *op == "ge" => is >= wanted,
            op if *op == "gt" => is > wanted,
            op => is & op["masked_eq"].as_u64().unwrap() == wanted,
        }
    };
    rule["syscall"] == name && rule["args"].as_array().into_iter().flatten().all(holds)
}

/// The calls that one process has made, a line each: those that were interrupted by another's are put together again.
fn whole<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (mut all, mut begun) = (Vec::new(), String::new());
    for line in lines {
        if let Some((begin, _)) = line.split_once(" <unfinished ...>") {
            begun = begin.into();
        } else if let Some((_, rest)) = line.split_once(" resumed>") {
            all.push(std::mem::take(&mut begun) + rest);
        } else {
            all.push(line.into());
        }
    }
    all
}

/// A line of a raw trace: the name, and the arguments as numbers. None of a signal or an exit.
fn call(line: &str) -> Option<(&str, Vec<u64>)> {
    let (name, rest) = line.split_once('(')?;
    let inside = rest.split(')').next()?;
    let number = |word: &str| u64::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok();
    Some((name, inside.split(',').map_while(number).collect()))
}

#[test]
fn every_call_of_a_running_role_is_in_its_policy_and_rules_that_nothing_used_are_named() {
    if not_root("reading what a non-dumpable process passes to the kernel") || missing("strace", "--version") {
        return;
    }
    let nsecd = Setup::new(&format!("[limits]\nlive_sessions = 1\n{DM}")).traced_raw().start();
    let mut one = nsecd.connect();
    // The second ends the first, which is said on stderr.
    one.session(json!({"scope": "1"}));
    let token = one.session(json!({"scope": "1"}));
    one.ask("sign_event", json!({"kind": 1, "content": "x".repeat(300_000), "session_token": token}));
    one.ask("wrap_dm", json!({"recipientPubkey": PUBLIC_KEY, "message": "to myself"}));
    // Refused, for the alert log; and one that leaves.
    client::refused(&one.sign(0, None));
    drop(nsecd.connect());
    drop(one);
    nsecd.serves();
    // A policy over the pipe that stays open for it.
    let supervisor = crate::support::process::descendants(nsecd.pid())[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGHUP).unwrap();
    until("reloaded", || nsecd.stderr().contains("the configuration was reloaded"));
    nsecd.serves();
    let trace = nsecd.into_trace();
    let (mut unknown, mut unused) = (Vec::new(), Vec::new());
    for role in ROLES {
        let short = role.trim_start_matches("nsecd-");
        let exec = trace.iter().position(|(_, c)| c.starts_with("exec") && c.contains(&format!("[\"{role}\"")));
        let exec = exec.unwrap_or_else(|| panic!("no exec of {role}"));
        let pid = trace[exec].0;
        let calls = whole(trace[exec..].iter().filter(|(p, _)| *p == pid).map(|(_, c)| c.as_str()));
        let filter = calls.iter().position(|c| c.starts_with("seccomp(SECCOMP_SET_MODE_FILTER"));
        let filter = filter.unwrap_or_else(|| panic!("{role} installs no filter"));
        let made: Vec<_> = calls[filter + 1..].iter().filter_map(|c| call(c)).collect();
        assert!(made.len() > 5, "control: {role} did call the kernel: {made:?}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sandbox/{short}.json"));
        let policy: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let rules = policy[short]["filter"].as_array().unwrap();
        for (_, seldom, _) in SELDOM.iter().filter(|(of, ..)| *of == short) {
            assert!(rules.iter().any(|rule| rule["syscall"] == *seldom), "{short} has no rule for {seldom} any more");
        }
        for (name, arguments) in &made {
            if !rules.iter().any(|rule| fits(rule, name, arguments)) {
                unknown.push(format!("{role}: {name} {arguments:x?}"));
            }
        }
        for rule in rules {
            if made.iter().any(|(name, arguments)| fits(rule, name, arguments)) {
                continue;
            }
            let name = rule["syscall"].as_str().unwrap();
            eprintln!("not used here: {short}: {name}: {}", rule["comment"].as_str().unwrap_or_default());
            if !SELDOM.iter().any(|(of, call, _)| *of == short && *call == name) {
                unused.push(format!("{short}: {rule}"));
            }
        }
    }
    assert!(unknown.is_empty(), "calls that no rule allows, were the filter not asked: {unknown:#?}");
    assert!(unused.is_empty(), "rules that nothing used: {unused:#?}");
}
