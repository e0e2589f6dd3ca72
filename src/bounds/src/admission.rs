//! What stands before each use of a key: a token of the ceiling, then a row of the record.

use crate::{ceiling::Ceiling, record::Record};
use core::str::FromStr;
use nsecd_sandbox::lock::{clock, descriptor};

/// How a request ends: a field of the gate's replies and of the ECDH holder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The key may be used, and was.
    Granted = 0,
    /// No token is left.
    OverCeiling = 1,
    /// The row could not be written whole.
    NotRecorded = 2,
    /// A kind, an operation or a peer that the account does not have.
    NotAllowed = 3,
    /// The operator has frozen the account.
    Frozen = 4,
    /// No event of this key; no request.
    Malformed = 5,
    /// created_at is outside the window.
    CreatedAtOutside = 6,
    /// libsecp256k1 found its own input impossible: a fault of the machine.
    Fault = 7,
}

/// Ceilings and a record, each where there is one.
pub struct Admission {
    ceilings: Vec<Option<Ceiling>>,
    record: Option<Record>,
}

impl Admission {
    /// Ceilings: `none` or `burst,tokens,seconds,uses`, with slashes between them. Record: `none` or `sequence,offset`, which is
    /// where the next row goes in the file open as `fd`.
    pub fn new(ceilings: &str, record: &str, fd: i32) -> Result<Admission, String> {
        let now = clock(libc::CLOCK_BOOTTIME);
        let ceiling = |text| match list(text, "none")?.as_deref() {
            None => Ok(None),
            Some(&[burst, tokens, seconds, uses]) => Ceiling::new(burst, tokens, seconds, uses, now).map(Some),
            Some(_) => Err("ceiling: none or four numbers expected".to_owned()),
        };
        let ceilings = ceilings.split('/').map(ceiling).collect::<Result<_, _>>()?;
        let record = match list::<u64>(record, "none")?.as_deref() {
            None => None,
            Some(&[sequence, offset]) => Some(Record { file: descriptor(fd), sequence, offset }),
            Some(_) => return Err("record: none or two numbers expected".into()),
        };
        Ok(Admission { ceilings, record })
    }

    /// Takes a token of the ceiling with this number, or of the last one if there are fewer, and writes the row; a row is only
    /// ever written of what may then be done.
    pub fn admit(&mut self, ceiling: usize, kind: u32, created_at: u64, id: &[u8; 32]) -> Status {
        let (now, last) = (clock(libc::CLOCK_BOOTTIME), self.ceilings.len() - 1);
        if self.ceilings[ceiling.min(last)].as_mut().is_some_and(|ceiling| !ceiling.take(now)) {
            return Status::OverCeiling;
        }
        let (unix_ms, boot_s) = (clock(libc::CLOCK_REALTIME) / 1_000_000, (now / 1_000_000_000) as u32);
        if self.record.as_mut().is_some_and(|record| !record.append(unix_ms, boot_s, created_at, kind, id)) {
            return Status::NotRecorded;
        }
        Status::Granted
    }
}

/// Numbers with commas between them, as the supervisor passes them; `None` for the word that means no bound.
pub fn list<T: FromStr>(text: &str, unbound: &str) -> Result<Option<Vec<T>>, String> {
    if text == unbound {
        return Ok(None);
    }
    let number = |n: &str| n.parse().map_err(|_| format!("'{n}' is not a number that fits"));
    text.split(',').filter(|n| !n.is_empty()).map(number).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(text: &str) -> Result<Admission, String> {
        Admission::new(text, "none", -1)
    }

    #[test]
    fn a_ceiling_is_none_or_four_numbers_of_which_three_are_above_zero() {
        for good in ["none", "1,1,1,0", "600,10,1,600", "1,1,1,0/none", "none/2,2,2,7"] {
            assert!(ceilings(good).is_ok(), "{good}");
        }
        for bad in [
            "/",
            "1,1,1,0/",
            "",
            "any",
            "1",
            "1,1,1",
            "1,1,1,1,1",
            "0,1,1,0",
            "1,0,1,0",
            "1,1,0,0",
            "-1,1,1,0",
            "4294967296,1,1,0",
            "1,1,1,x",
        ] {
            assert!(ceilings(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_is_none_or_two_numbers() {
        for bad in ["", "any", "1", "1,64,0", "-1,64", "1,x"] {
            assert!(Admission::new("none", bad, -1).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_token_no_row_and_without_a_row_no_use() {
        let mut admission = ceilings("1,1,1000,0").expect("valid");
        assert_eq!(admission.admit(0, 1, 0, &[0; 32]), Status::Granted);
        assert_eq!(admission.admit(0, 1, 0, &[0; 32]), Status::OverCeiling);
        let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let fd = std::os::fd::IntoRawFd::into_raw_fd(full);
        let mut unrecorded = Admission::new("none", "1,64", fd).expect("valid");
        assert_eq!(unrecorded.admit(0, 1, 0, &[0; 32]), Status::NotRecorded);
    }

    #[test]
    fn each_ceiling_has_its_own_tokens_and_starts_with_what_was_used() {
        let taken = |admission: &mut Admission, ceiling| {
            (0..9).filter(|_| admission.admit(ceiling, 1, 0, &[0; 32]) == Status::Granted).count()
        };
        let mut apart = ceilings("2,1,1000,0/3,1,1000,0").expect("valid");
        assert_eq!((taken(&mut apart, 0), taken(&mut apart, 1), taken(&mut apart, 0)), (2, 3, 0));
        let mut one = ceilings("2,1,1000,0").expect("valid");
        assert_eq!((taken(&mut one, 1), taken(&mut one, 0)), (2, 0));
        let mut again = ceilings("4,1,1000,3/5,1,1000,9").expect("valid");
        assert_eq!((taken(&mut again, 0), taken(&mut again, 1)), (1, 0));
    }
}
