//! One client: its bytes in, its replies out in the order of its requests, and what it is waiting for.
//!
//! Moves bytes and keeps times; never decides anything.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::frame::Framer;
use crate::principal::Principal;
use crate::request::Call;

/// Replies that a connection may be owed at a time: so many of its events may be with the gate. More would gain little, and others' events
/// wait behind them.
const OWED: usize = 8;
/// Bytes that a client has not taken, from which on none of its requests is decided before all before it are answered and taken.
const UNREAD: usize = 64 * 1024;

/// What a connection is doing.
pub enum State {
    /// Between requests, or in the middle of one.
    Reading,
    /// Its request waits for a slot.
    Waiting {
        /// The request.
        call: Box<Call>,
    },
    /// Its event is with the gate; of an agent's own events several may be, and replies are owed.
    Signing {
        /// Bytes of memory that the event holds, if no reply in turn is owed for it.
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

/// The reply to a request behind which others have been decided, or to one of those.
struct Owed {
    /// Once it is known.
    line: Option<String>,
    /// Bytes of memory that the event holds.
    weight: usize,
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
    /// A request that is decided when no reply is owed any more.
    pub next: Option<Box<Call>>,
    /// Replies to come, in the order of their requests, and how many there were before them.
    owed: VecDeque<Owed>,
    settled: u64,
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
            next: None,
            owed: VecDeque::new(),
            settled: 0,
            out: Vec::new(),
            sent: 0,
        }
    }

    /// Whether it has sent nothing and is owed nothing.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Reading) && self.began.is_none() && !self.has_more()
    }

    /// Whether something has come that is not answered or passed over.
    pub fn has_more(&self) -> bool {
        self.next.is_some() || !self.framer.is_empty()
    }

    /// Whether a reply is owed that others have to wait for.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Whether a request may be decided though replies are owed to those before it.
    pub fn looks_ahead(&self) -> bool {
        let room = self.owed.len() < OWED && self.out.len() - self.sent < UNREAD;
        self.owes() && room && self.next.is_none() && !self.last
    }

    /// Bytes of memory it holds.
    pub fn weight(&self) -> usize {
        let event = match &self.state {
            State::Signing { weight } | State::Agreeing { weight } => *weight,
            State::Waiting { call } => call.weight(),
            _ => 0,
        };
        let owed = self.owed.iter().map(|owed| owed.weight + owed.line.as_ref().map_or(0, String::capacity));
        let next = self.next.as_ref().map_or(0, |call| call.weight());
        self.framer.weight() + self.out.capacity() + event + next + owed.sum::<usize>()
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

    /// Replies to the request that has just been taken: one line, behind what is owed.
    pub fn reply(&mut self, line: String) {
        if self.owes() {
            return self.owed.push_back(Owed { line: Some(line), weight: 0 });
        }
        self.put(line);
        self.state = State::Replying;
    }

    /// The request that has just been taken has an event at the gate, which holds so much memory: the place of its reply.
    pub fn owe(&mut self, weight: usize) -> u64 {
        self.owed.push_back(Owed { line: None, weight });
        self.state = State::Signing { weight: 0 };
        self.settled + self.owed.len() as u64 - 1
    }

    /// The reply at that place: it goes out when all before it are known.
    pub fn settle(&mut self, place: u64, line: String) {
        let index = place.checked_sub(self.settled).and_then(|index| usize::try_from(index).ok());
        let Some(owed) = index.and_then(|index| self.owed.get_mut(index)) else { return };
        *owed = Owed { line: Some(line), weight: 0 };
        while let Some(line) = self.owed.front_mut().and_then(|first| first.line.take()) {
            self.owed.pop_front();
            self.settled += 1;
            self.put(line);
        }
        if !self.owes() {
            self.state = State::Replying;
        }
    }

    /// Appends a line to what is to be sent.
    fn put(&mut self, line: String) {
        match self.out.is_empty() {
            true => self.out = line.into_bytes(),
            false => self.out.extend_from_slice(line.as_bytes()),
        }
        self.out.push(b'\n');
    }

    /// Sends what the socket takes. True once what was put is out whole; an error if the client is gone.
    pub fn send(&mut self) -> Result<bool, Errno> {
        while self.sent < self.out.len() {
            match send(self.fd.as_raw_fd(), &self.out[self.sent..], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        (self.out, self.sent) = (Vec::new(), 0);
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

    /// A connection, and its client's end.
    fn connected() -> (Connection, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_NONBLOCK).expect("a pair");
        (Connection::new(ours, Principal { socket: 0, uid: 1, cgroup: None }, 100, 0), theirs)
    }

    #[test]
    fn what_is_buffered_is_no_idleness() {
        let (mut connection, _theirs) = connected();
        assert!(connection.is_idle());
        connection.framer.push(b"{}\n{}\n");
        assert!(!connection.is_idle());
        assert!(matches!(connection.framer.next(false), Next::Request { .. }));
        assert!(!connection.is_idle(), "one answered, one to come");
        assert!(matches!(connection.framer.next(false), Next::Request { .. }));
        assert_eq!(connection.framer.next(false), Next::More);
        assert!(connection.is_idle());
    }

    /// Events that could not be kept are refused before those that are with the gate are signed.
    ///
    /// Checked: with a reply put out at once in `settle`, this fails.
    #[test]
    fn replies_go_out_in_the_order_of_their_requests_whenever_they_come() {
        let (mut connection, theirs) = connected();
        let sent = |connection: &mut Connection| {
            assert_eq!(connection.send(), Ok(true));
            let mut text = [0; 100];
            let n = recv(theirs.as_raw_fd(), &mut text, MsgFlags::empty()).unwrap_or(0);
            String::from_utf8_lossy(&text[..n]).into_owned()
        };
        let places: Vec<u64> = (0..3).map(|_| connection.owe(1000)).collect();
        connection.reply("four".into());
        connection.settle(places[1], "two".into());
        assert_eq!((sent(&mut connection), connection.weight() >= 2000), (String::new(), true));
        connection.settle(places[0], "one".into());
        assert_eq!(sent(&mut connection), "one\ntwo\n");
        assert!(matches!(connection.state, State::Signing { .. }));
        connection.settle(places[2], "three".into());
        assert!(matches!(connection.state, State::Replying));
        assert_eq!((sent(&mut connection).as_str(), connection.weight()), ("three\nfour\n", 0));
        // None of these is owed any more.
        connection.settle(places[2], "again".into());
        assert_eq!((connection.owe(0), sent(&mut connection)), (4, String::new()));
    }
}
