//! How a role gives everything up: the steps in order, each mandatory or optional. The only unsafe code of this crate.
//!
//! A mandatory step that fails ends the start. An optional one that this kernel or user cannot give is
//! reported in the role's hello and shown by the supervisor. SECURITY.md lists both.
//!
//! Order: [`Confinement::begin`] before any input; the role then takes what it needs (a key, a record, a policy);
//! [`Confinement::lock`] last. The filter is installed when nothing is left to do but serve. What a process keeps over an
//! exec is done before that, by the supervisor: signals of the terminal and the service manager are blocked there.

use crate::{args, hello::Hello};
use libc::{c_int, c_ulong};
use std::{fs, fs::File, io, io::Write, os::fd::FromRawFd, os::unix::fs::chroot, ptr};

/// The optional steps. One that is missing sets the bit `1 << step` of [`Hello::missing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optional {
    /// A session keyring of its own, so that the starter's keys are out of reach.
    SessionKeyring,
    /// User namespace (ordinary user).
    UserNamespace,
    /// Network, IPC, UTS and cgroup namespaces, all empty.
    Namespaces,
    /// Mount namespace with an empty root.
    EmptyRoot,
    /// Capability bounding set emptied.
    BoundingSet,
    /// Securebits locked (no root fixups, no ambient capabilities).
    SecureBits,
    /// Memory-deny-write-execute (Linux 6.3).
    Mdwe,
    /// Landlock, file system (ABI 1, Linux 5.13).
    LandlockFiles,
    /// Landlock, TCP (ABI 4, Linux 6.7).
    LandlockNetwork,
    /// Landlock, abstract sockets and signals (ABI 6, Linux 6.12).
    LandlockScopes,
    /// A holder's key lies in secret memory (memfd_secret(2)).
    SecretMemory,
    /// The kernel tells the broker a peer's cgroup (SO_PEERPIDFD, PIDFD_GET_INFO; Linux 6.13).
    CgroupIdentity,
}

/// What a role keeps.
pub struct Confinement {
    /// The supervisor's process id: the role dies with it.
    pub supervisor: u32,
    /// Uid and gid to become, when started as root.
    pub ids: Option<(u32, u32)>,
    /// Highest descriptor that stays open.
    pub highest_fd: u32,
    /// The broker's: RLIMIT_NOFILE, for its agents' connections. It also keeps stderr, which is its log, and the user namespace
    /// in which it sees its peers: in one of its own each would be 65534 (user_namespaces(7)).
    pub connections: Option<u64>,
    /// Whether RLIMIT_FSIZE is left.
    pub writes_files: bool,
    /// The compiled policy.
    pub filter: &'static [u64],
    /// Optional steps that could not be done so far.
    pub missing: u64,
}

