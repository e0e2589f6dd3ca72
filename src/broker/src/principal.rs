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
}
