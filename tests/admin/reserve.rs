//! A12 with the new door: agents that hold all places, all bytes and all turns there are do not keep the operator waiting.
//!
//! Here with the real processes; server/tests/operator.rs of the broker fills every place and every byte.

use crate::support::admin::connect;
use crate::support::daemon::OPEN;
use crate::support::{Nsecd, PUBLIC_KEY, event, process, root};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// More than the broker holds: the rest waits in the backlog.
const MANY: usize = 10_000;

#[test]
fn ten_thousand_idle_connections_and_all_bytes_leave_the_operator_his_own() {
    let nsecd = Nsecd::start(OPEN);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(MANY as u64 + 2000), most).unwrap();
    let many = MANY.min(most as usize - 200);
    let part = format!("{{\"method\":\"sign_event\",\"params\":{{\"kind\":1,\"content\":\"{}", "x".repeat(400_000));
    let mut held: Vec<UnixStream> = Vec::new();
    // Half requests up to what a principal may hold, and beyond.
    for _ in 0..40 {
        let mut stream = UnixStream::connect(&nsecd.socket).unwrap();
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write_all(part.as_bytes());
        held.push(stream);
    }
    while held.len() < many {
        match UnixStream::connect(&nsecd.socket) {
            Ok(stream) => held.push(stream),
            Err(e) => panic!("after {}: {e}", held.len()),
        }
        if held.len().is_multiple_of(1000) {
            assert_eq!(connect(&nsecd).public_key(), PUBLIC_KEY);
        }
    }
    let mut operator = connect(&nsecd);
    event::signed(&operator.ask("sign_event", json!({"kind": 1111, "content": "x".repeat(200_000)})), PUBLIC_KEY);
    if root() {
        let limit = process::descriptors(nsecd.role("nsecd-broker")).len();
        assert!(limit > 1000, "control: it holds {limit} descriptors");
    }
    drop(held);
    nsecd.serves();
}

/// Nor does one of the operator's own: the oldest that is idle gives way, and root has places that nsecd's user cannot take.
#[test]
fn silent_connections_of_the_operators_give_way() {
    let nsecd = Nsecd::start(OPEN);
    let mut all: Vec<_> = (0..100).map(|_| connect(&nsecd)).collect();
    for client in &mut all {
        // Half a request.
        let _ = client.try_send("{\"method\":");
    }
    assert_eq!(connect(&nsecd).public_key(), PUBLIC_KEY);
    let mut last = all.pop().unwrap();
    last.send("\"get_public_key\"}\n");
    assert_eq!(last.reply()["pubkey"], PUBLIC_KEY);
}

#[test]
fn a_request_of_the_operators_has_a_bound_of_its_own() {
    let nsecd = Nsecd::start(OPEN);
    let mut operator = connect(&nsecd);
    let mut sign = |n: usize| operator.ask("sign_event", json!({"kind": 1, "content": "x".repeat(n)}));
    event::signed(&sign(250_000), PUBLIC_KEY);
    let reply = sign(262_144);
    assert_eq!(reply["code"], "too_large", "{reply}");
}
