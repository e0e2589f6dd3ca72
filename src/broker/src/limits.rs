//! Exact sliding windows over signatures made.
//!
//! A slot is reserved when a request is admitted and given back when no signature comes of it, so that a refused or
//! failed request uses none, and two requests in flight never share the last one. Times are CLOCK_BOOTTIME milliseconds.

use std::collections::VecDeque;

use nsecd_policy::Limits;
use serde::{Deserialize, Serialize};

/// Milliseconds.
pub const MINUTE: u64 = 60_000;
/// The longest window, and so how long a slot is remembered. Milliseconds.
pub const HOUR: u64 = 3_600_000;

/// A window that is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The reference's text.
    pub text: String,
    /// Milliseconds until no window of this meter refuses.
    pub retry_after_ms: u64,
}

/// The times of one session's, principal's or socket's signatures in the last hour, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Meter {
    times: VecDeque<u64>,
}

impl Meter {
    /// Slots used in the last `span` milliseconds.
    pub fn used(&self, span: u64, now: u64) -> usize {
        self.times.len() - self.times.partition_point(|&t| now.saturating_sub(t) >= span)
    }

    /// `None` if one more signature fits every window; else the first full one in the reference's order.
    pub fn check(&self, limits: &Limits, now: u64) -> Option<Exceeded> {
        let Limits { burst, burst_window, per_minute, per_hour } = *limits;
        let windows = [
            (burst, burst_window.saturating_mul(1000), format_burst as fn(usize, &Limits) -> String),
            (per_minute, MINUTE, |used, l| format!("Rate limit: {used}/{} per minute", l.per_minute)),
            (per_hour, HOUR, |used, l| format!("Rate limit: {used}/{} per hour", l.per_hour)),
        ];
        let mut exceeded: Option<Exceeded> = None;
        for (most, span, text) in windows {
            let Some(retry_after_ms) = self.wait(most, span, now) else { continue };
            let first =
                exceeded.get_or_insert_with(|| Exceeded { text: text(self.used(span, now), limits), retry_after_ms });
            first.retry_after_ms = first.retry_after_ms.max(retry_after_ms);
        }
        exceeded
    }

    /// `None` if fewer than `most` slots of the last `span` milliseconds are used; else how long until that is so.
    pub fn wait(&self, most: u32, span: u64, now: u64) -> Option<u64> {
        let (used, most) = (self.used(span, now), most as usize);
        if used < most {
            return None;
        }
        // The slot whose end makes room. A window of no slots never has any.
        let leaving = (most > 0).then(|| self.times[self.times.len() - most]);
        Some(leaving.map_or(span, |t| t.saturating_add(span).saturating_sub(now)))
    }

    /// Takes a slot.
    pub fn reserve(&mut self, now: u64) {
        self.reserve_within(HOUR, now);
    }

    /// The same, where no window is asked for that is longer than `span`: nothing older is remembered.
    pub fn reserve_within(&mut self, span: u64, now: u64) {
        self.forget(span, now);
        self.times.push_back(now);
    }

    /// Gives a slot back that was taken at `at`.
    pub fn release(&mut self, at: u64) {
        if let Ok(index) = self.times.binary_search(&at) {
            self.times.remove(index);
        }
    }

    /// Whether nothing is left that any window counts.
    pub fn is_empty(&mut self, now: u64) -> bool {
        self.forget(HOUR, now);
        self.times.is_empty()
    }

    /// Raises this meter to whatever `other` counts more of: afterwards every window that ends now holds as many slots as
    /// in the fuller of the two.
    pub fn raise(&mut self, other: &Meter) {
        let (own, theirs) = (self.times.len(), other.times.len());
        // Aligned at the newest: the i-th newest becomes the newer of both i-th newest.
        for i in 0..own.min(theirs) {
            let (mine, other) = (&mut self.times[own - 1 - i], other.times[theirs - 1 - i]);
            *mine = (*mine).max(other);
        }
        for i in own..theirs {
            self.times.push_front(other.times[theirs - 1 - i]);
        }
    }

    /// Carries the slots over to another boot's clock: one that was `age` old at `from` becomes `age + elapsed` old at
    /// `to`. What is older than an hour is forgotten.
    pub fn carry(&mut self, from: u64, elapsed: u64, to: u64) {
        let aged = |t: &u64| from.saturating_sub(*t).saturating_add(elapsed);
        self.times = self.times.iter().map(aged).filter(|age| *age < HOUR).map(|age| to.saturating_sub(age)).collect();
    }

    fn forget(&mut self, span: u64, now: u64) {
        while self.times.front().is_some_and(|&t| now.saturating_sub(t) >= span) {
            self.times.pop_front();
        }
    }
}

