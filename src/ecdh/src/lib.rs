//! The ECDH holder: answers the keys of one message at a time, so that who asks it never gets a conversation's.
//!
//! Request: op(1) ‖ x-only public key(32) ‖ nonce(32). Reply: op ‖ public key ‖ nonce ‖ status(1) ‖ key(76), the key zeros
//! unless the status is 0. Replies are matched by all echoed fields: a broker that was killed leaves one behind.
//!
//! Like the key-holder it holds the key, and it is confined like it; like the gate it has a freeze page, a ceiling and a record of its own,
//! since nothing stands between it and the broker. It has no parser because its fields are fixed.

mod agree;

use agree::{Buffers, REQUEST};
use nsecd_bounds::admission::{Admission, Status, list};
use nsecd_bounds::freeze::Freeze;
use nsecd_sandbox::args::{self, fail};
use nsecd_sandbox::filter;
use nsecd_sandbox::lock::{descriptor, exit};
use nsecd_vault::{Vault, decode_hex};
use std::io::{Read, Write};

const BROKER: i32 = 3;
const SUPERVISOR: i32 = 4;
const RECORD: i32 = 5;
/// The account's freeze page and this process's busy word; closed when mapped.
const FREEZE: i32 = 6;
const BUSY: i32 = 7;
/// Exit code after the lock: the broker's end is closed, or was shut down.
const BROKER_GONE: i32 = 4;

/// NIP-44: the keys of the message with this nonce, of a peer on the allow-list.
const NIP44: u8 = 1;
/// NIP-04: the shared point's x, in the key's first 32 bytes. It opens everything that the peer ever wrote or reads, and cannot
/// be narrowed: only where the operator allows it.
const NIP04: u8 = 2;
/// As 1, for a gift wrap's outer layer, whose author is a one-time key on nobody's list. A row says that it was this.
const GIFT_WRAP: u8 = 3;

/// What may be asked for.
struct Rules {
    ops: Vec<u8>,
    /// `None`: anybody.
    peers: Option<Vec<[u8; 32]>>,
    admission: Admission,
}

/// Starts from the supervisor's arguments, takes the key, locks itself, serves until the broker's end is closed: that is the
/// supervisor's to do, which keeps it open from one broker to the next.
///
/// One packet in, one out, in the vault's own buffers. A packet of another size is malformed like any other: only the broker
/// can have sent it, and packets keep their bounds, so that the next one is whole. An empty packet reads as an end that was
/// closed does; which it was shows when the answer is written.
pub fn main() -> ! {
    let (mut confinement, arguments) = args::begin(BUSY as u32, filter::ECDH);
    let freeze = Freeze::open(FREEZE, BUSY).unwrap_or_else(|e| fail(args::NOT_LOCKED, e));
    let [ops, peers, ceiling, record, key @ ..] = &arguments[..] else {
        fail(args::USAGE, "ops, peers, ceiling, record and a holder's arguments expected")
    };
    let admission = Admission::new(ceiling, record, RECORD).unwrap_or_else(|e| fail(args::USAGE, e));
    let mut vault = Vault::open(key, Buffers::EMPTY, &mut confinement);
    let rules = Rules::new(ops, peers, &vault.data.public_key, admission);
    let mut rules = rules.unwrap_or_else(|e| fail(args::USAGE, e));
    let (mut broker, supervisor) = (descriptor(BROKER), descriptor(SUPERVISOR));
    confinement.complete(b'E', vault.data.public_key, &supervisor);
    loop {
        let length = broker.read(&mut vault.data.role.request).unwrap_or_else(|_| exit(BROKER_GONE));
        let use_key = || if length == REQUEST { rules.answer(&mut vault) } else { Status::Malformed };
        let status = freeze.unless_frozen(use_key).unwrap_or(Status::Frozen);
        vault.data.role.finish(length == REQUEST, status as u8);
        broker.write_all(&vault.data.role.reply).unwrap_or_else(|_| exit(BROKER_GONE));
        vault.data.role.reply.fill(0);
    }
}

impl Rules {
    /// Everything that must hold before a key is made. The row comes last, so that each one is a key agreement.
    fn answer(&mut self, vault: &mut Vault<Buffers>) -> Status {
        let (op, peer) = vault.data.role.asked();
        let listed = self.peers.as_ref().is_none_or(|peers| peers.contains(&peer));
        if !self.ops.contains(&op) || op != GIFT_WRAP && !listed {
            return Status::NotAllowed;
        }
        if !vault.run(agree::parse) {
            return Status::Malformed;
        }
        match self.admission.admit(0, op.into(), 0, &peer) {
            Status::Granted if !vault.run(agree::agree) => Status::Fault,
            status => status,
        }
    }

    /// Ops: `1`, `1,2,3`, or empty. Peers: `any`, or public keys as 64 hex digits with commas between, `self` being this one.
    fn new(ops: &str, peers: &str, own: &[u8; 32], admission: Admission) -> Result<Rules, String> {
        let ops = list(ops, "any")?.ok_or("ops: no such thing as any")?;
        if ops.iter().any(|op| !(NIP44..=GIFT_WRAP).contains(op)) {
            return Err("ops: 1, 2 and 3 are all there are".into());
        }
        let key = |text: &str| {
            let mut key = *own;
            (text == "self" || decode_hex(text.as_bytes(), &mut key)).then_some(key)
        };
        let list = || peers.split(',').filter(|text| !text.is_empty()).map(key).collect::<Option<_>>();
        let peers = if peers == "any" { None } else { Some(list().ok_or("a peer is not 64 hex digits")?) };
        Ok(Rules { ops, peers, admission })
    }
}
