//! The gate: what may become a signature, decided on the exact bytes that are hashed, without a parser.
//!
//! It reads a length and a canonical event from the broker, checks the event's first bytes while hashing all
//! of them, looks at the freeze page, asks its ceiling, writes its record, and only then sends the id to the key-holder. It never looks
//! past the kind, never keeps an event, and never answers but with 97 bytes.

mod prefix;

use nsecd_bounds::admission::{Admission, Refusal, numbers};
use nsecd_bounds::freeze::Freeze;
use nsecd_sandbox::{args, args::fail, filter, hello::Hello, lock, lock::Plan, sys};
use prefix::{Fields, Prefix};
use sha2::{Digest, Sha256};

const ROLE: &str = "nsecd-gate";
const HOLDER: i32 = 3;
const BROKER: i32 = 4;
const SUPERVISOR: i32 = 5;
const RECORD: i32 = 6;
/// The file before the record, for reading, or /dev/null; closed before the lock.
const PREVIOUS: i32 = 7;
/// The account's freeze page and this gate's busy word; closed when mapped.
const FREEZE: i32 = 8;
const BUSY: i32 = 9;
/// NIP-59's seal, dated days back on purpose: the one kind with a window of its own.
const SEAL: u16 = 13;
/// Largest event in bytes.
const MAX_EVENT: usize = 512 * 1024;
/// The most that one read takes, as the filter has it.
const BUFFER: usize = 16 * 1024;
/// Exit codes after the lock: the key-holder is gone; the broker broke the framing.
const HOLDER_GONE: i32 = 4;
const BAD_FRAME: i32 = 3;

/// The second field of a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Signed = 0,
    OverCeiling = 1,
    NotRecorded = 2,
    KindNotAllowed = 3,
    Frozen = 4,
    Malformed = 5,
    CreatedAtOutside = 6,
}

/// The account's hard limits.
struct Gate {
    kinds: Vec<u8>,
    created_at: Option<(i64, i64)>,
    seals: Option<(i64, i64)>,
    admission: Admission,
}

/// Starts from the supervisor's arguments, locks itself, serves until the broker's end is closed.
pub fn main() -> ! {
    let common = args::common(ROLE);
    let plan = Plan {
        max_fd: 9,
        keep_stderr: false,
        supervisor: common.supervisor,
        ids: common.ids,
        user_namespace: true,
        descriptors: 0,
        file_size: None,
        filter: filter::GATE,
    };
    let missing = lock::begin(&plan).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let freeze = Freeze::open(FREEZE, BUSY).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let (public_key, mut gate, record) = configure(&common.rest).unwrap_or_else(|e| fail(ROLE, args::USAGE, e));
    if record {
        gate.admission
            .open_record(RECORD, PREVIOUS)
            .unwrap_or_else(|e| fail(ROLE, args::BAD_RECORD, format!("record: {e}")));
    }
    sys::close(PREVIOUS);
    let missing = lock::lock(&plan, missing).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let hello = Hello { role: b'G', missing, public_key: [0; 32] };
    if sys::write(SUPERVISOR, &hello.encode()).is_err() {
        sys::exit(0);
    }
    let mut buffer = [0; BUFFER];
    loop {
        let length = next_length();
        let mut prefix = Prefix::new(&public_key);
        let id = hash_event(length, &mut buffer, &mut prefix);
        let reply = gate.answer(&id, prefix.fields(), &freeze);
        write_all(&reply);
    }
}

impl Gate {
    fn answer(&mut self, id: &[u8; 32], event: Option<Fields>, freeze: &Freeze) -> [u8; 97] {
        let Some(event) = event else { return refusal(id, Status::Malformed) };
        let use_key = || match self.admit(id, &event) {
            Status::Signed => ask_holder(id),
            status => refusal(id, status),
        };
        freeze.unless_frozen(use_key).unwrap_or_else(|| refusal(id, Status::Frozen))
    }

    /// Whether the ceiling has this kind.
    fn allows(&self, kind: u16) -> bool {
        self.kinds[usize::from(kind >> 3)] >> (kind & 7) & 1 == 1
    }

    /// Everything that must hold before the id leaves. The row comes last, so that each one is a key use.
    fn admit(&mut self, id: &[u8; 32], event: &Fields) -> Status {
        if !self.allows(event.kind) {
            return Status::KindNotAllowed;
        }
        let now = (sys::clock(libc::CLOCK_REALTIME) / 1_000_000_000) as i64;
        let age = i64::from(event.created_at) - now;
        let window = if event.kind == SEAL { self.seals } else { self.created_at };
        if window.is_some_and(|(earliest, latest)| age < earliest || age > latest) {
            return Status::CreatedAtOutside;
        }
        match self.admission.admit(event.kind.into(), event.created_at.into(), id) {
            Ok(()) => Status::Signed,
            Err(Refusal::OverCeiling) => Status::OverCeiling,
            Err(Refusal::NotRecorded) => Status::NotRecorded,
        }
    }
}