fn format_burst(used: usize, limits: &Limits) -> String {
    format!("Rate limit: burst exceeded ({used}/{} in {}s)", limits.burst, limits.burst_window)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Limits = Limits { burst: 5, burst_window: 10, per_minute: 10, per_hour: 100 };

    fn admit(meter: &mut Meter, now: u64) -> Option<Exceeded> {
        let exceeded = meter.check(&DEFAULT, now);
        if exceeded.is_none() {
            meter.reserve(now);
        }
        exceeded
    }

    #[test]
    fn windows_are_checked_in_the_references_order_with_its_texts() {
        let mut meter = Meter::default();
        for _ in 0..5 {
            assert_eq!(admit(&mut meter, 1000), None);
        }
        let refused = admit(&mut meter, 4000).expect("the burst is used up");
        assert_eq!((refused.text.as_str(), refused.retry_after_ms), ("Rate limit: burst exceeded (5/5 in 10s)", 7000));
        assert!(admit(&mut meter, 10_999).is_some());
        for _ in 0..5 {
            assert_eq!(admit(&mut meter, 11_000), None);
        }
        let refused = admit(&mut meter, 21_000).expect("the minute is used up");
        assert_eq!((refused.text.as_str(), refused.retry_after_ms), ("Rate limit: 10/10 per minute", 40_000));
    }

    #[test]
    fn the_hour_counts_every_slot_exactly() {
        let mut meter = Meter::default();
        for i in 0..100 {
            assert_eq!(admit(&mut meter, i * 30_000), None);
        }
        let refused = admit(&mut meter, 3_010_000).expect("the hour is used up");
        assert_eq!((refused.text.as_str(), refused.retry_after_ms), ("Rate limit: 100/100 per hour", 590_000));
        assert!(admit(&mut meter, 3_599_999).is_some());
        assert_eq!(admit(&mut meter, 3_600_000), None);
        assert!(admit(&mut meter, 3_600_000).is_some());
    }

    #[test]
    fn retry_after_is_when_no_window_refuses() {
        let mut meter = Meter::default();
        let tight = Limits { per_minute: 5, ..DEFAULT };
        for _ in 0..5 {
            meter.reserve(0);
        }
        let refused = meter.check(&tight, 1000).expect("two windows are full");
        assert!(refused.text.contains("burst"));
        assert_eq!(refused.retry_after_ms, 59_000);
        assert_eq!(meter.check(&tight, 1000 + refused.retry_after_ms), None);
    }

    #[test]
    fn a_released_slot_is_free_and_only_that_one() {
        let mut meter = Meter::default();
        for t in [0, 10, 10, 20, 30] {
            meter.reserve(t);
        }
        assert!(meter.check(&DEFAULT, 40).is_some());
        meter.release(10);
        assert_eq!(meter.used(10_000, 40), 4);
        assert_eq!(meter.check(&DEFAULT, 40), None);
        meter.release(11);
        assert_eq!(meter.used(10_000, 40), 4);
    }

    fn meter(times: &[u64]) -> Meter {
        Meter { times: times.iter().copied().collect() }
    }

    #[test]
    fn a_raised_meter_counts_in_every_window_what_the_fuller_one_counts() {
        let meters = [meter(&[]), meter(&[5]), meter(&[1, 2, 3]), meter(&[2, 9, 9]), meter(&[0, 4, 8, 8, 10])];
        for (a, b) in meters.iter().flat_map(|a| meters.iter().map(move |b| (a, b))) {
            let mut both = a.clone();
            both.raise(b);
            for span in 0..12 {
                assert_eq!(both.used(span, 10), a.used(span, 10).max(b.used(span, 10)), "{a:?} {b:?} {span}");
            }
        }
    }

    #[test]
    fn a_carried_meter_keeps_ages_and_adds_what_has_passed() {
        let mut carried = meter(&[HOUR, HOUR + 1000, 2 * HOUR, 2 * HOUR + 5]);
        carried.carry(2 * HOUR, 500, HOUR + 70_000);
        // The first is an hour old, the second an hour less half a second; the last was of the future, and is no more.
        assert_eq!(carried, meter(&[70_500, HOUR + 69_500, HOUR + 69_500]));
        let mut unforgiven = meter(&[7]);
        unforgiven.carry(7, 0, HOUR);
        assert_eq!(unforgiven.used(10_000, HOUR), 1);
    }

    #[test]
    fn what_is_asked_about_by_the_minute_is_remembered_for_a_minute() {
        let (mut minute, mut hour) = (Meter::default(), Meter::default());
        for i in 0..1000 {
            minute.reserve_within(MINUTE, i * 1000);
            hour.reserve(i * 1000);
        }
        assert_eq!((minute.times.len(), hour.times.len()), (60, 1000));
        assert_eq!(minute.used(MINUTE, 999_000), hour.used(MINUTE, 999_000));
    }

    #[test]
    fn a_window_of_no_slots_refuses_always() {
        let none = Limits { burst: 0, ..DEFAULT };
        let refused = Meter::default().check(&none, 5).expect("no slots");
        assert_eq!(refused.retry_after_ms, 10_000);
    }
}
