//! The socket protocol: recorded cases of the reference daemon, ids, framing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "wire/ahead.rs"]
mod ahead;
#[path = "wire/cases.rs"]
mod cases;
#[path = "wire/framing.rs"]
mod framing;
#[path = "wire/ids.rs"]
mod ids;
