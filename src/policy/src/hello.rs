//! The supervisor's end of a role's hello (`nsecd_sandbox::hello`), and names for what a role lacks.

use nsecd_sandbox::hello::{Hello, LEN};
use nsecd_sandbox::lock::Optional::{self, *};

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

/// The optional steps, as logs and `status` call them.
const NAMES: [(Optional, &str); 12] = [
    (SessionKeyring, "session keyring"),
    (UserNamespace, "user namespace"),
    (Namespaces, "network, IPC, UTS and cgroup namespaces"),
    (EmptyRoot, "empty root"),
    (BoundingSet, "bounding set"),
    (SecureBits, "securebits"),
    (Mdwe, "memory-deny-write-execute"),
    (LandlockFiles, "Landlock (files)"),
    (LandlockNetwork, "Landlock (network)"),
    (LandlockScopes, "Landlock (scopes)"),
    (SecretMemory, "secret memory"),
    (CgroupIdentity, "cgroup identity"),
];

/// Names of the optional steps in a hello's bitmap.
pub fn names(missing: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(step, _)| missing >> *step as u32 & 1 == 1).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_reads_back_and_another_version_does_not() {
        let hello = Hello { role: b'K', missing: 1 << 40 | 5, public_key: [7; 32] };
        let mut frame = hello.encode();
        assert_eq!(decode(&frame), Some(hello));
        assert_eq!(decode(&frame[..96]), None);
        frame[9] ^= 1;
        assert_eq!(decode(&frame), None);
    }

    #[test]
    fn every_optional_step_has_a_name_of_its_own() {
        for (at, (step, name)) in NAMES.iter().enumerate() {
            assert_eq!(names(1 << *step as u32).collect::<Vec<_>>(), [*name]);
            assert_eq!(*step as usize, at, "in the order of the bits, so that none is left out");
        }
        assert_eq!(names(u64::MAX).count(), CgroupIdentity as usize + 1);
    }
}
