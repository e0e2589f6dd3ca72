//! How often a principal may encrypt, decrypt, wrap and unwrap: each class on its own, so that none silences another
//! (threat A8).

use nsecd_policy::{CryptLimits, DmLimits, Socket};
use serde::{Deserialize, Serialize};

use crate::limits::{Exceeded, HOUR, MINUTE, Meter};

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// nip44 and nip04.
    Crypt,
    /// wrap_dm.
    Wrap,
    /// unwrap_gift_wrap of what was for this key.
    Unwrap,
    /// unwrap_gift_wrap of what was not, or forged.
    Failed,
}

impl Class {
    /// Each of them.
    pub const ALL: [Class; 4] = [Class::Crypt, Class::Wrap, Class::Unwrap, Class::Failed];
}

/// A bucket, kept as the time when it will be full. CLOCK_BOOTTIME, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Bucket(u64);

impl Bucket {
    /// Milliseconds until it has one more, if it has none.
    fn wait(self, burst: u32, per_minute: u32, now: u64) -> Option<u64> {
        let period = period(per_minute);
        let full_at = self.0.max(now).saturating_add(period);
        (full_at - now).checked_sub(period.saturating_mul(burst.into())).filter(|over| *over > 0)
    }

    fn take(&mut self, per_minute: u32, now: u64) {
        self.0 = self.0.max(now).saturating_add(period(per_minute));
    }
}

/// Milliseconds in which one comes back, rounded up; `per_minute` 0: an hour, which is for good as windows go.
fn period(per_minute: u32) -> u64 {
    if per_minute == 0 { HOUR } else { MINUTE.div_ceil(per_minute.into()) }
}

/// What of a socket's policy decides what is counted.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    crypt: Option<CryptLimits>,
    dm: Option<DmLimits>,
}

impl Rules {
    /// A socket's, for each principal.
    pub fn of(socket: &Socket) -> Rules {
        Rules { crypt: socket.crypt, dm: socket.dm }
    }

    /// How many messages may fail a minute, and the milliseconds after which one more may be opened; `None`: any number at any
    /// time.
    pub fn opening(&self) -> Option<(u32, u64)> {
        self.dm.map(|dm| (dm.failed_per_minute, period(dm.unwrap_per_minute)))
    }

    /// The same for all its principals together.
    pub fn of_all(socket: &Socket) -> Rules {
        let times = |n: u32| n.saturating_mul(DmLimits::SOCKET_FACTOR);
        let crypt = |c: CryptLimits| CryptLimits { per_minute: times(c.per_minute), per_hour: times(c.per_hour) };
        let dm = |d: DmLimits| DmLimits {
            unwrap_burst: times(d.unwrap_burst),
            unwrap_per_minute: times(d.unwrap_per_minute),
            failed_per_minute: times(d.failed_per_minute),
            wrap_per_minute: times(d.wrap_per_minute),
        };
        Rules { crypt: socket.crypt.map(crypt), dm: socket.dm.map(dm) }
    }
}

/// One principal's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    crypt: Meter,
    wraps: Meter,
    failed: Meter,
    unwraps: Bucket,
}

impl Budgets {
    /// `None` if one more of this class is within its limits.
    pub fn check(&self, class: Class, rules: &Rules, now: u64) -> Option<Exceeded> {
        let window = |meter: &Meter, most, span, what: &str| {
            let text = || format!("Rate limit: {}/{most} {what}", meter.used(span, now));
            meter.wait(most, span, now).map(|retry_after_ms| Exceeded { text: text(), retry_after_ms })
        };
        match (class, rules.crypt, rules.dm) {
            (Class::Crypt, Some(CryptLimits { per_minute, per_hour }), _) => {
                let minute = window(&self.crypt, per_minute, MINUTE, "per minute");
                let hour = window(&self.crypt, per_hour, HOUR, "per hour");
                [minute, hour].into_iter().flatten().max_by_key(|e| e.retry_after_ms)
            }
            (Class::Wrap, _, Some(dm)) => window(&self.wraps, dm.wrap_per_minute, MINUTE, "messages per minute"),
            (Class::Failed, _, Some(dm)) => window(&self.failed, dm.failed_per_minute, MINUTE, "failed per minute"),
            (Class::Unwrap, _, Some(DmLimits { unwrap_burst, unwrap_per_minute, .. })) => {
                let retry_after_ms = self.unwraps.wait(unwrap_burst, unwrap_per_minute, now)?;
                let text = format!("Rate limit: {unwrap_burst} messages at once, {unwrap_per_minute} per minute");
                Some(Exceeded { text, retry_after_ms })
            }
            (_, _, _) => None,
        }
    }

    /// Counts one, where it is limited.
    pub fn spend(&mut self, class: Class, rules: &Rules, now: u64) {
        match (class, rules.crypt, rules.dm) {
            (Class::Crypt, Some(_), _) => self.crypt.reserve(now),
            (Class::Wrap, _, Some(_)) => self.wraps.reserve(now),
            (Class::Failed, _, Some(_)) => self.failed.reserve(now),
            (Class::Unwrap, _, Some(dm)) => self.unwraps.take(dm.unwrap_per_minute, now),
            (_, _, _) => {}
        }
    }

