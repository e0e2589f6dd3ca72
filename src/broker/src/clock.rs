//! The two clocks that policy goes by, and the time stamp of log lines.
//!
//! CLOCK_BOOTTIME cannot be set and counts suspend; the wall clock is the second bound of a session's life and the
//! clock of `created_at`. Everything else takes a [`Now`] as an argument, so that tests choose the time.

use std::cell::Cell;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::day::DAY;

pub use nsecd_policy::time::iso;

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
    /// Both clocks, now, or when they were last looked at.
    fn now(&self) -> Now;

    /// Looks at them.
    fn look(&self) {}
}

/// The kernel's clocks, as they were when looked at: many decisions of one moment take one reading.
#[derive(Default)]
pub struct KeptClock(Cell<Now>);

impl KeptClock {
    /// Looked at once.
    pub fn new() -> KeptClock {
        KeptClock(Cell::new(SystemClock.now()))
    }
}

impl Clock for KeptClock {
    fn now(&self) -> Now {
        self.0.get()
    }

    fn look(&self) {
        self.0.set(SystemClock.now());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_clocks_run() {
        let now = SystemClock.now();
        assert!(now.boot > 0 && now.wall > 1_700_000_000_000);
    }
}
