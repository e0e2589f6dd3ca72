//! The system calls of the trusted base, each a thin safe function: the only unsafe code of this crate.
//!
//! Errors are errno values. Nothing here allocates, and nothing retries: no role installs a signal handler.

use libc::{c_int, c_long, c_ulong};

/// errno of a failed call.
pub type Result<T> = core::result::Result<T, i32>;

fn errno() -> i32 {
    // SAFETY: __errno_location always points at this thread's errno.
    unsafe { *libc::__errno_location() }
}

fn check(r: c_long) -> Result<usize> {
    usize::try_from(r).map_err(|_| errno())
}

/// read(2) into the whole of `buf`'s room.
pub fn read(fd: i32, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: the pointer and the length are those of one live mutable slice.
    check(unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) } as c_long)
}

/// write(2) of `buf`; may be short.
pub fn write(fd: i32, buf: &[u8]) -> Result<usize> {
    // SAFETY: the pointer and the length are those of one live slice.
    check(unsafe { libc::write(fd, buf.as_ptr().cast(), buf.len()) } as c_long)
}

/// pread(2) at `offset` bytes from the file's start.
pub fn pread(fd: i32, buf: &mut [u8], offset: u64) -> Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| libc::EOVERFLOW)?;
    // SAFETY: the pointer and the length are those of one live mutable slice.
    check(unsafe { libc::pread(fd, buf.as_mut_ptr().cast(), buf.len(), offset) } as c_long)
}

/// pwrite(2) at `offset` bytes from the file's start; may be short.
pub fn pwrite(fd: i32, buf: &[u8], offset: u64) -> Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| libc::EOVERFLOW)?;
    // SAFETY: the pointer and the length are those of one live slice.
    check(unsafe { libc::pwrite(fd, buf.as_ptr().cast(), buf.len(), offset) } as c_long)
}

/// Size of an open file in bytes (lseek(2) to its end).
pub fn size(fd: i32) -> Result<u64> {
    // SAFETY: lseek takes no pointer.
    check(unsafe { libc::lseek(fd, 0, libc::SEEK_END) }).map(|n| n as u64)
}

/// close(2).
pub fn close(fd: i32) {
    // SAFETY: roles own their descriptors by number; no Rust object holds the ones closed here.
    unsafe { libc::close(fd) };
}

/// _exit(2): no destructor, no atexit handler, nothing that the filter would kill.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// clock_gettime(2) in nanoseconds, for CLOCK_REALTIME since 1970, for CLOCK_BOOTTIME since the boot.
pub fn clock(id: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a live timespec; the ids used exist on every kernel since 2.6.39.
    unsafe { libc::clock_gettime(id, &mut t) };
    (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
}

/// getrandom(2): fills `buf` from the kernel's generator, blocking until it is seeded.
pub fn random(buf: &mut [u8]) -> Result<()> {
    // SAFETY: the pointer and the length are those of one live mutable slice.
    let n = check(unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) } as c_long)?;
    if n == buf.len() { Ok(()) } else { Err(libc::EIO) }
}

/// keyctl(2) operations that take numbers only.
pub fn keyctl(op: u32, a: c_long, b: c_long) -> Result<usize> {
    // SAFETY: callers use operations whose arguments are key serials (KEYCTL_LINK, UNLINK, REVOKE) or a null
    // name (KEYCTL_JOIN_SESSION_KEYRING): the kernel reads no user memory through them.
    check(unsafe { libc::syscall(libc::SYS_keyctl, op, a, b) })
}

/// KEYCTL_SEARCH for a key of type `user`; the key's serial number.
pub fn key_search(keyring: c_long, description: &core::ffi::CStr) -> Result<c_long> {
    // SAFETY: both strings are NUL-terminated and live; destination 0 links the key nowhere.
    let r = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SEARCH, keyring, c"user".as_ptr(), description.as_ptr(), 0)
    };
    check(r).map(|serial| serial as c_long)
}

/// KEYCTL_READ: the payload's length, of which as much as fits is in `buf`.
pub fn key_read(key: c_long, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: the pointer and the length are those of one live mutable slice.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_READ, key, buf.as_mut_ptr(), buf.len()) })
}

/// prctl(2) operations that take numbers only.
pub(crate) fn prctl(op: c_int, a: c_ulong, b: c_ulong) -> Result<usize> {
    // SAFETY: the lock uses operations that set a property of this process and read no user memory.
    check(unsafe { libc::prctl(op, a, b, 0 as c_ulong, 0 as c_ulong) } as c_long)
}

