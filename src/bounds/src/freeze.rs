//! The freeze page: what the operator can always say no with, whoever asks. The only unsafe code of this crate.
//!
//! Two words, each in a page of its own. The supervisor sets the one, waits until it has seen the other clear, and only then says
//! that the key is frozen: a use that began before is over by then, and one that begins later sees the page.

use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst, fence};
use nsecd_sandbox::lock::descriptor;
use std::os::fd::AsRawFd;

/// The words, mapped for as long as the process lives.
pub struct Freeze {
    /// 0: not frozen. Only the supervisor writes it: its memory is sealed against every other mapping that could.
    frozen: &'static AtomicU32,
    /// 1 while the key may be in use. Only this process writes it.
    busy: &'static AtomicU32,
}

impl Freeze {
    /// Maps the memory behind both descriptors, and closes these. Before the lock, which allows no mapping.
    pub fn open(frozen: i32, busy: i32) -> Result<Freeze, String> {
        let words =
            Freeze { frozen: word(frozen, libc::PROT_READ)?, busy: word(busy, libc::PROT_READ | libc::PROT_WRITE)? };
        // Both are touched here: where there is no memory for them the start ends, and not a use of the key.
        words.unless_frozen(|| ());
        Ok(words)
    }

    /// Uses the key, unless it is frozen. All that a use consists of must be over when `use_key` returns.
    pub fn unless_frozen<T>(&self, use_key: impl FnOnce() -> T) -> Option<T> {
        self.busy.store(1, Relaxed);
        // With the same fence between the supervisor's two accesses one of us sees what the other has stored.
        fence(SeqCst);
        // Not an acquiring load, which read-only memory does not promise to bear (core::sync::atomic).
        let frozen = self.frozen.load(Relaxed) != 0;
        fence(Acquire);
        let done = (!frozen).then(use_key);
        self.busy.store(0, Release);
        done
    }
}

fn word(fd: i32, access: i32) -> Result<&'static AtomicU32, String> {
    let (memory, size) = (descriptor(fd), size_of::<AtomicU32>());
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
    let at = unsafe { libc::mmap(core::ptr::null_mut(), size, access, libc::MAP_SHARED, memory.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(format!("freeze page: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: a page's start is aligned, nobody unmaps it, the memory is sealed against shrinking, and whoever else has it
    // mapped, the supervisor, goes at it by atomic operations only.
    Ok(unsafe { &*at.cast::<AtomicU32>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicBool;
    use std::{hint, thread, time::Duration, time::Instant};

    /// Checked: with the page read before the busy word is set, with no fence between the two, or with the word never set, a run of
    /// this is red (4, 21 and 4 late uses in 20,000 rounds). On a machine that is busy with other things it makes fewer rounds.
    #[test]
    fn once_the_busy_word_was_seen_clear_after_the_page_was_set_no_use_begins() {
        let [frozen, busy, uses]: &'static [AtomicU32; 3] = Box::leak(Box::default());
        let (freeze, over) = (Freeze { frozen, busy }, AtomicBool::new(false));
        let (rounds, late) = thread::scope(|scope| {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    freeze.unless_frozen(|| uses.fetch_add(1, Relaxed));
                    // Between two uses there are system calls: without a pause nobody would ever see the word clear.
                    (0..20).for_each(|_| hint::spin_loop());
                }
            });
            let (begun, mut rounds, mut late) = (Instant::now(), 0, 0);
            while rounds < 20_000 && begun.elapsed() < Duration::from_secs(10) {
                let before = uses.load(Relaxed);
                while uses.load(Relaxed) == before {
                    thread::yield_now();
                }
                frozen.store(1, SeqCst);
                fence(SeqCst);
                while busy.load(Relaxed) != 0 {
                    thread::yield_now();
                }
                fence(Acquire);
                let seen = uses.load(Relaxed);
                late += u32::from((0..100).any(|_| uses.load(Relaxed) != seen));
                frozen.store(0, SeqCst);
                rounds += 1;
            }
            over.store(true, Relaxed);
            (rounds, late)
        });
        assert!(rounds > 0 && late == 0, "{late} uses after {rounds} acknowledgements");
    }
}
