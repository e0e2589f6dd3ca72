//! B22: a hijacked broker gets nothing signed but events of this key and of allowed kinds, each on record.
//!
//! The tests hold the broker's and the key-holder's ends of a real gate under its real sandbox. Only what
//! reaches the key-holder's end could be signed.
//! Checked: with the kind test of `admit` removed, with any byte accepted in the key's place, or with leading zeros
//! accepted, tests of this file fail; so they do with a row's boot seconds left out or not asked, with a header that does not
//! continue the file before it, and with rows that are missing taken for none.

use crate::support::role::Gate;
use crate::support::{Dir, PUBLIC_KEY, not_root, process, sys};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use sha2::{Digest, Sha256};
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

const MALFORMED: u8 = 5;
const KIND_NOT_ALLOWED: u8 = 3;
const CREATED_AT_OUTSIDE: u8 = 6;

fn event(created_at: u64, kind: &str) -> Vec<u8> {
    format!("[0,\"{PUBLIC_KEY}\",{created_at},{kind},[[\"t\",\"x\"]],\"hello\"]").into()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Sends what must not be forwarded and returns the status the broker gets.
fn refused(gate: &mut Gate, event: &[u8]) -> u8 {
    gate.send(event);
    assert_eq!(gate.forwarded(), None, "forwarded: {:?}", String::from_utf8_lossy(event));
    let reply = gate.reply().expect("a reply");
    assert_eq!(reply[..32], Sha256::digest(event)[..]);
    assert_eq!(reply[33..], [0; 64]);
    reply[32]
}

/// Sends what must be forwarded: the positive control of every refusal.
fn forwarded(gate: &mut Gate, event: &[u8]) {
    gate.send(event);
    let id: [u8; 32] = Sha256::digest(event).into();
    assert_eq!(gate.forwarded(), Some(id), "not forwarded: {:?}", String::from_utf8_lossy(event));
    let reply = gate.reply().unwrap();
    assert_eq!((&reply[..32], reply[32], &reply[33..]), (&id[..], 0, &[0x55; 64][..]));
}

#[test]
fn no_malformed_prefix_ever_reaches_the_key_holder() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "any", "any", "none");
    let good = String::from_utf8(event(1_700_000_000, "1")).unwrap();
    forwarded(&mut gate, good.as_bytes());
    let other = "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
    let with_time = |time: &str| good.replace("1700000000", time);
    let with_kind = |kind: &str| good.replace(",1,", &format!(",{kind},"));
    let mut malformed = vec![
        good.replace(PUBLIC_KEY, other),
        good.replace(PUBLIC_KEY, &PUBLIC_KEY.to_uppercase()),
        good.replace(PUBLIC_KEY, &PUBLIC_KEY[..63]),
        good.replace(PUBLIC_KEY, ""),
        good.replace("[0,", "[1,"),
        good.replace("[0,", "[0 ,"),
        good.replace("[0,", "[00,"),
        good.replace("[0,", "{0,"),
        good.replace("\",", "\""),
        good.replace("\",", "\" ,"),
        good.replace("\",17", "\", 17"),
        good.replace(",1,[", ",1[["),
        good.replace(",1,[", ",[["),
        good.replace(",1,[", ",1,\""),
        format!(" {good}"),
        format!("\u{feff}{good}"),
        good[1..].into(),
        "\0".repeat(200),
        "[0".into(),
    ];
    let numbers =
        ["", "01", "00", "+1", "-1", "-0", " 1", "1 ", "1.0", "1e0", "0x1", "\"1\"", "1_0", "\u{0661}", "null", "[1]"];
    malformed.extend(numbers.iter().map(|n| with_time(n)));
    malformed.extend(numbers.iter().map(|n| with_kind(n)));
    malformed.extend(["0", "4294967296", "99999999999999999999", "18446744073709551617"].map(with_time));
    malformed.extend(["65536", "65537", "131073", "4294967297", "18446744073709551617"].map(with_kind));
    // Cut anywhere before the tags begin.
    let whole = good.find(",[").unwrap() + 2;
    malformed.extend((1..whole).map(|end| good[..end].to_string()));
    for event in &malformed {
        assert_eq!(refused(&mut gate, event.as_bytes()), MALFORMED, "{event}");
    }
    forwarded(&mut gate, good.as_bytes());
}

