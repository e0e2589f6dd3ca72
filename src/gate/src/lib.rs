//! The gate: what may become a signature, decided on the exact bytes that are hashed, without a parser.
//!
//! It reads a length and a canonical event from the broker, checks the event's first bytes while hashing all
//! of them, looks at the freeze page, asks its ceiling, writes its record, and only then sends the id to the key-holder. It never looks
//! past the kind, never keeps an event, and never answers an event but with 97 bytes. Events that came together go to the key-holder one
//! after the other, each after its own row, before the first reply is waited for.

pub mod prefix;

use nsecd_bounds::admission::{Admission, Status, list};
use nsecd_bounds::freeze::Freeze;
use nsecd_sandbox::args::{self, fail};
use nsecd_sandbox::filter;
use nsecd_sandbox::lock::{clock, descriptor, exit};
use prefix::{Fields, Prefix};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

const HOLDER: i32 = 3;
const BROKER: i32 = 4;
const SUPERVISOR: i32 = 5;
const RECORD: i32 = 6;
/// The account's freeze page and this gate's busy word; closed when mapped.
const FREEZE: i32 = 7;
const BUSY: i32 = 8;
/// NIP-59's seal, dated days back on purpose: the one kind with a window, and where there are two, a ceiling of its own.
const SEAL: u16 = 13;
/// Largest event in bytes.
const MAX_EVENT: usize = 512 * 1024;
/// The most that one read takes, as the filter has it.
const BUFFER: usize = 16 * 1024;
/// Events that are with the key-holder at a time, and the most replies of one write, as the filter has it.
const MOST: usize = 8;
/// Bytes of a reply.
const REPLY: usize = 97;
/// Exit codes after the lock: the key-holder is gone; the broker broke the framing.
const HOLDER_GONE: i32 = 4;
const BAD_FRAME: i32 = 3;

/// An event's id, and what its first bytes name if they are those of an event of this key.
type Event = ([u8; 32], Option<Fields>);

/// The account's hard limits.
pub struct Gate {
    public_key: String,
    /// `None`: any.
    kinds: Option<Vec<u16>>,
    /// How far created_at may be from now, in seconds, of all kinds but seals and of these; `None`: any.
    windows: [Option<Vec<i64>>; 2],
    admission: Admission,
}

/// Starts from the supervisor's arguments, locks itself, serves until the broker's end is closed.
pub fn main() -> ! {
    let (confinement, arguments) = args::begin(BUSY as u32, filter::GATE);
    let freeze = Freeze::open(FREEZE, BUSY).unwrap_or_else(|e| fail(args::NOT_LOCKED, e));
    let mut gate = Gate::new(&arguments).unwrap_or_else(|e| fail(args::USAGE, e));
    // Several events may be on their way: one read takes them all.
    let mut broker = BufReader::with_capacity(BUFFER, descriptor(BROKER));
    let (mut holder, supervisor) = (descriptor(HOLDER), descriptor(SUPERVISOR));
    confinement.complete(b'G', [0; 32], &supervisor);
    loop {
        // Those that came together go together: two switches for all of them, and not for each.
        let (mut events, mut replies, mut count) = ([([0; 32], None); MOST], [[0; REPLY]; MOST], 0);
        while count == 0 || count < MOST && holds_event(broker.buffer()) {
            events[count] = gate.read_event(&mut broker);
            count += 1;
        }
        gate.answer(&events[..count], &mut replies[..count], &freeze, &mut holder);
        broker.get_mut().write_all(replies[..count].as_flattened()).unwrap_or_else(|_| exit(0)); // the broker is gone
    }
}

