//! What a process has mapped of the files that it runs from.

use std::ffi::c_int;
use std::ptr;

/// Lets go of the pages of program and libraries that nobody can write: what is used again is mapped again from the page cache, and what only
/// the start needed - nine tenths of a parser, of what reads a configuration - stays out. The kernel maps sixteen pages around each
/// that is touched, so after a start nearly all of a program is mapped.
///
/// Where the kernel does not do it (madvise(2), `MADV_DONTNEED`) all stays as it is.
pub fn drop_clean_pages() {
    // SAFETY: the callback has the type that is asked for, and needs no data; other threads may load libraries meanwhile, which the C
    // library's own lock holds up.
    unsafe { libc::dl_iterate_phdr(Some(forget), ptr::null_mut()) };
}

/// Does so with one object.
///
/// # Safety
/// As dl_iterate_phdr(3) calls it.
unsafe extern "C" fn forget(object: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> c_int {
    // SAFETY: the C library passes an object that is loaded, with the table of its segments.
    let (base, segments) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    // SAFETY: sysconf takes a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    for segment in segments.iter().filter(|s| s.p_type == libc::PT_LOAD && s.p_flags & libc::PF_W == 0) {
        let begin = (base + segment.p_vaddr) / page * page;
        let end = (base + segment.p_vaddr + segment.p_memsz).next_multiple_of(page);
        // SAFETY: a segment that was never writable has nothing in memory that its file does not have, so what is dropped comes back as it
        // was, the code that runs here among it.
        unsafe { libc::madvise(begin as *mut libc::c_void, (end - begin) as usize, libc::MADV_DONTNEED) };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of files that are mapped now (proc_pid_status(5)).
    fn mapped() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("proc");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("RssFile");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Checked: without the call of madvise, this fails.
    #[test]
    fn what_is_not_used_again_stays_out_and_what_is_comes_back() {
        let text = (0..1000).map(|n| format!("{n:?} {:e}", f64::from(n))).collect::<String>();
        let before = mapped();
        drop_clean_pages();
        let after = mapped();
        assert!(after < before / 2, "{before} kB, then {after}");
        assert_eq!(text, (0..1000).map(|n| format!("{n:?} {:e}", f64::from(n))).collect::<String>());
    }
}
