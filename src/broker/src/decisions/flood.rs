//! How many decisions of a socket have lines of their own, and how those beyond are counted.
//!
//! A line costs 400 bytes: at twenty a minute, refused junk fills 12 MB a day, and the log's oldest file outlasts it.

use std::collections::BTreeMap;

use nsecd_trail::entry::Count;

use crate::clock::Now;
use crate::principal::Principal;

/// Lines in one [`SPAN`].
const MOST: u32 = 20;
/// Lines kept for what no flood may hide.
const RESERVED: u32 = 20;
/// Milliseconds.
const SPAN: u64 = 60_000;
/// Different counts in one span; what is beyond goes into one.
const COUNTED: usize = 32;

/// What is counted together.
type Key = (Option<u32>, Option<u64>, &'static str, &'static str);

/// One socket's.
#[derive(Default)]
pub struct Flood {
    /// When the span began, on both clocks.
    since: Option<Now>,
    written: u32,
    counts: BTreeMap<Key, u64>,
}

impl Flood {
    /// Whether one more may have a line; takes the place.
    pub fn admits(&mut self, urgent: bool) -> bool {
        let there = self.written < if urgent { MOST + RESERVED } else { MOST };
        self.written += u32::from(there);
        there
    }

    /// Counts one.
    pub fn count(&mut self, who: Option<Principal>, method: &'static str, rule: &'static str) {
        let key = (who.map(|who| who.uid), who.and_then(|who| who.cgroup), method, rule);
        let key = if self.counts.len() < COUNTED || self.counts.contains_key(&key) {
            key
        } else {
            (None, None, "other", "other")
        };
        *self.counts.entry(key).or_default() += 1;
    }

    /// Ends a span that is over, or this one `at_once`, and begins the next: since when, and what it counted.
    pub fn end(&mut self, now: Now, at_once: bool) -> Option<(u64, Vec<Count>)> {
        let since = *self.since.get_or_insert(now);
        if now.boot < since.boot.saturating_add(SPAN) && !at_once {
            return None;
        }
        (self.since, self.written) = (Some(now), 0);
        let count = |((uid, cgroup, method, rule), count): (Key, u64)| Count {
            uid,
            cgroup,
            method: method.to_owned(),
            rule: rule.to_owned(),
            count,
        };
        let counts: Vec<Count> = std::mem::take(&mut self.counts).into_iter().map(count).collect();
        (!counts.is_empty()).then_some((since.wall, counts))
    }
}
