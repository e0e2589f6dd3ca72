//! Known holes of the reference daemon and of its class, attacked as they were found: rows A1 to A18, B12, B15, B22, B24.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "attacks/ecdh.rs"]
mod ecdh;
#[path = "attacks/exhaustion.rs"]
mod exhaustion;
#[path = "attacks/freeze.rs"]
mod freeze;
#[path = "attacks/gate.rs"]
mod gate;
#[path = "attacks/hangups.rs"]
mod hangups;
#[path = "attacks/logs.rs"]
mod logs;
#[path = "attacks/paths.rs"]
mod paths;
#[path = "attacks/permission.rs"]
mod permission;
#[path = "attacks/signatures.rs"]
mod signatures;
#[path = "attacks/together.rs"]
mod together;
