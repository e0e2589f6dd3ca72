//! The decision log, and `nsecctl audit`, which checks it against the records of gate and ECDH holder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "audit/lines.rs"]
mod lines;
#[path = "audit/load.rs"]
mod load;
#[path = "audit/lost.rs"]
mod lost;
#[path = "audit/others.rs"]
mod others;
#[path = "audit/planted.rs"]
mod planted;
#[path = "audit/tampering.rs"]
mod tampering;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Nsecd, PUBLIC_KEY, sys};

/// Signatures and key agreements without limits, the smallest logs that are ever rotated, all of them kept.
const OPEN: &str = r#"
[state]
log_size = "64KiB"
log_keep = 500
[key]
ceiling = "none"
ecdh_ceiling = "none"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7]
tokenless = [1]
methods = ["sign_event", "nip44"]
limits = "none"
total = "none"
crypt = "none"
"#;
/// Public key of the secret 5.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";

/// `nsecctl audit` on a state directory: its exit code and what it printed.
fn audit(state: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    let output = command.arg("audit").args(arguments).arg("--state-dir").arg(state).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

/// What verify says.
fn verify(state: &Path) -> Value {
    let (code, text) = audit(state, &["verify", "--json"]);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(code, if report["clean"] == json!(true) { 0 } else { 1 }, "{report}");
    report
}

/// The same; panics unless there is nothing to answer for.
fn clean(state: &Path) -> Value {
    let report = verify(state);
    assert_eq!(report["clean"], json!(true), "{report:#}");
    report
}

/// What it says of a record.
fn of<'a>(report: &'a Value, record: &str) -> &'a Value {
    report["records"].as_array().unwrap().iter().find(|r| r["record"] == record).unwrap()
}

/// Files of the log or of a record, the oldest first.
fn files(state: &Path, name: &str) -> Vec<PathBuf> {
    let old = (1..).map(|n| state.join(format!("{name}.{n}"))).take_while(|path| path.exists());
    let mut files: Vec<PathBuf> = [state.join(name)].into_iter().chain(old).collect();
    files.reverse();
    files
}

/// All lines of the log, the oldest first.
fn lines(state: &Path) -> Vec<Value> {
    let all: String = files(state, "decisions.log").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    all.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// One request over a connection of its own, which a rotation does not cut off, and its reply.
fn ask(nsecd: &Nsecd, method: &str, params: Value) -> Value {
    let mut client = nsecd.connect();
    client.send(support::client::line(method, params));
    client.half_close();
    client.reply()
}

/// A signature of this content.
fn sign(nsecd: &Nsecd, content: &str) -> Value {
    let reply = ask(nsecd, "sign_event", json!({"kind": 1, "content": content}));
    assert_eq!(reply["event"]["pubkey"], json!(PUBLIC_KEY), "{reply}");
    reply
}

/// A key agreement.
fn encrypt(nsecd: &Nsecd) {
    let reply = ask(nsecd, "nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": PEER}));
    assert!(reply["result"].is_string(), "{reply}");
}

/// Kills a role and waits until its partner is gone with it, unless a rotation is just replacing them.
fn strike(nsecd: &Nsecd, role: &str) {
    let pair = |name: &str| ["nsecd-broker", "nsecd-gate"].contains(&name);
    let found: Vec<_> = nsecd.processes().into_iter().filter(|(name, _)| pair(name)).collect();
    let going: Vec<_> = found.iter().filter_map(|(_, pid)| sys::pidfd(*pid).ok()).collect();
    for (name, pid) in found {
        if name == role {
            // One that has ended meanwhile is gone as well.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    for process in going {
        assert!(!sys::wait_any(&[process.as_fd()]).is_empty(), "not replaced: {role}");
    }
}