#[test]
fn every_single_byte_change_of_the_prefix_is_refused_or_names_another_time_or_kind() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    let good = event(1_700_000_000, "1");
    let key_part = good.windows(3).position(|w| w == b"\",1").unwrap() + 2;
    let whole = good.windows(2).position(|w| w == b",[").unwrap() + 2;
    for at in 0..whole {
        for byte in (0..=255).filter(|b| *b != good[at]) {
            let mut altered = good.clone();
            altered[at] = byte;
            gate.send(&altered);
            let forwarded = gate.forwarded().is_some();
            gate.reply().unwrap();
            assert!(!forwarded || at >= key_part && byte.is_ascii_digit(), "byte {byte} at {at} was forwarded");
        }
    }
}

#[test]
fn what_is_no_event_of_this_key_is_never_signed() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "any", "any", "none");
    // NIP-26: a delegation string, whose hash would be signed.
    let delegation = format!("nostr:delegation:{PUBLIC_KEY}:kind=1&created_at<1800000000");
    // BIP-341: tagged hash of epoch 0, sighash type, version, lock time, then digests.
    let tag = Sha256::digest("TapSighash");
    let mut taproot = [tag.as_slice(), tag.as_slice(), &[0, 0], &2u32.to_le_bytes(), &[0; 4]].concat();
    taproot.extend([0xab; 160]);
    for blob in [delegation.into_bytes(), taproot, b"BIP0340/challenge".to_vec(), vec![0; 32], vec![0xff; 4096]] {
        assert_eq!(refused(&mut gate, &blob), MALFORMED);
    }
    forwarded(&mut gate, &event(1_700_000_000, "65535"));
}

#[test]
fn no_kind_outside_the_accounts_ceiling_is_forwarded() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1,7,1111", "any", "none");
    for kind in 0..=65535u32 {
        let event = event(1_700_000_000, &kind.to_string());
        match kind {
            1 | 7 | 1111 => forwarded(&mut gate, &event),
            _ => assert_eq!(refused(&mut gate, &event), KIND_NOT_ALLOWED, "kind {kind}"),
        }
    }
}

#[test]
fn time_and_rate_are_held_against_the_broker_too() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "-3600,900", "3,1,100000");
    for created_at in [now() - 7200, now() + 7200, 1, u64::from(u32::MAX)] {
        assert_eq!(refused(&mut gate, &event(created_at, "1")), CREATED_AT_OUTSIDE);
    }
    for _ in 0..3 {
        forwarded(&mut gate, &event(now(), "1"));
    }
    assert_eq!(refused(&mut gate, &event(now(), "1")), 1);
    // B23: the bucket starts from the record, so a gate that was made to restart has nothing to give.
    drop(gate);
    let mut again = Gate::start(&dir, "1", "-3600,900", "3,1,100000");
    assert_eq!(refused(&mut again, &event(now(), "1")), 1);
}

