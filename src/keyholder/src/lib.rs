//! The key-holder: the only process that can sign. It reads 32 bytes, signs them, verifies its own signature,
//! answers 97 bytes, and is blind to what it signs: the gate before it is not.
//!
//! Key, libsecp256k1's context and the stack that the signing runs on lie in one secret mapping. After its lock
//! the process can read(3), write(3) and end; it has no other use for anything.

mod sign;

use nsecd_sandbox::{args, args::fail, filter, hello::Hello, lock, lock::Plan, sys};
use nsecd_vault::Vault;
use sign::Buffers;

const ROLE: &str = "nsecd-keyholder";
const GATE: i32 = 3;
/// Exit codes after the lock, beside 0 for a gate's end that was closed.
const BAD_FRAME: i32 = 3;
const GATE_GONE: i32 = 4;

/// The third field of a reply where there is no signature: it failed its own verification and was wiped.
const FAULT: u8 = 7;

/// Starts from the supervisor's arguments, takes the key, locks itself, serves until the gate's end is closed.
pub fn main() -> ! {
    let common = args::common(ROLE);
    let plan = Plan {
        max_fd: 3,
        keep_stderr: false,
        supervisor: common.supervisor,
        ids: common.ids,
        user_namespace: true,
        descriptors: 0,
        file_size: Some(0),
        filter: filter::KEYHOLDER,
    };
    let missing = lock::begin(&plan).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let (mut vault, public_key) = Vault::open(ROLE, &common.rest, Buffers::EMPTY);
    let seeded = vault.run(|data| sys::random(&mut data.role.ratchet));
    seeded.unwrap_or_else(|e| fail(ROLE, args::NO_KEY, format!("no randomness: errno {e}")));
    let missing = lock::lock(&plan, missing).unwrap_or_else(|e| fail(ROLE, args::NOT_LOCKED, e));
    let missing = missing | u64::from(!vault.is_secret()) << lock::SECRET_MEMORY;
    let hello = Hello { role: b'K', missing, public_key };
    if sys::write(GATE, &hello.encode()).is_err() {
        sys::exit(GATE_GONE);
    }
    serve(&mut vault)
}

/// One packet in, one out, in the vault's own buffers.
fn serve(vault: &mut Vault<Buffers>) -> ! {
    loop {
        match sys::read(GATE, &mut vault.role().request) {
            Ok(32) => (),
            Ok(0) => sys::exit(0),
            Ok(_) => sys::exit(BAD_FRAME),
            Err(_) => sys::exit(GATE_GONE),
        }
        vault.run(sign::sign);
        if sys::write(GATE, &vault.role().reply) != Ok(97) {
            sys::exit(GATE_GONE);
        }
    }
}
