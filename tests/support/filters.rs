//! The seccomp filters that the kernel holds for a process, read back through ptrace(2). With sys.rs, probe.rs and hijack/puppet.rs the only unsafe
//! code of the tests.

use std::{io, ptr};

/// A ptrace(2) request.
pub(super) fn request(what: libc::c_uint, pid: i32, address: u64, data: u64) -> io::Result<i64> {
    // SAFETY: every request used here takes numbers, or the address of a live object of the size that the kernel writes.
    match unsafe { libc::ptrace(what, pid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// The filters that the kernel holds for a process, oldest first, as the bytes of their instructions.
pub fn installed(pid: i32) -> io::Result<Vec<Vec<u8>>> {
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    request(libc::PTRACE_SEIZE, pid, 0, 0)?;
    let stopped = request(libc::PTRACE_INTERRUPT, pid, 0, 0).and_then(|_| {
        // SAFETY: waits for a process that this thread traces; a null status is not written to.
        match unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WALL) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    });
    let mut filters = Vec::new();
    let read = stopped.and_then(|()| {
        loop {
            let index = filters.len() as u64;
            match request(PTRACE_SECCOMP_GET_FILTER, pid, index, 0) {
                Ok(instructions) => {
                    let mut bytes = vec![0u8; instructions as usize * 8];
                    request(PTRACE_SECCOMP_GET_FILTER, pid, index, bytes.as_mut_ptr() as u64)?;
                    filters.push(bytes);
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    });
    request(libc::PTRACE_DETACH, pid, 0, 0)?;
    read.map(|()| filters)
}
