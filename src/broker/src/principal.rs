//! Who asks: what the kernel says of a connection, read once when it is accepted.
//!
//! Nothing in a request can name or change a principal, and nothing here reads /proc, where a number may already belong
//! to another process. The kernel's words are of the process that connected: a client that hands its connection to
//! another process hands over its identity (SECURITY.md, B10).

use std::fmt;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt::PeerCredentials};

use serde::{Deserialize, Serialize};

use crate::sys;

/// The uid that the kernel shows for a peer whose user namespace does not map here; it could be anyone.
pub const UNMAPPED: u32 = 65534;

/// A listening socket, the peer's uid and its cgroup. The unit of windows, caps and session ownership.
///
/// The journal writes it as `[socket, uid, cgroup]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u16, u32, Option<u64>)", into = "(u16, u32, Option<u64>)")]
pub struct Principal {
    /// Index of the socket in the policy.
    pub socket: u16,
    /// The peer's uid at connect.
    pub uid: u32,
    /// The id of the peer's cgroup in the unified hierarchy, when it was accepted; `None` for all peers alike where the
    /// kernel does not tell.
    pub cgroup: Option<u64>,
}

/// The process that made the connection that was accepted last: of which socket, its number here and its pidfd. To be forgotten when another
/// listening socket gets that socket's number.
///
/// The kernel is asked anew for each connection: the uid at connect, the cgroup now. Only the pidfd by which the cgroup is asked for may be
/// that of the connection before, since making one costs more than all the rest. That is so where both have the same number and the process
/// still has not been reaped, which the kernel says as it answers: connections are accepted in the order in which they were made, so the one
/// before was made first, and its process has had its number without a break from then until now. A number alone would be a guess: another
/// process may have got it meanwhile. Must never use a pidfd from one listening socket for another, which have no order between them, and
/// never keep more than one: descriptors are counted.
pub struct Peer {
    socket: u16,
    number: i32,
    process: OwnedFd,
}

/// In place of a socket's index: the admin socket. Who connects there is the operator, and no principal of any agent socket.
pub const ADMIN: u16 = u16::MAX;

/// All principals of one uid on one socket: (socket, uid).
pub type User = (u16, u32);

