//! A9: clients that go away at any moment are ordinary. Two of these each killed the reference daemon.

use crate::support::daemon::{DM, ROLES};
use crate::support::{Nsecd, client, not_root, process};
use serde_json::json;
use std::net::Shutdown;

const TIMES: u32 = 10_000;

/// The roles' pids: unchanged means that nothing crashed and was replaced.
fn pids(nsecd: &Nsecd) -> [i32; 4] {
    ROLES.map(|role| nsecd.role(role))
}

#[test]
fn ten_thousand_clients_that_write_in_two_parts_and_leave_disturb_nobody() {
    let nsecd = Nsecd::start(DM);
    let before = pids(&nsecd);
    for n in 0..TIMES {
        let mut client = nsecd.connect();
        client.send("1");
        // The first byte is refused at once, so the second may find the stream closed.
        let _ = client.try_send("2");
        if n % 2 == 0 {
            client.rest();
        }
        if n % 500 == 0 {
            nsecd.serves();
        }
    }
    nsecd.serves();
    assert_eq!(pids(&nsecd), before);
}

#[test]
fn ten_thousand_clients_that_close_before_reading_disturb_nobody() {
    let nsecd = Nsecd::start(DM);
    let before = pids(&nsecd);
    let request = client::line("sign_event", json!({"kind": 1, "content": "x".repeat(1000)}));
    for n in 0..TIMES {
        let mut client = nsecd.connect();
        client.send(if n % 2 == 0 { request.as_str() } else { request.trim_end() });
        if n % 3 == 0 {
            client.stream().shutdown(Shutdown::Read).unwrap();
        }
        drop(client);
        if n % 500 == 0 {
            nsecd.serves();
        }
    }
    nsecd.serves();
    assert_eq!(pids(&nsecd), before);
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_no_descriptor_behind() {
    if not_root("reading the descriptors of a non-dumpable process") {
        return;
    }
    let nsecd = Nsecd::start(DM);
    let broker = nsecd.role("nsecd-broker");
    nsecd.serves();
    let mut kept = nsecd.connect();
    kept.public_key();
    let before = process::descriptors(broker).len();
    for part in ["", "{", "{\"method\":\"sign_ev", "{\"method\":\"get_public_key\"}\n{", "x"] {
        for _ in 0..50 {
            let mut client = nsecd.connect();
            let _ = client.try_send(part);
        }
    }
    // Each answer is a turn of the broker's loop; what has gone is noticed within some turns.
    let freed = (0..10_000).any(|_| {
        kept.public_key();
        process::descriptors(broker).len() <= before
    });
    assert!(freed, "{:?}", process::descriptors(broker));
}
