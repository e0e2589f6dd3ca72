//! Who holds how many connections and how many bytes, and who gives way when there are too many.
//!
//! At a principal's cap its oldest idle connection goes, then its longest-stalled half request, then a reply that it
//! has not taken for long; a request that is complete never does. At the cap in all the principal with most gives way,
//! and if all its requests are complete, one of them to who has less than half as many: else two that send without end
//! would have all places for good.
//! No step looks at more than one connection of a principal, however many there are.

use std::collections::BTreeSet;

use crate::principal::Principal;
use crate::table::Table;

/// Bytes that each connection holds free of charge.
pub const FREE: usize = 16 * 1024;
/// Bytes that one principal may hold beyond that.
const PER_PRINCIPAL: usize = 8 * 1024 * 1024;
/// Bytes that all may hold beyond that.
const IN_ALL: usize = 64 * 1024 * 1024;
/// Bytes by which what is held has fallen before memory is worth giving back.
const MUCH: usize = 1024 * 1024;
/// Milliseconds without a byte after which half a request gives way.
const STALLED: u64 = 2000;
/// Milliseconds after which a reply that is not taken gives way.
const DEAF: u64 = 5000;

/// How a connection stands in its principal's queue for giving way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Sent nothing, owed nothing, since this time.
    Idle(u64),
    /// Half a request, its last byte at this time.
    Partial(u64),
    /// A reply that the client does not take, since this time.
    Unread(u64),
    /// A complete request, or a reply that is not taken.
    Busy,
    /// Complete requests that the gate has, or that have their turn in the next round: they end by themselves, soon.
    Moving,
}

#[derive(Default)]
struct Group {
    connections: usize,
    moving: usize,
    /// Those that move, and those that are busy.
    at_work: BTreeSet<u64>,
    bytes: usize,
    /// Until when one more than it may have does not wait for a place.
    hurried_until: u64,
    idle: BTreeSet<(u64, u64)>,
    partial: BTreeSet<(u64, u64)>,
    unread: BTreeSet<(u64, u64)>,
}

impl Group {
    /// Idle, or half a request, or deaf.
    fn yielding(&self, now: u64) -> Option<u64> {
        self.idle.first().or(self.partial.first()).or(self.deaf(now)).map(|(_, id)| *id)
    }

    /// A client that has long had its reply and not taken it.
    fn deaf(&self, now: u64) -> Option<&(u64, u64)> {
        self.unread.first().filter(|(since, _)| now.saturating_sub(*since) >= DEAF)
    }
}

/// All connections, by principal.
pub struct Crowd {
    groups: Table<Principal, Group>,
    connections: usize,
    bytes: usize,
    /// The most that was held since that was last asked.
    most_held: usize,
    most: usize,
    most_each: usize,
}

impl Crowd {
    /// `most` connections in all, `most_each` per principal.
    pub fn new(most: usize, most_each: usize) -> Crowd {
        Crowd { groups: Table::default(), connections: 0, bytes: 0, most_held: 0, most, most_each }
    }

    /// From now on so many, likewise. Whoever is here stays.
    pub fn limit(&mut self, most: usize, most_each: usize) {
        (self.most, self.most_each) = (most, most_each);
    }

    /// Whether there is room for one more of anybody's.
    pub fn is_full(&self) -> bool {
        self.connections >= self.most
    }

    /// Whether this principal has as many as it may have.
    pub fn is_crowded(&self, who: Principal) -> bool {
        self.groups.get(&who).is_some_and(|g| g.connections >= self.most_each)
    }

    /// Whether a place of this principal's comes free by itself, soon.
    pub fn is_moving(&self, who: Principal) -> bool {
        self.groups.get(&who).is_some_and(|g| g.moving > 0)
    }

    /// All connections.
    pub fn count(&self) -> usize {
        self.connections
    }

