//! Memory for keys: locked, wiped, of a process that leaves no core. The only unsafe code of `nsecctl key`.

use crate::child::Keeps;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use zeroize::Zeroize;

/// Bytes that a file or a pipe with a key may have.
pub(super) const MOST: usize = 64 << 10;

/// From here on this process makes no core, and no other of its user reads its memory or environment (prctl(2), PR_SET_DUMPABLE).
pub(super) fn conceal() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_dumpable(false)
}

/// Bytes that are wiped when they are no longer needed, and not swapped where the limit on locked memory allows that.
pub(super) struct Locked {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Locked {
    pub fn new(size: usize) -> Locked {
        let bytes = vec![0; size].into_boxed_slice();
        // SAFETY: locks pages that exist, and changes nothing in them. Where it fails they can be swapped, as any program's.
        unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) };
        Locked { bytes, filled: 0 }
    }

    /// All that is in there.
    ///
    /// # Errors
    /// It cannot be read, or is longer than any key's file.
    pub fn read(from: impl AsFd) -> io::Result<Locked> {
        let mut all = Locked::empty();
        while all.take(from.as_fd())? {}
        Ok(all)
    }

    /// With room for any key's file.
    pub fn empty() -> Locked {
        Locked::new(MOST)
    }

    /// Adds a byte; false: there is no room.
    pub fn push(&mut self, byte: u8) -> bool {
        let fits = self.filled < self.bytes.len();
        if fits {
            self.bytes[self.filled] = byte;
            self.filled += 1;
        }
        fits
    }

    /// Takes the last byte back.
    pub fn pop(&mut self) {
        self.filled = self.filled.saturating_sub(1);
        self.bytes[self.filled] = 0;
    }

    /// What is in use.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// A copy of some bytes.
    pub fn of(bytes: &[u8]) -> Locked {
        let mut all = Locked::new(bytes.len().max(1));
        all.bytes[..bytes.len()].copy_from_slice(bytes);
        all.filled = bytes.len();
        all
    }
}

impl Keeps for Locked {
    fn take(&mut self, from: BorrowedFd<'_>) -> io::Result<bool> {
        if self.filled == self.bytes.len() {
            return Err(io::Error::other(format!("more than {MOST} bytes: no key has so many")));
        }
        match nix::unistd::read(from, &mut self.bytes[self.filled..]) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.bytes.zeroize();
        // SAFETY: unlocks what `new` has locked; a page that another of these shares is wiped before it can be swapped, since this
        // process ends soon after.
        unsafe { libc::munlock(self.bytes.as_ptr().cast(), self.bytes.len()) };
    }
}
