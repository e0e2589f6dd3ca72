//! What both holders share: taking a key from its source into secret memory, and computing with it there.
//!
//! Part of the trusted base: no frame, no loop, no agent's byte. What a holder computes is its own crate's.

mod key;
mod vault;

pub use key::{decode, decode_hex};
pub use vault::{Data, STACK, Vault};
