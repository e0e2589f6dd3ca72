//! A listening socket, and who is at the other end of what it accepts.
//!
//! The kernel is asked anew for each connection: the uid at connect, the cgroup now. Only the pidfd by which the cgroup is asked for may be
//! that of the connection before, since making one costs more than all the rest. That is so where both have the same number and the process
//! still has not been reaped, which the kernel says as it answers: connections are accepted in the order in which they were made, so the one
//! before was made first, and its process has had its number without a break from then until now. A number alone would be a guess: another
//! process may have got it meanwhile. Must never use a pidfd from one listening socket for another, which have no order between them, and
//! never keep more than one: descriptors are counted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::principal::Principal;
use crate::sys;

/// The process that made the connection that was accepted last: of which socket, its number here and its pidfd. To be forgotten when another
/// listening socket gets that socket's number.
pub struct Peer {
    socket: u16,
    number: i32,
    process: OwnedFd,
}

/// A listening socket, non-blocking.
pub struct Listener(OwnedFd);

impl Listener {
    /// This one.
    pub fn new(fd: OwnedFd) -> Listener {
        Listener(fd)
    }

    /// The next connection.
    ///
    /// # Errors
    /// accept4(2)'s. EAGAIN: there is none.
    pub fn accept(&self) -> nix::Result<OwnedFd> {
        sys::accept(&self.0)
    }

    /// Who made the connection that [`accept`](Listener::accept) has just returned: to be asked of each, before the next is accepted.
    /// `socket`: this one's number; `with_cgroup`: what [`cgroups_are_told`](crate::principal::cgroups_are_told) found; `last`: who made
    /// the connection that was accepted before, of whichever socket, whose place this one takes.
    ///
    /// # Errors
    /// The kernel's. ESRCH: the process that connected has ended. EREMOTE: it is outside our PID namespace.
    pub fn identify(
        connection: &OwnedFd,
        socket: u16,
        with_cgroup: bool,
        last: &mut Option<Peer>,
    ) -> nix::Result<Principal> {
        let credentials = getsockopt(connection, PeerCredentials)?;
        let (number, uid) = (credentials.pid(), credentials.uid());
        if !with_cgroup {
            return Ok(Principal { socket, uid, cgroup: None });
        }
        let known = match last {
            // 0: a process that has no number here.
            Some(last) if (last.socket, last.number) == (socket, number) && number > 0 => sys::cgroup_of(&last.process),
            _ => Err(Errno::ESRCH),
        };
        let cgroup = known.or_else(|_| {
            let process = sys::peer_process(connection)?;
            let cgroup = sys::cgroup_of(&process);
            *last = Some(Peer { socket, number, process });
            cgroup
        })?;
        Ok(Principal { socket, uid, cgroup: Some(cgroup) })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::cgroups_are_told;
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    /// Other processes, and a number that another one has got, are for tests/sessions/cgroups.rs.
    #[test]
    fn a_process_that_connects_again_is_asked_for_by_the_pidfd_that_is_there() {
        let told = cgroups_are_told().expect("yes or no");
        let name = format!("nsecd-listener-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        let listener = Listener::new(UnixListener::bind_addr(&address).expect("a listener").into());
        let mut last = None;
        let mut once = |socket| {
            let _client = UnixStream::connect_addr(&address).expect("it listens");
            let connection = listener.accept().expect("one waits");
            let who = Listener::identify(&connection, socket, told, &mut last).expect("we live");
            (who, last.as_ref().map(|last| last.process.as_raw_fd()))
        };
        let (first, again, other) = (once(0), once(0), once(1));
        assert_eq!((first, first.0.cgroup.is_some()), (again, told));
        assert!(!told || other.1 != again.1, "another socket has no order with this one");
    }
}
