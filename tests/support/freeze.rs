//! A freeze page and a busy word, with our hands in the supervisor's place.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// The memory that a gate or an ECDH holder maps.
pub struct Words {
    frozen: File,
    busy: File,
}

impl Words {
    /// Both clear.
    pub fn new() -> Words {
        let word = || {
            let file = File::from(memfd_create(c"nsecd-freeze", MFdFlags::MFD_CLOEXEC).unwrap());
            file.set_len(4).unwrap();
            file
        };
        Words { frozen: word(), busy: word() }
    }

    /// The role's descriptors, at the numbers from `first` on.
    pub fn fds(&self, first: i32) -> [(OwnedFd, i32); 2] {
        let [frozen, busy] = [&self.frozen, &self.busy].map(|file| file.try_clone().unwrap().into());
        [(frozen, first), (busy, first + 1)]
    }

    /// Sets or clears the page.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.write_all_at(&u32::from(frozen).to_ne_bytes(), 0).unwrap();
    }

    /// Whether the role may be using the key.
    pub fn is_busy(&self) -> bool {
        let mut word = [0; 4];
        self.busy.read_exact_at(&mut word, 0).unwrap();
        word != [0; 4]
    }

    /// Sets the page and waits, as the supervisor does, until the use that had begun is over.
    pub fn freeze_and_wait(&self) {
        self.freeze(true);
        super::until("the busy word is clear", || !self.is_busy());
    }
}
