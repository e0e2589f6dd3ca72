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

/// accept4(2): non-blocking, close-on-exec.
pub fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4 has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
