//! Errands that wait for a key: whoever waits has its turn, uid by uid, in it principal by principal, in it class by class,
//! so that nobody's junk keeps another's message waiting, nor one's own notes.

use std::collections::VecDeque;

use crate::budgets::Class;
use crate::principal::{Principal, User};
use crate::table::Table;

/// How many may wait.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of one principal.
    pub each: usize,
    /// Of one uid on one socket.
    pub user: usize,
    /// In all.
    pub all: usize,
}

impl Room {
    /// Of each of two lines: what leaves a quarter of the connections over for requests that do not wait, where there may be
    /// so many of them in all and of a principal.
    pub fn beside(connections: usize, each: usize) -> Room {
        Room { each: each / 8 * 3, user: connections / 4, all: connections / 8 * 3 }
    }
}

/// Jobs `J` of those who wait.
pub struct Stalled<J> {
    lines: Table<(Principal, Class), VecDeque<J>>,
    /// When each that waits last had a turn; whoever begins to wait counts as served then.
    users: Table<User, Waiting>,
    principals: Table<Principal, Waiting>,
    classes: Table<(Principal, Class), u64>,
    waiting: usize,
    tick: u64,
}

/// How many wait, and when one of them last had a turn.
#[derive(Clone, Copy)]
struct Waiting {
    count: usize,
    last: u64,
}

impl<J> Default for Stalled<J> {
    fn default() -> Self {
        Stalled {
            lines: Table::default(),
            users: Table::default(),
            principals: Table::default(),
            classes: Table::default(),
            waiting: 0,
            tick: 0,
        }
    }
}

impl<J> Stalled<J> {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether one more of this principal's may wait.
    pub fn has_room(&self, who: Principal, room: &Room) -> bool {
        let count = |waiting: Option<&Waiting>| waiting.map_or(0, |w| w.count);
        self.waiting < room.all
            && count(self.users.get(&who.user())) < room.user
            && count(self.principals.get(&who)) < room.each
    }

    /// Stands at the end of its line; `begun`: at its front, since half of its way is behind it.
    pub fn join(&mut self, who: Principal, class: Class, job: J, begun: bool) {
        self.tick += 1;
        let new = Waiting { count: 0, last: self.tick };
        self.users.entry(who.user()).or_insert(new).count += 1;
        self.principals.entry(who).or_insert(new).count += 1;
        self.classes.entry((who, class)).or_insert(self.tick);
        self.waiting += 1;
        let line = self.lines.entry((who, class)).or_default();
        if begun { line.push_front(job) } else { line.push_back(job) }
    }

    /// Whose turn it is, of those for whom `may` holds: the uid's that had none for longest, in it the principal's, in it
    /// the class's. It keeps its turn until [`served`](Stalled::served).
    pub fn turn(&mut self, may: impl Fn(Principal) -> bool) -> Option<(Principal, Class, J)> {
        let last = |waiting: Option<&Waiting>| waiting.map(|w| w.last);
        let rank = |line: &(Principal, Class)| {
            let (users, principals) = (self.users.get(&line.0.user()), self.principals.get(&line.0));
            (last(users), last(principals), self.classes.get(line).copied())
        };
        let (who, class) = *self.lines.keys().filter(|(who, _)| may(*who)).min_by_key(|line| rank(line))?;
        let job = self.lines.get_mut(&(who, class))?.pop_front()?;
        self.gone(who, class);
        Some((who, class, job))
    }

    /// Somebody had a turn.
    pub fn served(&mut self, who: Principal, class: Class) {
        self.tick += 1;
        if let Some(user) = self.users.get_mut(&who.user()) {
            user.last = self.tick;
        }
        if let Some(principal) = self.principals.get_mut(&who) {
            principal.last = self.tick;
        }
        if let Some(last) = self.classes.get_mut(&(who, class)) {
            *last = self.tick;
        }
    }

    /// Takes out the one of a principal's for which `is` holds.
    pub fn remove(&mut self, who: Principal, is: impl Fn(&J) -> bool) -> Option<J> {
        for class in Class::ALL {
            let Some(line) = self.lines.get_mut(&(who, class)) else { continue };
            if let Some(job) = line.iter().position(&is).and_then(|index| line.remove(index)) {
                self.gone(who, class);
                return Some(job);
            }
        }
        None
    }

    /// Takes out all for whom `over` holds.
    pub fn leaving(&mut self, over: impl Fn(&J) -> bool) -> Vec<J> {
        let mut left = Vec::new();
        for (who, class) in self.lines.keys().copied().collect::<Vec<_>>() {
            let Some(line) = self.lines.get_mut(&(who, class)) else { continue };
            let before = left.len();
            for job in std::mem::take(line) {
                if over(&job) { left.push(job) } else { line.push_back(job) }
            }
            (before..left.len()).for_each(|_| self.gone(who, class));
        }
        left
    }

