//! The supervisor's only unsafe code: fork and exec, taking descriptors that were inherited by number, and words in shared memory.
//!
//! Must never run in a process with a second thread (fork would copy its locks) once the supervisor is up,
//! and a child must not return: it executes a role, until which it must not allocate either, or leaves with _exit.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU32;

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, accept4, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

/// What a terminal or a service manager sends to a whole group of processes, and whoever may signal a role: blocked in
/// roles, since the supervisor alone decides when one ends.
const OF_A_GROUP: [c_int; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP, libc::SIGUSR1, libc::SIGUSR2];

/// Forks and executes the program behind `image` with `argv`, an empty environment, in a session of its own,
/// those signals blocked, SIGPIPE ignored and every other one at its default. The n-th of `fds` is the child's descriptor n; it gets no other.
///
/// # Errors
/// What pipe2, fork, or a step of the child answered; a child that could not execute has been reaped.
pub fn fork_exec(image: BorrowedFd, argv: &[CString], fds: &[BorrowedFd]) -> io::Result<Pid> {
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC)?;
    // All the child's memory is laid out before the fork.
    let mut pointers: Vec<*const c_char> = argv.iter().map(|a| a.as_ptr()).collect();
    pointers.push(ptr::null());
    let mut raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();

    // SAFETY: the supervisor has one thread, so no lock is held by a thread that the child lacks; the child
    // calls only `child`, which makes async-signal-safe calls on memory laid out above and never returns.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        0 => child(image.as_raw_fd(), &pointers, &mut raw, report_end.as_raw_fd()),
        _ => {}
    }
    drop(report_end);
    let mut errno = [0; 4];
    match io::Read::read_exact(&mut File::from(report), &mut errno) {
        Ok(()) => {
            let _ = waitpid(Pid::from_raw(pid), None);
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
        }
        // The close-on-exec end is gone without a word: the role is running.
        Err(_) => Ok(Pid::from_raw(pid)),
    }
}

/// A child that answers; it ends when this does.
pub struct Answering {
    /// Packets to and from it. Closed before the child's end is waited for: fields are dropped in their order.
    pub channel: OwnedFd,
    _child: Reaped,
}

struct Reaped(Pid);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = waitpid(self.0, None);
    }
}

/// Has a child answer as `serve` does: what that loads and keeps goes with it. It is to end when the other end is closed.
///
/// # Errors
/// socketpair's, fork's.
pub fn in_a_child(serve: impl FnOnce(&OwnedFd)) -> io::Result<Answering> {
    let (channel, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the supervisor has one thread, so no lock is held by a thread that the child lacks (of its own ones the C library
    // takes care where there are more, as in tests); the child leaves by _exit and never returns from here.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(channel);
            serve(&theirs);
            // SAFETY: takes a number, does not return.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(Answering { channel, _child: Reaped(Pid::from_raw(pid)) }),
    }
}

/// The child between fork and exec. `argv` ends with a null pointer.
fn child(image: RawFd, argv: &[*const c_char], fds: &mut [RawFd], report: RawFd) -> ! {
    let count = fds.len() as c_int;
    let failed = |report: RawFd| -> ! {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
        // SAFETY: `errno` is 4 readable bytes; _exit ends the child without running the parent's exit handlers
        // or destructors, which would remove the parent's sockets.
        unsafe {
            libc::write(report, errno.as_ptr().cast(), errno.len());
            libc::_exit(127)
        }
    };
    // SAFETY: every call below takes plain numbers or pointers to memory that the parent laid out before the
    // fork (`argv` is null-terminated, `none` is a null pointer: an empty environment; a zeroed sigaction is
    // SIG_DFL with no flags and an empty mask). Descriptors are overwritten on purpose: this is the child's own
    // table, whose Rust owners live in the parent's memory and are never dropped here.
    unsafe {
        // First above every target, so that no dup2 overwrites a source that is still needed.
        for fd in fds.iter_mut() {
            *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, count);
            if *fd < 0 {
                failed(report);
            }
        }
        let image = libc::fcntl(image, libc::F_DUPFD_CLOEXEC, count);
        let high = libc::fcntl(report, libc::F_DUPFD_CLOEXEC, count);
        if image < 0 || high < 0 {
            failed(report);
        }
        let report = high;
        for (target, fd) in fds.iter().enumerate() {
            if libc::dup2(*fd, target as c_int) < 0 {
                failed(report);
            }
        }
        if libc::close_range(count as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as c_int) < 0 || libc::setsid() < 0 {
            failed(report);
        }
        // Ignored signals stay ignored over an exec: Rust's runtime ignores SIGPIPE, a parent may others.
        let default: libc::sigaction = std::mem::zeroed();
        for signal in 1..=64 {
            libc::sigaction(signal, &default, ptr::null_mut());
        }
        // Both are kept over the exec.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        for signal in OF_A_GROUP {
            libc::sigaddset(&mut mask, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
        let none: [*const c_char; 1] = [ptr::null()];
        libc::syscall(libc::SYS_execveat, image, c"".as_ptr(), argv.as_ptr(), none.as_ptr(), libc::AT_EMPTY_PATH);
    }
    failed(report)
}

/// A descriptor that becomes readable when the child ends. `pid` must be a child not yet reaped, so that the
/// number cannot have passed to another process.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers; a non-negative answer is a new descriptor that nothing else owns.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as RawFd)),
        }
    }
}

