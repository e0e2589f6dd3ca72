//! A6, B14, B23: the ECDH holder of a running nsecd. The tests take the broker's end out of a broker that is stopped, as one
//! who has hijacked it would have it.
//!
//! Checked: the second test is red with `peers` not passed on or with op 2 always allowed, the third with an empty packet taken
//! for an end or with a broker's end that blocks, the fourth with no rotation at the start or with the old file not handed over.

use crate::support::daemon::{DM, OPEN, Setup};
use crate::support::ecdh::{REPLY, REQUEST};
use crate::support::event::{hex, unhex};
use crate::support::{Exit, Nsecd, PUBLIC_KEY, client, not_root, process, sys};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};

const OVER_CEILING: u8 = 1;
const NOT_ALLOWED: u8 = 3;

/// The x-only public keys of secrets 5 and 2.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";
const OTHER: &str = "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

fn with(config: &str, methods: &str, more: &str) -> String {
    config.replace("kinds = [1, 7, 1111]", &format!("kinds = [1, 7, 1111]\nmethods = [{methods}]\n{more}"))
}

/// What the ECDH holder was started with: ops, peers, ceiling, record; none if it does not run.
fn started_with(nsecd: &Nsecd) -> Option<Vec<String>> {
    let running = nsecd.processes().into_iter().find(|(name, _)| name == "nsecd-ecdh");
    running.map(|(_, pid)| {
        // An empty argument does not show.
        process::arguments(pid)[5..9].to_vec()
    })
}

/// A stopped broker's end of the pair to the ECDH holder.
struct Hijacked(fs::File);

impl Hijacked {
    fn of(nsecd: &Nsecd) -> Hijacked {
        let broker = nsecd.role("nsecd-broker");
        kill(Pid::from_raw(broker), Signal::SIGSTOP).unwrap();
        let descriptors = process::descriptors(broker);
        // The supervisor puts it behind the journal.
        let journal = descriptors.iter().find(|(_, what)| what.ends_with("/journal")).expect("a journal").0;
        let end = sys::steal(broker, journal + 1).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&end, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK), "a broker that asks would wait for a full pair");
        Hijacked(end.into())
    }

    fn send(&mut self, op: u8, peer: &str, nonce: u32) -> Vec<u8> {
        let request = [&[op], &unhex(peer)[..], &[0; 28], &nonce.to_be_bytes()].concat();
        assert_eq!((request.len(), self.0.write(&request).unwrap()), (REQUEST, REQUEST));
        request
    }

    /// The answer's status; a reply to what somebody else asked is passed over.
    fn ask(&mut self, op: u8, peer: &str, nonce: u32) -> u8 {
        let request = self.send(op, peer, nonce);
        loop {
            assert!(!sys::wait_any(&[self.0.as_fd()]).is_empty(), "the ECDH holder does not answer");
            let mut reply = [0; REPLY + 1];
            assert_eq!(self.0.read(&mut reply).unwrap(), REPLY);
            if reply[..REQUEST] == request {
                return reply[REQUEST];
            }
        }
    }
}

/// Kind and id of every row of the ECDH record.
fn rows(state: &std::path::Path) -> Vec<(u8, String)> {
    let bytes = fs::read(state.join("default.ecdh.record")).unwrap();
    bytes[64..].chunks_exact(64).map(|row| (row[27], hex(&row[32..]))).collect()
}

#[test]
fn an_ecdh_holder_runs_only_where_a_socket_offers_encryption_and_may_do_no_more_than_it_needs() {
    let without = Nsecd::start(OPEN);
    assert_eq!(started_with(&without), None);
    assert!(without.files_in_state("").iter().all(|path| !path.to_string_lossy().contains("ecdh")));
    without.serves();
    for (methods, ops, ceiling) in [
        ("\"nip44\"", "1", "600,10,1"),
        ("\"nip04\"", "2", "600,10,1"),
        ("\"dm\"", "1,3", "1060,13,1"),
        ("\"dm\", \"nip04\"", "1,2,3", "1120,14,1"),
    ] {
        let nsecd = Nsecd::start(&with(OPEN, &format!("\"sign_event\", {methods}"), ""));
        assert_eq!(started_with(&nsecd).unwrap(), [ops, "any", &format!("{ceiling},0"), "1,64"], "{methods}");
        nsecd.serves();
    }
}

#[test]
fn a_hijacked_broker_gets_no_operation_and_no_peer_beyond_the_configured() {
    if not_root("taking a descriptor of the broker's") {
        return;
    }
    let npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
    let peers = format!("peers = [\"{npub}\", \"{}\"]", PEER.to_uppercase());
    let nsecd = Nsecd::start(&with(OPEN, "\"sign_event\", \"dm\"", &peers));
    let mut hijacked = Hijacked::of(&nsecd);
    for (op, peer, status) in [
        (1, PEER, 0),
        (1, PUBLIC_KEY, 0), // the author's own copy
        (1, OTHER, NOT_ALLOWED),
        (2, PEER, NOT_ALLOWED),
        (3, OTHER, 0), // a gift wrap's author is a one-time key
        (4, PEER, NOT_ALLOWED),
    ] {
        assert_eq!(hijacked.ask(op, peer, 1), status, "op {op} with {peer}");
    }
    let expected = [(1, PEER), (1, PUBLIC_KEY), (3, OTHER)].map(|(op, peer)| (op, peer.to_owned()));
    assert_eq!(rows(&nsecd.dir.join("state")), expected);
}

