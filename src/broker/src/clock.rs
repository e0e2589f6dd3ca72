//! The two clocks that policy goes by, and the time stamp of log lines.
//!
//! CLOCK_BOOTTIME cannot be set and counts suspend; the wall clock is the second bound of a session's life and the
//! clock of `created_at`. Everything else takes a [`Now`] as an argument, so that tests choose the time.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::day::DAY;

/// One reading of both clocks, in milliseconds. The journal writes it as `[boot, wall]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Now {
    /// Since a day before the boot, suspend included (CLOCK_BOOTTIME and [`DAY`]): what happened before the boot, and
    /// still counts in a window, has a time on this clock too.
    pub boot: u64,
    /// Since 1970 (CLOCK_REALTIME).
    pub wall: u64,
}

impl Now {
    /// Whole seconds since 1970, as in `created_at`.
    pub fn wall_seconds(self) -> i64 {
        i64::try_from(self.wall / 1000).unwrap_or(i64::MAX)
    }
}

impl From<(u64, u64)> for Now {
    fn from((boot, wall): (u64, u64)) -> Now {
        Now { boot, wall }
    }
}

impl From<Now> for (u64, u64) {
    fn from(now: Now) -> Self {
        (now.boot, now.wall)
    }
}

/// Where the time comes from.
pub trait Clock {
    /// Both clocks, now.
    fn now(&self) -> Now;
}

/// The kernel's clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let read = |id| {
            // Both clocks exist on every kernel nsecd runs on; a failure here would have to be a filter that forbids
            // them, and then standing still (windows never slide, sessions never renew) is the safe reading.
            let Ok(time) = clock_gettime(id) else { return 0 };
            let time = Duration::from(time);
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        };
        Now { boot: read(ClockId::CLOCK_BOOTTIME).saturating_add(DAY), wall: read(ClockId::CLOCK_REALTIME) }
    }
}

/// `2026-04-02T05:37:39.123Z`, as JavaScript's toISOString writes it.
pub fn iso(wall: u64) -> String {
    let (days, ms) = (wall / 86_400_000, wall % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The date `days` after 1970-01-01, by counting whole 400-year cycles from 0000-03-01, so that a leap day is always
/// the last day of its counted year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + 400 * cycle + next, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_reference() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_775_108_259_123), "2026-04-02T05:37:39.123Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(iso(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn the_kernel_clocks_run() {
        let now = SystemClock.now();
        assert!(now.boot > 0 && now.wall > 1_700_000_000_000);
    }
}
