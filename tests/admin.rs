//! The admin socket: who may use it, what it does, and that no agent reaches it or keeps the operator from it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "admin/ctl.rs"]
mod ctl;
#[path = "admin/owner.rs"]
mod owner;
#[path = "admin/peers.rs"]
mod peers;
#[path = "admin/reserve.rs"]
mod reserve;
#[path = "admin/sessions.rs"]
mod sessions;
#[path = "admin/status.rs"]
mod status;
