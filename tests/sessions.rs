//! Sessions and limits as an agent meets them: who may use a token, for how long, how often.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "sessions/cgroups.rs"]
mod cgroups;
#[path = "sessions/limits.rs"]
mod limits;
#[path = "sessions/ownership.rs"]
mod ownership;
#[path = "sessions/tokens.rs"]
mod tokens;
#[path = "sessions/waiting.rs"]
mod waiting;
