//! What every test binary shares: a running nsecd in a directory of its own, a client, an independent verifier.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod admin;
pub mod cgroup;
pub mod client;
pub mod container;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod dir;
pub mod ecdh;
pub mod event;
pub mod fault;
pub mod filters;
pub mod freeze;
pub mod held;
pub mod machine;
pub mod node;
pub mod probe;
pub mod process;
pub mod role;
pub mod sys;

pub use cgroup::Cgroup;
pub use client::Client;
pub use container::Podman;
pub use daemon::{Exit, Nsecd, Setup};
pub use dir::Dir;
pub use machine::Machine;

/// The key of the recorded cases: secret 0x…03.
pub const KEY_HEX: &str = "0000000000000000000000000000000000000000000000000000000000000003";
/// The same as NIP-19 writes it.
pub const KEY_NSEC: &str = "nsec1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqps52s3re";
/// Its x-only public key.
pub const PUBLIC_KEY: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";
/// A key with all bytes different, for scans: secret 0x00…/NIP-19's own example.
pub const SCAN_KEY: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";

/// Whether the tests run as root, who can drop to other users and read every process.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test cannot run here. Where everything must run (CI=true or NSECD_REQUIRE_ALL=1) that is a failure.
pub fn skip(reason: &str) {
    let all = |name, value| std::env::var(name).is_ok_and(|v| v == value);
    assert!(!all("CI", "true") && !all("NSECD_REQUIRE_ALL", "1"), "must not be skipped here: {reason}");
    eprintln!("skipped: {reason}");
}

/// `true`, after saying so, if the test must be skipped for want of root.
pub fn not_root(what: &str) -> bool {
    if !root() {
        skip(&format!("{what} needs root"));
    }
    !root()
}

/// `true`, after saying so, if `program` cannot be run.
pub fn missing(program: &str, argument: &str) -> bool {
    let found = std::process::Command::new(program).arg(argument).output().is_ok_and(|o| o.status.success());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    !found
}

/// Does this when it is dropped, panics included: the threads of a scope whose test has failed must end for it to say so.
pub struct Finally<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Waits until it is so; panics if it never is.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < sys::PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}
