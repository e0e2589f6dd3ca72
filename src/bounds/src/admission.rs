//! What stands before each use of a key: a token of the ceiling, then a row of the record.

use crate::{ceiling::Ceiling, record::Now, record::Record, record::Rows, record::Use};
use nsecd_sandbox::sys;

/// A ceiling and a record, each where there is one.
pub struct Admission {
    ceiling: Option<Ceiling>,
    record: Option<Record>,
}

/// Why a key may not be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token is left.
    OverCeiling,
    /// The row could not be written whole.
    NotRecorded,
}

impl Admission {
    /// With a ceiling of `none` or `burst,tokens,seconds`, and no record yet.
    pub fn new(ceiling: &str) -> Result<Admission, String> {
        let ceiling = match (ceiling, &numbers(ceiling)) {
            ("none", _) => None,
            (_, Ok(list)) if list.len() == 3 => {
                Some(Ceiling::new(list[0], list[1], list[2]).ok_or("ceiling: no number may be 0")?)
            }
            _ => return Err("ceiling: none or three numbers expected".into()),
        };
        Ok(Admission { ceiling, record: None })
    }

    /// Continues the record open as `fd`, after the file before it or /dev/null, and starts the ceiling at what both leave: no
    /// restart refills it. Errors say what the operator can do.
    pub fn open_record(&mut self, fd: i32, previous: i32) -> Result<(), String> {
        let previous = Rows::previous(previous)?;
        let record = Record::open(fd, previous.as_ref(), boot_id()?)?;
        if let Some(ceiling) = &mut self.ceiling {
            let now = Now { wall: sys::clock(libc::CLOCK_REALTIME), boot: sys::clock(libc::CLOCK_BOOTTIME) };
            ceiling.start(now.boot, record.recent(previous.as_ref(), now, ceiling.memory(), ceiling.burst()));
        }
        self.record = Some(record);
        Ok(())
    }

    /// Takes a token and writes the row; a row is only ever written of what may then be done.
    pub fn admit(&mut self, kind: u32, created_at: u64, id: &[u8; 32]) -> Result<(), Refusal> {
        let now = sys::clock(libc::CLOCK_BOOTTIME);
        if self.ceiling.as_mut().is_some_and(|ceiling| !ceiling.take(now)) {
            return Err(Refusal::OverCeiling);
        }
        let (unix_ms, boot_s) = (sys::clock(libc::CLOCK_REALTIME) / 1_000_000, (now / 1_000_000_000) as u32);
        let row = Use { unix_ms, boot_s, created_at, kind, id };
        if self.record.as_mut().is_some_and(|record| !record.append(&row)) {
            return Err(Refusal::NotRecorded);
        }
        Ok(())
    }
}

/// Numbers with commas between them, as the supervisor passes them; none in an empty list.
pub fn numbers<T: core::str::FromStr>(list: &str) -> Result<Vec<T>, String> {
    list.split(',')
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().map_err(|_| format!("'{n}' is not a number that fits")))
        .collect()
}

/// This boot's random id, for a new record's header.
fn boot_id() -> Result<[u8; 16], String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(PATH).map_err(|e| format!("{PATH}: {e}"))?;
    let id = u128::from_str_radix(&text.trim().replace('-', ""), 16).map_err(|e| format!("{PATH}: {e}"))?;
    Ok(id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_none_or_three_numbers_above_zero() {
        for good in ["none", "1,1,1", "600,10,1"] {
            assert!(Admission::new(good).is_ok(), "{good}");
        }
        for bad in ["", "any", "1", "1,1", "1,1,1,1", "0,1,1", "1,0,1", "1,1,0", "-1,1,1", "4294967296,1,1", "1,1,x"] {
            assert!(Admission::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_token_no_row_and_without_a_row_no_use() {
        let mut admission = Admission::new("1,1,1000").expect("valid");
        assert_eq!(admission.admit(1, 0, &[0; 32]), Ok(()));
        assert_eq!(admission.admit(1, 0, &[0; 32]), Err(Refusal::OverCeiling));
        assert!(Admission::new("none").expect("valid").open_record(-1, -1).is_err());
    }
}
