//! B14, B27: key agreements, whatever is sent to the ECDH holder and whoever died with answers unread.

use super::deaths;
use super::puppet::Hand;
use super::{CEILING, PEER, Row, hijacked, most, rows, starters, true_time, untouchable};
use crate::support::{Nsecd, event::unhex};
use nsecd_broker::nostr::nip44;
use std::collections::HashMap;

const ANSWERED: u8 = 0;
const OVER_CEILING: u8 = 1;
const NOT_ALLOWED: u8 = 3;
const MALFORMED: u8 = 5;
/// A public key that is not on the list of peers: that of secret 2.
const STRANGER: &str = "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

/// op(1) ‖ public key(32) ‖ nonce(32), with a nonce that nothing else has.
fn request(op: u8, peer: &str) -> Vec<u8> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    [&[op], &unhex(peer)[..], &[0; 24], &count.to_be_bytes()].concat()
}

/// All answers with a key that one hijacked broker after the other has got.
#[derive(Default)]
struct Loot {
    /// Op and peer of each.
    answers: Vec<(u8, [u8; 32])>,
    /// Each key with the request that it answers.
    keys: HashMap<Vec<u8>, Vec<u8>>,
}

impl Loot {
    /// Takes a reply in, whoever has asked; its status.
    fn take(&mut self, reply: &[u8]) -> u8 {
        assert_eq!(reply.len(), 142, "a reply of another size");
        let (asked, status, key) = (&reply[..65], reply[65], &reply[66..]);
        assert_eq!(status == ANSWERED, key != [0; 76], "{reply:?}");
        if status == ANSWERED {
            self.answers.push((asked[0], asked[1..33].try_into().unwrap()));
            let first = self.keys.entry(key.into()).or_insert_with(|| asked.into());
            assert_eq!(first, asked, "two requests with one key");
        }
        status
    }

    /// The status of the next reply; `None` if the broker died.
    fn receive(&mut self, hand: &mut Hand) -> Option<u8> {
        let reply = hand.receive(hand.fd("/ecdh_fd"), 200)?;
        Some(self.take(&reply))
    }

    fn ask(&mut self, hand: &mut Hand, packet: &[u8]) -> Option<u8> {
        hand.send(hand.fd("/ecdh_fd"), packet)?;
        self.receive(hand)
    }

    /// Takes in what an earlier broker left behind: all replies before that to a request that none of them made.
    fn take_stale(&mut self, hand: &mut Hand) {
        let marker = request(9, PEER);
        hand.send(hand.fd("/ecdh_fd"), &marker).unwrap();
        loop {
            let reply = hand.receive(hand.fd("/ecdh_fd"), 200).unwrap();
            if self.take(&reply) == NOT_ALLOWED && reply[..65] == marker {
                return;
            }
        }
    }

    /// Panics unless every answer has a row of its own, and every row is of what may be asked for.
    fn are_recorded(&self, rows: &[Row]) {
        let mut left: HashMap<(u64, [u8; 32]), usize> = HashMap::new();
        for row in rows {
            assert!(row.kind == 3 || row.kind == 1 && row.id[..] == unhex(PEER), "{row:?}");
            assert_eq!(row.created_at, 0);
            *left.entry((row.kind, row.id)).or_default() += 1;
        }
        for (op, peer) in &self.answers {
            let count = left.get_mut(&(u64::from(*op), *peer)).expect("an answer without a row");
            assert!(*count > 0, "more answers than rows");
            *count -= 1;
        }
    }
}

/// What the holder must never answer, with the status that says so.
fn forbidden() -> Vec<(Vec<u8>, u8)> {
    let mut all: Vec<_> = [1, 2].map(|op| (request(op, STRANGER), NOT_ALLOWED)).into();
    all.extend((0..=255).filter(|op| ![1, 3].contains(op)).map(|op| (request(op, PEER), NOT_ALLOWED)));
    // No point of the curve; a wrap's author is on no list.
    all.push((request(3, &"00".repeat(32)), MALFORMED));
    all.push((request(3, &"ff".repeat(32)), MALFORMED));
    let whole = request(1, PEER);
    let sizes = (0..=200).chain([4096, 65_536, 131_072]).filter(|size| *size != 65);
    all.extend(sizes.map(|size| (whole.iter().copied().chain(std::iter::repeat(0)).take(size).collect(), MALFORMED)));
    all
}

