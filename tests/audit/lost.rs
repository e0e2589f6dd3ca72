//! What a death leaves open: "signed, reply lost" is told from "never signed", and a torn line from one that was cut off.
//!
//! Checked: with a gate that is asked before the intent is written, with intents before a start that have to have an outcome, and
//! with a start that does not say how many rows there were, a test of this file fails.

use super::{OPEN, audit, clean, of, sign, strike};
use crate::support::client::line;
use crate::support::daemon::Setup;
use crate::support::{Nsecd, sys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Instant;

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Waits until the log holds so many intents.
fn intents(nsecd: &Nsecd, count: usize) {
    let patience = Instant::now() + sys::PATIENCE;
    let path = nsecd.dir.join("state/decisions.log");
    while fs::read_to_string(&path).unwrap().matches("\"is\":\"intent\"").count() < count {
        assert!(Instant::now() < patience, "never asked");
        std::thread::yield_now();
    }
}

#[test]
fn signed_and_reply_lost_is_told_from_never_signed() {
    let nsecd = Nsecd::start(OPEN);
    let state = nsecd.dir.join("state");
    sign(&nsecd, "first");
    // The gate is stopped: what is asked now has an intent and no row.
    let gate = nsecd.role("nsecd-gate");
    signal(gate, Signal::SIGSTOP);
    let mut client = nsecd.connect();
    client.send(line("sign_event", json!({"kind": 1, "content": "never signed"})));
    intents(&nsecd, 2);
    let report = clean(&state);
    assert_eq!(of(&report, "default")["open"], json!(1), "while it is under way: {report:#}");
    let ended = sys::pidfd(gate).unwrap();
    strike(&nsecd, "nsecd-gate");
    assert!(!sys::wait_any(&[ended.as_fd()]).is_empty());
    nsecd.serves();
    let report = clean(&state);
    assert_eq!(
        (&of(&report, "default")["never_used"], &report["reply_lost_count"]),
        (&json!(1), &json!(0)),
        "{report:#}"
    );
    // The broker is stopped once it has asked: the row is written, and its reply never read.
    let gate = nsecd.role("nsecd-gate");
    let broker = nsecd.role("nsecd-broker");
    signal(gate, Signal::SIGSTOP);
    let mut client = nsecd.connect();
    client.send(line("sign_event", json!({"kind": 1, "content": "signed"})));
    intents(&nsecd, 3);
    signal(broker, Signal::SIGSTOP);
    signal(gate, Signal::SIGCONT);
    let patience = Instant::now() + sys::PATIENCE;
    while fs::metadata(state.join("default.record")).unwrap().len() < 3 * 64 {
        assert!(Instant::now() < patience, "never signed");
        std::thread::yield_now();
    }
    let ended = sys::pidfd(broker).unwrap();
    signal(broker, Signal::SIGKILL);
    assert!(!sys::wait_any(&[ended.as_fd()]).is_empty());
    nsecd.serves();
    sign(&nsecd, "last");
    let report = clean(&state);
    let lost = &report["reply_lost"];
    assert_eq!((&report["reply_lost_count"], &lost[0]["sequence"]), (&json!(1), &json!(2)), "{report:#}");
    let (code, text) = audit(&state, &["verify"]);
    assert!(code == 0 && text.contains("signed, reply lost: 1") && text.contains("default.record row 2"), "{text}");
}

#[test]
fn a_line_that_a_full_disk_cut_short_is_named_and_the_chain_goes_on() {
    let nsecd = Nsecd::start(OPEN);
    sign(&nsecd, "first");
    let stopped = nsecd.stopped(Signal::SIGTERM);
    let path = stopped.dir.join("state/decisions.log");
    let before = fs::read(&path).unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"n\":99,\"ms\":1").unwrap();
    let nsecd: Nsecd = Setup::start(stopped);
    sign(&nsecd, "second");
    assert!(fs::read(&path).unwrap().starts_with(&before), "nothing is overwritten");
    assert!(nsecd.stderr().contains("audit verify"), "{}", nsecd.stderr());
    let report = clean(&nsecd.dir.join("state"));
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.contains("cut short after 14 bytes"), "{note}");
}
