//! Limits, totals and the account's automatic ceiling. A window that a larger one makes unreachable is an error where
//! it was written, and lowered where it was only inherited.

use nsecd_policy::{CryptLimits, DmLimits, Limits, Method};

use super::error::{At, Error};
use super::profiles::{CRYPT, DM, ECDH_CEILING, TOTAL_FACTOR};
use super::raw::{RawCrypt, RawDm, RawLimits};
use super::{Ceiling, Socket};

/// `base` with the values that `over` writes.
pub fn merge(base: Limits, over: &RawLimits) -> Result<Limits, Error> {
    let mut l = Limits {
        burst: value(&over.burst, base.burst),
        burst_window: over.burst_window.as_ref().map_or(base.burst_window, |a| a.value),
        per_minute: value(&over.per_minute, base.per_minute),
        per_hour: value(&over.per_hour, base.per_hour),
    };
    let within = |least: &mut u32, written: &Option<At<u32>>, key: &str, most: u32, wider: &str| {
        within(&over.name, least, written, key, most, wider)
    };
    within(&mut l.per_minute, &over.per_minute, "per_minute", l.per_hour, "per_hour")?;
    within(&mut l.burst, &over.burst, "burst", l.per_hour, "per_hour")?;
    if l.burst_window <= 60 {
        within(&mut l.burst, &over.burst, "burst", l.per_minute, "per_minute")?;
    }
    Ok(l)
}

fn value(written: &Option<At<u32>>, base: u32) -> u32 {
    written.as_ref().map_or(base, |a| a.value)
}

/// Lowers an inherited limit to what a wider window lets through; one that was written is an error.
fn within(
    name: &str,
    least: &mut u32,
    written: &Option<At<u32>>,
    key: &str,
    most: u32,
    wider: &str,
) -> Result<(), Error> {
    match written {
        Some(at) if *least > most => Err(Error::at(
            &at.origin,
            format!(
                "{name}.{key} = {least}: can never be reached: expected at most {name}.{wider}, {most}, or that one raised too"
            ),
        )),
        _ => {
            *least = most.min(*least);
            Ok(())
        }
    }
}

/// A socket's limits on direct messages: what is written over the defaults; `None` is "none".
pub fn dm(written: &Option<Option<RawDm>>) -> Option<DmLimits> {
    let over = written.clone().unwrap_or_else(|| Some(RawDm::default()))?;
    Some(DmLimits {
        unwrap_burst: value(&over.unwrap_burst, DM.unwrap_burst),
        unwrap_per_minute: value(&over.unwrap_per_minute, DM.unwrap_per_minute),
        failed_per_minute: value(&over.failed_per_minute, DM.failed_per_minute),
        wrap_per_minute: value(&over.wrap_per_minute, DM.wrap_per_minute),
    })
}

/// A socket's limits on nip44 and nip04, likewise.
pub fn crypt(written: &Option<Option<RawCrypt>>) -> Result<Option<CryptLimits>, Error> {
    let Some(over) = written.clone().unwrap_or_else(|| Some(RawCrypt::default())) else { return Ok(None) };
    let mut c = CryptLimits {
        per_minute: value(&over.per_minute, CRYPT.per_minute),
        per_hour: value(&over.per_hour, CRYPT.per_hour),
    };
    within("socket.crypt", &mut c.per_minute, &over.per_minute, "per_minute", c.per_hour, "per_hour")?;
    Ok(Some(c))
}

/// A socket's total where nothing is written: so many times its limits, over the same windows.
pub fn default_total(l: Limits) -> Limits {
    Limits {
        burst: l.burst.saturating_mul(TOTAL_FACTOR),
        burst_window: l.burst_window,
        per_minute: l.per_minute.saturating_mul(TOTAL_FACTOR),
        per_hour: l.per_hour.saturating_mul(TOTAL_FACTOR),
    }
}

/// The ceiling of an account whose sockets have these totals: a token bucket that never refuses what they permit.
///
/// In any t seconds a sliding hour of n signatures lets at most n × (t / 3600 + 1) through, which is what a bucket of n
/// that gains n an hour gives; a fifth more of both keeps clear of two clocks read in two processes. A socket without a
/// total leaves no bound: `None`.
pub fn auto_ceiling<'a>(totals: impl IntoIterator<Item = &'a Option<Limits>>) -> Option<Ceiling> {
    let mut per_hour = 0u64;
    for total in totals {
        per_hour += u64::from(total.as_ref()?.per_hour);
    }
    let n = u32::try_from((per_hour * 6).div_ceil(5)).unwrap_or(u32::MAX);
    Some(Ceiling { burst: n, tokens: n, seconds: 3_600 })
}