    /// Principals of a socket and how many connections each has.
    pub fn of_socket(&self, socket: u16) -> impl Iterator<Item = (Principal, usize)> + '_ {
        let of = move |who: &Principal| who.socket == socket;
        self.groups.iter().filter(move |(who, _)| of(who)).map(|(who, group)| (*who, group.connections))
    }

    /// Connections of one principal.
    pub fn connections(&self, who: Principal) -> usize {
        self.groups.get(&who).map_or(0, |g| g.connections)
    }

    /// The connection of `who` that gives way: the oldest idle one, else the longest stalled.
    pub fn yielding(&self, who: Principal, now: u64) -> Option<u64> {
        let group = self.groups.get(&who)?;
        let stalled = group.partial.first().filter(|(heard, _)| now.saturating_sub(*heard) >= STALLED);
        group.idle.first().or(stalled).or(group.deaf(now)).map(|(_, id)| *id)
    }

    /// The same where half a request gives way however new it is.
    pub fn yielding_at_once(&self, who: Principal, now: u64) -> Option<u64> {
        self.groups.get(&who)?.yielding(now)
    }

    /// The connection that gives way when there are too many in all: of the principal that has most its oldest idle
    /// one, else its oldest half request, however new, else a reply that it does not take.
    pub fn yielding_of_all(&self, now: u64) -> Option<u64> {
        let mut largest: Vec<&Group> = self.groups.values().collect();
        largest.sort_unstable_by_key(|g| std::cmp::Reverse(g.connections));
        largest.iter().find_map(|group| group.yielding(now))
    }

    /// The connection that gives way to one more of `who`'s when there are too many in all. It is one of those that have most, or half
    /// as many and more than `who`: what gives way of theirs, as above. Where all of that is at work, `who` has less than half as many as
    /// the largest, and that one's youngest goes. `None`: nobody's.
    pub fn yielding_to(&self, who: Principal, now: u64) -> Option<u64> {
        let own = self.connections(who);
        let may = |(other, group): &(&Principal, &Group)| **other == who || group.connections > own;
        let mut larger: Vec<&Group> = self.groups.iter().filter(may).map(|(_, group)| group).collect();
        larger.sort_unstable_by_key(|group| std::cmp::Reverse(group.connections));
        let largest = larger.first()?;
        let near = larger.iter().take_while(|group| 2 * group.connections >= largest.connections);
        let youngest = || largest.at_work.last().copied().filter(|_| largest.connections > 2 * (own + 1));
        near.filter_map(|group| group.yielding(now)).next().or_else(youngest)
    }

    /// Until then none of this principal's that is one too many waits for a place.
    pub fn hurry(&mut self, who: Principal, until: u64) {
        if let Some(group) = self.groups.get_mut(&who) {
            group.hurried_until = until;
        }
    }

    /// Whether that is so now.
    pub fn is_hurried(&self, who: Principal, now: u64) -> bool {
        self.groups.get(&who).is_some_and(|group| now < group.hurried_until)
    }

    /// Whether a connection may take so many bytes more than it has free of charge.
    pub fn has_room(&self, who: Principal, bytes: usize) -> bool {
        let held = self.groups.get(&who).map_or(0, |group| group.bytes);
        held + bytes <= PER_PRINCIPAL && self.bytes + bytes <= IN_ALL
    }

    /// Bytes that connections may hold now, those free of charge included.
    fn held(&self) -> usize {
        self.bytes + self.connections * FREE
    }

    /// Whether that has fallen by much, from the most that it was since this was asked.
    pub fn has_shrunk(&mut self) -> bool {
        let held = self.held();
        std::mem::replace(&mut self.most_held, held) > held + MUCH
    }

    /// A new connection, standing so.
    pub fn join(&mut self, id: u64, who: Principal, stand: Stand) {
        self.connections += 1;
        self.most_held = self.most_held.max(self.held());
        let group = self.groups.entry(who).or_default();
        group.connections += 1;
        group.at_work.insert(id);
        self.stand(id, who, Stand::Busy, stand);
    }

    /// A connection that stood so goes, with the bytes it was charged for.
    pub fn leave(&mut self, id: u64, who: Principal, stood: Stand, charged: usize) {
        self.stand(id, who, stood, Stand::Busy);
        self.connections -= 1;
        self.bytes -= charged;
        if let Some(group) = self.groups.get_mut(&who) {
            group.connections -= 1;
            group.bytes -= charged;
            group.at_work.remove(&id);
            if group.connections == 0 {
                self.groups.remove(&who);
            }
        }
    }

    /// A connection stands otherwise now.
    pub fn stand(&mut self, id: u64, who: Principal, before: Stand, after: Stand) {
        let Some(group) = self.groups.get_mut(&who) else { return };
        let works = |stand| matches!(stand, Stand::Moving | Stand::Busy);
        match (works(before), works(after)) {
            (true, false) => drop(group.at_work.remove(&id)),
            (false, true) => drop(group.at_work.insert(id)),
            _ => {}
        }
        match before {
            Stand::Idle(since) => group.idle.remove(&(since, id)),
            Stand::Partial(since) => group.partial.remove(&(since, id)),
            Stand::Unread(since) => group.unread.remove(&(since, id)),
            Stand::Moving => {
                group.moving -= 1;
                true
            }
            Stand::Busy => true,
        };
        match after {
            Stand::Idle(since) => group.idle.insert((since, id)),
            Stand::Partial(since) => group.partial.insert((since, id)),
            Stand::Unread(since) => group.unread.insert((since, id)),
            Stand::Moving => {
                group.moving += 1;
                true
            }
            Stand::Busy => true,
        };
    }

    /// Charges a connection that holds `weight` bytes and was charged `charged`; the new charge, and whether it
    /// is within the principal's budget and that of all.
    pub fn charge(&mut self, who: Principal, charged: usize, weight: usize) -> (usize, bool) {
        let charge = weight.saturating_sub(FREE);
        self.bytes = self.bytes - charged + charge;
        self.most_held = self.most_held.max(self.held());
        let Some(group) = self.groups.get_mut(&who) else { return (charge, false) };
        group.bytes = group.bytes - charged + charge;
        (charge, charge <= charged || self.has_room(who, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Principal = Principal { socket: 0, uid: 1, cgroup: None };
    const B: Principal = Principal { socket: 0, uid: 2, cgroup: None };

    #[test]
    fn the_oldest_idle_one_gives_way_then_the_longest_stalled_never_a_busy_one() {
        let mut crowd = Crowd::new(100, 3);
        crowd.join(1, A, Stand::Busy);
        crowd.join(2, A, Stand::Partial(1000));
        crowd.join(3, A, Stand::Idle(2000));
        assert!(crowd.is_crowded(A) && !crowd.is_crowded(B) && !crowd.is_full());
        assert_eq!(crowd.yielding(A, 2500), Some(3));
        crowd.leave(3, A, Stand::Idle(2000), 0);
        assert_eq!(crowd.yielding(A, 2500), None);
        assert_eq!(crowd.yielding(A, 3000), Some(2));
        crowd.stand(2, A, Stand::Partial(1000), Stand::Busy);
        assert_eq!(crowd.yielding(A, 9000), None);
    }

    #[test]
    fn a_principal_is_moving_while_one_of_its_requests_is_being_served() {
        let mut crowd = Crowd::new(100, 1);
        crowd.join(1, A, Stand::Moving);
        assert!(crowd.is_crowded(A) && crowd.is_moving(A) && crowd.yielding(A, 9000).is_none());
        crowd.stand(1, A, Stand::Moving, Stand::Busy);
        assert!(!crowd.is_moving(A));
    }

    #[test]
    fn in_all_the_one_who_has_most_gives_way() {
        let mut crowd = Crowd::new(3, 3);
        crowd.join(1, B, Stand::Idle(1));
        crowd.join(2, A, Stand::Idle(5));
        crowd.join(3, A, Stand::Idle(4));
        assert!(crowd.is_full());
        assert_eq!(crowd.yielding_of_all(9), Some(3));
        crowd.stand(2, A, Stand::Idle(5), Stand::Partial(6));
        crowd.stand(3, A, Stand::Idle(4), Stand::Partial(7));
        assert_eq!(crowd.yielding_of_all(9), Some(2), "half requests of the largest before an idle one of the smaller");
        crowd.stand(2, A, Stand::Partial(6), Stand::Unread(8));
        crowd.stand(3, A, Stand::Partial(7), Stand::Moving);
        assert_eq!(crowd.yielding_of_all(9), Some(1));
        assert_eq!(crowd.yielding_of_all(8 + DEAF), Some(2));
    }

    #[test]
    fn bytes_beyond_the_free_ones_have_a_budget_per_principal_and_in_all() {
        let mut crowd = Crowd::new(1000, 1000);
        let mut granted = 0;
        for id in 0..40 {
            crowd.join(id, A, Stand::Busy);
            granted += usize::from(crowd.charge(A, 0, FREE + 512 * 1024).1);
        }
        assert_eq!(granted, 16);
        crowd.join(100, B, Stand::Busy);
        assert!(crowd.charge(B, 0, FREE).1);
        assert_eq!(crowd.charge(B, 0, FREE + 1), (1, true));
        crowd.leave(100, B, Stand::Busy, 1);
        assert_eq!(crowd.connections(B), 0);
    }
}
