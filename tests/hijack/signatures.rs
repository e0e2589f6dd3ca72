//! B14, B22, B23: signatures, whatever is sent to the gate and however often it is started anew.

use super::deaths;
use super::puppet::Hand;
use super::{CEILING, Row, hijacked, most, rows, starters, true_time, untouchable};
use crate::support::event::{hex, verifies};
use crate::support::{Nsecd, PUBLIC_KEY, event};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

pub const SIGNED: u8 = 0;
pub const OVER_CEILING: u8 = 1;
pub const KIND_NOT_ALLOWED: u8 = 3;
const MALFORMED: u8 = 5;
const CREATED_AT_OUTSIDE: u8 = 6;
/// Kinds of the socket, and a message's seal.
const KINDS: [u64; 4] = [1, 7, 13, 1111];

pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// An event in its canonical form, unlike any other.
pub fn canonical(public_key: &str, created_at: u64, kind: &str) -> Vec<u8> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("[0,\"{public_key}\",{created_at},{kind},[],\"number {count}\"]").into()
}

/// What the gate must never have signed, with the status that says so.
fn forbidden() -> Vec<(Vec<u8>, u8)> {
    let other = "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
    let mut all: Vec<(Vec<u8>, u8)> = ["0", "3", "4", "5", "6", "14", "1059", "10002", "22242", "27235", "65535"]
        .map(|kind| (canonical(PUBLIC_KEY, now(), kind), KIND_NOT_ALLOWED))
        .into();
    for created_at in [1, now() - 7200, now() + 7200, u64::from(u32::MAX)] {
        all.push((canonical(PUBLIC_KEY, created_at, "1"), CREATED_AT_OUTSIDE));
    }
    // NIP-26's delegation, ids as they are signed, a Taproot hash (BIP-341), other people's events, other spellings.
    let delegation = format!("nostr:delegation:{PUBLIC_KEY}:kind=1&created_at<1900000000");
    let malformed = [
        delegation.clone().into_bytes(),
        Sha256::digest(delegation).to_vec(),
        vec![0; 32],
        vec![0xff; 32],
        [&Sha256::digest("TapSighash")[..], &Sha256::digest("TapSighash"), &[0; 175]].concat(),
        canonical(other, now(), "1"),
        canonical(&PUBLIC_KEY.to_uppercase(), now(), "1"),
        canonical(PUBLIC_KEY, now(), "01"),
        canonical(PUBLIC_KEY, now(), "65537"),
        canonical(PUBLIC_KEY, now(), "1.0"),
        canonical(PUBLIC_KEY, now(), "\"1\""),
        [b" ", &canonical(PUBLIC_KEY, now(), "1")[..]].concat(),
        vec![b'['; 524_288],
        b"[".to_vec(),
    ];
    all.extend(malformed.map(|event| (event, MALFORMED)));
    all
}

/// All that one hijacked broker after the other has got.
#[derive(Default)]
pub struct Loot {
    /// Ids of verified signatures, one for each.
    pub ids: Vec<[u8; 32]>,
    signatures: HashSet<Vec<u8>>,
}

impl Loot {
    /// Has one event after the other sent, and takes what comes back; the last status. `None` if the broker died.
    fn ask(&mut self, hand: &mut Hand, events: &[Vec<u8>]) -> Option<u8> {
        self.ask_at(hand.fd("/accounts/0/gate_fd"), hand, events)
    }

    /// The same over this end of a pair to the gate.
    pub fn ask_at(&mut self, gate: u64, hand: &mut Hand, events: &[Vec<u8>]) -> Option<u8> {
        let mut status = u8::MAX;
        for event in events {
            // In packets that the gate reads whole, as an honest broker does: of a longer one the rest is lost.
            for packet in [&(event.len() as u32).to_be_bytes()[..], event].concat().chunks(16 * 1024) {
                hand.send(gate, packet)?;
            }
        }
        let mut replies = Vec::new();
        for event in events {
            if replies.is_empty() {
                replies = hand.receive(gate, 8 * 97)?;
                assert!(!replies.is_empty() && replies.len() % 97 == 0, "the gate is gone");
            }
            let reply: Vec<u8> = replies.drain(..97).collect();
            let id: [u8; 32] = Sha256::digest(event).into();
            assert_eq!(reply[..32], id, "an answer to something else");
            status = reply[32];
            if status == SIGNED {
                assert!(verifies(&id, &event::unhex(PUBLIC_KEY), &reply[33..]));
                assert!(self.signatures.insert(reply[33..].to_vec()), "one signature twice");
                self.ids.push(id);
            } else {
                assert_eq!(reply[33..], [0; 64], "{status}");
            }
        }
        Some(status)
    }

