//! The record: every use that was written is counted, over starts, torn rows, new files and clocks that are set; and no file,
//! whatever is in it, ends its reader or gives more than there is.
//!
//! Input: choices; with the first bit of the first byte set, the rest is a file.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use arbitrary::{Result, Unstructured};
use nsecd_bounds::record::{ROW, Record};
use nsecd_records::{Now, Rows};

use crate::scratch;
use crate::subject;

const SECOND: u64 = 1_000_000_000;
/// What the account's bucket remembers, nanoseconds.
const MEMORY: u64 = 60 * SECOND;
const LIMIT: u64 = 40;

pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((choice, rest)) if choice & 1 == 1 => foreign(rest),
        Some((_, rest)) => drop(Life::default().live(&mut Unstructured::new(rest))),
        None => {}
    }
}

/// A file of any bytes, as the record and as the file before it.
fn foreign(data: &[u8]) {
    // Half of them begin as a record does.
    let bytes = match data.split_first() {
        Some((b'r', rest)) => [&b"nsecrec\x01"[..], rest].concat(),
        _ => data.to_vec(),
    };
    let (file, fresh) = (scratch::file(&bytes), scratch::file(&[]));
    let now = Now { wall: 1_800_000_000 * SECOND, boot: 1_000 * SECOND };
    let is_record = bytes.len() >= ROW && bytes.starts_with(b"nsecrec\x01");
    let first = bytes.get(24..32).map_or(0, |first| u64::from_be_bytes(first.try_into().unwrap()));
    let rows = (bytes.len() / ROW).saturating_sub(1) as u64;
    let fits = is_record && first.checked_add(rows).is_some();
    let previous = Rows::previous(&file);
    assert_eq!(previous.is_ok(), bytes.is_empty() || fits);
    if let Ok(Some(previous)) = &previous {
        let record = Rows::open(&fresh, Some(previous), [9; 16]).unwrap();
        assert!(record.recent(Some(previous), now, MEMORY, LIMIT, |_| true) <= LIMIT);
    }
    let record = Rows::open(&file, None, [9; 16]);
    // What is shorter than a header is one that was cut short.
    assert_eq!(record.is_ok(), bytes.len() < ROW || fits);
    let Ok(record) = record else { return assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64) };
    let before = record.recent(None, now, MEMORY, LIMIT, |_| true);
    assert!(before <= LIMIT);
    if first.checked_add(rows + 1).is_none() {
        return; // no number is left for another row
    }
    assert!(writer(&file, &record).append(now.wall / 1_000_000, 1_000, 1, 1, &[1; 32]));
    let record = Rows::open(&file, None, [9; 16]).unwrap();
    assert_eq!(record.recent(None, now, MEMORY, LIMIT, |_| true), (before + 1).min(LIMIT));
}

/// The writer that goes on where these rows end.
fn writer(file: &File, rows: &Rows) -> Record {
    let (sequence, offset) = rows.next();
    Record { file: file.try_clone().unwrap(), sequence, offset }
}

/// One use, by the true clock of its boot.
#[derive(Clone, Copy)]
struct Used {
    boot: u32,
    at: u64,
    kind: u32,
}

/// A record's life, with a witness who knows the true time.
#[derive(Default)]
struct Life {
    uses: Vec<Used>,
    boot: u32,
    /// Nanoseconds since the boot, which nobody can set.
    uptime: u64,
    /// Nanoseconds since 1970, as far as anybody believes it.
    wall: u64,
}

impl Life {
    fn live(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let (mut previous, mut file): (Option<File>, File) = (None, scratch::file(&[]));
        self.wall = 1_800_000_000 * SECOND;
        while !choices.is_empty() {
            let before = previous.as_ref().map(|file| Rows::previous(file).unwrap().unwrap());
            let rows = Rows::open(&file, before.as_ref(), [9; 16]).unwrap();
            self.judge(&rows, before.as_ref());
            let mut record = writer(&file, &rows);
            for _ in 0..choices.int_in_range(0..=20)? {
                self.pass(u64::from(choices.arbitrary::<u8>()?) * SECOND / 4);
                self.write(&mut record, if choices.arbitrary()? { 13 } else { 1 });
            }
            match choices.int_in_range(0..=5)? {
                // A gate that ends in the middle of a row.
                0 => {
                    file.seek(SeekFrom::End(0)).unwrap();
                    file.write_all(&vec![0xff; choices.int_in_range(1..=ROW - 1)?]).unwrap();
                }
                1 => previous = Some(std::mem::replace(&mut file, scratch::file(&[]))),
                2 => self.wall = u64::from(choices.arbitrary::<u32>()?) * SECOND,
                3 => {
                    (self.boot, self.uptime) = (self.boot + 1, u64::from(choices.arbitrary::<u8>()?) * SECOND);
                }
                _ => self.pass(u64::from(choices.arbitrary::<u16>()?) * SECOND / 100),
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: u64) {
        self.uptime += time;
        self.wall += time;
    }

    fn write(&mut self, record: &mut Record, kind: u32) {
        let (unix_ms, boot_s) = (self.wall / 1_000_000, (self.uptime / SECOND) as u32);
        assert!(record.append(unix_ms, boot_s, 1, kind, &[1; 32]));
        self.uses.push(Used { boot: self.boot, at: self.uptime, kind });
    }

    /// No use of this boot that is not old is forgotten, whatever the wall clock says.
    fn judge(&self, record: &Rows, previous: Option<&Rows>) {
        let now = Now { wall: self.wall, boot: self.uptime };
        for counts in [|_: u64| true, |kind: u64| kind == 13] {
            let young = |used: &&Used| used.boot == self.boot && self.uptime - used.at < MEMORY;
            let written = self.uses.iter().filter(young).filter(|used| counts(used.kind.into())).count() as u64;
            let counted = subject::recent(record, previous, now, MEMORY, LIMIT, counts);
            assert!(counted >= written.min(LIMIT), "{counted} of {written} are counted");
            assert!(counted <= LIMIT);
        }
    }
}
