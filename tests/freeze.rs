//! B24, B25: freeze, the admin directory and the control socket.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "freeze/hijacked.rs"]
mod hijacked;
#[path = "freeze/kept.rs"]
mod kept;
#[path = "freeze/load.rs"]
mod load;
#[path = "freeze/peers.rs"]
mod peers;
#[path = "freeze/places.rs"]
mod places;
#[path = "freeze/stuck.rs"]
mod stuck;

use support::Nsecd;

/// Rows in the record of an account's gate, or of the ECDH holder.
fn rows(nsecd: &Nsecd, name: &str) -> u64 {
    let record = nsecd.dir.join("state").join(format!("{name}.record"));
    std::fs::metadata(record).unwrap().len() / 64 - 1
}