impl Confinement {
    /// The first steps, before a role reads anything. The error names the step that failed.
    pub fn begin(&mut self) -> Result<(), String> {
        // Rust's runtime catches these two to report a stack overflow: no handler runs in a role.
        // SAFETY: SIG_DFL is no handler of ours.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        }
        must("descriptors", close_from(self.highest_fd + 1))?;
        must("core limit", limit(libc::RLIMIT_CORE, 0))?;
        must("non-dumpable", prctl(libc::PR_SET_DUMPABLE, 0))?;
        // SAFETY: a null name asks for a new session keyring without one (keyctl_join_session_keyring(3)).
        let joined = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0) };
        self.may(Optional::SessionKeyring, joined >= 0);
        Ok(())
    }

    /// Everything else, the filter last. The error names the step that failed.
    pub fn lock(&mut self) -> Result<(), String> {
        self.enter_namespaces();
        let mut known = (0..64).take_while(|capability| prctl(libc::PR_CAPBSET_READ, *capability));
        // The one after the last is invalid; any other error is not the end of them.
        let dropped = known.all(|capability| prctl(libc::PR_CAPBSET_DROP, capability));
        let ended = io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
        self.may(Optional::BoundingSet, dropped && ended);
        // SECBIT_NOROOT, NO_SETUID_FIXUP, KEEP_CAPS_LOCKED, NO_CAP_AMBIENT_RAISE and the locks (capabilities(7)).
        self.may(Optional::SecureBits, prctl(libc::PR_SET_SECUREBITS, 0xef));
        must("ambient set", prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong))?;
        if let Some((uid, gid)) = self.ids {
            // SAFETY: setgroups of zero groups reads no list; the others take numbers. Groups first, while it is still allowed.
            must("groups", unsafe { libc::setgroups(0, ptr::null()) } == 0)?;
            // SAFETY: likewise.
            must("gid", unsafe { libc::setresgid(gid, gid, gid) } == 0)?;
            // SAFETY: likewise.
            must("uid", unsafe { libc::setresuid(uid, uid, uid) } == 0)?;
        }
        let (header, none) = ([0x2008_0522_u32, 0], [0u32; 6]); // _LINUX_CAPABILITY_VERSION_3, this process; no capability
        // SAFETY: version 3 reads two words of header and six of data.
        must("capabilities", unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) } == 0)?;
        must("no_new_privs", prctl(libc::PR_SET_NO_NEW_PRIVS, 1))?;
        // Again, since a change of uid resets it, as it does the next (prctl(2)).
        must("non-dumpable", prctl(libc::PR_SET_DUMPABLE, 0))?;
        must("death with the supervisor", prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong))?;
        must("parent", std::os::unix::process::parent_id() == self.supervisor)?;
        self.may(Optional::Mdwe, prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN as c_ulong));
        must("process limit", limit(libc::RLIMIT_NPROC, 0))?;
        must("limit of locked memory", limit(libc::RLIMIT_MEMLOCK, 0))?;
        must("file size limit", self.writes_files || limit(libc::RLIMIT_FSIZE, 0))?;
        let held = LANDLOCK.iter().find(|refused| landlock(refused)).map_or(0, |refused| refused.len());
        self.may(Optional::LandlockFiles, held > 0);
        self.may(Optional::LandlockNetwork, held > 1);
        self.may(Optional::LandlockScopes, held > 2);
        must("descriptor limit", limit(libc::RLIMIT_NOFILE, self.connections.unwrap_or(0)))?;
        for fd in 0..if self.connections.is_some() { 2 } else { 3 } {
            // SAFETY: roles own their descriptors by number; no Rust object holds these.
            unsafe { libc::close(fd) };
        }
        let len = u16::try_from(self.filter.len()).unwrap_or(0);
        let program = libc::sock_fprog { len, filter: self.filter.as_ptr().cast_mut().cast() };
        let operation = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel copies `len` instructions of eight bytes from the constant and never writes to it.
        must("seccomp", unsafe { libc::syscall(libc::SYS_seccomp, operation, 0, &raw const program) } == 0)
    }

    /// Locks the process and says so on `to`, where the supervisor listens; ends it where either fails.
    pub fn complete(mut self, role: u8, public_key: [u8; 32], mut to: &File) {
        self.lock().unwrap_or_else(|why| args::fail(args::NOT_LOCKED, why));
        let hello = Hello { role, missing: self.missing, public_key };
        to.write_all(&hello.encode()).unwrap_or_else(|_| exit(0));
    }

    /// Notes whether an optional step was done.
    pub fn may(&mut self, step: Optional, done: bool) -> bool {
        self.missing |= u64::from(!done) << step as u32;
        done
    }

    /// Empty namespaces and an empty root, as far as this user may.
    fn enter_namespaces(&mut self) {
        let alone = self.ids.is_some()
            || self.connections.is_none() && self.may(Optional::UserNamespace, user_namespace().is_ok());
        let others = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
        self.may(Optional::Namespaces, alone && unshare(others));
        self.may(Optional::EmptyRoot, alone && unshare(libc::CLONE_NEWNS) && empty_root());
    }
}

