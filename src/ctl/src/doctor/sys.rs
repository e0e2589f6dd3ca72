//! Asking the kernel what it has: the only unsafe code of nsecctl beside `key`'s memory. Each call makes nothing that outlives it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: called with what a system call has just returned as a new descriptor, ours alone.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether memfd_secret(2) gives memory, mapped as a holder maps it; its error if not.
pub(super) fn secret_memory(length: usize) -> io::Result<()> {
    // SAFETY: takes a number.
    let fd = owned(unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) })?;
    // SAFETY: a new mapping of our own descriptor, at an address of the kernel's choice, unmapped before anybody can refer to it.
    unsafe {
        if libc::ftruncate(fd.as_raw_fd(), length as i64) != 0 {
            return Err(io::Error::last_os_error());
        }
        let (access, none) = (libc::PROT_READ | libc::PROT_WRITE, std::ptr::null_mut());
        let start = libc::mmap(none, length, access, libc::MAP_SHARED, fd.as_raw_fd(), 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(start, length);
    }
    Ok(())
}

/// Landlock's ABI (landlock_create_ruleset(2)); 0 where there is none, or it is switched off.
pub(super) fn landlock_abi() -> u32 {
    let none = std::ptr::null::<u64>();
    // SAFETY: with no attribute, size 0 and flag 1 the call only answers with the ABI.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, 1u32) };
    u32::try_from(abi).unwrap_or(0)
}

/// Whether the kernel knows memory-deny-write-execute (PR_GET_MDWE).
pub(super) fn has_mdwe() -> bool {
    let none: libc::c_ulong = 0;
    // SAFETY: reads a property of this process.
    unsafe { libc::prctl(libc::PR_GET_MDWE, none, none, none, none) >= 0 }
}

/// Whether the kernel tells a process's cgroup through its pidfd (PIDFD_GET_INFO), as the broker asks it.
pub(super) fn tells_cgroups() -> bool {
    // SAFETY: takes two numbers.
    let Ok(pidfd) = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) }) else { return false };
    const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
    const CGROUP: u64 = 1 << 2;
    let mut info = [CGROUP, 0, 0, 0, 0, 0, 0, 0u64];
    // SAFETY: the request's number names 64 bytes to read and write, which is `info`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) };
    result == 0 && info[0] & CGROUP != 0
}

/// Whether a filter may end a whole process for a call (SECCOMP_GET_ACTION_AVAIL).
pub(super) fn has_seccomp() -> bool {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the operation reads one live u32.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0u32, &raw const action) == 0 }
}

/// Connects to a Unix socket, as that uid without any group but its own, in a process of its own; errno where it fails.
pub(super) fn connects(path: &Path, uid: Option<u32>) -> Option<i32> {
    let attempt = |uid: Option<u32>| -> io::Result<()> {
        if let Some(id) = uid {
            // SAFETY: these take numbers, and an empty list.
            let done = unsafe {
                libc::setgroups(0, std::ptr::null()) == 0
                    && libc::setresgid(id, id, id) == 0
                    && libc::setresuid(id, id, id) == 0
            };
            if !done {
                return Err(io::Error::last_os_error());
            }
        }
        UnixStream::connect(path).map(drop)
    };
    let number = |result: io::Result<()>| result.err().map(|e| e.raw_os_error().unwrap_or(libc::EIO));
    if uid.is_none() {
        return number(attempt(None));
    }
    // SAFETY: this process has one thread, so that the child may do what it likes; it leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = number(attempt(uid)).unwrap_or(0);
        // SAFETY: ends this process.
        unsafe { libc::_exit(code.min(255)) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child; -1 where there is none.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    match waited == child && libc::WIFEXITED(status) {
        true => Some(libc::WEXITSTATUS(status)).filter(|code| *code != 0),
        false => Some(libc::EAGAIN),
    }
}
