//! What stands before each use of a key: a token of the ceiling, then a row of the record.

use crate::{ceiling::Ceiling, record::Now, record::Record, record::Rows, record::Use};
use nsecd_sandbox::sys;

/// NIP-59's seal, of which a direct message takes two.
const SEAL: u32 = 13;

/// Ceilings and a record, each where there is one.
pub struct Admission {
    ceiling: Option<Ceiling>,
    /// That of kind 13, where it has one of its own.
    seals: Option<Option<Ceiling>>,
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
    /// With a ceiling of `none` or `burst,tokens,seconds`, a slash and another one where kind 13 has its own, and no record yet.
    pub fn new(ceilings: &str) -> Result<Admission, String> {
        let (ceiling, seals) = ceilings.split_once('/').map_or((ceilings, None), |(own, seals)| (own, Some(seals)));
        Ok(Admission { ceiling: parse(ceiling)?, seals: seals.map(parse).transpose()?, record: None })
    }

    /// Continues the record open as `fd`, after the file before it or /dev/null, and starts the ceiling at what both leave: no
    /// restart refills it. Errors say what the operator can do.
    pub fn open_record(&mut self, fd: i32, previous: i32) -> Result<(), String> {
        let previous = Rows::previous(previous)?;
        let record = Record::open(fd, previous.as_ref(), boot_id()?)?;
        let now = Now { wall: sys::clock(libc::CLOCK_REALTIME), boot: sys::clock(libc::CLOCK_BOOTTIME) };
        let apart = self.seals.is_some();
        for (ceiling, seals) in [(self.ceiling.as_mut(), false), (self.seals.as_mut().and_then(Option::as_mut), true)] {
            let Some(ceiling) = ceiling else { continue };
            let counts = |kind| !apart || (kind == u64::from(SEAL)) == seals;
            ceiling.start(now.boot, record.recent(previous.as_ref(), now, ceiling.memory(), ceiling.burst(), counts));
        }
        self.record = Some(record);
        Ok(())
    }

    /// Takes a token and writes the row; a row is only ever written of what may then be done.
    pub fn admit(&mut self, kind: u32, created_at: u64, id: &[u8; 32]) -> Result<(), Refusal> {
        let now = sys::clock(libc::CLOCK_BOOTTIME);
        let ceiling = self.seals.as_mut().filter(|_| kind == SEAL).unwrap_or(&mut self.ceiling);
        if ceiling.as_mut().is_some_and(|ceiling| !ceiling.take(now)) {
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

fn parse(ceiling: &str) -> Result<Option<Ceiling>, String> {
    match (ceiling, &numbers(ceiling)) {
        ("none", _) => Ok(None),
        (_, Ok(list)) if list.len() == 3 => {
            Ok(Some(Ceiling::new(list[0], list[1], list[2]).ok_or("ceiling: no number may be 0")?))
        }
        _ => Err("ceiling: none or three numbers expected".into()),
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
        for good in ["none", "1,1,1", "600,10,1", "1,1,1/none", "none/2,2,2"] {
            assert!(Admission::new(good).is_ok(), "{good}");
        }
        for bad in [
            "/",
            "1,1,1/",
            "1,1,1/1,1,1/1,1,1",
            "",
            "any",
            "1",
            "1,1",
            "1,1,1,1",
            "0,1,1",
            "1,0,1",
            "1,1,0",
            "-1,1,1",
            "4294967296,1,1",
            "1,1,x",
        ] {
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

    #[test]
    fn seals_draw_on_their_own_ceiling_where_they_have_one() {
        let taken =
            |admission: &mut Admission, kind| (0..9).filter(|_| admission.admit(kind, 0, &[0; 32]).is_ok()).count();
        let mut apart = Admission::new("2,1,1000/3,1,1000").expect("valid");
        assert_eq!((taken(&mut apart, 1), taken(&mut apart, 13), taken(&mut apart, 7)), (2, 3, 0));
        let mut one = Admission::new("2,1,1000").expect("valid");
        assert_eq!((taken(&mut one, 13), taken(&mut one, 1)), (2, 0));
    }

    #[test]
    fn a_restart_refills_neither_ceiling() {
        let path = std::env::temp_dir().join(format!("nsecd-admission-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).expect("temp file");
        std::fs::remove_file(&path).expect("unlink");
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        let start = || {
            use std::os::fd::AsRawFd;
            let mut admission = Admission::new("4,1,1000/5,1,1000").expect("valid");
            admission.open_record(file.as_raw_fd(), null.as_raw_fd()).expect("a record");
            admission
        };
        let taken = |kind, most| {
            let mut admission = start();
            (0..most).filter(|_| admission.admit(kind, 0, &[0; 32]).is_ok()).count()
        };
        assert_eq!([taken(13, 2), taken(1, 3), taken(13, 9), taken(1, 9), taken(13, 9)], [2, 3, 3, 1, 0]);
    }
}
