//! Requests that wait for a slot (`on_limit = "wait 20s"`): one line per principal, bounded, first come first served.
//!
//! Holds who waits and until when; the requests themselves stay with their connections.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Requests of one principal that may wait at a time.
pub const MAX_WAITING: usize = 64;

/// The lines, by principal `P`, of waiting connections `C`.
pub struct Queues<P, C> {
    lines: HashMap<P, VecDeque<C>>,
}

impl<P, C> Default for Queues<P, C> {
    fn default() -> Self {
        Queues { lines: HashMap::new() }
    }
}

impl<P: Copy + Eq + Hash, C: Copy + PartialEq> Queues<P, C> {
    /// Whether a new request that may wait has to stand behind others.
    pub fn is_busy(&self, who: P) -> bool {
        self.lines.contains_key(&who)
    }

    /// Stands at the end; `false` if the line is full.
    pub fn join(&mut self, who: P, waiting: C) -> bool {
        let line = self.lines.entry(who).or_default();
        if line.len() >= MAX_WAITING {
            return false;
        }
        line.push_back(waiting);
        true
    }

    /// Who is next.
    pub fn head(&self, who: P) -> Option<C> {
        self.lines.get(&who)?.front().copied()
    }

    /// Leaves the line, wherever it stands.
    pub fn leave(&mut self, who: P, waiting: C) {
        if let Some(line) = self.lines.get_mut(&who) {
            line.retain(|other| *other != waiting);
            if line.is_empty() {
                self.lines.remove(&who);
            }
        }
    }

    /// All principals with somebody waiting.
    pub fn principals(&self) -> Vec<P> {
        self.lines.keys().copied().collect()
    }

    /// Everybody who waits.
    pub fn everybody(&self) -> Vec<(P, C)> {
        self.lines.iter().flat_map(|(who, line)| line.iter().map(|c| (*who, *c))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_per_principal() {
        let mut queues = Queues::default();
        assert!(queues.join('a', 1) && queues.join('a', 2) && queues.join('b', 3) && queues.join('a', 4));
        assert_eq!((queues.head('a'), queues.head('b'), queues.head('c')), (Some(1), Some(3), None));
        queues.leave('a', 2);
        queues.leave('a', 1);
        assert_eq!(queues.head('a'), Some(4));
        queues.leave('a', 4);
        assert!(!queues.is_busy('a') && queues.is_busy('b'));
    }

    #[test]
    fn a_line_is_bounded() {
        let mut queues = Queues::default();
        assert!((0..MAX_WAITING).all(|i| queues.join('a', i)));
        assert!(!queues.join('a', MAX_WAITING));
        assert!(queues.join('b', 0));
    }
}
