//! B13: where a full disk takes no row, nothing is signed; what was known before is known after.
//!
//! Checked: with a broker that gives up rows which the disk has not taken, the first test fails; with a gate that goes on without its row, the second; with a
//! broker that asks the gate whether or not its lines were written, and with lines given up that the disk has not taken, the third.

use super::recorded;
use crate::support::client::{Client, code, refusal, refused};
use crate::support::daemon::Setup;
use crate::support::{Dir, Nsecd, PUBLIC_KEY, event, not_root};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk of a few pages, seen by this thread and what it starts, and gone with them.
struct Disk {
    /// Where it is mounted.
    path: PathBuf,
    _dir: Dir,
}

impl Disk {
    fn new(pages: u32) -> Disk {
        let dir = Dir::new(None);
        let path = dir.subdir("disk", 0o700, None);
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        run(Command::new("mount").args(["--make-rprivate", "/"]));
        let size = format!("size={},mode=0700", pages * 4096);
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "nsecd-test"]).arg(&path));
        Disk { path, _dir: dir }
    }

    /// Leaves no page free.
    fn fill(&self) -> PathBuf {
        let path = self.path.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write(&[0; 4096]).is_ok_and(|n| n > 0) {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// Asks until it is refused for want of room; how often it was not.
fn until_unavailable(mut ask: impl FnMut() -> serde_json::Value) -> Vec<serde_json::Value> {
    let mut answers = Vec::new();
    loop {
        let reply = ask();
        if reply.get("error").is_some() {
            assert_eq!(code(&reply), "unavailable", "{reply}");
            return answers;
        }
        answers.push(reply);
        assert!(answers.len() < 1000, "the disk is never full");
    }
}

#[test]
fn a_full_disk_stops_signatures_and_sessions_until_there_is_room_and_loses_nothing() {
    if not_root("a small disk") {
        return;
    }
    // A thread of its own, since its mounts are.
    std::thread::scope(|scope| scope.spawn(full).join().unwrap());
}

#[test]
fn where_the_record_alone_finds_no_room_nothing_is_signed_and_no_slot_is_used() {
    if not_root("a small disk") {
        return;
    }
    std::thread::scope(|scope| scope.spawn(full_for_the_record).join().unwrap());
}

#[test]
fn where_the_decision_log_alone_finds_no_room_nothing_is_signed_and_nothing_recorded() {
    if not_root("a small disk") {
        return;
    }
    std::thread::scope(|scope| scope.spawn(full_for_the_decision_log).join().unwrap());
}

fn full_for_the_decision_log() {
    let (state, small) = (Disk::new(256), Disk::new(4));
    let (log, at) = (small.path.join("decisions.log"), state.path.join("decisions.log"));
    for path in [&log, &at] {
        fs::File::options().write(true).create_new(true).mode(0o600).open(path).unwrap();
    }
    run(Command::new("mount").arg("--bind").args([&log, &at]));
    let nsecd = Setup::new(CONFIG).state_in(&state.path).start();
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    let ballast = small.fill();
    let signed = until_unavailable(|| client.sign(1, Some(&token)));
    let record = state.path.join("default.record");
    for _ in 0..3 {
        assert_eq!(code(&client.sign(1, Some(&token))), "unavailable");
        assert_eq!(code(&client.sign(1, None)), "unavailable");
        assert_eq!(recorded(&record).len(), signed.len());
    }
    // Each that was signed had its line on the disk before the gate was asked.
    let text = fs::read_to_string(&log).unwrap();
    let (whole, _cut) = text.rsplit_once('\n').unwrap();
    let intents = whole.lines().filter(|line| line.contains("\"is\":\"intent\"")).count();
    assert!(intents >= signed.len(), "{intents} lines for {} signatures", signed.len());
    assert!(nsecd.stderr().contains("free space"), "{}", nsecd.stderr());
    fs::remove_file(ballast).unwrap();
    event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
    assert_eq!(recorded(&record).len(), signed.len() + 1);
}

fn full_for_the_record() {
    let disk = Disk::new(16);
    // The decision log lies elsewhere.
    let elsewhere = Dir::new(None);
    let (log, at) = (elsewhere.file("decisions.log", 0o600, None, b""), disk.path.join("decisions.log"));
    fs::write(&at, "").unwrap();
    run(Command::new("mount").arg("--bind").args([&log, &at]));
    let mut setup = Setup::new(CONFIG).state_in(&disk.path);
    let journal = setup.dir.join("sessions");
    setup.command.env("SIGNER_SESSION_FILE", journal);
    let nsecd = setup.start();
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    let ballast = disk.fill();
    let signed = until_unavailable(|| client.sign(1, Some(&token)));
    let known =
        |nsecd: &Nsecd| nsecd.connect().ask("session_info", json!({ "token": token }))["session"]["signCount"].clone();
    for _ in 0..3 {
        assert_eq!(code(&client.sign(1, None)), "unavailable");
        client.session(json!({"scope": "1"}));
        assert_eq!(known(&nsecd), signed.len());
    }
    assert_eq!(recorded(&disk.path.join("default.record")).len(), signed.len());
    nsecd.kill("nsecd-gate");
    assert_eq!(code(&nsecd.connect().sign(1, Some(&token))), "unavailable");
    assert_eq!(known(&nsecd), signed.len());
    fs::remove_file(ballast).unwrap();
    event::signed(&nsecd.connect().sign(1, Some(&token)), PUBLIC_KEY);
    assert_eq!(recorded(&disk.path.join("default.record")).len(), signed.len() + 1);
}

const CONFIG: &str = "[key]\nceiling = \"none\"\n[limits]\nsessions_per_minute = 10000\nlive_sessions = 1000\n\
                  [[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\n\
                  limits = { burst = 2000, burst_window = \"1h\", per_minute = 2000, per_hour = 2000 }\n\
                  total = \"none\"\n";

fn full() {
    let disk = Disk::new(16);
    let nsecd = Setup::new(CONFIG).state_in(&disk.path).start();
    let record = disk.path.join("default.record");
    let mut client = nsecd.connect();
    let [token, revoked] = [(); 2].map(|()| client.session(json!({"scope": "1"})));
    let ballast = disk.fill();
    // Pages that have begun still have room.
    let signed = until_unavailable(|| client.sign(1, Some(&token)));
    let count =
        |client: &mut Client| client.ask("session_info", json!({ "token": token }))["session"]["signCount"].clone();
    let rows = |record: &Path| recorded(record).len();
    assert_eq!(rows(&record), signed.len());
    until_unavailable(|| client.ask("session_start", json!({"scope": "1"})));
    assert!(nsecd.stderr().contains("free space"), "{}", nsecd.stderr());
    for _ in 0..3 {
        assert_eq!(code(&client.sign(1, Some(&token))), "unavailable");
        assert_eq!(code(&client.sign(1, None)), "unavailable");
        assert_eq!(code(&client.ask("session_start", json!({"scope": "1"}))), "unavailable");
        assert_eq!(client.public_key(), PUBLIC_KEY);
    }
    assert_eq!(count(&mut client), signed.len());
    // Also by the broker that finds the disk full when it starts.
    nsecd.kill("nsecd-broker");
    let mut client = nsecd.connect();
    assert_eq!(code(&client.sign(1, Some(&token))), "unavailable");
    assert_eq!(count(&mut client), signed.len());
    assert_eq!(client.ask("session_revoke", json!({ "token": revoked })), json!({"revoked": true}));
    refused(&client.sign(1, Some(&revoked)));
    assert_eq!(rows(&record), signed.len());
    fs::remove_file(ballast).unwrap();
    event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
    let later = client.session(json!({"scope": "1"}));
    nsecd.kill("nsecd-broker");
    let mut client = nsecd.connect();
    event::signed(&client.sign(1, Some(&later)), PUBLIC_KEY);
    event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
    assert_eq!(count(&mut client), signed.len() + 2);
    assert_eq!(refusal(&client.sign(1, Some(&revoked))), "Invalid session token");
    assert_eq!(rows(&record), signed.len() + 3);
}
