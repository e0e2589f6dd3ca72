//! B24: once a freeze is acknowledged neither gate nor ECDH holder uses the key, whatever a hijacked broker sends.
//!
//! The tests hold the broker's, the key-holder's and the supervisor's ends of real roles under their real sandboxes; against the whole
//! daemon: tests/freeze.rs. Checked: with the page not read, with the busy word never set, or cleared before the key-holder has answered,
//! tests of this file fail. The page read a moment before the word is set they do not see: src/bounds/src/freeze.rs does.

use crate::support::ecdh::{Ecdh, Options};
use crate::support::event::unhex;
use crate::support::role::Gate;
use crate::support::{Dir, Finally, PUBLIC_KEY, process, sys, until};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use sha2::{Digest, Sha256};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

const FROZEN: u8 = 4;
/// The x-only public key of secret 5.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";
/// Freezes of one role under fire.
const ROUNDS: usize = 300;

fn event(n: usize) -> Vec<u8> {
    format!("[0,\"{PUBLIC_KEY}\",1700000000,1,[],\"{n}\"]").into()
}

fn rows(record: &std::fs::File) -> u64 {
    record.metadata().unwrap().len() / 64 - 1
}

#[test]
fn a_frozen_gate_answers_so_writes_no_row_takes_no_token_and_forwards_nothing() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "3,1,100000");
    gate.words.freeze(true);
    for n in 0..100 {
        gate.send(&event(n));
        assert_eq!(gate.forwarded(), None);
        let reply = gate.reply().unwrap();
        assert_eq!((&reply[..32], reply[32], &reply[33..]), (&Sha256::digest(event(n))[..], FROZEN, &[0; 64][..]));
    }
    assert_eq!(recv(gate.holder.as_raw_fd(), &mut [0; 32], MsgFlags::MSG_DONTWAIT), Err(nix::errno::Errno::EAGAIN));
    assert_eq!(rows(&gate.record), 0);
    gate.words.freeze(false);
    for n in 0..3 {
        gate.send(&event(n));
        assert!(gate.forwarded().is_some(), "a token is gone");
        assert_eq!(gate.reply().unwrap()[32], 0);
    }
}

#[test]
fn a_gate_is_busy_from_before_the_row_until_the_key_holder_has_answered() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    assert!(!gate.words.is_busy(), "idle");
    gate.send(&event(1));
    let mut id = [0; 33];
    assert_eq!(sys::wait_any(&[gate.holder.as_fd()]), [0]);
    assert_eq!(recv(gate.holder.as_raw_fd(), &mut id, MsgFlags::empty()), Ok(32));
    let pid = gate.role.child.id() as i32;
    until("it waits for the key-holder", || process::status(pid)["State"].starts_with('S'));
    gate.words.freeze(true);
    assert!(gate.words.is_busy(), "the key-holder is at work, and a freeze would be acknowledged");
    // A reply to somebody else changes nothing.
    send(gate.holder.as_raw_fd(), &[7; 97], MsgFlags::empty()).unwrap();
    gate.send(&event(2));
    assert!(gate.words.is_busy());
    let mut reply = [0x55; 97];
    reply[..32].copy_from_slice(&id[..32]);
    reply[32] = 0;
    send(gate.holder.as_raw_fd(), &reply, MsgFlags::empty()).unwrap();
    assert_eq!(gate.reply(), Some(reply), "a use that had begun is completed");
    assert_eq!(gate.forwarded(), None);
    assert_eq!(gate.reply().unwrap()[32], FROZEN);
    gate.words.freeze_and_wait();
    assert_eq!(rows(&gate.record), 1);
}

