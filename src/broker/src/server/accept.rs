//! New connections: who they are, whether there is room, and who gives way.

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::{AsRawFd, OwnedFd};

use super::{Client, LISTENER, Server};
use crate::alert::{Alert, Rank};
use crate::clock::Clock;
use crate::connection::Connection;
use crate::crowd::{Crowd, Stand};
use crate::principal::Principal;
use crate::reply::{Code, Error};
use crate::sys;

/// Connections accepted before those that are there have their turn.
const BATCH: usize = 32;
/// Milliseconds that a connection waits for a place, and keeps those behind it waiting.
const HOLD: u64 = 500;
/// Milliseconds that none of the same principal's does then: what it has at work does not end.
const HURRY: u64 = 30_000;
/// So many connections are a crowd: those to come will hardly come alone.
const MANY: usize = 256;

/// A connection that waits for a place.
pub(super) struct Parked {
    fd: OwnedFd,
    who: Principal,
    since: u64,
}

impl Parked {
    /// When it has waited long enough.
    pub(super) fn due(&self) -> u64 {
        self.since + HOLD
    }
}

impl<C: Clock> Server<C> {
    /// A listening socket has somebody waiting.
    pub(super) fn accept(&mut self, index: usize) {
        for _ in 0..BATCH {
            if !self.accepting || self.parked.get(index).is_some_and(Option::is_some) {
                return;
            }
            let Some(Some(listener)) = self.listeners.get(index) else { return };
            match sys::accept(listener) {
                // One a round: to look for another costs as much as being told of it, and most come alone. In a crowd somebody waits
                // behind those that come, and is served the sooner the sooner they are through.
                Ok(fd) if self.clients.len() < MANY => return self.identify(fd, index),
                Ok(fd) => self.identify(fd, index),
                Err(Errno::EAGAIN) => return,
                // Gone before it was accepted.
                Err(Errno::ECONNABORTED | Errno::EINTR) => {}
                // No descriptors, no memory: those that wait stay in the backlog.
                Err(e) => {
                    log::warn!("accept: {e}: accepting again when a connection ends");
                    return self.stop_accepting();
                }
            }
        }
    }

    /// Asks the kernel who connected, once; a peer that it cannot name is nobody's principal, and refused.
    fn identify(&mut self, fd: OwnedFd, index: usize) {
        let socket = u16::try_from(index).unwrap_or(u16::MAX);
        match Principal::of(&fd, socket, self.with_cgroup, &mut self.last_peer) {
            Ok(who) => self.welcome(fd, who, None),
            // Whoever connected has ended (EINVAL before Linux 6.16). Nobody reads a reply, and agents choose how many of
            // these there are: they are counted.
            Err(Errno::ESRCH | Errno::EINVAL) => self.ended_before = self.ended_before.saturating_add(1),
            Err(e) => {
                let text = format!("The kernel does not say who you are: {e}");
                self.turn_away(&fd, index, None, &Error::new(Code::Forbidden, text));
            }
        }
    }

