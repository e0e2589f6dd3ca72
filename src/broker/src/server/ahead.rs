//! How much of one principal's a gate may have before it at a time: another's event does not wait behind all that one has sent.
//!
//! A gate works off its events in turn. Whoever has enough of them there is not read on, over none of its connections, and goes on as the
//! replies come, connection after connection in the order in which they were put off. Must never put off a principal that has nothing
//! there: nothing would call it again.

use std::collections::VecDeque;

use nix::sys::epoll::EpollFlags;

use super::batch::Asking;
use super::{Client, Job, Server};
use crate::clock::Clock;
use crate::connection::State;
use crate::principal::Principal;

/// Bytes of events, from which on no more are asked for.
const ENOUGH: usize = 128 * 1024;
/// What each counts beside its bytes: a signature takes as long as they do.
const SIGNATURE: usize = 4 * 1024;

/// What a principal has at the gates.
#[derive(Default)]
pub(super) struct Ahead {
    bytes: usize,
    /// Its connections that were put off.
    behind: VecDeque<u64>,
}

impl<C: Clock> Server<C> {
    /// Counts an event that is going to its gate.
    pub(super) fn send_ahead(&mut self, asking: &mut Asking) {
        asking.job.weight = asking.canonical.len() + SIGNATURE;
        self.ahead.entry(asking.job.who).or_default().bytes += asking.job.weight;
    }

    /// Whether a principal has enough there. The operator never has.
    pub(super) fn is_ahead(&self, who: Principal) -> bool {
        !who.is_operator() && self.ahead.get(&who).is_some_and(|ahead| ahead.bytes >= ENOUGH)
    }

    /// Puts a connection off until replies have come.
    pub(super) fn stay_behind(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.connection.backlog = true;
        if !std::mem::replace(&mut client.behind, true) {
            self.ahead.entry(client.connection.who).or_default().behind.push_back(id);
        }
        self.file(id);
    }

    /// One that is put off is not read; if it has hung up, that is not reported again and again.
    pub(super) fn stays_behind(&mut self, id: u64, events: EpollFlags) -> bool {
        let behind = |client: &&mut Client| client.behind && matches!(client.connection.state, State::Reading);
        let Some(client) = self.clients.get_mut(&id).filter(behind) else { return false };
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            let _ = self.epoll.delete(&client.connection);
            client.interest = None;
        }
        true
    }

    /// An event has its reply, or was never sent: those who were put off go on as far as there is room.
    pub(super) fn come_back(&mut self, job: &Job) {
        let who = job.who;
        if let Some(ahead) = self.ahead.get_mut(&who) {
            ahead.bytes = ahead.bytes.saturating_sub(job.weight);
        }
        while !self.is_ahead(who) {
            let Some(ahead) = self.ahead.get_mut(&who) else { return };
            let Some(id) = ahead.behind.pop_front() else {
                if ahead.bytes == 0 {
                    self.ahead.remove(&who);
                }
                return;
            };
            if let Some(client) = self.clients.get_mut(&id) {
                client.behind = false;
                self.advance(id);
            }
        }
    }
}
