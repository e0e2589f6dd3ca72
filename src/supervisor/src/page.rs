//! The freeze pages and the busy words: memory that the supervisor shares with gates and ECDH holder, a word each.
//!
//! What the other end does with them: `nsecd_bounds::freeze`. A role gets a descriptor, maps it and closes it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::fence;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::fault::{Fault, OrFault};
use crate::sys::SharedWord;

/// A word that a role may read and only the supervisor can write: 1 for frozen.
#[derive(Debug)]
pub struct Page(Word);

/// A word that the role writes: 1 while it may be using the key. One for each process, since one that was killed leaves it as it was.
#[derive(Debug)]
pub struct Busy(Word);

#[derive(Debug)]
struct Word {
    memory: OwnedFd,
    word: SharedWord,
}

impl Page {
    /// A new page, which is not set.
    ///
    /// # Errors
    /// The kernel gives no memory, or does not seal it (Linux 5.1).
    pub fn new() -> Result<Page, Fault> {
        let word = Word::new()?;
        // Our mapping stays; a role's is for reading, and cannot become another.
        word.seal(SealFlag::F_SEAL_FUTURE_WRITE)?;
        Ok(Page(word))
    }

    /// Sets it or clears it. When this returns, whoever begins to use the key sees it; who began before has its busy word set.
    pub fn set(&self, frozen: bool) {
        self.0.word.store(u32::from(frozen), SeqCst);
        fence(SeqCst);
    }
}

impl Busy {
    /// A new word, which is clear.
    ///
    /// # Errors
    /// As [`Page::new`].
    pub fn new() -> Result<Busy, Fault> {
        let word = Word::new()?;
        word.seal(SealFlag::empty())?;
        Ok(Busy(word))
    }

    /// Whether its process may be using the key. After [`Page::set`] a `false` is final: nothing of an earlier use is left, and
    /// a later one finds the page.
    pub fn is_set(&self) -> bool {
        let set = self.0.word.load(Relaxed) != 0;
        fence(Acquire);
        set
    }
}

impl Word {
    fn new() -> Result<Word, Fault> {
        let what = || "making a freeze page".into();
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // Linux before 6.3 knows no MFD_NOEXEC_SEAL; a later one may be told to refuse memory without it.
        let no_exec = MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL);
        let memory = match memfd_create(c"nsecd-freeze", flags | no_exec) {
            Err(Errno::EINVAL) => memfd_create(c"nsecd-freeze", flags),
            other => other,
        };
        let memory = File::from(memory.or_fault(what)?);
        memory.set_len(size_of::<u32>() as u64).or_fault(what)?;
        let memory = OwnedFd::from(memory);
        let word = SharedWord::map(memory.as_fd()).or_fault(what)?;
        // Touched now: memory that is not to be had is an error here, and a death later.
        word.store(0, SeqCst);
        Ok(Word { memory, word })
    }

    /// Against a change of size, which could take the word away under a reader, and against `more`.
    fn seal(&self, more: SealFlag) -> Result<(), Fault> {
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL | more;
        fcntl(&self.memory, FcntlArg::F_ADD_SEALS(seals)).map(drop).or_fault(|| "sealing a freeze page".into())
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.memory.as_fd()
    }
}

impl AsFd for Busy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.memory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn file(word: &impl AsFd) -> File {
        word.as_fd().try_clone_to_owned().unwrap().into()
    }

    /// Checked: with any of the seals taken out this fails.
    #[test]
    fn whoever_holds_a_freeze_page_reads_it_and_can_neither_write_nor_cut_it() {
        let (page, busy) = (Page::new().unwrap(), Busy::new().unwrap());
        let (role, mut word) = (file(&page), [0; 4]);
        for frozen in [true, false, true] {
            page.set(frozen);
            role.read_exact_at(&mut word, 0).unwrap();
            assert_eq!(u32::from_ne_bytes(word), u32::from(frozen));
        }
        assert!(role.write_at(&[0; 4], 0).is_err() && SharedWord::map(page.as_fd()).is_err());
        for held in [role, file(&busy)] {
            assert!([0, 1, 8192].iter().all(|size| held.set_len(*size).is_err()));
            assert!(fcntl(&held, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).is_err());
        }
        // Control: the other one is for its process to write.
        assert!(!busy.is_set());
        file(&busy).write_all_at(&1u32.to_ne_bytes(), 0).unwrap();
        assert!(busy.is_set());
    }
}
