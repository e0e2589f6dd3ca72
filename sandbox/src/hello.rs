//! The frame a role sends once, after its lock is complete: "I am this role, of this version, locked".
//!
//! 97 bytes, the size of a signing reply, so that the key-holder's filter needs only one write size. The supervisor's
//! end, which reads it, is `nsecd_policy::hello`.

/// Bytes of a hello frame.
pub const LEN: usize = 97;
/// The version that supervisor and roles must share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a role says of itself when it is locked and about to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// `K` key-holder, `G` gate, `E` ECDH holder, `B` broker.
    pub role: u8,
    /// Optional steps that this kernel or user could not give, one bit for each [`Optional`](crate::lock::Optional).
    pub missing: u64,
    /// A holder's x-only public key (BIP-340); zeros from other roles.
    pub public_key: [u8; 32],
}

impl Hello {
    /// magic(8) ‖ role(1) ‖ version(16, zero padded) ‖ missing(8, big-endian) ‖ public key(32) ‖ zeros(32).
    pub fn encode(&self) -> [u8; LEN] {
        let mut f = [0; LEN];
        f[..8].copy_from_slice(b"nsecd-up");
        f[8] = self.role;
        let version = &VERSION.as_bytes()[..VERSION.len().min(16)];
        f[9..9 + version.len()].copy_from_slice(version);
        f[25..33].copy_from_slice(&self.missing.to_be_bytes());
        f[33..65].copy_from_slice(&self.public_key);
        f
    }
}