/// The error of a mandatory step that was not done.
fn must(step: &str, done: bool) -> Result<(), String> {
    done.then_some(()).ok_or_else(|| format!("mandatory step '{step}' failed: {}", io::Error::last_os_error()))
}

/// A user namespace made in place, after exec: one made before would undo "non-dumpable" (ptrace(2)).
fn user_namespace() -> io::Result<()> {
    // SAFETY: take nothing, cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    // The kernel lets only a dumpable process write its own maps.
    if !unshare(libc::CLONE_NEWUSER) || !prctl(libc::PR_SET_DUMPABLE, 1) {
        return Err(io::Error::last_os_error());
    }
    let mapped = fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")));
    prctl(libc::PR_SET_DUMPABLE, 0);
    mapped
}

/// Makes an empty, read-only file system the root, after making every mount private to this mount namespace.
fn empty_root() -> bool {
    let (none, at, kind, options) = (ptr::null(), c"/proc".as_ptr(), c"tmpfs".as_ptr(), c"size=4k,nr_inodes=2,mode=0");
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: every string is a NUL-terminated constant; for MS_PRIVATE the other pointers may be null (mount(2)).
    let mounted = unsafe {
        libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, ptr::null()) == 0
            && libc::mount(kind, at, kind, flags, options.as_ptr().cast()) == 0
    };
    mounted && chroot("/proc").is_ok() && std::env::set_current_dir("/").is_ok()
}

/// Every access that an ABI knows, to be refused (landlock(7)): to files; TCP bind and connect; abstract sockets and signals.
/// The kernel refuses a list that it does not know, so the first it takes is its own: that of ABI 6, 5, 4, 3, 2, 1.
const LANDLOCK: [&[u64]; 6] = [&[0xffff, 3, 3], &[0xffff, 3], &[0x7fff, 3], &[0x7fff], &[0x3fff], &[0x1fff]];

/// Refuses the given accesses for ever. Open descriptors stay usable.
fn landlock(refused: &[u64]) -> bool {
    let size = size_of_val(refused);
    // SAFETY: `refused` is struct landlock_ruleset_attr's first words; the ruleset's descriptor, if there is one, is ours alone.
    unsafe {
        let ruleset = libc::syscall(libc::SYS_landlock_create_ruleset, refused.as_ptr(), size, 0);
        let held = ruleset >= 0 && libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) == 0;
        libc::close(ruleset as c_int);
        held
    }
}

/// prctl(2) operations of one number.
fn prctl(operation: c_int, value: c_ulong) -> bool {
    let none: c_ulong = 0;
    // SAFETY: the operations used here read or set a property of this process and touch no user memory.
    unsafe { libc::prctl(operation, value, none, none, none) >= 0 }
}

/// setrlimit(2), soft and hard.
fn limit(resource: libc::__rlimit_resource_t, to: u64) -> bool {
    // SAFETY: the rlimit is live for as long as the call takes.
    unsafe { libc::setrlimit(resource, &libc::rlimit { rlim_cur: to, rlim_max: to }) == 0 }
}

/// unshare(2).
fn unshare(namespaces: c_int) -> bool {
    // SAFETY: takes no pointer; roles have one thread.
    unsafe { libc::unshare(namespaces) == 0 }
}

/// close_range(2) of every descriptor from `first` up; false if it failed.
pub fn close_from(first: u32) -> bool {
    // SAFETY: takes no pointer; no Rust object owns a descriptor at this point of a role's start.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) == 0 }
}

/// A descriptor that the supervisor gave to this role. Each is taken once, by its number.
pub fn descriptor(number: i32) -> File {
    // SAFETY: roles own their descriptors by number, from 0 to the highest that they keep.
    unsafe { File::from_raw_fd(number) }
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
pub fn random(buf: &mut [u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one live mutable slice.
    let filled = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) };
    if filled == buf.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}
