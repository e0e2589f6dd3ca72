//! Whether and how often a key may be used, and the record of each use: what the gate and the ECDH holder share.
//!
//! Part of the trusted base: SHA-256 is its one dependency; no parser, no agent's byte.

pub mod admission;
pub mod ceiling;
pub mod freeze;
pub mod record;
