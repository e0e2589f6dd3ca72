//! Requests that wait for a slot (`on_limit = "wait 20s"`): who waits, until when, whose turn it is, when to try again.
//!
//! One line per principal, first come first served. On each socket the uids have their turns one after the other, and
//! so have the principals of one uid: neither many requests nor many cgroups gain a turn over another uid. Whoever
//! comes stands at the back; leaving and coming again gains nothing, and nobody has to be remembered who does not wait.
//! Pure: times (CLOCK_BOOTTIME, ms) are arguments. The requests themselves stay with their connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::principal::Principal;
use crate::table::Table;

/// Requests of one principal that may wait at a time.
pub const MAX_WAITING: usize = 64;
/// Requests of one uid that may wait on one socket at a time, in whatever cgroups.
pub const MAX_OF_UID: usize = 256;

/// One principal's waiting connections.
struct Line {
    /// Connection, end of its patience.
    waiting: VecDeque<(u64, u64)>,
    /// When its head is tried next.
    retry: u64,
    /// When it last had its turn, or came; a count, not a time.
    turn: u64,
}

/// A uid that waits.
struct Uid {
    waiting: usize,
    turn: u64,
}

/// One socket's lines.
#[derive(Default)]
struct Room {
    lines: Table<Principal, Line>,
    uids: Table<u32, Uid>,
    /// (retry, line)
    retries: BTreeSet<(u64, Principal)>,
    /// Nobody is due before.
    held: u64,
}

impl Room {
    fn set_retry(&mut self, who: Principal, retry: u64) {
        if let Some(line) = self.lines.get_mut(&who) {
            self.retries.remove(&(line.retry, who));
            line.retry = retry;
            self.retries.insert((retry, who));
        }
    }
}

/// The lines of all sockets, of connections named by number.
#[derive(Default)]
pub struct Queues {
    rooms: BTreeMap<u16, Room>,
    /// (end of patience, connection, whose)
    patience: BTreeSet<(u64, u64, Principal)>,
    /// Counts what gives a place in the turn: coming, and being served.
    turns: u64,
}

impl Queues {
    /// Whether a new request that may wait has to stand behind others.
    pub fn is_busy(&self, who: Principal) -> bool {
        self.head(who).is_some()
    }

    /// Sockets with somebody waiting.
    pub fn sockets(&self) -> Vec<u16> {
        self.rooms.keys().copied().collect()
    }

    /// Stands at the end of its principal's line, until its patience ends; `false` if there are too many already.
    /// A new line is due at once: its first try finds out what it waits for.
    pub fn join(&mut self, who: Principal, id: u64, until: u64) -> bool {
        let room = self.rooms.entry(who.socket).or_default();
        let of_uid = room.uids.get(&who.uid).map_or(0, |uid| uid.waiting);
        let of_line = room.lines.get(&who).map_or(0, |line| line.waiting.len());
        if of_line >= MAX_WAITING || of_uid >= MAX_OF_UID {
            return false;
        }
        self.turns += 1;
        let turn = self.turns;
        room.uids.entry(who.uid).or_insert(Uid { waiting: 0, turn }).waiting += 1;
        let new = || Line { waiting: VecDeque::new(), retry: 0, turn };
        room.lines.entry(who).or_insert_with(new).waiting.push_back((id, until));
        if of_line == 0 {
            room.retries.insert((0, who));
        }
        self.patience.insert((until, id, who));
        true
    }

    /// Leaves the line, wherever it stands. Whoever is first instead is due at once: it may wait for another window.
    pub fn leave(&mut self, who: Principal, id: u64) {
        let Some(room) = self.rooms.get_mut(&who.socket) else { return };
        let Some(line) = room.lines.get_mut(&who) else { return };
        let Some(at) = line.waiting.iter().position(|(other, _)| *other == id) else { return };
        if let Some((_, until)) = line.waiting.remove(at) {
            self.patience.remove(&(until, id, who));
        }
        if line.waiting.is_empty() {
            room.retries.remove(&(line.retry, who));
            room.lines.remove(&who);
        } else if at == 0 {
            room.set_retry(who, 0);
        }
        if let Some(uid) = room.uids.get_mut(&who.uid) {
            uid.waiting -= 1;
            if uid.waiting == 0 {
                room.uids.remove(&who.uid);
            }
        }
        if room.lines.is_empty() {
            self.rooms.remove(&who.socket);
        }
    }

    /// Who is first in a line.
    pub fn head(&self, who: Principal) -> Option<u64> {
        self.rooms.get(&who.socket)?.lines.get(&who)?.waiting.front().map(|(id, _)| *id)
    }

    /// Whose turn it is on a socket, of those that are due: the uid that has had none for longest, its principal that
    /// has had none for longest, the first in that line. To be asked again after each: a turn changes the order.
    pub fn turn(&self, socket: u16, now: u64) -> Option<(Principal, u64)> {
        let room = self.rooms.get(&socket).filter(|room| room.held <= now)?;
        let due = room.retries.iter().take_while(|(retry, _)| *retry <= now).map(|(_, who)| *who);
        let turns = |who: &Principal| Some((room.uids.get(&who.uid)?.turn, room.lines.get(who)?.turn));
        let who = due.min_by_key(turns)?;
        Some((who, self.head(who)?))
    }

    /// A principal has had its turn: it goes to the back, and its uid with it.
    pub fn served(&mut self, who: Principal) {
        self.turns += 1;
        let Some(room) = self.rooms.get_mut(&who.socket) else { return };
        let uid = room.uids.get_mut(&who.uid).map(|uid| &mut uid.turn);
        let line = room.lines.get_mut(&who).map(|line| &mut line.turn);
        uid.into_iter().chain(line).for_each(|turn| *turn = self.turns);
    }

    /// The head's try came to nothing: the line's own windows are full until then.
    pub fn rest(&mut self, who: Principal, until: u64) {
        if let Some(room) = self.rooms.get_mut(&who.socket) {
            room.set_retry(who, until);
        }
    }

    /// The socket's total is used up until then: nobody's try would come to anything.
    pub fn hold(&mut self, socket: u16, until: u64) {
        if let Some(room) = self.rooms.get_mut(&socket) {
            room.held = until;
        }
    }

    /// A slot of this principal's came back: it, and whoever on its socket waits for the total, is due at once.
    pub fn wake(&mut self, who: Principal) {
        if let Some(room) = self.rooms.get_mut(&who.socket) {
            room.held = 0;
            room.set_retry(who, 0);
        }
    }

    /// A request whose patience is over.
    pub fn over(&self, now: u64) -> Option<(Principal, u64)> {
        self.patience.first().filter(|(until, ..)| *until <= now).map(|(_, id, who)| (*who, *id))
    }

    /// When somebody is to be tried, or the first patience ends.
    pub fn next(&self) -> Option<u64> {
        let tries = self.rooms.values().filter_map(|room| room.retries.first().map(|(retry, _)| room.held.max(*retry)));
        tries.chain(self.patience.first().map(|(until, ..)| *until)).min()
    }
}

#[cfg(test)]
mod tests;
