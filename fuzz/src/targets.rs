//! The targets, one file each.

pub mod canonical;
pub mod config;
pub mod event;
pub mod frame;
pub mod gate;
pub mod giftwrap;
pub mod journal;
pub mod nip44;
pub mod record;
pub mod request;

/// The public key whose events are made and checked: that of the secret key 3, as in wire.md's cases.
pub const KEY: &str = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