/// A reply without a signature.
fn refusal(id: &[u8; 32], status: Status) -> [u8; 97] {
    let mut reply = [0; 97];
    reply[..32].copy_from_slice(id);
    reply[32] = status as u8;
    reply
}

/// The next event's length; ends the process at the end of the broker's requests or on a broken frame.
fn next_length() -> usize {
    let mut length = [0; 4];
    read_exact(&mut length);
    match u32::from_be_bytes(length) as usize {
        length @ 1..=MAX_EVENT => length,
        _ => sys::exit(BAD_FRAME),
    }
}

/// Streams `length` bytes through the prefix check and SHA-256; the hash is the event's id (NIP-01).
fn hash_event(length: usize, buffer: &mut [u8; BUFFER], prefix: &mut Prefix<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut left = length;
    while left > 0 {
        let room = left.min(BUFFER);
        let part = &mut buffer[..room];
        read_exact(part);
        prefix.feed(part);
        hash.update(&*part);
        left -= room;
    }
    hash.finalize().into()
}

fn read_exact(mut buffer: &mut [u8]) {
    while !buffer.is_empty() {
        match sys::read(BROKER, buffer) {
            Ok(0) | Err(_) => sys::exit(0), // the broker is gone
            Ok(n) => buffer = &mut buffer[n..],
        }
    }
}

fn write_all(mut reply: &[u8]) {
    while !reply.is_empty() {
        match sys::write(BROKER, reply) {
            Ok(0) | Err(_) => sys::exit(0),
            Ok(n) => reply = &reply[n..],
        }
    }
}

/// Sends the id and waits for its reply. A reply with another id is what a gate that died left behind.
fn ask_holder(id: &[u8; 32]) -> [u8; 97] {
    if sys::write(HOLDER, id) != Ok(32) {
        sys::exit(HOLDER_GONE);
    }
    loop {
        let mut reply = [0; 98];
        match sys::read(HOLDER, &mut reply) {
            Ok(97) if reply[..32] == *id => {
                let mut answer = [0; 97];
                answer.copy_from_slice(&reply[..97]);
                return answer;
            }
            Ok(97) => (),
            _ => sys::exit(HOLDER_GONE),
        }
    }
}

/// Arguments: public key, kinds (`any`, `1,7`, or empty for none), created_at (`any` or `-3600,900`), the same
/// for seals, ceiling (`none` or `burst,tokens,seconds`, and after a slash that of seals, if they have their own), record (`1` or `0`). They come from the supervisor.
fn configure(args: &[String]) -> Result<(String, Gate, bool), String> {
    let [public_key, kinds, created_at, seals, ceiling, record] = args else {
        return Err("six arguments expected".into());
    };
    if public_key.len() != 64 || !public_key.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("the public key is not 64 lower-case hex digits".into());
    }
    let (created_at, seals) = (window(created_at)?, window(seals)?);
    let mut gate = Gate { kinds: vec![0; 8192], created_at, seals, admission: Admission::new(ceiling)? };
    if kinds == "any" {
        gate.kinds.fill(0xff);
    } else {
        for kind in numbers::<u16>(kinds)? {
            gate.kinds[usize::from(kind >> 3)] |= 1 << (kind & 7);
        }
    }
    Ok((public_key.clone(), gate, record == "1"))
}

fn window(text: &str) -> Result<Option<(i64, i64)>, String> {
    if text == "any" {
        return Ok(None);
    }
    match numbers(text)?[..] {
        [earliest, latest] => Ok(Some((earliest, latest))),
        _ => Err("created_at: two numbers expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(kinds: &str) -> Gate {
        let arguments = [&"0f".repeat(32), kinds, "any", "any", "none", "0"].map(String::from);
        configure(&arguments).expect("arguments of the supervisor's form").1
    }

    /// For every ceiling of one kind, all 65,536 kinds: the bitmap has one bit, and it is that kind's.
    ///
    /// Checked: with a kind's bit taken modulo 4, or looked up in the byte of `kind >> 4`, this fails.
    #[test]
    fn a_ceiling_of_one_kind_allows_that_kind_and_no_other() {
        for kind in 0..=u16::MAX {
            let gate = gate(&kind.to_string());
            assert!(gate.allows(kind), "{kind}");
            assert_eq!(gate.kinds.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1, "{kind}");
        }
        for (kinds, allowed) in [("any", 65_536), ("", 0), ("1,7,65535", 3)] {
            let gate = gate(kinds);
            assert_eq!((0..=u16::MAX).filter(|kind| gate.allows(*kind)).count(), allowed, "{kinds}");
        }
    }
}
