//! What the kernel itself makes of each call that a locked role could try: row B3, and B1, B4's calls and B11's.
//!
//! Each probe is a process of its own that goes through the roles' own locking code with a role's filter, and then makes one
//! call. Its tracer reads from its registers which call it was that ended it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "probes/named.rs"]
mod named;
#[path = "probes/numbers.rs"]
mod numbers;

use nsecd_sandbox::filter::{BROKER, ECDH, GATE, KEYHOLDER};
use support::probe::{Abi, Call, End, Sandbox, probe};
use support::{root, skip};

/// Uids that nobody has.
const LOCKED: u32 = 23_402;
const ORDINARY: u32 = 23_403;

/// The sandbox of a role: as root with a uid of its own at the end, otherwise as the user that this is.
fn sandbox(role: &str) -> Sandbox {
    let filter = match role {
        "keyholder" => KEYHOLDER,
        "gate" => GATE,
        "ecdh" => ECDH,
        _ => BROKER,
    };
    Sandbox { filter, broker: role == "broker", start_as: None, become_id: root().then_some(LOCKED) }
}

/// `true`, after saying so, where no process may be traced.
fn untraceable() -> bool {
    let getpid = Call { abi: Abi::X86_64, number: libc::SYS_getpid as u32, args: [0; 6] };
    let traced = matches!(probe(None, || getpid), Ok(End::Returned(1..)));
    if !traced {
        skip("a child of this process cannot be traced");
    }
    !traced
}