/// setrlimit(2), soft and hard.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, to: u64) -> Result<usize> {
    let both = libc::rlimit { rlim_cur: to, rlim_max: to };
    // SAFETY: `both` is a live rlimit.
    check(unsafe { libc::setrlimit(resource, &both) } as c_long)
}

/// close_range(2) of every descriptor from `first` up.
pub fn close_from(first: u32) -> Result<usize> {
    // SAFETY: takes no pointer; no Rust object owns a descriptor at this point of a role's start.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })
}

/// Ignores SIGPIPE, catches nothing, and blocks the signals that a terminal or a service manager sends to a whole group:
/// the supervisor alone decides when a role ends.
pub(crate) fn mute_signals() -> Result<usize> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; SIG_IGN and SIG_DFL are no handlers of ours.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in
            [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP, libc::SIGUSR1, libc::SIGUSR2]
        {
            libc::sigaddset(&mut set, signal);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        // Rust's runtime catches these two to report a stack overflow: no handler runs in a role.
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        check(libc::sigprocmask(libc::SIG_SETMASK, &set, core::ptr::null_mut()) as c_long)
    }
}

/// getppid(2).
pub(crate) fn parent() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getppid() }
}

/// getuid(2) and getgid(2).
pub(crate) fn ids() -> (u32, u32) {
    // SAFETY: take nothing, cannot fail.
    unsafe { (libc::getuid(), libc::getgid()) }
}

/// unshare(2).
pub(crate) fn unshare(flags: c_int) -> Result<usize> {
    // SAFETY: takes no pointer; roles have one thread.
    check(unsafe { libc::unshare(flags) } as c_long)
}

/// Makes every mount private to this mount namespace.
pub(crate) fn mounts_private() -> Result<usize> {
    let none = core::ptr::null();
    // SAFETY: the target is a NUL-terminated constant; the other pointers may be null for MS_PRIVATE (mount(2)).
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) } as c_long)
}

/// Mounts an empty, read-only file system over /proc and makes it the root.
pub(crate) fn empty_root() -> Result<usize> {
    let (at, kind, options) = (c"/proc".as_ptr(), c"tmpfs".as_ptr(), c"size=4k,nr_inodes=2,mode=0".as_ptr());
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: every string is a NUL-terminated constant.
    unsafe {
        check(libc::mount(kind, at, kind, flags, options.cast()) as c_long)?;
        check(libc::chroot(at) as c_long)?;
        check(libc::chdir(c"/".as_ptr()) as c_long)
    }
}

/// setgroups(2) to none, then setresgid(2) and setresuid(2): groups first, while it is still allowed.
pub(crate) fn become_user(uid: u32, gid: u32) -> Result<usize> {
    // SAFETY: setgroups of zero groups reads no list; the others take numbers.
    unsafe {
        check(libc::setgroups(0, core::ptr::null()) as c_long)?;
        check(libc::setresgid(gid, gid, gid) as c_long)?;
        check(libc::setresuid(uid, uid, uid) as c_long)
    }
}

/// capset(2): permitted, effective and inheritable all empty.
pub(crate) fn drop_capabilities() -> Result<usize> {
    let header = [0x2008_0522_u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this process
    let none = [0u32; 6];
    // SAFETY: version 3 reads two words of header and six of data.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })
}

/// Landlock (landlock(7)): the ABI the kernel has.
pub(crate) fn landlock_abi() -> Result<usize> {
    let none = core::ptr::null::<u64>();
    // SAFETY: with a null attribute and size 0, flag 1 only asks for the version.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, 1u32) })
}

/// Handles the given accesses and allows none of them, for ever.
pub(crate) fn landlock_deny(attr: &[u64]) -> Result<usize> {
    // SAFETY: `attr` is struct landlock_ruleset_attr's first `len` words; the ruleset's descriptor is ours alone.
    unsafe {
        let ruleset =
            check(libc::syscall(libc::SYS_landlock_create_ruleset, attr.as_ptr(), size_of_val(attr), 0u32))? as i32;
        let restricted = check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0u32));
        libc::close(ruleset);
        restricted
    }
}

/// Whether the kernel can end a process for a refused call (SECCOMP_GET_ACTION_AVAIL).
pub(crate) fn seccomp_kill_available() -> Result<usize> {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the operation reads one live u32.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0u32, &raw const action) })
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER. `filter` holds `struct sock_filter` words.
pub(crate) fn seccomp(filter: &'static [u64]) -> Result<usize> {
    let len = u16::try_from(filter.len()).map_err(|_| libc::EINVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions of eight bytes from the constant and never writes to it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0u32, &raw const program) })
}
