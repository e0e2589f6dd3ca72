//! Broker and gate are replaced behind the same socket and the same key; without its key-holder nothing serves.

use crate::support::daemon::{DM, OPEN, ROLES};
use crate::support::{Nsecd, PUBLIC_KEY, client, event, sys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

fn inode(nsecd: &Nsecd) -> u64 {
    fs::symlink_metadata(&nsecd.socket).unwrap().ino()
}

#[test]
fn a_killed_broker_or_gate_is_replaced_on_the_same_socket_and_the_same_key() {
    let nsecd = Nsecd::start(OPEN);
    let (holder, socket) = (nsecd.role("nsecd-keyholder"), inode(&nsecd));
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    for role in ["nsecd-broker", "nsecd-gate", "nsecd-broker", "nsecd-gate"] {
        let killed = nsecd.kill(role);
        // The listening socket is open all the while: this waits in its backlog for the next broker.
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
        assert_ne!(nsecd.role(role), killed);
        assert_eq!((nsecd.role("nsecd-keyholder"), inode(&nsecd)), (holder, socket), "{role}");
    }
}

#[test]
fn nothing_survives_a_killed_key_holder_and_the_exit_says_so() {
    nothing_survives_a_killed("nsecd-keyholder", "the key-holder of account default died");
}

#[test]
fn nothing_survives_a_killed_ecdh_holder_and_the_exit_says_so() {
    nothing_survives_a_killed("nsecd-ecdh", "the ECDH holder of account default died");
}

fn nothing_survives_a_killed(holder: &str, says: &str) {
    let nsecd = Nsecd::start(DM);
    nsecd.serves();
    let socket = nsecd.socket.clone();
    let pids = ROLES.map(|role| nsecd.role(role));
    nsecd.kill(holder);
    let exit = nsecd.wait();
    assert!(exit.code.is_some_and(|code| code != 0), "{:?}", exit.code);
    assert!(exit.stderr.contains(says), "{}", exit.stderr);
    assert!(!socket.exists());
    for pid in pids {
        assert!(!crate::support::process::name(pid).starts_with("nsecd"), "{pid} is still there");
    }
}

#[test]
fn a_broker_crash_never_gains_a_signature() {
    let nsecd = Nsecd::start(&OPEN.replace("ceiling = \"none\"", "ceiling = \"6, 1/h\""));
    let mut signed = 0;
    for round in 0..6 {
        let mut client = nsecd.connect();
        for _ in 0..2 {
            signed += u32::from(client.sign(1, None).get("event").is_some());
        }
        nsecd.kill(if round % 2 == 0 { "nsecd-broker" } else { "nsecd-gate" });
    }
    nsecd.serves();
    // Six tokens in the gate's bucket, counted from the record after each crash.
    assert!((5..=6).contains(&signed), "{signed} signatures");
}

#[test]
fn a_restart_of_the_whole_daemon_never_refills_the_ceiling() {
    let config = OPEN.replace("ceiling = \"none\"", "ceiling = \"4, 1/h\"");
    let first = Nsecd::start(&config);
    let mut client = first.connect();
    let state = first.dir.join("state");
    let signed = (0..10).filter(|_| client.sign(1, None).get("event").is_some()).count();
    assert_eq!(signed, 4);
    first.signal(nix::sys::signal::Signal::SIGTERM);
    let exit = first.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let again = crate::support::Setup::new(&config);
    fs::remove_dir(again.dir.join("state")).unwrap();
    fs::rename(&state, again.dir.join("state")).unwrap();
    let again = again.start();
    assert!(again.connect().sign(1, None).get("event").is_none());
}

/// Stops a role and waits until it is gone.
fn stopped_until_replaced(nsecd: &Nsecd, role: &str) {
    let pid = nsecd.role(role);
    let going = sys::pidfd(pid).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    if role == "nsecd-gate" {
        nsecd.connect().send(client::line("sign_event", serde_json::json!({"kind": 1, "content": "x"})));
    }
    assert!(!sys::wait_any(&[going.as_fd()]).is_empty(), "a stopped {role} is left in place");
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
}

/// Checked: without the supervisor's question, or without the broker's look at its gates, this fails.
#[test]
fn a_broker_or_gate_that_hangs_is_replaced_like_one_that_died() {
    let nsecd = Nsecd::start(OPEN);
    stopped_until_replaced(&nsecd, "nsecd-broker");
    assert!(nsecd.stderr().contains("the broker does not answer"));
    stopped_until_replaced(&nsecd, "nsecd-gate");
    assert!(nsecd.stderr().contains("a gate does not answer"));
}
