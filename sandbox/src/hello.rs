//! The frame a role sends once, after its lock is complete: "I am this role, of this version, locked".
//!
//! 97 bytes, the size of a signing reply, so that the key-holder's filter needs only one write size.

/// Bytes of a hello frame.
pub const LEN: usize = 97;
/// The version that supervisor and roles must share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
const MAGIC: &[u8; 8] = b"nsecd-up";

/// What a role says of itself when it is locked and about to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// `K` key-holder, `G` gate, `E` ECDH holder, `B` broker.
    pub role: u8,
    /// Optional lock steps that this kernel or user could not give, one bit per [`Step`](crate::lock::Step).
    pub missing: u64,
    /// A holder's x-only public key (BIP-340); zeros from other roles.
    pub public_key: [u8; 32],
}

impl Hello {
    /// magic(8) ‖ role(1) ‖ version(16, zero padded) ‖ missing(8, big-endian) ‖ public key(32) ‖ zeros(32).
    pub fn encode(&self) -> [u8; LEN] {
        let mut f = [0; LEN];
        f[..8].copy_from_slice(MAGIC);
        f[8] = self.role;
        let version = &VERSION.as_bytes()[..VERSION.len().min(16)];
        f[9..9 + version.len()].copy_from_slice(version);
        f[25..33].copy_from_slice(&self.missing.to_be_bytes());
        f[33..65].copy_from_slice(&self.public_key);
        f
    }

    /// Reads a frame of this version; `None` for anything else, another version's hello included.
    pub fn decode(f: &[u8]) -> Option<Hello> {
        let f: &[u8; LEN] = f.try_into().ok()?;
        let hello = Hello {
            role: f[8],
            missing: u64::from_be_bytes(f[25..33].try_into().ok()?),
            public_key: f[33..65].try_into().ok()?,
        };
        (hello.encode() == *f).then_some(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_reads_back_and_another_version_does_not() {
        let hello = Hello { role: b'K', missing: 1 << 40 | 5, public_key: [7; 32] };
        let mut frame = hello.encode();
        assert_eq!(Hello::decode(&frame), Some(hello));
        assert_eq!(Hello::decode(&frame[..96]), None);
        frame[9] ^= 1;
        assert_eq!(Hello::decode(&frame), None);
    }
}
