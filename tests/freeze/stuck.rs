//! A freeze where a process holds on to the key: no acknowledgement while it may use it, and an end to that.
//!
//! Checked: red with the answer before the busy words are clear, and with no end to the wait.

use super::hijacked::{ends, requests};
use crate::rows;
use crate::support::client::{code, line};
use crate::support::control::{connect, frame, freeze, order, thaw};
use crate::support::daemon::{DM, OPEN};
use crate::support::{Finally, Nsecd, not_root, process, sys, until};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::unistd::Pid;
use nsecd_policy::operator::{Command, Status};
use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// The key-holder is stopped with an id before it, so that the gate waits for it with the row written.
#[test]
fn a_gate_that_holds_on_to_a_frozen_key_is_replaced_before_the_acknowledgement() {
    let nsecd = Nsecd::start(OPEN);
    let (holder, gate) = (nsecd.role("nsecd-keyholder"), nsecd.role("nsecd-gate"));
    let gone = sys::pidfd(gate).unwrap();
    signal(holder, Signal::SIGSTOP);
    let mut client = nsecd.connect();
    client.send(line("sign_event", json!({"kind": 1, "content": "x"})));
    until("the row", || rows(&nsecd, "default") == 1);
    let mut stream = connect(&nsecd);
    stream.write_all(&frame(Command::Freeze, "")).unwrap();
    // Whichever comes first, it is not the acknowledgement alone.
    let ready = sys::wait_any(&[stream.as_fd(), gone.as_fd()]);
    assert!(ready.contains(&1), "acknowledged while the gate waits for a signature");
    let replies = crate::support::control::answer(&mut stream);
    assert_eq!((replies[0].status, replies[0].frozen.is_some()), (Status::Done, true));
    assert!(nsecd.stderr().contains("has been using a frozen key"), "{}", nsecd.stderr());
    // The client is told nothing that could be taken for a signature.
    assert!(!client.rest().contains("\"sig\""));
    signal(holder, Signal::SIGCONT);
    assert_eq!(code(&nsecd.connect().sign(1, None)), "frozen");
    assert_eq!(rows(&nsecd, "default"), 1);
    assert_ne!(nsecd.role("nsecd-gate"), gate);
    thaw(&nsecd);
    // What the key-holder had left goes to nobody.
    assert!(nsecd.connect().sign(1, None)["event"].is_object());
    assert_eq!(rows(&nsecd, "default"), 2);
}

/// Meanwhile the supervisor has other things to do.
#[test]
fn while_a_freeze_waits_the_supervisor_serves_its_children_and_other_orders() {
    let nsecd = Nsecd::start(OPEN);
    let holder = nsecd.role("nsecd-keyholder");
    signal(holder, Signal::SIGSTOP);
    let mut client = nsecd.connect();
    client.send(line("sign_event", json!({"kind": 1, "content": "x"})));
    until("the row", || rows(&nsecd, "default") == 1);
    let mut stream = connect(&nsecd);
    stream.write_all(&frame(Command::Freeze, "")).unwrap();
    until("the order is taken", || nsecd.stderr().contains("account default is frozen by"));
    assert_eq!(order(&nsecd, Command::Freeze, "nobody")[0].status, Status::UnknownAccount);
    stream.set_nonblocking(true).unwrap();
    let early = stream.read(&mut [0; 1]);
    assert!(
        early.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock),
        "acknowledged while the gate waits for a signature"
    );
    // A broker that dies takes its gate along: then nobody uses the key.
    nsecd.kill("nsecd-broker");
    stream.set_nonblocking(false).unwrap();
    assert_eq!(crate::support::control::answer(&mut stream)[0].status, Status::Done);
    signal(holder, Signal::SIGCONT);
    assert_eq!(code(&nsecd.connect().sign(1, None)), "frozen");
}

/// Nobody can replace it: it holds the key.
#[test]
fn an_ecdh_holder_that_holds_on_to_a_frozen_key_ends_everything_and_the_next_start_is_frozen() {
    if not_root("taking descriptors out of the broker") {
        return;
    }
    let config = DM.replace("[key]", "[key]\necdh_ceiling = \"none\"");
    let nsecd = Nsecd::start(&config);
    let holder = nsecd.role("nsecd-ecdh");
    let ended = sys::pidfd(nsecd.pid()).unwrap();
    // One that is stopped in the middle of a key agreement: under fire soon one is.
    let mut caught = false;
    let [end, _gate] = ends(&nsecd);
    let [request, _] = requests();
    std::thread::scope(|scope| {
        let (end, request) = (&end, &request);
        scope.spawn(move || while send(end.as_raw_fd(), request, MsgFlags::MSG_NOSIGNAL).is_ok() {});
        scope.spawn(move || while recv(end.as_raw_fd(), &mut [0; 142], MsgFlags::empty()).is_ok_and(|n| n > 0) {});
        // It may have gone.
        let _end = Finally(|| {
            let _ = shutdown(end.as_raw_fd(), Shutdown::Both);
        });
        let mut last = 0;
        for _ in 0..200 {
            until("a row", || rows(&nsecd, "default.ecdh") > last);
            signal(holder, Signal::SIGSTOP);
            until("stopped", || process::status(holder)["State"].starts_with('T'));
            let mut stream = connect(&nsecd);
            stream.write_all(&frame(Command::Freeze, "")).unwrap();
            let replies = crate::support::control::answer(&mut stream);
            if replies.is_empty() {
                caught = true;
                break;
            }
            last = rows(&nsecd, "default.ecdh");
            thaw(&nsecd);
            signal(holder, Signal::SIGCONT);
        }
    });
    assert!(caught, "it never was in the middle of one");
    assert_eq!(sys::wait_any(&[ended.as_fd()]), [0]);
    let exit = nsecd.wait();
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.stderr.contains("has been using its key for 3 s: everything stops; the account will start frozen"),
        "{}",
        exit.stderr
    );
    assert!(exit.dir.join("state/default.frozen").exists());
}

#[test]
fn an_idle_key_is_frozen_at_once_though_its_gate_hangs() {
    let nsecd = Nsecd::start(OPEN);
    let gate = nsecd.role("nsecd-gate");
    signal(gate, Signal::SIGSTOP);
    freeze(&nsecd);
    signal(gate, Signal::SIGCONT);
    assert_eq!(code(&nsecd.connect().sign(1, None)), "frozen");
    assert_eq!(nsecd.role("nsecd-gate"), gate);
}