/// Checked: with either window taken for every kind this fails.
#[test]
fn kind_13_has_a_window_of_its_own_and_no_other_kind_has_it() {
    let dir = Dir::new(None);
    let mut gate = Gate::with_seals(&dir, "1,12,13,14,1059", "-3600,900", "-176400,900", "none");
    const HOUR: u64 = 3600;
    for age in [2 * HOUR, 47 * HOUR, 49 * HOUR - 60] {
        forwarded(&mut gate, &event(now() - age, "13"));
        for kind in ["1", "12", "14", "1059"] {
            assert_eq!(refused(&mut gate, &event(now() - age, kind)), CREATED_AT_OUTSIDE, "kind {kind}");
        }
    }
    for created_at in [now() - 49 * HOUR - 60, now() + HOUR, 1, u64::from(u32::MAX)] {
        assert_eq!(refused(&mut gate, &event(created_at, "13")), CREATED_AT_OUTSIDE);
    }
    // A narrower one binds as well, and it is no way around the kinds.
    let dir = Dir::new(None);
    let mut gate = Gate::with_seals(&dir, "1,13", "any", "-60,60", "none");
    assert_eq!(refused(&mut gate, &event(now() - HOUR, "13")), CREATED_AT_OUTSIDE);
    forwarded(&mut gate, &event(now() - HOUR, "1"));
    let dir = Dir::new(None);
    let mut gate = Gate::with_seals(&dir, "1", "any", "any", "none");
    assert_eq!(refused(&mut gate, &event(now(), "13")), KIND_NOT_ALLOWED);
}

/// Overwrites four or eight bytes of every row of a record that a gate has left.
fn alter_rows(gate: &Gate, at: u64, bytes: &[u8]) {
    let rows = gate.record.metadata().unwrap().len() / 64;
    (1..rows).for_each(|row| gate.record.write_all_at(bytes, 64 * row + at).unwrap());
}

#[test]
fn a_wall_clock_set_forward_refills_nothing_within_a_boot() {
    let dir = Dir::new(None);
    let start = || Gate::start(&dir, "1", "any", "3,1,100000");
    let mut gate = start();
    (0..3).for_each(|_| forwarded(&mut gate, &event(now(), "1")));
    // Rows that the wall clock takes for years old, as after a step: only CLOCK_BOOTTIME knows better.
    alter_rows(&gate, 8, &1_500_000_000_000u64.to_be_bytes());
    drop(gate);
    let mut gate = start();
    assert_eq!(refused(&mut gate, &event(now(), "1")), 1);
    // Control, and the limit of the promise: in another boot it is the wall clock that counts.
    alter_rows(&gate, 28, &u32::MAX.to_be_bytes());
    drop(gate);
    forwarded(&mut start(), &event(now(), "1"));
}

#[test]
fn a_new_record_continues_the_file_before_it_and_refills_nothing() {
    let dir = Dir::new(None);
    let start = || Gate::start(&dir, "1", "any", "3,1,100000");
    let mut gate = start();
    (0..2).for_each(|_| forwarded(&mut gate, &event(now(), "1")));
    drop(gate);
    std::fs::rename(dir.join("record"), dir.join("record.1")).unwrap();
    let mut gate = start();
    forwarded(&mut gate, &event(now(), "1"));
    assert_eq!(refused(&mut gate, &event(now(), "1")), 1);
    let mut new = [0; 128];
    gate.record.read_exact_at(&mut new, 0).unwrap();
    let hash = Sha256::digest(std::fs::read(dir.join("record.1")).unwrap());
    assert_eq!((&new[24..32], &new[32..64], &new[64..72]), (&[0, 0, 0, 0, 0, 0, 0, 3][..], &hash[..], &new[24..32]));
    // B23: with neither file before it, nobody knows what else was used.
    drop(gate);
    std::fs::remove_file(dir.join("record.1")).unwrap();
    assert_eq!(refused(&mut start(), &event(now(), "1")), 1);
}

#[test]
fn each_forwarded_id_stands_in_the_record_before_it_reaches_the_key_holder() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    for n in 0..5u64 {
        let event = event(1_700_000_000 + n, "1");
        gate.send(&event);
        let mut id = [0; 32];
        gate.holder.read_exact(&mut id).unwrap();
        let mut row = [0; 64];
        gate.record.read_exact_at(&mut row, 64 * (1 + n)).unwrap();
        assert_eq!(row[..8], (n + 1).to_be_bytes());
        assert_eq!(row[16..24], (1_700_000_000 + n).to_be_bytes());
        assert_eq!((&row[24..28], &row[32..]), (&1u32.to_be_bytes()[..], &id[..]));
        let boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap().tv_sec() as u32;
        assert!((1..=boot).contains(&u32::from_be_bytes(row[28..32].try_into().unwrap())));
        let mut reply = [0; 97];
        reply[..32].copy_from_slice(&id);
        gate.holder.write_all(&reply).unwrap();
        assert_eq!(gate.reply().unwrap(), reply);
    }
}