/// The next connection to a listening socket, close-on-exec and non-blocking.
pub fn accept(listener: BorrowedFd) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // SAFETY: the kernel has just made this descriptor for us, nothing else owns it.
    accept4(listener.as_raw_fd(), flags).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Inherited descriptors by the number they had.
pub type Inherited = BTreeMap<RawFd, OwnedFd>;

/// Takes the inherited descriptors `wanted`, as far as they are open, and closes every other above 2. Called once,
/// before the process opens anything of its own: a number that the starter left free must not be taken for what
/// we opened there. Standard input, if wanted, is replaced by /dev/null, so that no later file gets its number.
pub fn take_inherited(wanted: &[RawFd]) -> io::Result<Inherited> {
    let mut high: Vec<RawFd> = wanted.iter().copied().filter(|&fd| fd > 2).collect();
    high.sort_unstable();
    high.dedup();
    let mut from = 3;
    for until in high.iter().map(|&fd| fd as u32).chain([u32::MAX]) {
        // SAFETY: plain numbers. Nothing in this process owns a descriptor above 2 yet: the caller's promise.
        if from < until && unsafe { libc::close_range(from, until - 1, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        from = until.saturating_add(1);
    }
    let mut taken = Inherited::new();
    for fd in high {
        // SAFETY: setting a flag on a number that is not open fails; one that is open was inherited, `high` names it
        // once, and by the caller's promise no Rust value owns it.
        unsafe {
            if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0 {
                taken.insert(fd, OwnedFd::from_raw_fd(fd));
            }
        }
    }
    if wanted.contains(&0) {
        taken.insert(0, io::stdin().as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    }
    Ok(taken)
}

/// Gives up every capability but those in `keep` (a bit for each, capabilities(7)), for this process and, as far
/// as CAP_SETPCAP allows, for what it executes.
pub fn keep_capabilities(keep: u64) -> io::Result<()> {
    for capability in (0..64).filter(|c| keep >> c & 1 == 0) {
        // SAFETY: plain numbers; a capability that this kernel does not know, or that is gone, is an error we pass.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) };
    }
    let header = [0x2008_0522u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this process
    let mut data = [0u32; 6]; // effective, permitted, inheritable for capabilities 0 to 31, then for the rest
    // SAFETY: version 3 reads two words of header and writes, then reads, six words of data.
    unsafe {
        if libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        for (half, words) in data.chunks_mut(3).enumerate() {
            let mask = (keep >> (32 * half)) as u32;
            words[1] &= mask;
            words[0] = words[1];
            words[2] = 0;
        }
        match libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// What Landlock holds this process to.
pub struct Landlock {
    /// No TCP (ABI 4, Linux 6.7).
    pub network: bool,
    /// No abstract socket and no signal outside (ABI 6, Linux 6.12).
    pub scopes: bool,
}

/// Refuses what Landlock can refuse beside files, as far as this kernel's has it (landlock(7)).
pub fn landlock_without_files() -> Landlock {
    // struct landlock_ruleset_attr: files, TCP bind and connect, abstract sockets and signals. A kernel refuses what it does not know.
    let held = [&[0u64, 3, 3][..], &[0, 3]].into_iter().find(|attr| {
        // SAFETY: the first call reads `attr`, which is live; the ruleset's descriptor, if there is one, is ours alone.
        unsafe {
            let size = size_of_val(*attr);
            let ruleset = libc::syscall(libc::SYS_landlock_create_ruleset, attr.as_ptr(), size, 0);
            let held = ruleset >= 0 && libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) == 0;
            libc::close(ruleset as c_int);
            held
        }
    });
    Landlock { network: held.is_some(), scopes: held.is_some_and(|attr| attr.len() == 3) }
}

/// PR_SET_MDWE: no memory that was writable becomes executable, here and in what is executed from here.
pub fn refuse_writable_code() -> bool {
    let none: libc::c_ulong = 0;
    // SAFETY: sets a property of this process, touches no memory.
    unsafe { libc::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN as libc::c_ulong, none, none, none) == 0 }
}

/// Installs a compiled policy, `struct sock_filter` words, for this process and all that it starts.
pub fn install_filter(filter: &'static [u64]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions of eight bytes from the constant and never writes to it.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A word of memory that other processes may have mapped as well.
#[derive(Debug)]
pub struct SharedWord(ptr::NonNull<AtomicU32>);

impl SharedWord {
    /// Maps the first word of `memory`, which must be sealed against shrinking or be ours alone until it is.
    ///
    /// # Errors
    /// mmap(2)'s.
    pub fn map(memory: BorrowedFd) -> io::Result<SharedWord> {
        let (size, access) = (size_of::<AtomicU32>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let at = unsafe { libc::mmap(ptr::null_mut(), size, access, libc::MAP_SHARED, memory.as_raw_fd(), 0) };
        match ptr::NonNull::new(at.cast()) {
            Some(word) if at != libc::MAP_FAILED => Ok(SharedWord(word)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl std::ops::Deref for SharedWord {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        // SAFETY: mapped until `self` is dropped, at a page's start and so aligned, for reading and writing; other processes go at
        // it by atomic operations only.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference outlives the value.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<AtomicU32>()) };
    }
}