fn attack(nsecd: &Nsecd, each: usize) -> Loot {
    let before = untouchable(nsecd);
    let mut loot = Loot::default();
    for (name, death) in deaths::ALL {
        let mut hand = Hand::on(nsecd);
        hand.served();
        loot.take_stale(&mut hand);
        for i in 0..each {
            let (op, peer) = if i % 2 == 0 { (1, PEER) } else { (3, STRANGER) };
            match loot.ask(&mut hand, &request(op, peer)) {
                Some(ANSWERED) => {}
                Some(OVER_CEILING) => break,
                other => panic!("{other:?}"),
            }
        }
        // Requests until there is no more room, whose answers nobody reads before this life is over.
        let socket = hand.fd("/ecdh_fd");
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u64;
        let args = [socket, hand.input(), 65, flags, 0, 0];
        hand.repeat(40, libc::SYS_sendto, args, &request(3, STRANGER)[..], 0);
        death(&mut hand);
        hand.ended();
        drop(Hand::on(nsecd));
        assert_eq!(untouchable(nsecd), before, "{name}");
    }
    loot.take_stale(&mut Hand::on(nsecd));
    loot
}

/// Checked: with the ceiling left out of the holder, with op 1 not held to the peers, or with the row written only every other time, this fails.
#[test]
fn a_hijacked_broker_gets_keys_of_listed_peers_messages_up_to_the_ceiling_each_with_its_row_and_nothing_else() {
    for uid in starters() {
        let start = true_time();
        let nsecd = hijacked(uid, "20, 10/s").start();
        let mut hand = Hand::on(&nsecd);
        let mut loot = Loot::default();
        for (packet, expected) in forbidden() {
            assert_eq!(loot.ask(&mut hand, &packet), Some(expected), "{:?}", &packet[..packet.len().min(65)]);
        }
        assert!(loot.answers.is_empty() && rows(&nsecd, "default.ecdh.record").is_empty());
        drop(hand);
        let loot = attack(&nsecd, 200);
        let got = loot.answers.len() as u64;
        assert!(got <= most(start), "{got} answers, {} allowed", most(start));
        assert!(got >= CEILING.0, "the attack got {got} answers only: it proves nothing");
        loot.are_recorded(&rows(&nsecd, "default.ecdh.record"));
    }
}

#[test]
fn control_without_a_ceiling_the_same_attack_gets_more_keys() {
    let start = true_time();
    let nsecd = hijacked(None, "none").start();
    let loot = attack(&nsecd, 100);
    let got = loot.answers.len() as u64;
    assert!(got > most(start), "{got} answers, {} would have been allowed", most(start));
    loot.are_recorded(&rows(&nsecd, "default.ecdh.record"));
}

#[test]
fn an_answer_that_a_hijacked_broker_has_kept_opens_no_other_message() {
    let nsecd = hijacked(None, "none").start();
    let mut hand = Hand::on(&nsecd);
    let mut keys = |request: &[u8]| {
        hand.send(hand.fd("/ecdh_fd"), request).unwrap();
        let reply = hand.receive(hand.fd("/ecdh_fd"), 200).unwrap();
        assert_eq!((&reply[..65], reply[65]), (request, ANSWERED));
        <[u8; 76]>::try_from(&reply[66..]).unwrap()
    };
    let (first, second) = (request(1, PEER), request(1, PEER));
    let (kept, other) = (keys(&first), keys(&second));
    let of = |keys: [u8; 76]| nip44::MessageKeys::new(Box::new(keys.into()));
    let message = nip44::encrypt("secret", &second[33..].try_into().unwrap(), &of(other)).unwrap();
    let open = |keys: [u8; 76]| nip44::Payload::parse(&message).unwrap().open(&of(keys)).map(|text| text.to_string());
    assert_eq!(open(kept), Err(nip44::Error::Mac));
    assert_eq!(open(other).as_deref(), Ok("secret"), "the control");
}
