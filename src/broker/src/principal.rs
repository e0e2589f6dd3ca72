//! Who asks: what the kernel says of a connection, read once when it is accepted.
//!
//! Nothing in a request can name or change a principal. SO_PEERCRED describes the process that connected: a client
//! that hands its connection to another process hands over its identity (threats.md B10).

use std::fmt;

/// The uid that the kernel shows for a peer whose user namespace does not map here; it could be anyone.
pub const UNMAPPED: u32 = 65534;

/// A listening socket and the peer's uid. The unit of windows, caps and session ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// Index of the socket in the policy.
    pub socket: u16,
    /// The peer's uid at connect.
    pub uid: u32,
}

impl Principal {
    /// Whether this peer may connect at all; `listed`: the socket's `peer_uids`.
    pub fn may_connect(self, listed: Option<&[u32]>) -> bool {
        self.uid != UNMAPPED && listed.is_none_or(|uids| uids.contains(&self.uid))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} on socket {}", self.uid, self.socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmapped_peer_is_refused_even_where_it_is_listed() {
        let of = |uid| Principal { socket: 0, uid };
        assert!(of(1000).may_connect(None));
        assert!(of(1000).may_connect(Some(&[1000])));
        assert!(!of(0).may_connect(Some(&[1000])));
        assert!(!of(UNMAPPED).may_connect(None));
        assert!(!of(UNMAPPED).may_connect(Some(&[UNMAPPED])));
    }
}
