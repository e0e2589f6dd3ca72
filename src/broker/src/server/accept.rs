//! New connections: who they are, whether there is room, and who gives way.

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::{AsRawFd, OwnedFd};

use super::{Client, LISTENER, Server};
use crate::alert::{Alert, Rank};
use crate::clock::Clock;
use crate::connection::Connection;
use crate::crowd::Stand;
use crate::principal::Principal;
use crate::reply::{Code, Error};
use crate::sys;

/// Connections accepted before those that are there have their turn.
const BATCH: usize = 32;
/// So many connections are a crowd: those to come will hardly come alone.
const MANY: usize = 256;

impl<C: Clock> Server<C> {
    /// A listening socket has somebody waiting.
    pub(super) fn accept(&mut self, index: usize) {
        for _ in 0..BATCH {
            if !self.accepting || self.parked.get(index).is_some_and(Option::is_some) {
                return;
            }
            if self.crowd.is_full() {
                match self.crowd.yielding_of_all(self.clock.now().boot) {
                    Some(oldest) => self.close(oldest),
                    None => return self.stop_accepting(),
                }
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
            Ok(who) => self.welcome(fd, who),
            // Whoever connected has ended (EINVAL before Linux 6.16). Nobody reads a reply, and agents choose how many of
            // these there are: they are counted.
            Err(Errno::ESRCH | Errno::EINVAL) => self.ended_before = self.ended_before.saturating_add(1),
            Err(e) => {
                let text = format!("The kernel does not say who you are: {e}");
                self.turn_away(&fd, index, None, &Error::new(Code::Forbidden, text));
            }
        }
    }

    pub(super) fn welcome(&mut self, fd: OwnedFd, who: Principal) {
        let now = self.clock.now();
        let index = usize::from(who.socket);
        let max_request = self.policy.sockets[index].max_request;
        if !who.may_connect(self.policy.sockets[index].peer_uids.as_deref()) {
            let text = format!("uid {} may not use this socket", who.uid);
            return self.turn_away(&fd, index, Some(who), &Error::new(Code::Forbidden, text));
        }
        if self.crowd.is_crowded(who) {
            // Others of this principal's have yet to be read in the next round, or are with the gate: a moment in the
            // backlog, neither an eviction nor a refusal.
            let soon =
                |server: &Self| server.draining.is_none() && (server.is_sated(who) || server.crowd.is_moving(who));
            let oldest = if self.is_sated(who) { None } else { self.longest_idle(who, now.boot) };
            match oldest {
                Some(oldest) => self.close(oldest),
                None if soon(self) => return self.park(fd, who),
                None => {
                    let text = format!("Too many connections: {} with requests in flight", self.crowd.connections(who));
                    return self.turn_away(&fd, index, Some(who), &Error::new(Code::Unavailable, text));
                }
            }
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

    /// Which of a principal's connections gives way. One whose request has come meanwhile does not.
    fn longest_idle(&mut self, who: Principal, now: u64) -> Option<u64> {
        for _ in 0..BATCH {
            let oldest = self.crowd.yielding(who, now)?;
            self.client_ready(oldest, EpollFlags::EPOLLIN);
            if self.crowd.yielding(who, now) == Some(oldest) {
                return Some(oldest);
            }
        }
        self.crowd.yielding(who, now)
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

    /// Keeps a connection for the next round, and accepts no other of its socket before.
    fn park(&mut self, fd: OwnedFd, who: Principal) {
        let index = usize::from(who.socket);
        self.parked[index] = Some((fd, who));
        if let Some(Some(listener)) = self.listeners.get(index) {
            let _ = self.epoll.delete(listener);
        }
    }

    /// Tries again to find places for those that are parked.
    pub(super) fn unpark(&mut self) {
        if !self.accepting {
            return;
        }
        for index in 0..self.parked.len() {
            if let Some((fd, who)) = self.parked[index].take() {
                self.listen(index);
                self.welcome(fd, who);
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
