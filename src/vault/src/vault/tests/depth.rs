//! For tests alone: how deep a use of the key goes into the vault's stack, of which all is wiped after each use. Below it is a guard page, so
//! that a use that went deeper would end the process and leave nothing.
//!
//! The tests of key-holder and ECDH holder include this file by its path: each use is theirs, and what is measured is the same.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use nsecd_sandbox::lock::Confinement;

static DEEPEST: AtomicUsize = AtomicUsize::new(0);

/// Notes the lowest byte that a use has left on the stack, which is so large, was wiped, and ends where `data` begins.
#[inline(always)]
pub fn note<T>(data: &T, stack: usize) {
    let end = (&raw const *data).cast::<u8>();
    // SAFETY: bytes of the stack, and of nothing else; they are mapped.
    let clean = (0..stack).take_while(|at| unsafe { end.sub(stack - at).read_volatile() } == 0).count();
    DEEPEST.store(stack - clean, Relaxed);
}

/// Panics unless what was noted is two thirds of the stack at most. Printed with --nocapture.
pub fn check(stack: usize) {
    let deepest = DEEPEST.load(Relaxed);
    println!("{deepest} bytes of {stack}");
    assert!((1000..=stack * 2 / 3).contains(&deepest), "{deepest} bytes of {stack}");
}

/// Of a process that locks nothing: a vault is opened in the test's own.
pub fn nothing() -> Confinement {
    Confinement {
        supervisor: 0,
        ids: None,
        highest_fd: 2,
        connections: None,
        writes_files: false,
        filter: &[],
        missing: 0,
    }
}