    /// Signs until the ceiling says no, at most so many times.
    fn take_all(&mut self, hand: &mut Hand, at_most: usize) {
        self.take_all_at(hand.fd("/accounts/0/gate_fd"), hand, at_most);
    }

    /// The same over this end of a pair to the gate, of what either configuration has.
    pub fn take_all_at(&mut self, gate: u64, hand: &mut Hand, at_most: usize) {
        for i in 0..at_most {
            let kind = KINDS[i % KINDS.len()].to_string();
            let event = canonical(PUBLIC_KEY, now(), &kind);
            // Every third twice: one event may be signed again, and that is a use of its own.
            let events = vec![event; 1 + usize::from(i % 3 == 0)];
            match self.ask_at(gate, hand, &events) {
                Some(SIGNED | KIND_NOT_ALLOWED) => {}
                Some(OVER_CEILING) => return,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Panics unless every signature has a row of its own, and every row is of what may be signed.
    pub fn are_recorded(&self, rows: &[Row]) {
        let mut left: HashMap<[u8; 32], usize> = HashMap::new();
        for row in rows {
            assert!(KINDS.contains(&row.kind) && row.created_at.abs_diff(now()) < 900, "{row:?}");
            *left.entry(row.id).or_default() += 1;
        }
        for id in &self.ids {
            let count = left.get_mut(id).unwrap_or_else(|| panic!("no row of {}", hex(id)));
            assert!(*count > 0, "more signatures than rows of {}", hex(id));
            *count -= 1;
        }
    }
}

/// Every death, in each life of which all is taken that can be had; what was had.
fn attack(nsecd: Nsecd, each: usize) -> (Nsecd, Loot) {
    let mut loot = Loot::default();
    let mut nsecd = nsecd;
    for (i, (name, death)) in deaths::ALL.iter().enumerate() {
        // One that the broker cannot force, and an operator may do at any time.
        if i == deaths::ALL.len() / 2 {
            nsecd = nsecd.restarted(Signal::SIGKILL);
        }
        let before = untouchable(&nsecd);
        let mut hand = Hand::on(&nsecd);
        hand.served();
        loot.take_all(&mut hand, each);
        death(&mut hand);
        hand.ended();
        // It is there again, and nobody else has died of it.
        drop(Hand::on(&nsecd));
        assert_eq!(untouchable(&nsecd), before, "{name}");
    }
    (nsecd, loot)
}

/// Checked: with the ceiling not started from the record, with a token that a refusal gives back, with no row written, or with
/// the gate's test of kinds left out, this fails.
#[test]
fn a_hijacked_broker_gets_events_of_allowed_kinds_up_to_the_ceiling_each_with_its_row_and_nothing_else() {
    for uid in starters() {
        let start = true_time();
        let nsecd = hijacked(uid, "20, 10/s").start();
        let mut hand = Hand::on(&nsecd);
        let mut loot = Loot::default();
        for (event, expected) in forbidden() {
            let status = loot.ask(&mut hand, std::slice::from_ref(&event));
            assert_eq!(status, Some(expected), "{}", String::from_utf8_lossy(&event[..event.len().min(200)]));
        }
        assert!(loot.ids.is_empty() && rows(&nsecd, "default.record").is_empty());
        drop(hand);
        let (nsecd, loot) = attack(nsecd, 200);
        let got = loot.ids.len() as u64;
        assert!(got <= most(start), "{got} signatures, {} allowed", most(start));
        assert!(got >= CEILING.0, "the attack got {got} signatures only: it proves nothing");
        loot.are_recorded(&rows(&nsecd, "default.record"));
    }
}

#[test]
fn control_without_a_ceiling_the_same_attack_signs_more() {
    let start = true_time();
    let (nsecd, loot) = attack(hijacked(None, "none").start(), 200);
    let got = loot.ids.len() as u64;
    assert!(got > most(start), "{got} signatures, {} would have been allowed", most(start));
    loot.are_recorded(&rows(&nsecd, "default.record"));
}
