//! The ECDH holder: answers the keys of one message at a time, so that who asks it never gets a conversation's.
//!
//! Request: op(1) ‖ x-only public key(32) ‖ nonce(32). Reply: op ‖ public key ‖ nonce ‖ status(1) ‖ key(76), the key zeros
//! unless the status is 0. Replies are matched by all echoed fields: a broker that was killed leaves one behind.
//!
//! Like the key-holder it holds the key, and it is confined like it; like the gate it has a freeze page, a ceiling and a record of its own,
//! since nothing stands between it and the broker. It has no parser because its fields are fixed.

mod agree;

use agree::{Buffers, REPLY, REQUEST};
use nsecd_bounds::admission::{Admission, Refusal, numbers};
use nsecd_bounds::freeze::Freeze;
use nsecd_sandbox::{args, args::fail, filter, hello::Hello, lock, lock::Plan, sys};
use nsecd_vault::{Vault, decode_hex};

const ROLE: &str = "nsecd-ecdh";
const BROKER: i32 = 3;
const SUPERVISOR: i32 = 4;
const RECORD: i32 = 5;
/// The file before the record, for reading, or /dev/null; closed before the lock.
const PREVIOUS: i32 = 6;
/// The account's freeze page and this process's busy word; closed when mapped.
const FREEZE: i32 = 7;
const BUSY: i32 = 8;
/// Exit code after the lock: the broker's end is closed, or was shut down.
const BROKER_GONE: i32 = 4;

/// NIP-44: the keys of the message with this nonce, of a peer on the allow-list.
const NIP44: u8 = 1;
/// NIP-04: the shared point's x, in the key's first 32 bytes. It opens everything that the peer ever wrote or reads, and cannot
/// be narrowed: only where the operator allows it.
const NIP04: u8 = 2;
/// As 1, for a gift wrap's outer layer, whose author is a one-time key on nobody's list. A row says that it was this.
const GIFT_WRAP: u8 = 3;

/// A reply's fourth field. Numbered as the gate's are, where they mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Answered = 0,
    OverCeiling = 1,
    NotRecorded = 2,
    NotAllowed = 3,
    Frozen = 4,
    Malformed = 5,
    /// libsecp256k1 found its own input impossible: a fault of the machine.
    Fault = 7,
}

/// What may be asked for.
struct Rules {
    ops: Vec<u8>,
    /// `None`: anybody.
    peers: Option<Vec<[u8; 32]>>,
}

/// Starts from the supervisor's arguments, takes the key, locks itself, serves until the broker's end is closed: that is the
/// supervisor's to do, which keeps it open from one broker to the next.
pub fn main() -> ! {
    let common = args::common(ROLE);
    let plan = Plan {
        max_fd: 8,
        keep_stderr: false,
        supervisor: common.supervisor,
        ids: common.ids,
        user_namespace: true,
        descriptors: 0,
        file_size: None,
        filter: filter::ECDH,
    };
    let missing = lock::begin(&plan).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let freeze = Freeze::open(FREEZE, BUSY).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let [ops, peers, ceiling, record, key @ ..] = &common.rest[..] else {
        fail(ROLE, args::USAGE, "ops, peers, ceiling, record and a holder's arguments expected")
    };
    let mut admission = Admission::new(ceiling).unwrap_or_else(|e| fail(ROLE, args::USAGE, e));
    if record == "1" {
        admission
            .open_record(RECORD, PREVIOUS)
            .unwrap_or_else(|e| fail(ROLE, args::BAD_RECORD, format!("record: {e}")));
    }
    sys::close(PREVIOUS);
    // Late: what can fail has not, when a source that is consumed gives up its key.
    let (mut vault, public_key) = Vault::open(ROLE, key, Buffers::EMPTY);
    let rules = Rules::new(ops, peers, &public_key).unwrap_or_else(|e| fail(ROLE, args::USAGE, e));
    let missing = lock::lock(&plan, missing).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let missing = missing | u64::from(!vault.is_secret()) << lock::SECRET_MEMORY;
    let hello = Hello { role: b'E', missing, public_key };
    if sys::write(SUPERVISOR, &hello.encode()).is_err() {
        sys::exit(0);
    }
    serve(&mut vault, &rules, &mut admission, &freeze)
}

/// One packet in, one out, in the vault's own buffers. A packet of another size is malformed like any other: only the broker
/// can have sent it, and packets keep their bounds, so that the next one is whole. An empty packet reads as an end that was
/// closed does; which it was shows when the answer is written.
fn serve(vault: &mut Vault<Buffers>, rules: &Rules, admission: &mut Admission, freeze: &Freeze) -> ! {
    loop {
        let whole = match sys::read(BROKER, &mut vault.role().request) {
            Ok(n) => n == REQUEST,
            Err(_) => sys::exit(BROKER_GONE),
        };
        let use_key = || if whole { answer(vault, rules, admission) } else { Status::Malformed };
        let status = freeze.unless_frozen(use_key).unwrap_or(Status::Frozen);
        vault.role().finish(whole, status as u8);
        if sys::write(BROKER, &vault.role().reply) != Ok(REPLY) {
            sys::exit(BROKER_GONE);
        }
        vault.role().reply.fill(0);
    }
}

/// Everything that must hold before a key is made. The row comes last, so that each one is a key agreement.
fn answer(vault: &mut Vault<Buffers>, rules: &Rules, admission: &mut Admission) -> Status {
    let (op, peer) = vault.role().asked();
    let listed = rules.peers.as_ref().is_none_or(|peers| peers.contains(&peer));
    if !rules.ops.contains(&op) || op != GIFT_WRAP && !listed {
        return Status::NotAllowed;
    }
    if !vault.run(agree::parse) {
        return Status::Malformed;
    }
    match admission.admit(op.into(), 0, &peer) {
        Err(Refusal::OverCeiling) => Status::OverCeiling,
        Err(Refusal::NotRecorded) => Status::NotRecorded,
        Ok(()) if vault.run(|data| agree::agree(data, op == NIP04)) => Status::Answered,
        Ok(()) => Status::Fault,
    }
}

impl Rules {
    /// Ops: `1`, `1,2,3`, or empty. Peers: `any`, or public keys as 64 hex digits with commas between, `self` being this one.
    fn new(ops: &str, peers: &str, own: &[u8; 32]) -> Result<Rules, String> {
        let ops = numbers(ops)?;
        if ops.iter().any(|op| !(NIP44..=GIFT_WRAP).contains(op)) {
            return Err("ops: 1, 2 and 3 are all there are".into());
        }
        let key = |text: &str| {
            let mut key = *own;
            (text == "self" || decode_hex(text.as_bytes(), &mut key)).then_some(key)
        };
        let list = || peers.split(',').filter(|text| !text.is_empty()).map(key).collect::<Option<_>>();
        let peers = if peers == "any" { None } else { Some(list().ok_or("a peer is not 64 hex digits")?) };
        Ok(Rules { ops, peers })
    }
}
