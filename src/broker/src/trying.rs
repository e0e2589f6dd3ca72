//! Gift wraps that are being opened. Each may turn out to be junk, which is known only after a key agreement: no more are
//! tried at a time than may still fail, so that junk draws no agreements beyond its budget.
//!
//! What is refused for its form or its signature costs no agreement and counts for nothing here. In memory only: after a
//! restart the ECDH holder's own ceiling still holds.

use std::cell::Cell;
use std::rc::Rc;

use crate::limits::{MINUTE, Meter};
use crate::principal::Principal;
use crate::table::Table;

/// How many may fail, and what goes on when as many have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// A principal's, a minute.
    pub own: u32,
    /// All of a socket's, a minute.
    pub all: u32,
    /// Milliseconds after which a socket has one tried although none may fail, or else junk would keep every message shut.
    pub period: u64,
}

/// A wrap being opened, counted until this is dropped.
pub struct Place([Rc<Cell<usize>>; 2]);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.iter().for_each(|count| count.set(count.get().saturating_sub(1)));
    }
}

#[derive(Default)]
struct Tries {
    open: Rc<Cell<usize>>,
    failed: Meter,
}

impl Tries {
    fn count(&self, now: u64) -> usize {
        self.open.get() + self.failed.used(MINUTE, now)
    }
}

/// How many are being opened, and how many have failed.
#[derive(Default)]
pub struct Trying {
    own: Table<Principal, Tries>,
    all: Table<u16, Tries>,
    /// When a socket may next have one tried that may not fail (CLOCK_BOOTTIME, ms).
    next: Table<u16, u64>,
}

impl Trying {
    /// Whether one more may be tried: because it may fail, or because it is time for one that may not. `None`: without limit.
    pub fn may(&self, who: Principal, failures: Option<Failures>, now: u64) -> bool {
        self.may_fail(who, failures, now) || self.next.get(&who.socket).is_none_or(|next| now >= *next)
    }

    /// Whether one more may fail.
    pub fn may_fail(&self, who: Principal, failures: Option<Failures>, now: u64) -> bool {
        let fits = |tries: Option<&Tries>, most: u32| tries.map_or(0, |tries| tries.count(now)) < most as usize;
        failures.is_none_or(|f| fits(self.own.get(&who), f.own) && fits(self.all.get(&who.socket), f.all))
    }

    /// Counts one; ask [`may`](Trying::may) first.
    pub fn place(&mut self, who: Principal, failures: Option<Failures>, now: u64) -> Place {
        if let Some(Failures { period, .. }) = failures.filter(|_| !self.may_fail(who, failures, now)) {
            self.next.insert(who.socket, now.saturating_add(period));
        }
        let (own, all) = (self.own.entry(who).or_default(), self.all.entry(who.socket).or_default());
        let counts = [own.open.clone(), all.open.clone()];
        counts.iter().for_each(|count| count.set(count.get() + 1));
        Place(counts)
    }

    /// One has failed that has cost an agreement.
    pub fn note_failed(&mut self, who: Principal, now: u64) {
        self.own.entry(who).or_default().failed.reserve(now);
        self.all.entry(who.socket).or_default().failed.reserve(now);
    }

    /// What is said of one that waited and was not tried.
    pub fn why_not(&self, who: Principal, failures: Failures, now: u64) -> String {
        let count = |tries: Option<&Tries>| tries.map_or(0, |tries| tries.failed.used(MINUTE, now));
        let own = count(self.own.get(&who));
        if own >= failures.own as usize {
            return format!("Rate limit: {own}/{} failed per minute", failures.own);
        }
        let all = count(self.all.get(&who.socket));
        format!("Rate limit: {all}/{} failed per minute for the whole socket", failures.all)
    }

    /// Forgets who tries nothing. To be called now and then.
    pub fn sweep(&mut self, now: u64) {
        self.own.retain(|_, tries| tries.open.get() > 0 || !tries.failed.is_empty(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Principal = Principal { socket: 0, uid: 1, cgroup: None };
    const B: Principal = Principal { socket: 0, uid: 2, cgroup: None };

    fn places(trying: &mut Trying, who: Principal, failures: Option<Failures>, now: u64) -> Vec<Place> {
        std::iter::from_fn(|| trying.may(who, failures, now).then(|| trying.place(who, failures, now)))
            .take(99)
            .collect()
    }

    #[test]
    fn as_many_as_may_fail_are_tried_and_one_now_and_then() {
        let mut trying = Trying::default();
        let failures = Some(Failures { own: 3, all: 5, period: 1000 });
        let first = places(&mut trying, A, failures, 0);
        assert_eq!(first.len(), 4, "three, and the socket's one");
        let second = places(&mut trying, B, failures, 0);
        assert_eq!(second.len(), 1, "the socket's five");
        assert_eq!(places(&mut trying, A, failures, 999).len(), 0);
        let third = places(&mut trying, A, failures, 1000);
        assert_eq!(third.len(), 1);
        drop((first, second, third));
        assert_eq!(places(&mut trying, A, failures, 1001).len(), 3);
        // What has failed counts for a minute.
        (0..2).for_each(|_| trying.note_failed(A, 1500));
        trying.sweep(1600);
        assert_eq!(places(&mut trying, A, failures, 1600).len(), 1);
        assert_eq!(
            trying.why_not(A, Failures { own: 2, all: 5, period: 1 }, 1600),
            "Rate limit: 2/2 failed per minute"
        );
        assert_eq!(places(&mut trying, A, failures, 61_500).len(), 4);
        assert_eq!(places(&mut trying, A, None, 1001).len(), 99);
    }
}
