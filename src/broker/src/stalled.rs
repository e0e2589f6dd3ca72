//! Agreements that the ECDH holder's ceiling puts off: whoever waits has its turn, uid by uid and then principal by principal,
//! so that nobody's junk keeps another's message waiting.

use std::collections::{HashMap, VecDeque};

use crate::principal::{Principal, User};

/// Jobs `J` of those who wait.
pub struct Stalled<J> {
    lines: HashMap<Principal, VecDeque<J>>,
    /// When each that waits last had a turn; whoever begins to wait counts as served then.
    users: HashMap<User, u64>,
    principals: HashMap<Principal, u64>,
    tick: u64,
}

impl<J> Default for Stalled<J> {
    fn default() -> Self {
        Stalled { lines: HashMap::new(), users: HashMap::new(), principals: HashMap::new(), tick: 0 }
    }
}

impl<J> Stalled<J> {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Stands at the end of its principal's line; `begun`: at its front, since half of its way is behind it.
    pub fn join(&mut self, who: Principal, job: J, begun: bool) {
        self.tick += 1;
        self.users.entry(who.user()).or_insert(self.tick);
        self.principals.entry(who).or_insert(self.tick);
        let line = self.lines.entry(who).or_default();
        if begun { line.push_front(job) } else { line.push_back(job) }
    }

    /// Whose turn it is: the uid's that had none for longest, in it the principal's. It keeps its turn until
    /// [`served`](Stalled::served).
    pub fn turn(&mut self) -> Option<(Principal, J)> {
        let last = |who: &Principal| (self.users.get(&who.user()).copied(), self.principals.get(who).copied());
        let who = *self.lines.keys().min_by_key(|who| last(who))?;
        let job = self.lines.get_mut(&who)?.pop_front()?;
        self.forget_empty(who);
        Some((who, job))
    }

    /// Somebody had a turn.
    pub fn served(&mut self, who: Principal) {
        self.tick += 1;
        if let Some(last) = self.users.get_mut(&who.user()) {
            *last = self.tick;
        }
        if let Some(last) = self.principals.get_mut(&who) {
            *last = self.tick;
        }
    }

    /// Takes out those for whom `over` holds.
    pub fn leaving(&mut self, over: impl Fn(&J) -> bool) -> Vec<J> {
        let mut left = Vec::new();
        for who in self.lines.keys().copied().collect::<Vec<_>>() {
            let Some(line) = self.lines.get_mut(&who) else { continue };
            for job in std::mem::take(line) {
                if over(&job) { left.push(job) } else { line.push_back(job) }
            }
            self.forget_empty(who);
        }
        left
    }

    fn forget_empty(&mut self, who: Principal) {
        if self.lines.get(&who).is_some_and(VecDeque::is_empty) {
            self.lines.remove(&who);
        }
        // Whoever is being tried keeps its place; the others are remembered for as long as anybody waits.
        if self.lines.is_empty() {
            self.users.clear();
            self.principals.clear();
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
            let (who, job) = stalled.turn()?;
            stalled.served(who);
            Some(job)
        };
        (0..count).filter_map(|_| one()).collect()
    }

    #[test]
    fn junk_without_end_keeps_nobody_else_waiting() {
        let mut stalled = Stalled::default();
        (0..600).for_each(|i| stalled.join(who(1, i % 50), i as u32, false));
        stalled.join(who(2, 1), 10_001, false);
        stalled.join(who(2, 1), 10_002, false);
        let order = serve(&mut stalled, 6);
        assert!(order.contains(&10_001) && order.contains(&10_002), "{order:?}");
        // In one uid, principal by principal.
        stalled.join(who(1, 99), 20_000, false);
        assert!(serve(&mut stalled, 60).contains(&20_000));
    }

    #[test]
    fn a_turn_that_came_to_nothing_is_kept() {
        let mut stalled = Stalled::default();
        stalled.join(who(1, 1), 11, false);
        stalled.join(who(2, 1), 21, false);
        stalled.join(who(1, 1), 12, false);
        let (first, job) = stalled.turn().expect("somebody");
        stalled.join(first, job, true);
        assert_eq!(serve(&mut stalled, 9), [11, 21, 12]);
        assert!(stalled.is_empty());
    }

    #[test]
    fn whose_patience_is_over_leaves_wherever_it_stands() {
        let mut stalled = Stalled::default();
        (0..10).for_each(|i| stalled.join(who(i % 3, 1), i, false));
        let mut left = stalled.leaving(|job| job % 2 == 0);
        left.sort_unstable();
        assert_eq!(left, [0, 2, 4, 6, 8]);
        assert_eq!(serve(&mut stalled, 9).len(), 5);
        assert!(stalled.leaving(|_| true).is_empty() && stalled.is_empty());
    }
}
