//! Files without a name, for code that reads and writes descriptors.

use std::fs::File;
use std::io::Write;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file in memory with these bytes in it, open for reading and writing.
pub fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("fuzz", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file
}

/// The same, open for appending, as the journal is.
pub fn appended(bytes: &[u8]) -> File {
    let file = file(bytes);
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND)).unwrap();
    file
}
