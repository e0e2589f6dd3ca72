//! The calls for which nix has no safe form: the only unsafe code of the broker.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockFlag, accept4, recvmsg};

/// Takes the descriptor `fd` of the broker's table as one's own.
///
/// Descriptors are named by the policy and each is taken once.
pub fn take(fd: i32) -> OwnedFd {
    // SAFETY: the supervisor's policy names each descriptor once, and start-up takes each named one once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Bytes from which on a block of memory is mapped for itself.
const LARGE: libc::c_int = 64 * 1024;

/// Makes malloc give large blocks back to the kernel as soon as they are freed: else one small block above them, for which no flood
/// is needed, keeps all that a flood has taken.
pub fn give_back_large_blocks() {
    // SAFETY: mallopt takes two numbers; no other thread runs, and where they are not taken all stays as it is.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
}

/// Has malloc give the pages back that lie free among blocks in use.
pub fn give_back_what_is_free() {
    // SAFETY: malloc_trim takes a number and touches nothing that is allocated.
    unsafe { libc::malloc_trim(0) };
}

/// accept4(2): non-blocking, close-on-exec.
pub fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4 has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// PIDFD_GET_INFO of linux/pidfd.h: `_IOWR(0xFF, 11, struct pidfd_info)`. The size of the struct is in the number; 64 bytes
/// are its first version, and every later kernel answers that.
const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
/// The bit of its `mask` that asks for `cgroupid`, and in the answer says that it is there.
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;

/// A pidfd of the process that connected: the one that the socket has kept, and no number that another process could have got meanwhile.
pub fn peer_process(socket: &OwnedFd) -> nix::Result<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    let mut size = size_of_val(&pidfd) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, those of `pidfd`, and `size` itself; both live until it returns.
    let result = unsafe {
        let value = (&raw mut pidfd).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERPIDFD, value, &raw mut size)
    };
    Errno::result(result)?;
    // SAFETY: getsockopt succeeded, so the kernel has just put this descriptor into our table, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// The id of the cgroup, in the unified hierarchy, that a process is in now.
pub fn cgroup_of(process: &OwnedFd) -> nix::Result<u64> {
    // struct pidfd_info: mask, cgroupid, then twelve 32-bit fields.
    let mut info: [u64; 8] = [PIDFD_INFO_CGROUPID, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the request's number names 64 bytes to read and write, which is `info`, aligned as the struct's u64 fields.
    Errno::result(unsafe { libc::ioctl(process.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) })?;
    let [mask, cgroup, ..] = info;
    // A kernel without cgroups answers, but not this.
    if mask & PIDFD_INFO_CGROUPID == 0 { Err(Errno::EOPNOTSUPP) } else { Ok(cgroup) }
}

/// One packet from the supervisor and the descriptor that came along, if one did.
pub fn receive(control: &OwnedFd, packet: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(packet)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(control.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut taken = None;
    for item in message.cmsgs().map_err(|_| Errno::EMSGSIZE)? {
        if let ControlMessageOwned::ScmRights(fds) = item {
            for fd in fds {
                // SAFETY: the kernel has just put this descriptor into our table, for us alone.
                taken = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, taken))
}