    /// `since`: when it began to wait for a place.
    pub(super) fn welcome(&mut self, fd: OwnedFd, who: Principal, since: Option<u64>) {
        let now = self.clock.now();
        let index = usize::from(who.socket);
        let max_request = self.policy.sockets[index].max_request;
        if !who.may_connect(self.policy.sockets[index].peer_uids.as_deref()) {
            let text = format!("uid {} may not use this socket", who.uid);
            return self.turn_away(&fd, index, Some(who), &Error::new(Code::Forbidden, text));
        }
        let crowded = self.crowd.is_crowded(who);
        if crowded || self.crowd.is_full() {
            let oldest = match crowded {
                // Others of this principal's have yet to be read in the next round.
                true if self.is_sated(who) => None,
                true => self.longest_idle(|crowd| crowd.yielding(who, now.boot)),
                false => self.longest_idle(|crowd| crowd.yielding_to(who, now.boot)),
            };
            let Some(oldest) = oldest else { return self.put_aside(fd, who, since) };
            self.abandon(oldest);
            self.close(oldest);
        }
        let id = self.next_client;
        self.next_client += 1;
        if self.epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, id)).is_err() {
            return;
        }
        let stand = Stand::Idle(now.boot);
        self.crowd.join(id, who, stand);
        let connection = Connection::new(fd, who, max_request, now.boot);
        self.clients.insert(id, Client::new(connection, stand));
        if self.clients.len() < MANY {
            // Most clients have sent their request by now.
            self.client_ready(id, EpollFlags::EPOLLIN);
        } else {
            // Those behind it first: epoll tells of its request in the next round.
            self.file(id);
        }
    }

    /// The connection that gives way. One whose request has come meanwhile does not.
    fn longest_idle(&mut self, yielding: impl Fn(&Crowd) -> Option<u64>) -> Option<u64> {
        for _ in 0..BATCH {
            let oldest = yielding(&self.crowd)?;
            self.client_ready(oldest, EpollFlags::EPOLLIN);
            if yielding(&self.crowd) == Some(oldest) {
                return Some(oldest);
            }
        }
        yielding(&self.crowd)
    }

    /// One line and the end; a new socket's buffer takes it.
    fn turn_away(&mut self, fd: &OwnedFd, index: usize, who: Option<Principal>, error: &Error) {
        let now = self.clock.now();
        self.note_turned_away(index, who, "connect", error, now);
        let line = error.line() + "\n";
        let _ = send(fd.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        // Taken, so that the client reads the line and an end of file rather than a reset.
        let _ = nix::sys::socket::recv(fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT);
        let alert = Alert {
            method: "connect",
            verb: "rejected",
            text: &error.text,
            kind: None,
            token: None,
            rank: Rank::Common,
        };
        self.alert(index, &alert, now);
    }

    fn stop_accepting(&mut self) {
        if std::mem::replace(&mut self.accepting, false) {
            for listener in self.listeners.iter().flatten() {
                let _ = self.epoll.delete(listener);
            }
        }
    }

    pub(super) fn resume_accepting(&mut self) {
        self.accepting = true;
        for index in 0..self.listeners.len() {
            self.listen(index);
        }
        self.unpark();
    }

    fn listen(&mut self, index: usize) {
        let Some(Some(listener)) = self.listeners.get(index) else { return };
        // It may be registered already.
        let _ = self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER | index as u64));
    }

    /// Keeps a connection until there is a place for it, and accepts no other of its socket meanwhile: a moment in the backlog, neither an
    /// eviction nor a refusal. If none comes free it is refused, and for a while whatever else its principal has too many: who sends
    /// without end keeps nobody out.
    fn put_aside(&mut self, fd: OwnedFd, who: Principal, since: Option<u64>) {
        let (index, now) = (usize::from(who.socket), self.clock.now().boot);
        let since = since.unwrap_or(now);
        let crowded = self.crowd.is_crowded(who);
        let soon = !crowded || self.is_sated(who) || self.crowd.is_moving(who);
        if soon && self.draining.is_none() && !self.crowd.is_hurried(who, now) {
            if now < since + HOLD {
                self.parked[index] = Some(Parked { fd, who, since });
                if let Some(Some(listener)) = self.listeners.get(index) {
                    let _ = self.epoll.delete(listener);
                }
                return;
            }
            self.crowd.hurry(who, now + HURRY);
        }
        let (count, whose) = match crowded {
            true => (self.crowd.connections(who), ""),
            false => (self.crowd.count(), " in all"),
        };
        let text = format!("Too many connections: {count}{whose} with requests in flight");
        self.turn_away(&fd, index, Some(who), &Error::new(Code::Unavailable, text));
    }

    /// Tries again to find places for those that are parked.
    pub(super) fn unpark(&mut self) {
        if !self.accepting {
            return;
        }
        for index in 0..self.parked.len() {
            if let Some(Parked { fd, who, since }) = self.parked[index].take() {
                self.listen(index);
                self.welcome(fd, who, Some(since));
            }
        }
    }

    /// Accepts no more, answers who waits, takes what has been sent, closes who is idle, and lets the rest finish.
    pub(super) fn drain(&mut self) {
        let now = self.clock.now();
        self.stop_accepting();
        self.stop_operators();
        self.draining = Some(now.boot + super::DRAIN);
        self.eaten.clear();
        let all: Vec<u64> = self.clients.keys().copied().collect();
        for id in all {
            match self.clients.get(&id).map(|c| c.stand) {
                Some(Stand::Idle(_) | Stand::Partial(_)) => {
                    self.client_ready(id, EpollFlags::EPOLLIN);
                    match self.clients.get(&id).map(|c| c.stand) {
                        // Its request may be on the way: most come within microseconds of the connection.
                        Some(Stand::Idle(heard)) if now.boot < heard + super::SILENCE => {
                            self.set_due(id, Some(heard + super::SILENCE));
                        }
                        None | Some(Stand::Busy | Stand::Moving) => {}
                        Some(_) => self.close(id),
                    }
                }
                _ => self.give_up_waiting(id, now),
            }
        }
    }
}
