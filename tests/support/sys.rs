//! With filters.rs, probe.rs and hijack/puppet.rs the only unsafe code of the tests: process set-up between fork and exec, descriptors, keyring calls.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A guard against hanging for ever; no test asserts how long anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A descriptor that becomes readable when process `pid` has ended.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A duplicate of a process's descriptor; takes root.
pub fn steal(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    let process = pidfd(pid)?;
    // SAFETY: pidfd_getfd takes three integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Kills the process behind a pidfd, and never another that got its number.
pub fn kill(pidfd: &OwnedFd) {
    // SAFETY: pidfd_send_signal without a siginfo takes integers only. It fails for a process that has ended.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, 0, 0) };
}

/// Waits until one of the descriptors is readable or hung up; the indices that are.
pub fn wait_any(fds: &[BorrowedFd]) -> Vec<usize> {
    poll_for(fds, PollTimeout::try_from(PATIENCE).unwrap())
}

/// The indices of those that are readable or hung up now.
pub fn ready(fds: &[BorrowedFd]) -> Vec<usize> {
    poll_for(fds, PollTimeout::ZERO)
}

fn poll_for(fds: &[BorrowedFd], timeout: PollTimeout) -> Vec<usize> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    poll(&mut polled, timeout).unwrap();
    let ready = |p: &PollFd| p.revents().is_some_and(|r| !r.is_empty());
    polled.iter().enumerate().filter(|(_, p)| ready(p)).map(|(i, _)| i).collect()
}

/// Whether nothing waits to be read from a socket now.
pub fn is_empty(socket: &impl AsRawFd) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which is live.
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &mut bytes) };
    bytes == 0
}

/// Two names change places in one step: nobody sees a moment in which one of them is missing.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?)
}

/// Makes this process the parent of what its children leave behind, so that it can wait for their ends.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
}

/// Has this done when the process exits by itself.
pub fn at_exit(deed: extern "C" fn()) {
    // SAFETY: a function that is there for as long as the process.
    assert_eq!(unsafe { libc::atexit(deed) }, 0);
}