    /// Takes one back that was counted at `at` and came to nothing. Unwrapping is only counted when it is done.
    pub fn give_back(&mut self, class: Class, at: u64) {
        match class {
            Class::Crypt => self.crypt.release(at),
            Class::Wrap => self.wraps.release(at),
            Class::Failed | Class::Unwrap => {}
        }
    }

    /// Whether nothing is left that any limit counts.
    pub fn is_empty(&mut self, now: u64) -> bool {
        self.crypt.is_empty(now) && self.wraps.is_empty(now) && self.failed.is_empty(now) && self.unwraps.0 <= now
    }

    /// As [`Meter::raise`].
    pub fn raise(&mut self, other: &Budgets) {
        self.crypt.raise(&other.crypt);
        self.wraps.raise(&other.wraps);
        self.failed.raise(&other.failed);
        self.unwraps = Bucket(self.unwraps.0.max(other.unwraps.0));
    }

    /// As [`Meter::carry`].
    pub fn carry(&mut self, from: u64, elapsed: u64, to: u64) {
        self.crypt.carry(from, elapsed, to);
        self.wraps.carry(from, elapsed, to);
        self.failed.carry(from, elapsed, to);
        let missing = self.unwraps.0.saturating_sub(from).saturating_sub(elapsed);
        self.unwraps = Bucket(if missing == 0 { 0 } else { to.saturating_add(missing) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DM: DmLimits = DmLimits { unwrap_burst: 5, unwrap_per_minute: 60, failed_per_minute: 3, wrap_per_minute: 2 };
    const RULES: Rules = Rules { crypt: Some(CryptLimits { per_minute: 2, per_hour: 3 }), dm: Some(DM) };

    /// How many of ten go through at once.
    fn burst(budgets: &mut Budgets, class: Class, now: u64) -> usize {
        let mut one = || {
            let within = budgets.check(class, &RULES, now).is_none();
            if within {
                budgets.spend(class, &RULES, now);
            }
            within
        };
        (0..10).filter(|_| one()).count()
    }

    #[test]
    fn each_class_has_its_own() {
        let mut budgets = Budgets::default();
        assert_eq!(burst(&mut budgets, Class::Failed, HOUR), 3);
        assert_eq!(burst(&mut budgets, Class::Crypt, HOUR), 2);
        assert_eq!(burst(&mut budgets, Class::Wrap, HOUR), 2);
        assert_eq!(burst(&mut budgets, Class::Unwrap, HOUR), 5);
        let none = Rules { crypt: None, dm: None };
        assert!(
            [Class::Failed, Class::Crypt, Class::Wrap, Class::Unwrap]
                .iter()
                .all(|c| budgets.check(*c, &none, HOUR).is_none())
        );
    }

    #[test]
    fn a_backlog_fits_at_once_and_then_it_goes_by_the_minute() {
        let mut budgets = Budgets::default();
        assert_eq!(burst(&mut budgets, Class::Unwrap, HOUR), 5);
        assert_eq!(budgets.check(Class::Unwrap, &RULES, HOUR).map(|e| e.retry_after_ms), Some(1000));
        assert_eq!(burst(&mut budgets, Class::Unwrap, HOUR + 2000), 2);
        assert_eq!(burst(&mut budgets, Class::Unwrap, HOUR + 60_000), 5);
    }

    #[test]
    fn minute_and_hour_both_hold_and_what_came_to_nothing_is_given_back() {
        let mut budgets = Budgets::default();
        assert_eq!(burst(&mut budgets, Class::Crypt, HOUR), 2);
        budgets.give_back(Class::Crypt, HOUR);
        assert_eq!(burst(&mut budgets, Class::Crypt, HOUR + 1), 1);
        assert_eq!(burst(&mut budgets, Class::Crypt, HOUR + 60_001), 1);
        let refused = budgets.check(Class::Crypt, &RULES, HOUR + 130_000).expect("the hour is full");
        assert_eq!((refused.text.as_str(), refused.retry_after_ms), ("Rate limit: 3/3 per hour", HOUR - 130_000));
    }

    #[test]
    fn another_boot_forgives_no_budget() {
        let mut budgets = Budgets::default();
        for class in [Class::Unwrap, Class::Wrap, Class::Failed, Class::Crypt] {
            burst(&mut budgets, class, 3 * HOUR);
        }
        budgets.carry(3 * HOUR + 500, 500, HOUR);
        let mut heir = Budgets::default();
        heir.raise(&budgets);
        assert_eq!(burst(&mut heir, Class::Unwrap, HOUR), 1, "a second has passed");
        for class in [Class::Wrap, Class::Failed, Class::Crypt] {
            assert_eq!(burst(&mut heir, class, HOUR), 0);
        }
        assert!(!heir.is_empty(HOUR) && heir.is_empty(3 * HOUR));
    }
}