#[test]
fn frames_of_no_length_and_over_512_kib_end_the_gate_and_forward_nothing() {
    let sizes = [0, 524_289, u32::MAX, 1 << 31];
    for size in sizes {
        let dir = Dir::new(None);
        let mut gate = Gate::start(&dir, "any", "any", "none");
        gate.push(&size.to_be_bytes());
        assert_eq!(gate.forwarded(), None);
        assert_eq!(gate.reply(), None);
        assert_eq!(gate.role.child.wait().unwrap().code(), Some(3), "length {size}");
    }
}

#[test]
fn the_largest_event_is_hashed_whole_and_one_cut_short_is_not_forwarded() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    let mut largest = event(1_700_000_000, "1");
    largest.truncate(largest.len() - 2);
    largest.resize(524_286, b'x');
    largest.extend(b"\"]");
    forwarded(&mut gate, &largest);
    gate.push(&(largest.len() as u32).to_be_bytes());
    gate.push(&largest[..largest.len() - 1]);
    shutdown(gate.broker.as_raw_fd(), Shutdown::Write).unwrap();
    assert_eq!(gate.forwarded(), None);
    assert_eq!(gate.role.child.wait().unwrap().code(), Some(0));
}

/// Of a packet longer than what the gate reads at a time the rest is lost: what comes next is taken for it, and what is hashed is what was
/// looked at.
#[test]
fn of_a_packet_that_is_too_long_nothing_unseen_is_hashed() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    let mut long = event(1_700_000_000, "1");
    long.resize(20_000, b'x');
    let frame = [&(long.len() as u32).to_be_bytes()[..], &long].concat();
    let (read, lost) = frame.split_at(16 * 1024);
    gate.broker.write_all(&frame).unwrap();
    // The key-holder hears nothing before the rest is there.
    let other = vec![b'y'; lost.len()];
    assert!(sys::is_empty(&gate.holder));
    gate.push(&other);
    assert_eq!(gate.forwarded().unwrap()[..], Sha256::digest([&read[4..], &other].concat())[..]);
    assert!(gate.reply().is_some());
}

#[test]
fn a_reply_left_behind_for_another_gate_is_never_passed_on() {
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    let mut stale = [0x77; 97];
    stale[32] = 0;
    gate.holder.write_all(&stale).unwrap();
    gate.send(&event(1_700_000_000, "1"));
    let id = gate.forwarded().unwrap();
    let reply = gate.reply().unwrap();
    assert_eq!((&reply[..32], &reply[33..]), (&id[..], &[0x55; 64][..]));
}

#[test]
fn descriptors_passed_by_a_hijacked_broker_stay_outside() {
    if not_root("reading the descriptors of a non-dumpable process") {
        return;
    }
    let dir = Dir::new(None);
    let mut gate = Gate::start(&dir, "1", "any", "none");
    let pid = gate.role.child.id() as i32;
    let before = process::descriptors(pid);
    let event = event(1_700_000_000, "1");
    let length = (event.len() as u32).to_be_bytes();
    let passed = [gate.record.as_raw_fd(); 8];
    let rights = [ControlMessage::ScmRights(&passed)];
    let parts = [IoSlice::new(&length), IoSlice::new(&event)];
    sendmsg::<()>(gate.broker.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    assert!(gate.forwarded().is_some() && gate.reply().is_some());
    assert_eq!(process::descriptors(pid), before);
}