impl Gate {
    /// Arguments: public key, kinds (`any`, `1,7`, or empty for none), created_at (`any` or `-3600,900`), the same for seals, ceiling
    /// and, after a slash, that of seals if they have their own, record (both: [`Admission::new`]). They come from the supervisor.
    pub fn new(arguments: &[String]) -> Result<Gate, String> {
        let [public_key, kinds, created_at, seals, ceilings, record] = arguments else {
            return Err("six arguments expected".into());
        };
        if public_key.len() != 64 || !public_key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("the public key is not 64 lower-case hex digits".into());
        }
        let windows = [list(created_at, "any")?, list(seals, "any")?];
        if windows.iter().flatten().any(|window| window.len() != 2) {
            return Err("created_at: two numbers expected".into());
        }
        let admission = Admission::new(ceilings, record, RECORD)?;
        Ok(Gate { public_key: public_key.clone(), kinds: list(kinds, "any")?, windows, admission })
    }

    /// The next event's id, the hash of all its bytes (NIP-01), and what its first ones name, if they are those of an event of this
    /// key. Ends the process at the end of the broker's requests or on a broken frame.
    fn read_event(&self, broker: &mut impl BufRead) -> Event {
        let mut length = [0; 4];
        broker.read_exact(&mut length).unwrap_or_else(|_| exit(0));
        let mut left = u32::from_be_bytes(length) as usize;
        if left == 0 || left > MAX_EVENT {
            exit(BAD_FRAME);
        }
        let (mut hash, mut prefix) = (Sha256::new(), Prefix::new(&self.public_key));
        while left > 0 {
            let there = broker.fill_buf().unwrap_or_else(|_| exit(0));
            let part = &there[..left.min(there.len())];
            if part.is_empty() {
                exit(0);
            }
            prefix.feed(part);
            hash.update(part);
            let taken = part.len();
            broker.consume(taken);
            left -= taken;
        }
        (hash.finalize().into(), prefix.fields())
    }

    /// A reply to each event. The key is in use from before the freeze page is read until the last signature is there.
    fn answer(&mut self, events: &[Event], replies: &mut [[u8; REPLY]], freeze: &Freeze, holder: &mut File) {
        for ((id, event), reply) in events.iter().zip(&mut *replies) {
            reply[..32].copy_from_slice(id);
            reply[32] = if event.is_some() { Status::Frozen } else { Status::Malformed } as u8;
        }
        freeze.unless_frozen(|| {
            for ((id, event), reply) in events.iter().zip(&mut *replies) {
                let Some(event) = event else { continue };
                let status = self.admit(id, event);
                reply[32] = status as u8;
                if status == Status::Granted {
                    holder.write_all(id).unwrap_or_else(|_| exit(HOLDER_GONE));
                }
            }
            // It answers in the order in which it was asked.
            for ((id, _), reply) in events.iter().zip(replies).filter(|(_, reply)| reply[32] == Status::Granted as u8) {
                *reply = receive(holder, id);
            }
        });
    }

    /// Everything that must hold before the id leaves. The row comes last, so that each one is a key use.
    fn admit(&mut self, id: &[u8; 32], event: &Fields) -> Status {
        if !self.allows(event.kind) {
            return Status::NotAllowed;
        }
        let seal = usize::from(event.kind == SEAL);
        let age = i64::from(event.created_at) - (clock(libc::CLOCK_REALTIME) / 1_000_000_000) as i64;
        if self.windows[seal].as_ref().is_some_and(|window| age < window[0] || age > window[1]) {
            return Status::CreatedAtOutside;
        }
        self.admission.admit(seal, event.kind.into(), event.created_at.into(), id)
    }

    /// Whether the ceiling has this kind.
    pub fn allows(&self, kind: u16) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

/// Whether a whole event has been read ahead.
fn holds_event(buffer: &[u8]) -> bool {
    buffer.first_chunk().is_some_and(|length| buffer.len() - 4 >= u32::from_be_bytes(*length) as usize)
}

/// Waits for the key-holder's reply to an id. One with another id is what a gate that died left behind.
fn receive(holder: &mut File, id: &[u8; 32]) -> [u8; REPLY] {
    loop {
        // One byte more than a reply, to notice a longer packet.
        let mut reply = [0; REPLY + 1];
        match holder.read(&mut reply) {
            Ok(REPLY) if reply[..32] == *id => return reply[..REPLY].try_into().unwrap_or_else(|_| exit(HOLDER_GONE)),
            Ok(REPLY) => (),
            _ => exit(HOLDER_GONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(kinds: &str) -> Gate {
        let arguments = [&"0f".repeat(32), kinds, "any", "any", "none", "none"].map(String::from);
        Gate::new(&arguments).expect("arguments of the supervisor's form")
    }

    /// For every ceiling of one kind: it has this one, and of the others none near it or in a word of another width.
    ///
    /// Checked: with the kinds kept as one byte each, this fails.
    #[test]
    fn a_ceiling_of_one_kind_allows_that_kind_and_no_other() {
        for kind in 0..=u16::MAX {
            let gate = gate(&kind.to_string());
            assert!(gate.allows(kind), "{kind}");
            assert_eq!(gate.kinds, Some(vec![kind]));
        }
        for (kinds, allowed) in [("any", 65_536), ("", 0), ("7", 1), ("65535", 1), ("1,7,65535", 3)] {
            let gate = gate(kinds);
            assert_eq!((0..=u16::MAX).filter(|kind| gate.allows(*kind)).count(), allowed, "{kinds}");
        }
    }

    #[test]
    fn arguments_of_any_other_form_are_refused() {
        let good = [&"0f".repeat(32), "1", "-1,1", "any", "none", "none"].map(String::from);
        assert!(Gate::new(&good).is_ok());
        for (at, bad) in
            [(0, "0f"), (0, &"0F".repeat(32)), (1, "65536"), (1, "none"), (2, "1"), (3, ""), (4, ""), (5, "")]
        {
            let mut arguments = good.clone();
            arguments[at] = bad.into();
            assert!(Gate::new(&arguments).is_err(), "{at} {bad}");
        }
        assert!(Gate::new(&good[..5]).is_err());
    }
}
