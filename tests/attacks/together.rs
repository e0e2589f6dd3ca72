//! Several events that come to a gate together: each has its row before its id leaves, its own answer, and the key counts as in use until
//! the last of them is there.
//!
//! As in gate.rs the tests hold both ends of a real gate. Checked: with the id sent before the row, with the busy word cleared once the
//! first reply is there, with replies put where the first events stand, and with the id in a reply not compared, one of these fails.

use crate::support::freeze::Words;
use crate::support::role::{self, Gate, pair};
use crate::support::{Dir, PUBLIC_KEY, process, sys, until};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, recv};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};

const NOT_RECORDED: u8 = 2;
const KIND_NOT_ALLOWED: u8 = 3;
const MALFORMED: u8 = 5;

fn event(kind: u16, n: usize) -> Vec<u8> {
    format!("[0,\"{PUBLIC_KEY}\",1700000000,{kind},[],\"{n}\"]").into()
}

/// Events as one packet, which the gate reads at once.
fn packet(events: &[Vec<u8>]) -> Vec<u8> {
    events.iter().flat_map(|event| [&(event.len() as u32).to_be_bytes()[..], event].concat()).collect()
}

fn id(event: &[u8]) -> [u8; 32] {
    Sha256::digest(event).into()
}

/// The next id that the key-holder is asked to sign.
fn asked(holder: &mut File) -> [u8; 32] {
    assert_eq!(sys::wait_any(&[holder.as_fd()]), [0]);
    let mut packet = [0; 33];
    assert_eq!(holder.read(&mut packet).unwrap(), 32);
    packet[..32].try_into().unwrap()
}

/// A reply whose signature tells whose it is.
fn signed(id: &[u8; 32]) -> [u8; 97] {
    [&id[..], &[0], id, id].concat().try_into().unwrap()
}

#[test]
fn of_events_that_come_together_each_has_its_own_answer() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    let mut events: Vec<Vec<u8>> =
        [7, 1, 7, 1, 1, 7, 1].into_iter().enumerate().map(|(n, kind)| event(kind, n)).collect();
    events.insert(3, b"[]".to_vec());
    gate.broker.write_all(&packet(&events)).unwrap();
    // What a gate that died has left comes first, and once more between.
    let stale = signed(&[7; 32]);
    gate.holder.write_all(&stale).unwrap();
    // All of them are there before the first is answered.
    let ids = [(); 4].map(|()| asked(&mut gate.holder));
    assert_eq!(ids, [1, 4, 5, 7].map(|at| id(&events[at])));
    for id in &ids {
        gate.holder.write_all(&signed(id)).unwrap();
        gate.holder.write_all(&stale).unwrap();
    }
    for event in &events {
        let (id, reply) = (id(event), gate.reply().unwrap());
        if ids.contains(&id) {
            assert_eq!(reply, signed(&id));
        } else {
            let status = if event.len() == 2 { MALFORMED } else { KIND_NOT_ALLOWED };
            assert_eq!((&reply[..32], reply[32], &reply[33..]), (&id[..], status, &[0; 64][..]));
        }
    }
}

#[test]
fn the_key_is_in_use_until_the_last_of_several_is_answered() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    gate.broker.write_all(&packet(&[event(1, 1), event(1, 2)])).unwrap();
    let ids = [(); 2].map(|()| asked(&mut gate.holder));
    let pid = gate.role.child.id() as i32;
    let waits = || process::status(pid)["voluntary_ctxt_switches"].parse::<u64>().unwrap();
    let sleeps = || process::status(pid)["State"].starts_with('S');
    until("it waits for the key-holder", sleeps);
    let before = waits();
    gate.holder.write_all(&signed(&ids[0])).unwrap();
    until("it has the first reply, and waits again", || waits() > before && sleeps());
    assert!(gate.words.is_busy(), "a freeze would be acknowledged while the key-holder is at work");
    gate.holder.write_all(&signed(&ids[1])).unwrap();
    assert_eq!([(); 2].map(|()| gate.reply().unwrap()), ids.map(|id| signed(&id)));
    gate.words.freeze_and_wait();
}

/// A record that takes nothing, from the first row on.
#[test]
fn no_id_leaves_before_its_row_is_there() {
    let (holder, holder_end) = pair(SockType::SeqPacket);
    let (mut broker, broker_end) = pair(SockType::SeqPacket);
    let (mut supervisor, supervisor_end) = pair(SockType::SeqPacket);
    let record = File::options().write(true).open("/dev/full").unwrap();
    let arguments = [PUBLIC_KEY, "1", "any", "any", "none", "1,64"];
    let command = role::command(env!("CARGO_BIN_EXE_nsecd-gate"), &arguments);
    let words = Words::new();
    let mut fds = vec![(holder_end, 3), (broker_end, 4), (supervisor_end, 5), (record.into(), 6)];
    fds.extend(words.fds(7));
    let _gate = role::start(command, fds, &mut supervisor);
    let events: Vec<Vec<u8>> = (0..8).map(|n| event(1, n)).collect();
    broker.write_all(&packet(&events)).unwrap();
    let mut replies = [0; 8 * 97 + 1];
    assert_eq!(broker.read(&mut replies).unwrap(), 8 * 97);
    for (event, reply) in events.iter().zip(replies.as_chunks::<97>().0) {
        assert_eq!((&reply[..32], reply[32]), (&id(event)[..], NOT_RECORDED));
    }
    let came = recv(holder.as_raw_fd(), &mut [0; 32], MsgFlags::MSG_DONTWAIT);
    assert_eq!(came, Err(Errno::EAGAIN), "an id without a row");
}
