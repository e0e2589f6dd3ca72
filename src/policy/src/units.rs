//! The units of the configuration: durations, sizes, ceilings, created_at windows, waiting. Pure text to numbers and
//! back; what is printed reads back as the same number.

use crate::Ceiling;

/// Seconds of each duration unit, the largest first.
const DURATIONS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Bytes of each size unit, the largest first.
const SIZES: [(&str, u64); 3] = [("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A whole number in plain decimal digits.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Seconds of `90s`, `15m`, `24h` or `7d`.
pub fn duration(text: &str) -> Option<u64> {
    let (unit, seconds) = DURATIONS.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
    digits(text.strip_suffix(unit)?)?.checked_mul(seconds)
}

/// The shortest text of so many seconds.
pub fn show_duration(seconds: u64) -> String {
    let exact = DURATIONS.into_iter().find(|(_, s)| seconds > 0 && seconds.is_multiple_of(*s));
    let (unit, unit_seconds) = exact.unwrap_or(('s', 1));
    format!("{}{unit}", seconds / unit_seconds)
}

/// Bytes of `100B`, `512KiB` or `64MiB`.
pub fn size(text: &str) -> Option<u64> {
    let (unit, bytes) = SIZES.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    digits(text.strip_suffix(unit)?)?.checked_mul(bytes)
}

/// The shortest text of so many bytes.
pub fn show_size(bytes: u64) -> String {
    let exact = SIZES.into_iter().find(|(_, b)| bytes > 0 && bytes.is_multiple_of(*b));
    let (unit, unit_bytes) = exact.unwrap_or(("B", 1));
    format!("{}{unit}", bytes / unit_bytes)
}

/// A token bucket of `burst, tokens/unit`, such as `120, 2/s`; the unit is s, m or h, both numbers at least 1.
pub fn ceiling(text: &str) -> Option<Ceiling> {
    let (burst, refill) = text.split_once(',')?;
    let (tokens, unit) = refill.trim().split_once('/')?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    let number = |text: &str| digits(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    Some(Ceiling { burst: number(burst.trim())?, tokens: number(tokens)?, seconds })
}

/// The text of a ceiling whose seconds are those of a unit, as all that [`ceiling`] returns are.
pub fn show_ceiling(c: &Ceiling) -> String {
    let unit = match c.seconds {
        1 => 's',
        60 => 'm',
        _ => 'h',
    };
    format!("{}, {}/{unit}", c.burst, c.tokens)
}

/// Seconds before and after now, of `-1h..+15m`; the window must contain now. `None` inside: `any`.
pub fn window(text: &str) -> Option<Option<(i64, i64)>> {
    if text == "any" {
        return Some(None);
    }
    let (from, to) = text.split_once("..")?;
    let (from, to) = (offset(from)?, offset(to)?);
    (from <= 0 && to >= 0).then_some(Some((from, to)))
}

/// Seconds of a duration with an optional sign.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    // created_at lies below 2^32, so no window needs to reach farther.
    let seconds = duration(rest).filter(|s| *s <= u64::from(u32::MAX))?;
    Some(sign * i64::try_from(seconds).ok()?)
}

/// The text of a created_at window.
pub fn show_window(window: Option<(i64, i64)>) -> String {
    let Some((from, to)) = window else { return "any".to_string() };
    format!("-{}..+{}", show_duration(from.unsigned_abs()), show_duration(to.unsigned_abs()))
}

/// Seconds that a rate-limited request may wait: 0 for `reject`, 20 for `wait 20s`.
pub fn wait(text: &str) -> Option<u64> {
    match text.strip_prefix("wait ") {
        None => (text == "reject").then_some(0),
        Some(time) => duration(time).filter(|s| (1..=600).contains(s)),
    }
}

/// The text of a wait.
pub fn show_wait(seconds: u64) -> String {
    if seconds == 0 { "reject".to_string() } else { format!("wait {}", show_duration(seconds)) }
}

/// So many of what `one` is the word for: "1 row", "2 rows".
pub fn counted(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("365d", 31_536_000)] {
            assert_eq!(duration(text), Some(seconds), "{text}");
            assert_eq!(duration(&show_duration(seconds)), Some(seconds));
        }
        for bad in
            ["", "s", "24", "24 h", "1.5h", "-1h", "+1h", "1H", "1e3s", "99999999999999999999s", "300000000000000d"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_whole_numbers_with_a_binary_unit() {
        for (text, bytes) in [("0B", 0), ("100B", 100), ("512KiB", 524_288), ("64MiB", 67_108_864)] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        for bad in ["", "B", "KiB", "1KB", "1 KiB", "1kib", "1GiB", "-1B", "20000000000000MiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn ceilings_have_a_burst_and_a_refill() {
        for (text, burst, tokens, seconds) in
            [("120, 2/s", 120, 2, 1), ("5,1/m", 5, 1, 60), ("480, 480/h", 480, 480, 3_600)]
        {
            let c = Ceiling { burst, tokens, seconds };
            assert_eq!(ceiling(text), Some(c), "{text}");
            assert_eq!(ceiling(&show_ceiling(&c)), Some(c));
        }
        for bad in
            ["", "120", "120, 2", "0, 1/s", "1, 0/s", "1, 1/d", "1, 1/2s", "-1, 1/s", "1, 2 /s", "5000000000, 1/s"]
        {
            assert_eq!(ceiling(bad), None, "{bad}");
        }
    }

    #[test]
    fn windows_contain_now() {
        for (text, value) in [
            ("any", None),
            ("-1h..+15m", Some((-3600, 900))),
            ("0s..5m", Some((0, 300))),
            ("-2d..0s", Some((-172_800, 0))),
        ] {
            assert_eq!(window(text), Some(value), "{text}");
            assert_eq!(window(&show_window(value)), Some(value));
        }
        for bad in ["", "1h", "+1h..-1h", "+1m..+2m", "-2h..-1h", "-1h...+1h", "--1h..1h", "-1h..", "-99999d..0s"] {
            assert_eq!(window(bad), None, "{bad}");
        }
    }

    #[test]
    fn waits_are_bounded() {
        assert_eq!(wait("reject"), Some(0));
        assert_eq!(wait("wait 20s"), Some(20));
        assert_eq!(wait(&show_wait(600)), Some(600));
        for bad in ["", "wait", "wait 0s", "wait 11m", "wait  5s", "20s", "Reject"] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "row")), ["0 rows", "1 row", "2 rows"]);
    }
}