/// The broker's end writes as fast as it can; the page is set at any moment.
#[test]
fn under_fire_nothing_is_recorded_or_forwarded_once_the_busy_word_was_seen_clear() {
    let dir = Dir::new(None);
    let Gate { role: _role, broker, holder, record, words, .. } = Gate::start(&dir, "1", "any", "none");
    let over = AtomicBool::new(false);
    let signed = std::thread::scope(|scope| {
        let (over, broker, holder, record) = (&over, &broker, &holder, &record);
        let fire = move || {
            for n in 0.. {
                let event = event(n % 10);
                let frame = [&(event.len() as u32).to_be_bytes()[..], &event].concat();
                if over.load(Ordering::Relaxed) || send(broker.as_raw_fd(), &frame, MsgFlags::MSG_NOSIGNAL).is_err() {
                    return;
                }
            }
        };
        scope.spawn(fire);
        // A reply is 97 bytes; nobody cares where it begins.
        scope.spawn(
            move || while matches!(recv(broker.as_raw_fd(), &mut [0; 9700], MsgFlags::empty()), Ok(n) if n > 0) {},
        );
        // The key-holder.
        let keys = scope.spawn(move || {
            let mut reply = [0x55; 97];
            for signed in 0u64.. {
                match recv(holder.as_raw_fd(), &mut reply[..32], MsgFlags::empty()) {
                    Ok(32) => reply[32] = 0,
                    _ => return signed,
                }
                let _ = send(holder.as_raw_fd(), &reply, MsgFlags::MSG_NOSIGNAL);
            }
            0
        });
        let end = Finally(|| {
            over.store(true, Ordering::Relaxed);
            for end in [broker, holder] {
                let _ = shutdown(end.as_raw_fd(), Shutdown::Both);
            }
        });
        let mut before = 0;
        for round in 0..ROUNDS {
            until("a row", || rows(record) > before + round as u64 % 7);
            words.freeze_and_wait();
            before = rows(record);
            for _ in 0..50 {
                std::thread::yield_now();
                assert_eq!(rows(record), before, "round {round}: a row after the acknowledgement");
                assert!(sys::is_empty(holder), "round {round}: an id after the acknowledgement");
            }
            words.freeze(false);
        }
        words.freeze_and_wait();
        drop(end);
        keys.join().unwrap()
    });
    assert_eq!(signed, rows(&record));
    assert!(signed >= ROUNDS as u64, "control: it signed between the freezes");
}

#[test]
fn a_frozen_ecdh_holder_answers_so_and_makes_no_row_and_no_key() {
    let dir = Dir::new(None);
    let options = Options { ops: "1,2,3", ceiling: "3,1,100000", ..Options::default() };
    let mut holder = Ecdh::start(&dir, options);
    let peer = unhex(PEER).try_into().unwrap();
    holder.words.freeze(true);
    for n in 0..100 {
        // `ask` sees to it that a refusal carries no key.
        assert_eq!(holder.ask(1 + n % 3, &peer, &[n; 32]), Err(FROZEN));
    }
    assert_eq!(holder.rows(), []);
    holder.words.freeze(false);
    for op in [1, 2, 3] {
        assert!(holder.ask(op, &peer, &[1; 32]).is_ok(), "a token is gone");
    }
}

#[test]
fn under_fire_no_key_is_agreed_on_once_the_busy_word_was_seen_clear() {
    let dir = Dir::new(None);
    let Ecdh { role: _role, broker, record, words } = Ecdh::start(&dir, Options::default());
    let over = AtomicBool::new(false);
    let request = [&[1][..], &unhex(PEER), &[9; 32]].concat();
    let keys = std::thread::scope(|scope| {
        let (over, broker, record, request) = (&over, &broker, &record, &request);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) && send(broker.as_raw_fd(), request, MsgFlags::MSG_NOSIGNAL).is_ok() {}
        });
        let keys = scope.spawn(move || {
            let (mut reply, mut keys) = ([0; 142], 0);
            while let Ok(142) = recv(broker.as_raw_fd(), &mut reply, MsgFlags::empty()) {
                assert_eq!(reply[65] == 0, reply[66..] != [0; 76]);
                keys += u64::from(reply[65] == 0);
            }
            keys
        });
        let end = Finally(|| {
            over.store(true, Ordering::Relaxed);
            let _ = shutdown(broker.as_raw_fd(), Shutdown::Both);
        });
        let mut before = 0;
        for round in 0..ROUNDS {
            until("a row", || rows(record) > before + round as u64 % 7);
            words.freeze_and_wait();
            before = rows(record);
            for _ in 0..50 {
                std::thread::yield_now();
                assert_eq!(rows(record), before, "round {round}: a row after the acknowledgement");
            }
            words.freeze(false);
        }
        words.freeze_and_wait();
        drop(end);
        keys.join().unwrap()
    });
    assert!(keys <= rows(&record), "a key without a row");
    assert!(rows(&record) >= ROUNDS as u64, "control: it agreed between the freezes");
}
