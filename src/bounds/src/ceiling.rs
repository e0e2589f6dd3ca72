//! The account's rate ceiling: a token bucket kept as one instant (GCRA), full again when that instant passes.

/// Nanoseconds.
type Nanos = u64;

/// A bucket of `burst` tokens, refilled one every `period`.
pub struct Ceiling {
    /// Time that one token takes to come back.
    period: Nanos,
    /// Time that a whole bucket takes.
    depth: Nanos,
    /// When the bucket will be full; in the past for a full one.
    full_at: Nanos,
}

impl Ceiling {
    /// A bucket of `burst` tokens, `tokens` of which come back every `seconds`, at `burst − uses`, the uses being those of the
    /// last [`memory`](Ceiling::memory): at or below the level that it had, so that no restart refills it. An error if one of
    /// the first three is 0.
    pub fn new(burst: u32, tokens: u32, seconds: u32, uses: u32, now: Nanos) -> Result<Ceiling, String> {
        // Rounded up: never a faster refill than configured.
        let period = (u64::from(seconds) * 1_000_000_000).div_ceil(u64::from(tokens.max(1)));
        let depth = period.checked_mul(u64::from(burst)).filter(|depth| *depth > 0 && tokens > 0);
        let depth = depth.ok_or("a ceiling of 0, or beyond all time")?;
        let spent = period.saturating_mul(u64::from(uses)).min(depth);
        Ok(Ceiling { period, depth, full_at: now.saturating_add(spent) })
    }

    /// How far back uses count: after this time without any, the bucket is full whatever came before.
    pub fn memory(&self) -> Nanos {
        self.depth
    }

    /// Takes one token at `now`; false, and nothing taken, from an empty bucket.
    pub fn take(&mut self, now: Nanos) -> bool {
        let full_at = self.full_at.max(now).saturating_add(self.period);
        let there = full_at - now <= self.depth;
        if there {
            self.full_at = full_at;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    fn takes(c: &mut Ceiling, now: Nanos) -> usize {
        (0..1000).take_while(|_| c.take(now)).count()
    }

    #[test]
    fn a_full_bucket_gives_burst_and_then_the_refill() {
        let mut c = Ceiling::new(5, 2, 1, 0, 0).expect("valid");
        assert_eq!(takes(&mut c, 100 * S), 5);
        assert_eq!(takes(&mut c, 100 * S + S / 2), 1);
        assert_eq!(takes(&mut c, 103 * S), 5);
        assert_eq!(takes(&mut c, 104 * S), 2);
    }

    #[test]
    fn a_restart_never_refills() {
        for uses in 0..8 {
            let mut before = Ceiling::new(5, 2, 1, 0, 0).expect("valid");
            let mut made = 0;
            for i in 0..uses {
                made += u32::from(before.take(100 * S + i * S / 10));
            }
            let mut after = Ceiling::new(5, 2, 1, made, 101 * S).expect("valid");
            assert!(takes(&mut after, 101 * S) <= takes(&mut before, 101 * S), "{uses}");
        }
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_gives_nothing() {
        let mut c = Ceiling::new(3, 1, 1, 0, 0).expect("valid");
        assert_eq!(takes(&mut c, 50 * S), 3);
        assert_eq!(takes(&mut c, 50 * S), 0);
        assert_eq!(takes(&mut c, 10 * S), 0);
    }

    #[test]
    fn zeros_are_no_ceiling() {
        for (burst, tokens, seconds) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert!(Ceiling::new(burst, tokens, seconds, 0, 0).is_err());
        }
    }
}