    /// One of this line waits no longer. Whoever is being tried keeps its turn, for as long as anybody waits.
    fn gone(&mut self, who: Principal, class: Class) {
        self.waiting -= 1;
        for waiting in [self.users.get_mut(&who.user()), self.principals.get_mut(&who)].into_iter().flatten() {
            waiting.count -= 1;
        }
        if self.lines.get(&(who, class)).is_some_and(VecDeque::is_empty) {
            self.lines.remove(&(who, class));
        }
        if self.waiting == 0 {
            self.users.clear();
            self.principals.clear();
            self.classes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(uid: u32, cgroup: u64) -> Principal {
        Principal { socket: 0, uid, cgroup: Some(cgroup) }
    }

    fn serve(stalled: &mut Stalled<u32>, count: usize) -> Vec<u32> {
        let mut one = || {
            let (who, class, job) = stalled.turn(|_| true)?;
            stalled.served(who, class);
            Some(job)
        };
        (0..count).filter_map(|_| one()).collect()
    }

    #[test]
    fn junk_without_end_keeps_nobody_else_waiting() {
        let mut stalled = Stalled::default();
        (0..600).for_each(|i| stalled.join(who(1, i % 50), Class::Unwrap, i as u32, false));
        stalled.join(who(2, 1), Class::Unwrap, 10_001, false);
        stalled.join(who(2, 1), Class::Unwrap, 10_002, false);
        let order = serve(&mut stalled, 6);
        assert!(order.contains(&10_001) && order.contains(&10_002), "{order:?}");
        // In one uid, principal by principal.
        stalled.join(who(1, 99), Class::Unwrap, 20_000, false);
        assert!(serve(&mut stalled, 60).contains(&20_000));
        // In one principal, class by class.
        stalled.join(who(1, 7), Class::Wrap, 30_000, false);
        assert!(serve(&mut stalled, 120).contains(&30_000));
    }

    #[test]
    fn a_turn_that_came_to_nothing_is_kept() {
        let mut stalled = Stalled::default();
        stalled.join(who(1, 1), Class::Unwrap, 11, false);
        stalled.join(who(2, 1), Class::Unwrap, 21, false);
        stalled.join(who(1, 1), Class::Unwrap, 12, false);
        let (first, class, job) = stalled.turn(|_| true).expect("somebody");
        stalled.join(first, class, job, true);
        assert_eq!(serve(&mut stalled, 9), [11, 21, 12]);
        assert!(stalled.is_empty());
    }

    #[test]
    fn who_may_not_is_passed_over_and_keeps_its_turn() {
        let mut stalled = Stalled::default();
        stalled.join(who(1, 1), Class::Unwrap, 11, false);
        stalled.join(who(2, 1), Class::Unwrap, 21, false);
        assert_eq!(stalled.turn(|who| who.uid == 2).map(|(_, _, job)| job), Some(21));
        assert!(stalled.turn(|who| who.uid == 2).is_none());
        stalled.join(who(3, 1), Class::Unwrap, 31, false);
        assert_eq!(serve(&mut stalled, 9), [11, 31]);
    }

    #[test]
    fn places_are_counted_by_principal_by_uid_and_in_all() {
        let mut stalled = Stalled::default();
        let room = Room::beside(32, 8);
        let mut join = |uid, cgroup| {
            let fits = stalled.has_room(who(uid, cgroup), &room);
            if fits {
                stalled.join(who(uid, cgroup), Class::Unwrap, uid, false);
            }
            fits
        };
        let joined: Vec<usize> =
            [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (4, 1)].map(|(u, c)| (0..9).filter(|_| join(u, c)).count()).into();
        assert_eq!(joined, [3, 3, 2, 3, 1, 0]);
        assert_eq!(stalled.remove(who(2, 1), |job| *job == 2), Some(2));
        assert_eq!(stalled.remove(who(5, 1), |_| true), None);
        assert!(stalled.has_room(who(4, 1), &room) && !stalled.has_room(who(1, 3), &room));
        assert_eq!(stalled.leaving(|_| true).len(), 11);
        assert!(stalled.is_empty() && stalled.has_room(who(1, 3), &room));
    }

    #[test]
    fn whose_patience_is_over_leaves_wherever_it_stands() {
        let mut stalled = Stalled::default();
        (0..10).for_each(|i| stalled.join(who(i % 3, 1), Class::Unwrap, i, false));
        let mut left = stalled.leaving(|job| job % 2 == 0);
        left.sort_unstable();
        assert_eq!(left, [0, 2, 4, 6, 8]);
        assert_eq!(serve(&mut stalled, 9).len(), 5);
        assert!(stalled.leaving(|_| true).is_empty() && stalled.is_empty());
    }
}
