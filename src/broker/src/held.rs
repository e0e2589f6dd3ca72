//! Principals that tried a canary kind: they and their sessions are held until the operator thaws, or the machine starts anew
//! and cgroups with it.

use std::collections::VecDeque;

use crate::principal::Principal;
use crate::table::Keys;

/// Principals remembered. Whoever can make so many cgroups can as well make another new one.
const MOST: usize = 16_384;

/// Who is held.
#[derive(Default)]
pub struct Held {
    all: Keys<Principal>,
    /// Oldest first.
    order: VecDeque<Principal>,
}

impl Held {
    /// Whether this one is held.
    pub fn contains(&self, who: Principal) -> bool {
        self.all.contains(&who)
    }

    /// Holds one.
    pub fn add(&mut self, who: Principal) {
        if self.all.insert(who) {
            self.order.push_back(who);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// Lets all go; how many there were.
    pub fn clear(&mut self) -> usize {
        self.order.clear();
        std::mem::take(&mut self.all).len()
    }

    /// Each, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Principal> {
        self.order.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_nobody_is_there_twice() {
        let who = |uid| Principal { socket: 0, uid, cgroup: Some(1) };
        let mut held = Held::default();
        (0..MOST as u32).chain([5]).for_each(|uid| held.add(who(uid)));
        assert!(held.contains(who(0)) && held.iter().count() == MOST);
        held.add(who(MOST as u32));
        assert!(!held.contains(who(0)) && held.contains(who(1)) && held.contains(who(MOST as u32)));
        assert_eq!((held.clear(), held.contains(who(1)), held.iter().count()), (MOST, false, 0));
    }
}