/// The child dies with the thread that started it, whatever happens to the test.
pub fn die_with_us(command: &mut Command) {
    // SAFETY: prctl and getppid are async-signal-safe and touch no memory of ours.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// The child is in these groups beside its own (needs root).
pub fn with_groups(command: &mut Command, groups: &'static [libc::gid_t]) {
    // SAFETY: setgroups is async-signal-safe and reads a constant.
    unsafe {
        command.pre_exec(move || match libc::setgroups(groups.len(), groups.as_ptr()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// The child has none of root's capabilities: a process whose own are more cannot be traced without CAP_SYS_PTRACE.
pub fn without_capabilities(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and takes numbers only. It fails for an ordinary user, who has none.
    unsafe {
        command.pre_exec(|| {
            for capability in 0..64 {
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            Ok(())
        });
    }
}

/// Gives the child `fds` at the numbers named, and nothing else above 2 that is not its own.
pub fn give_fds(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) {
    // SAFETY: fcntl and dup2 are async-signal-safe; the closure owns the descriptors it duplicates.
    unsafe {
        command.pre_exec(move || {
            // First out of the targets' way, then to them: dup2 clears close-on-exec.
            let mut moved = [(-1, -1); 64];
            for (slot, (fd, target)) in moved.iter_mut().zip(&fds) {
                *slot = (libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 200), *target);
            }
            for (fd, target) in moved.iter().take(fds.len()) {
                if libc::dup2(*fd, *target) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Opens `count` junk descriptors in the child, from number `first` on, that survive exec.
pub fn give_junk(command: &mut Command, first: RawFd, count: i32) {
    // SAFETY: dup2 is async-signal-safe and takes integers only.
    unsafe {
        command.pre_exec(move || {
            for target in first..first + count {
                if libc::dup2(2, target) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// The child and all that it starts may have this many descriptors.
pub fn limit_descriptors(command: &mut Command, most: u64) {
    let both = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: runs between fork and exec, where setrlimit is safe to call; `both` is a copy.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &both) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// The child and all that it starts find `memfd_secret` missing, as on a kernel booted without it.
pub fn without_memfd_secret(command: &mut Command) {
    refusing(command, libc::SYS_memfd_secret, None, libc::ENOSYS);
}

/// The child and all that it starts cannot splice, as from /dev/urandom before 5.19.
pub fn without_splice(command: &mut Command) {
    refusing(command, libc::SYS_splice, None, libc::EINVAL);
}

/// The child and all that it starts find no SO_PEERPIDFD, as on a kernel before 6.5.
pub fn without_peer_pidfd(command: &mut Command) {
    refusing(command, libc::SYS_getsockopt, Some((2, libc::SO_PEERPIDFD as u64)), libc::ENOPROTOOPT);
}

/// The child and all that it starts have SO_PEERPIDFD, but no PIDFD_GET_INFO, as on a kernel before 6.13.
pub fn without_pidfd_info(command: &mut Command) {
    refusing(command, libc::SYS_ioctl, Some((1, 0xC040_FF0B)), libc::ENOTTY);
}

/// In the child and all that it starts, this call, where this argument of it is this, fails.
fn refusing(command: &mut Command, call: i64, argument: Option<(u8, u64)>, errno: i32) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};
    use seccompiler::{SeccompFilter, SeccompRule};
    let errno = SeccompAction::Errno(errno as u32);
    let rule = |(index, value)| {
        let equal = SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
        SeccompRule::new(vec![equal]).unwrap()
    };
    let rules = [(call, argument.map(rule).into_iter().collect())].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).unwrap().try_into().unwrap();
    // SAFETY: applying a ready filter makes two prctl/seccomp calls and allocates nothing.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&filter).map_err(|_| io::Error::last_os_error()));
    }
}

/// Before it becomes its program, the child enters the cgroup of `procs`, if any, connects to `socket` so many times and
/// passes each connection over `to`.
pub fn connect_and_pass(command: &mut Command, procs: Option<PathBuf>, socket: PathBuf, to: UnixStream, times: usize) {
    // SAFETY: files and sockets are plain system calls; the allocator is usable after fork under glibc.
    unsafe {
        command.pre_exec(move || {
            if let Some(procs) = &procs {
                std::fs::write(procs, "0")?;
            }
            (0..times).try_for_each(|_| pass_one(&socket, &to))
        });
    }
}

/// Before it becomes its program, the child enters one cgroup after the other, connects to `socket` from each and passes the connection
/// over `to`, where it then waits for a byte.
pub fn connect_from_each(command: &mut Command, procs: Vec<PathBuf>, socket: PathBuf, to: UnixStream) {
    // SAFETY: likewise.
    unsafe {
        command.pre_exec(move || {
            procs.iter().try_for_each(|procs| {
                std::fs::write(procs, "0")?;
                pass_one(&socket, &to)?;
                (&to).read_exact(&mut [0])
            })
        });
    }
}

fn pass_one(socket: &Path, to: &UnixStream) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let connection = UnixStream::connect(socket)?;
    let passed = [connection.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&passed)];
    sendmsg::<()>(to.as_raw_fd(), &[io::IoSlice::new(b"c")], &rights, MsgFlags::empty(), None)?;
    Ok(())
}

/// The connection that somebody passes over `from`.
pub fn passed(from: &UnixStream) -> UnixStream {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let (mut byte, mut space) = ([0], nix::cmsg_space!([RawFd; 1]));
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    let fd = message.cmsgs().unwrap().find_map(|item| match item {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just put this descriptor into our table, for us alone.
    unsafe { UnixStream::from_raw_fd(fd.expect("a descriptor came along")) }
}

/// The child gets a session keyring of its own, in which `key` lies under `description`.
pub fn give_keyring(command: &mut Command, description: &'static str, key: Vec<u8>) {
    use linux_keyutils::{KeyRing, KeyRingIdentifier};
    let failed = |_| io::Error::other("keyring");
    // SAFETY: the keyring calls are plain system calls; the allocator is usable after fork under glibc.
    unsafe {
        command.pre_exec(move || {
            // keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL): a new anonymous session keyring.
            if libc::syscall(libc::SYS_keyctl, 1, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            let user = KeyRing::from_special_id(KeyRingIdentifier::User, true).map_err(failed)?;
            let session = KeyRing::from_special_id(KeyRingIdentifier::Session, false).map_err(failed)?;
            session.link_keyring(user).map_err(failed)?;
            user.add_key(description, &key).map_err(failed)?;
            Ok(())
        });
    }
}

/// Raises the limit of open descriptors to the hard limit; the number it then is.
pub fn raise_nofile() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}