/// Whether this kernel tells the cgroup of a peer, tried on a socket pair of our own.
///
/// # Errors
/// Neither yes nor no: the answer says nothing about peers to come, and they must not be taken for one another.
pub fn cgroups_are_told() -> nix::Result<bool> {
    let (ours, _theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    match sys::peer_process(&ours).and_then(|process| sys::cgroup_of(&process)) {
        Ok(_) => Ok(true),
        // Before Linux 6.5, before 6.13 (ENOTTY or EINVAL), and without CONFIG_CGROUPS.
        Err(Errno::ENOPROTOOPT | Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

impl Principal {
    /// Who made `connection`, which the listening socket with the number `socket` has accepted: to be asked of each, before the next is
    /// accepted. `with_cgroup`: what [`cgroups_are_told`] found; `last`: who made the connection that was accepted before, of whichever
    /// socket, whose place this one takes.
    ///
    /// # Errors
    /// The kernel's. ESRCH: the process that connected has ended. EREMOTE: it is outside our PID namespace.
    pub fn of(connection: &OwnedFd, socket: u16, with_cgroup: bool, last: &mut Option<Peer>) -> nix::Result<Principal> {
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

    /// Who is at the other end of `fd`, which the admin socket accepted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn operator(fd: &OwnedFd) -> nix::Result<Principal> {
        Ok(Principal { socket: ADMIN, uid: getsockopt(fd, PeerCredentials)?.uid(), cgroup: None })
    }

    /// In place of a starter: of what the operator has issued for a socket. No peer has this uid (chown(2) takes it for "none").
    pub fn issuer(socket: u16) -> Principal {
        Principal { socket, uid: u32::MAX, cgroup: None }
    }

    /// Whether this stands for the operator as a session's starter.
    pub fn is_issuer(self) -> bool {
        self.uid == u32::MAX
    }

    /// Whether the connection came over the admin socket.
    pub fn is_operator(self) -> bool {
        self.socket == ADMIN
    }

    /// Whether this peer may use the admin socket: root, and the user that nsecd runs as, if that is somebody.
    pub fn may_administer(self, own: u32) -> bool {
        self.uid == 0 || self.uid == own && own != UNMAPPED
    }

    /// The socket and the uid, whatever the cgroup: a uid may be able to make itself new ones.
    pub fn user(self) -> User {
        (self.socket, self.uid)
    }

    /// Whether this peer may connect at all; `listed`: the socket's `peer_uids`.
    pub fn may_connect(self, listed: Option<&[u32]>) -> bool {
        self.uid != UNMAPPED && !self.is_issuer() && listed.is_none_or(|uids| uids.contains(&self.uid))
    }
}

impl From<(u16, u32, Option<u64>)> for Principal {
    fn from((socket, uid, cgroup): (u16, u32, Option<u64>)) -> Principal {
        Principal { socket, uid, cgroup }
    }
}

impl From<Principal> for (u16, u32, Option<u64>) {
    fn from(who: Principal) -> Self {
        (who.socket, who.uid, who.cgroup)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cgroup {
            Some(cgroup) => write!(f, "uid {} in cgroup {cgroup} on socket {}", self.uid, self.socket),
            None => write!(f, "uid {} on socket {}", self.uid, self.socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    /// Checked: with `own != UNMAPPED` taken out this fails.
    #[test]
    fn only_root_and_nsecds_own_user_are_the_operator() {
        let of = |uid| Principal { socket: ADMIN, uid, cgroup: None };
        for (peer, own, may) in
            [(0, 0, true), (0, 1000, true), (1000, 1000, true), (1000, 0, false), (1001, 1000, false)]
        {
            assert_eq!(of(peer).may_administer(own), may, "{peer} of {own}");
        }
        assert!(!of(UNMAPPED).may_administer(UNMAPPED), "anybody of another user namespace");
    }

    #[test]
    fn an_unmapped_peer_is_refused_even_where_it_is_listed() {
        let of = |uid| Principal { socket: 0, uid, cgroup: None };
        assert!(of(1000).may_connect(None));
        assert!(of(1000).may_connect(Some(&[1000])));
        assert!(!of(0).may_connect(Some(&[1000])));
        assert!(!of(UNMAPPED).may_connect(None));
        assert!(!of(UNMAPPED).may_connect(Some(&[UNMAPPED])));
    }

    #[test]
    fn a_log_line_shows_the_cgroup_where_there_is_one() {
        let of = |cgroup| Principal { socket: 2, uid: 1000, cgroup }.to_string();
        assert_eq!(of(Some(4711)), "uid 1000 in cgroup 4711 on socket 2");
        assert_eq!(of(None), "uid 1000 on socket 2");
    }

    /// Other processes, and a number that another one has got, are for tests/sessions/cgroups.rs.
    #[test]
    fn a_process_that_connects_again_is_asked_for_by_the_pidfd_that_is_there() {
        let told = cgroups_are_told().expect("yes or no");
        let name = format!("nsecd-listener-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a listener");
        let mut last = None;
        let mut once = |socket| {
            let _client = UnixStream::connect_addr(&address).expect("it listens");
            let connection = OwnedFd::from(listener.accept().expect("one waits").0);
            let who = Principal::of(&connection, socket, told, &mut last).expect("we live");
            (who, last.as_ref().map(|last| last.process.as_raw_fd()))
        };
        let (first, again, other) = (once(0), once(0), once(1));
        assert_eq!((first, first.0.cgroup.is_some()), (again, told));
        assert!(!told || other.1 != again.1, "another socket has no order with this one");
    }
}
