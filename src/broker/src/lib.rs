//! The broker: reads agents' bytes, applies policy, asks the gate. Holds no key and can open nothing.
//!
//! ```text
//! bytes → frame → json → request → event → policy (principal, session, limits, queue) → gate → reply
//!                                            └── every decision: decision log; refusals: alert log
//! ```
//! Each step knows the ones before it and none after. `server` and `connection` move the bytes, `crowd` says who gives
//! way; `sys` alone is unsafe.

#![deny(unsafe_code)]

pub mod admin;
pub mod agreement;
pub mod alert;
pub mod budgets;
pub mod clock;
pub mod connection;
pub mod crowd;
mod day;
pub mod decisions;
pub mod errand;
pub mod event;
#[cfg(test)]
mod fixture;
pub mod frame;
pub mod gate;
mod held;
pub mod journal;
pub mod json;
pub mod ledger;
pub mod limits;
pub mod nostr;
mod operator_log;
pub mod policy;
pub mod principal;
#[cfg(test)]
mod property;
pub mod queue;
pub mod replay;
pub mod reply;
pub mod request;
pub mod row;
pub mod rules;
mod run;
pub mod server;
pub mod session;
mod shown;
pub mod stalled;
mod start;
#[allow(unsafe_code, reason = "the one file for calls that nix has no safe form for")]
pub mod sys;
mod table;
mod trying;

pub use start::main;

/// Requests and replies carry what agents write to each other, in more strings than one could name: every block is wiped when
/// it is given back.
#[global_allocator]
static WIPED_WHEN_FREED: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);