#[test]
fn each_new_broker_gets_the_same_ecdh_holder_whatever_the_last_one_left_behind() {
    if not_root("taking a descriptor of the broker's") {
        return;
    }
    let nsecd = Nsecd::start(DM);
    let holder = nsecd.role("nsecd-ecdh");
    for round in 0..3 {
        let mut hijacked = Hijacked::of(&nsecd);
        assert_eq!(hijacked.ask(1, PEER, round), 0);
        // Replies that nobody reads, packets of no request, and the end of the broker.
        for n in 0..20 {
            hijacked.send(1, OTHER, n);
            send(hijacked.0.as_raw_fd(), b"", MsgFlags::empty()).unwrap();
        }
        drop(hijacked);
        nsecd.kill("nsecd-broker");
        nsecd.serves();
        assert_eq!(nsecd.role("nsecd-ecdh"), holder);
    }
    assert_eq!(Hijacked::of(&nsecd).ask(3, PEER, 9), 0);
}

/// An nsecd with the state of another that has ended.
fn continued(config: &str, before: &Exit) -> Nsecd {
    let setup = Setup::new(config);
    fs::remove_dir(setup.dir.join("state")).unwrap();
    fs::rename(before.dir.join("state"), setup.dir.join("state")).unwrap();
    setup.start()
}

#[test]
fn no_restart_and_no_rotation_refills_the_ecdh_ceiling() {
    if not_root("taking a descriptor of the broker's") {
        return;
    }
    // As many as fill the smallest record, and one more each time.
    const FULL: u32 = 1023;
    let config = |n: u32| {
        let key = format!("[state]\nlog_size = \"64KiB\"\n[key]\necdh_ceiling = \"{n}, 1/h\"");
        DM.replace("[key]", &key)
    };
    let nsecd = Nsecd::start(&config(FULL));
    let mut hijacked = Hijacked::of(&nsecd);
    assert!((0..FULL).all(|n| hijacked.ask(1, PEER, n) == 0));
    assert_eq!(hijacked.ask(1, PEER, FULL), OVER_CEILING);
    drop(hijacked);
    // While nsecd runs, its writer keeps the file.
    nsecd.kill("nsecd-broker");
    nsecd.serves();
    nsecd.signal(Signal::SIGTERM);
    let exit = nsecd.wait();
    let old = fs::read(exit.dir.join("state/default.ecdh.record")).unwrap();
    assert_eq!((old.len(), exit.dir.join("state/default.ecdh.record.1").exists()), (64 * 1024, false));

    let nsecd = continued(&config(FULL), &exit);
    let state = nsecd.dir.join("state");
    assert!(fs::read(state.join("default.ecdh.record.1")).unwrap() == old);
    let new = fs::read(state.join("default.ecdh.record")).unwrap();
    assert_eq!((&new[24..32], &new[32..64]), (&u64::from(FULL + 1).to_be_bytes()[..], &Sha256::digest(&old)[..]));
    assert_eq!(Hijacked::of(&nsecd).ask(1, PEER, 0), OVER_CEILING);
    nsecd.kill("nsecd-broker");
    nsecd.signal(Signal::SIGTERM);
    // Control: a ceiling that is one higher has one left.
    let nsecd = continued(&config(FULL + 1), &nsecd.wait());
    let mut hijacked = Hijacked::of(&nsecd);
    assert_eq!([hijacked.ask(1, PEER, 0), hijacked.ask(1, PEER, 1)], [0, OVER_CEILING]);
}

/// The gate lets seals pass for the broker's own use.
#[test]
fn kind_13_is_not_signed_for_a_client_because_its_socket_offers_dm() {
    let nsecd = Nsecd::start(DM);
    let gate = process::arguments(nsecd.role("nsecd-gate"));
    assert_eq!(&gate[6..9], ["1,7,1111,13", "-3600,900", "-176400,900"]);
    let mut client = nsecd.connect();
    assert!(client.sign(13, None).get("event").is_none());
    let start = |client: &mut crate::support::Client, scope: &str| {
        client.ask("session_start", json!({"scope": scope, "ttl": "60"}))
    };
    assert_eq!(client::code(&start(&mut client, "13")), "out_of_scope");
    let session = start(&mut client, "1");
    assert!(client.sign(13, session["session"]["token"].as_str()).get("event").is_none());
    assert!(client.sign(1, None).get("event").is_some(), "control");
}
