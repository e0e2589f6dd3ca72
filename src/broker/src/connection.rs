//! One client: its bytes in, its one reply out, and what it is waiting for.
//!
//! Moves bytes and keeps times; never decides anything.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::frame::Framer;
use crate::principal::Principal;
use crate::request::Call;

/// What a connection is doing.
pub enum State {
    /// Between requests, or in the middle of one.
    Reading,
    /// Its request waits for a slot.
    Waiting {
        /// The request.
        call: Box<Call>,
    },
    /// Its event is with the gate.
    Signing {
        /// Bytes of memory that the event holds.
        weight: usize,
    },
    /// Its errand waits for a key: of the ECDH holder, or for its turn there.
    Agreeing {
        /// Bytes of memory that the errand holds.
        weight: usize,
    },
    /// Its reply is not taken whole yet.
    Replying,
    /// Answered for the last time: what it still sends is discarded.
    Lingering {
        /// When it is closed at the latest (CLOCK_BOOTTIME, ms).
        until: u64,
    },
}

/// What a read brought.
pub enum Input {
    /// This many bytes, pushed to the framer.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The client has ended its side, or is gone.
    End,
}

/// A client's connection.
pub struct Connection {
    fd: OwnedFd,
    /// Who connected.
    pub who: Principal,
    /// Bytes that are not answered.
    pub framer: Framer,
    /// What it is doing.
    pub state: State,
    /// Whether the client has ended its side.
    pub ended: bool,
    /// Whether the reply under way is the last.
    pub last: bool,
    /// Whether requests are buffered that have not had their turn: nothing more is read until they have.
    pub backlog: bool,
    /// Whether to wait for the rest of an oversized request before closing.
    pub linger: bool,
    /// When the request under way began; `None` between requests.
    pub began: Option<u64>,
    /// When a byte last came, or the connection last became idle.
    pub heard: u64,
    out: Vec<u8>,
    sent: usize,
}

impl Connection {
    /// A new client. `fd`: non-blocking.
    pub fn new(fd: OwnedFd, who: Principal, max_request: usize, now: u64) -> Connection {
        Connection {
            fd,
            who,
            framer: Framer::new(max_request),
            state: State::Reading,
            ended: false,
            last: false,
            backlog: false,
            linger: false,
            began: None,
            heard: now,
            out: Vec::new(),
            sent: 0,
        }
    }

    /// Whether it has sent nothing and is owed nothing.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Reading) && self.began.is_none() && self.framer.is_empty()
    }

    /// Bytes of memory it holds.
    pub fn weight(&self) -> usize {
        let event = match &self.state {
            State::Signing { weight } | State::Agreeing { weight } => *weight,
            State::Waiting { call } => call.weight(),
            _ => 0,
        };
        self.framer.weight() + self.out.capacity() + event
    }

    /// Receives once into `buffer` and from there into the framer.
    pub fn receive(&mut self, buffer: &mut [u8], now: u64) -> Input {
        match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => self.end(),
            Ok(n) => {
                self.heard = now;
                if !matches!(self.state, State::Lingering { .. }) {
                    self.framer.push(&buffer[..n]);
                }
                // The next bytes may be fewer, and these somebody's text.
                buffer[..n].fill(0);
                Input::Bytes(n)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Input::Nothing,
            Err(_) => self.end(),
        }
    }

    fn end(&mut self) -> Input {
        self.ended = true;
        Input::End
    }

    /// Starts a reply: one line.
    pub fn reply(&mut self, line: String) {
        self.out = line.into_bytes();
        self.out.push(b'\n');
        self.sent = 0;
        self.state = State::Replying;
    }

    /// Sends what the socket takes. True once the reply is out whole; an error if the client is gone.
    pub fn send(&mut self) -> Result<bool, Errno> {
        while self.sent < self.out.len() {
            match send(self.fd.as_raw_fd(), &self.out[self.sent..], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        self.out = Vec::new();
        Ok(true)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Next;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    #[test]
    fn what_is_buffered_is_no_idleness() {
        let (ours, _theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_NONBLOCK).expect("a pair");
        let who = Principal { socket: 0, uid: 1, cgroup: None };
        let mut connection = Connection::new(ours, who, 100, 0);
        assert!(connection.is_idle());
        connection.framer.push(b"{}\n{}\n");
        assert!(!connection.is_idle());
        assert!(matches!(connection.framer.next(false), Next::Request { .. }));
        assert!(!connection.is_idle(), "one answered, one to come");
        assert!(matches!(connection.framer.next(false), Next::Request { .. }));
        assert_eq!(connection.framer.next(false), Next::More);
        assert!(connection.is_idle());
    }
}
