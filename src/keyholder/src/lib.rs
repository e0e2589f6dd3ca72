//! The key-holder: the only process that can sign. It reads 32 bytes, signs them, verifies its own signature,
//! answers 97 bytes, and is blind to what it signs: the gate before it is not.
//!
//! Key, libsecp256k1's context and the stack that the signing runs on lie in one secret mapping. After its lock
//! the process can read(3), write(3) and end; it has no other use for anything.

mod sign;

use nsecd_sandbox::args::{self, fail};
use nsecd_sandbox::filter;
use nsecd_sandbox::lock::{descriptor, exit, random};
use nsecd_vault::Vault;
use sign::Buffers;
use std::io::{Read, Write};

const GATE: i32 = 3;
/// Exit codes after the lock, beside 0 for a gate's end that was closed.
const BAD_FRAME: i32 = 3;
const GATE_GONE: i32 = 4;

/// The third field of a reply where there is no signature: it failed its own verification and was wiped.
const FAULT: u8 = 7;

/// Starts from the supervisor's arguments, takes the key, locks itself, serves until the gate's end is closed: one packet in,
/// one out, in the vault's own buffers.
pub fn main() -> ! {
    let (mut confinement, arguments) = args::begin(3, filter::KEYHOLDER);
    confinement.writes_files = false;
    let mut vault = Vault::open(&arguments, Buffers::EMPTY, &mut confinement);
    random(&mut vault.data.role.aux).unwrap_or_else(|e| fail(args::NO_KEY, format!("no randomness: {e}")));
    let mut gate = descriptor(GATE);
    confinement.complete(b'K', vault.data.public_key, &gate);
    loop {
        match gate.read(&mut vault.data.role.request) {
            Ok(32) => vault.run(sign::sign),
            Ok(0) => exit(0),
            Ok(_) => exit(BAD_FRAME),
            Err(_) => exit(GATE_GONE),
        };
        gate.write_all(&vault.data.role.reply).unwrap_or_else(|_| exit(GATE_GONE));
    }
}