/// The ceiling of the seals of an account whose sockets have these limits on messages: two a message, for as many as all
/// principals of a socket together may send, and a fifth more.
pub fn auto_seal_ceiling<'a>(limits: impl IntoIterator<Item = &'a Option<DmLimits>>) -> Option<Ceiling> {
    let mut per_hour = 0u64;
    for dm in limits {
        per_hour += 2 * 60 * u64::from(dm.as_ref()?.wrap_per_minute) * u64::from(DmLimits::SOCKET_FACTOR);
    }
    let n = u32::try_from((per_hour * 6).div_ceil(5)).unwrap_or(u32::MAX).max(1);
    Some(Ceiling { burst: n, tokens: n, seconds: 3_600 })
}

/// The ceiling of key agreements under these sockets: what a client of each may need within its limits, two agreements for a
/// message to open and two for one to send, and room for as many failures; never less than the default. A socket without
/// limits adds nothing to it.
pub fn auto_ecdh_ceiling(sockets: &[Socket]) -> Ceiling {
    let (mut burst, mut per_minute) = (0u64, 0u64);
    for socket in sockets {
        let has = |methods: &[Method]| socket.methods.iter().any(|method| methods.contains(method));
        if let Some(dm) = socket.dm.filter(|_| has(&[Method::Dm])) {
            let junk_and_sent = u64::from(dm.failed_per_minute) + 2 * u64::from(dm.wrap_per_minute);
            burst += 2 * u64::from(dm.unwrap_burst) + junk_and_sent;
            per_minute += 2 * u64::from(dm.unwrap_per_minute) + junk_and_sent;
        }
        if let Some(crypt) = socket.crypt.filter(|_| has(&[Method::Nip44, Method::Nip04])) {
            burst += u64::from(crypt.per_minute);
            per_minute += u64::from(crypt.per_minute);
        }
    }
    let least = ECDH_CEILING;
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Ceiling {
        burst: number(burst).max(least.burst),
        tokens: number(per_minute.div_ceil(60)).max(least.tokens),
        seconds: least.seconds,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn the_ceiling_is_a_fifth_above_the_totals() {
        let total = |per_hour| Some(Limits { burst: 1, burst_window: 10, per_minute: 1, per_hour });
        let n = |c: Option<Ceiling>| c.map(|c| (c.burst, c.tokens, c.seconds));
        assert_eq!(n(auto_ceiling(&[total(400)])), Some((480, 480, 3_600)));
        assert_eq!(n(auto_ceiling(&[total(400), total(1)])), Some((482, 482, 3_600)));
        assert_eq!(auto_ceiling(&[total(400), None]), None);
    }

    /// A total as the broker counts it: at most so many in each sliding window.
    struct Windows(Vec<(u64, u32, VecDeque<u64>)>);

    impl Windows {
        fn of(l: Limits) -> Windows {
            let window = |seconds, n| (seconds * 1_000, n, VecDeque::new());
            Windows(vec![window(l.burst_window, l.burst), window(60, l.per_minute), window(3_600, l.per_hour)])
        }

        /// Takes a slot at `now` milliseconds, if there is one in each window.
        fn take(&mut self, now: u64) -> bool {
            for (length, _, used) in &mut self.0 {
                while used.front().is_some_and(|t| now - t >= *length) {
                    used.pop_front();
                }
            }
            let free = self.0.iter().all(|(_, n, used)| used.len() < *n as usize);
            if free {
                self.0.iter_mut().for_each(|(_, _, used)| used.push_back(now));
            }
            free
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // Red when the refill or the burst is half of it.
        #[test]
        fn an_automatic_ceiling_never_refuses_what_the_totals_permit(
            totals in prop::collection::vec((1u32..40, 1u64..120, 1u32..80, 1u32..200), 1..4),
            pauses in prop::collection::vec(prop_oneof![4 => 0u64..400, 2 => 1_000u64..70_000, 1 => 3_000_000u64..4_000_000], 1..1_500),
        ) {
            let limits = totals.iter().map(|&(burst, burst_window, per_minute, per_hour)| Limits { burst, burst_window, per_minute, per_hour });
            let sockets: Vec<Option<Limits>> = limits.map(Some).collect();
            let Some(ceiling) = auto_ceiling(&sockets) else { panic!("no ceiling") };
            let mut windows: Vec<Windows> = sockets.iter().flatten().map(|l| Windows::of(*l)).collect();
            // The bucket in thousandths of tokens × seconds, so that all is whole numbers of milliseconds.
            let unit = u64::from(ceiling.seconds) * 1_000;
            let full = u64::from(ceiling.burst) * unit;
            let (mut level, mut now) = (full, 0u64);
            for pause in pauses {
                now += pause;
                level = full.min(level + pause * u64::from(ceiling.tokens));
                for socket in &mut windows {
                    while socket.take(now) {
                        prop_assert!(level >= unit, "refused at {now} ms under {ceiling:?}");
                        level -= unit;
                    }
                }
            }
        }
    }
}
