//! Whether and how often a key may be used, and the record of each use: what the gate and the ECDH holder share.
//!
//! Part of the trusted base: libc is its one dependency from outside; no parser, no agent's byte. What a record held before these processes started
//! the supervisor has read for them (`nsecd_records`).

pub mod admission;
pub mod ceiling;
pub mod freeze;
pub mod record;
