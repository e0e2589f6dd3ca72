//! What was used of a budget in the last 24 hours.
//!
//! Kept in slots of ten minutes, each counted until its last entry is a day old: never less than what was used, at most
//! ten minutes longer than a day, and of constant size.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Milliseconds.
pub const DAY: u64 = 24 * 60 * 60 * 1000;
/// Milliseconds of a slot.
const SLOT: u64 = 10 * 60 * 1000;

/// So many signatures of so many millisatoshis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    /// When it began, and when its last entry came (CLOCK_BOOTTIME, ms).
    from: u64,
    to: u64,
    count: u64,
    msats: u64,
}

/// A budget's use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(VecDeque<Slot>);

impl Day {
    /// Signatures and millisatoshis of the last 24 hours.
    pub fn used(&self, now: u64) -> (u64, u64) {
        let counted = self.0.iter().filter(|slot| now.saturating_sub(slot.to) < DAY);
        counted
            .fold((0, 0), |(count, msats), slot| (count.saturating_add(slot.count), msats.saturating_add(slot.msats)))
    }

    /// Milliseconds until something that is counted now no longer is; `None`: nothing is.
    pub fn wait(&self, now: u64) -> Option<u64> {
        let first = self.0.iter().find(|slot| slot.count > 0 && now.saturating_sub(slot.to) < DAY)?;
        Some(first.to.saturating_add(DAY).saturating_sub(now))
    }

    /// Counts one.
    pub fn draw(&mut self, msats: u64, now: u64) {
        self.0.retain(|slot| now.saturating_sub(slot.to) < DAY);
        match self.0.back_mut() {
            Some(last) if now.saturating_sub(last.from) < SLOT => {
                last.to = last.to.max(now);
                last.count = last.count.saturating_add(1);
                last.msats = last.msats.saturating_add(msats);
            }
            _ => self.0.push_back(Slot { from: now, to: now, count: 1, msats }),
        }
    }

    /// Takes one back that was counted at `at`.
    pub fn give_back(&mut self, msats: u64, at: u64) {
        let slot = self.0.iter_mut().rev().find(|slot| slot.from <= at && at <= slot.to && slot.count > 0);
        if let Some(slot) = slot {
            slot.count -= 1;
            slot.msats = slot.msats.saturating_sub(msats);
        }
    }

    /// Whether nothing is left that counts.
    pub fn is_empty(&self, now: u64) -> bool {
        self.used(now) == (0, 0)
    }

    /// Carries the entries over to another boot's clock: what was `age` old at `from` is `age + elapsed` old at `to`.
    pub fn carry(&mut self, from: u64, elapsed: u64, to: u64) {
        let there = |t: u64| to.saturating_sub(from.saturating_sub(t).saturating_add(elapsed));
        self.0.retain(|slot| from.saturating_sub(slot.to).saturating_add(elapsed) < DAY);
        for slot in &mut self.0 {
            (slot.from, slot.to) = (there(slot.from), there(slot.to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_given_back_is_not_used_and_a_reboot_forgives_nothing() {
        let mut day = Day::default();
        day.draw(500, DAY);
        day.draw(700, DAY + 1);
        day.give_back(500, DAY);
        assert_eq!((day.used(DAY + 2), day.wait(DAY + 2)), ((1, 700), Some(DAY - 1)));
        day.carry(DAY + 2, 5_000, 2 * DAY);
        assert_eq!(day.used(2 * DAY), (1, 700));
        assert_eq!(day.used(3 * DAY - 5_002), (1, 700));
        assert!(day.is_empty(3 * DAY - 5_001) && day.wait(3 * DAY - 5_001).is_none());
        day.carry(3 * DAY, 0, 5);
        assert!(day.is_empty(5));
    }

    proptest! {
        /// Judged by a list of every entry.
        #[test]
        fn never_less_than_what_was_used_and_at_most_a_slot_longer(
            deeds in prop::collection::vec((0u64..2 * SLOT, 0u64..9, prop::bool::weighted(0.2)), 1..400)
        ) {
            let (mut day, mut all, mut now) = (Day::default(), Vec::<(u64, u64)>::new(), DAY);
            for (pause, msats, back) in deeds {
                now += pause;
                if back && let Some((at, msats)) = all.pop() {
                    day.give_back(msats, at);
                } else {
                    day.draw(msats, now);
                    all.push((now, msats));
                }
                let within = |span: u64| all.iter().filter(|(at, _)| now - at < span).fold((0, 0), |(n, m), (_, msats)| (n + 1, m + msats));
                let (used, exact, longer) = (day.used(now), within(DAY), within(DAY + SLOT));
                prop_assert!(exact.0 <= used.0 && exact.1 <= used.1, "{used:?} {exact:?}");
                prop_assert!(used.0 <= longer.0 && used.1 <= longer.1, "{used:?} {longer:?}");
                prop_assert!(day.0.len() <= 146);
            }
        }
    }
}
