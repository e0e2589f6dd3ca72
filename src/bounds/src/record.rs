//! The record: one 64-byte row before each use of the key. No row, no use.
//!
//! File: a header of 64 bytes, then rows. All numbers big-endian. A torn last row (a crash, a full disk) is
//! overwritten by the next one. The page cache is trusted, a power loss is not survived: SECURITY.md says so.
//!
//! A file that has grown large is put aside while no process writes it. The next one's header continues it: its SHA-256,
//! and the sequence number after its last.

use nsecd_sandbox::sys;
use sha2::{Digest, Sha256};

/// Bytes of the header and of every row.
pub const ROW: usize = 64;
/// magic(7) ‖ format(1). The header goes on with boot id(16) ‖ first sequence(8) ‖ SHA-256 of the previous file(32).
const MAGIC: &[u8; 8] = b"nsecrec\x01";
/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The rows of one file.
pub struct Rows {
    fd: i32,
    /// Sequence number of the first row.
    first: u64,
    /// Sequence number of the row after the last.
    next: u64,
}

/// An open record, written by this process alone.
pub struct Record(Rows);

/// One use of the key.
pub struct Use<'a> {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Whole seconds since the boot (CLOCK_BOOTTIME): the row's flags.
    pub boot_s: u32,
    /// The event's created_at (NIP-01), seconds since 1970.
    pub created_at: u64,
    /// The event's kind.
    pub kind: u32,
    /// The event's id.
    pub id: &'a [u8; 32],
}

/// What both clocks say, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Now {
    /// Since 1970 (CLOCK_REALTIME), which may step.
    pub wall: u64,
    /// Since the boot (CLOCK_BOOTTIME), which only ever goes on.
    pub boot: u64,
}

impl Record {
    /// Continues the record open for reading and writing as `fd`; an empty one gets a header that continues
    /// `previous`. Errors say what the operator can do.
    pub fn open(fd: i32, previous: Option<&Rows>, boot_id: [u8; 16]) -> Result<Record, String> {
        let size = size(fd)?;
        if size >= ROW as u64 {
            return Rows::read(fd, size).map(Record);
        }
        let first = previous.map_or(1, |previous| previous.next);
        let mut header = [0; ROW];
        header[..8].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(&boot_id);
        header[24..32].copy_from_slice(&first.to_be_bytes());
        if let Some(previous) = previous {
            header[32..].copy_from_slice(&previous.hash()?);
        }
        match sys::pwrite(fd, &header, 0) {
            Ok(ROW) => Ok(Record(Rows { fd, first, next: first })),
            Ok(_) => Err("no room for its header: free space in the state directory".into()),
            Err(errno) => Err(failed("cannot write its header", errno)),
        }
    }

    /// Uses of the kinds that count which may be less than `memory` (nanoseconds) old, from the last one back, `previous`
    /// included, at most `limit`; `limit` as well where the rows at hand do not reach back that far.
    pub fn recent(
        &self,
        previous: Option<&Rows>,
        now: Now,
        memory: u64,
        limit: u64,
        counts: impl Fn(u64) -> bool,
    ) -> u64 {
        let mut count = 0;
        for rows in [Some(&self.0), previous.filter(|p| p.next == self.0.first)].into_iter().flatten() {
            for sequence in (rows.first..rows.next).rev() {
                // A row that cannot be read was a use, of any kind and just now.
                let row = rows.row(sequence);
                if count == limit || row.as_ref().is_some_and(|row| is_old(row, now, memory)) {
                    return count;
                }
                count += u64::from(row.is_none_or(|row| counts(number(&row[24..28]))));
            }
            if rows.first == 1 {
                return count;
            }
        }
        limit
    }

    /// Writes the next row; false, and the key must not be used, where it could not be written whole.
    pub fn append(&mut self, u: &Use<'_>) -> bool {
        let Record(rows) = self;
        let mut row = [0; ROW];
        row[..8].copy_from_slice(&rows.next.to_be_bytes());
        row[8..16].copy_from_slice(&u.unix_ms.to_be_bytes());
        row[16..24].copy_from_slice(&u.created_at.to_be_bytes());
        row[24..28].copy_from_slice(&u.kind.to_be_bytes());
        row[28..32].copy_from_slice(&u.boot_s.to_be_bytes());
        row[32..].copy_from_slice(u.id);
        let written = sys::pwrite(rows.fd, &row, rows.offset(rows.next)) == Ok(ROW);
        rows.next += u64::from(written);
        written
    }
}

impl Rows {
    /// The previous file, open for reading as `fd`; `None` if that is empty, as /dev/null is.
    pub fn previous(fd: i32) -> Result<Option<Rows>, String> {
        let rows = |size| Rows::read(fd, size).map_err(|e| format!("the previous file: {e}"));
        Some(size(fd)?).filter(|size| *size > 0).map(rows).transpose()
    }

    fn read(fd: i32, size: u64) -> Result<Rows, String> {
        let mut header = [0; ROW];
        let read = sys::pread(fd, &mut header, 0).map_err(|e| failed("cannot read its header", e))?;
        if read != ROW || &header[..8] != MAGIC {
            return Err("it is not a record of this version: move it out of the state directory".into());
        }
        let first = number(&header[24..32]);
        let next = first.checked_add(size / ROW as u64 - 1).ok_or("its header is damaged: move the file away")?;
        Ok(Rows { fd, first, next })
    }

    /// SHA-256 of the whole file.
    fn hash(&self) -> Result<[u8; 32], String> {
        let (mut hash, mut at, mut block) = (Sha256::new(), 0, [0; 16 * 1024]);
        loop {
            match sys::pread(self.fd, &mut block, at).map_err(|e| failed("cannot read the previous file", e))? {
                0 => return Ok(hash.finalize().into()),
                n => {
                    hash.update(&block[..n]);
                    at += n as u64;
                }
            }
        }
    }

    fn row(&self, sequence: u64) -> Option<[u8; ROW]> {
        let mut row = [0; ROW];
        (sys::pread(self.fd, &mut row, self.offset(sequence)) == Ok(ROW)).then_some(row)
    }

    fn offset(&self, sequence: u64) -> u64 {
        ROW as u64 * (1 + sequence - self.first)
    }
}

/// Whether a use was certainly `memory` or longer ago: by the wall clock, and not less by this boot's, so that a step of
/// the wall clock forgives nothing. A row from the future counts.
fn is_old(row: &[u8; ROW], now: Now, memory: u64) -> bool {
    let (unix_ms, boot) = (number(&row[8..16]), number(&row[28..32]) * SECOND);
    // The use may have been at the end of its second. One that is later than now was in an earlier boot.
    let this_boot = boot <= now.boot && now.boot - boot < memory.saturating_add(SECOND);
    unix_ms < now.wall.saturating_sub(memory) / 1_000_000 && !this_boot
}

fn size(fd: i32) -> Result<u64, String> {
    sys::size(fd).map_err(|e| failed("cannot tell its size", e))
}

fn failed(what: &str, errno: i32) -> String {
    format!("{what}: {}", std::io::Error::from_raw_os_error(errno))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    // Checked, tests turn red: one of the two clocks not asked, seconds not rounded, another boot's not told apart; no hash, or
    // of one block only, or first sequence 1; no count in the previous file, or in one that is not; missing rows forgiven.
    use super::*;
    use std::{fs, io::Write, os::fd::AsRawFd, os::unix::fs::FileExt};

    const S: u64 = SECOND;
    /// The wall clock of these tests, nanoseconds since 1970.
    const WALL: u64 = 1_800_000_000 * S;

    fn scratch() -> fs::File {
        let path = std::env::temp_dir().join(format!("nsecd-record-{}-{:p}", std::process::id(), &0u8));
        let unique = path.with_extension(format!("{:?}", std::thread::current().id()));
        let file = fs::File::options().read(true).write(true).create_new(true).open(&unique).expect("temp file");
        fs::remove_file(&unique).expect("unlink");
        file
    }

    fn open(file: &fs::File, previous: Option<&Rows>) -> Record {
        Record::open(file.as_raw_fd(), previous, [9; 16]).expect("a record")
    }

    fn previous(file: &fs::File) -> Rows {
        Rows::previous(file.as_raw_fd()).expect("a record").expect("not empty")
    }

    /// A use when the clocks say this, in seconds.
    fn at(wall: u64, boot: u64) -> Use<'static> {
        Use { unix_ms: wall * 1000, boot_s: boot as u32, created_at: 1_700_000_000, kind: 1, id: &[7; 32] }
    }

    /// `count` uses, the first when the clocks say this, one each second.
    fn use_key(record: &mut Record, count: u64, wall: u64, boot: u64) {
        assert!((0..count).all(|i| record.append(&at(wall + i, boot + i))));
    }

    fn header(file: &fs::File) -> (u64, [u8; 32]) {
        let mut header = [0; ROW];
        file.read_exact_at(&mut header, 0).expect("a header");
        (number(&header[24..32]), header[32..].try_into().expect("32 bytes"))
    }

    const fn now(wall: u64, boot: u64) -> Now {
        Now { wall: wall * S, boot: boot * S }
    }

    #[test]
    fn rows_follow_each_other_over_restarts() {
        let file = scratch();
        let mut record = open(&file, None);
        assert!(record.append(&at(1000, 10)) && record.append(&at(2000, 1010)));
        let mut again = open(&file, None);
        assert_eq!(again.recent(None, now(2001, 1011), 2000 * S, 100, |_| true), 2);
        assert_eq!(again.recent(None, now(2001, 1011), 500 * S, 100, |_| true), 1);
        assert_eq!(again.recent(None, now(2001, 1011), 2000 * S, 1, |_| true), 1);
        assert!(again.append(&at(3000, 2010)));
        let mut row = [0; ROW];
        file.read_exact_at(&mut row, 3 * ROW as u64).expect("third row");
        assert_eq!((number(&row[..8]), number(&row[8..16]), number(&row[28..32])), (3, 3_000_000, 2010));
        assert_eq!((number(&row[16..24]), number(&row[24..28]), row[32]), (1_700_000_000, 1, 7));
    }

    #[test]
    fn a_wall_clock_that_steps_forgives_nothing_within_one_boot() {
        let file = scratch();
        let mut record = open(&file, None);
        use_key(&mut record, 5, WALL / S, 100);
        for step in [3600, 86_400 * 365, 1_000_000_000] {
            assert_eq!(record.recent(None, now(WALL / S + step, 105), 60 * S, 100, |_| true), 5, "forward by {step} s");
        }
        for back in [3600, 86_400 * 365, WALL / S] {
            assert_eq!(
                record.recent(None, now(WALL / S - back, 500_000), 60 * S, 100, |_| true),
                5,
                "back by {back} s"
            );
        }
        // Control: time that passes by both clocks does.
        assert_eq!(record.recent(None, now(WALL / S + 63, 163), 60 * S, 100, |_| true), 2);
        assert_eq!(record.recent(None, now(WALL / S + 100, 200), 60 * S, 100, |_| true), 0);
    }

    #[test]
    fn a_use_counts_as_late_as_its_second_allows() {
        let file = scratch();
        let mut record = open(&file, None);
        use_key(&mut record, 1, 1000, 100);
        // It may have been at 100.999… s, which is less than 60 s before 160.99 s.
        let late = |ns: u64| record.recent(None, Now { wall: WALL, boot: 160 * S + ns }, 60 * S, 100, |_| true);
        assert_eq!((late(S - 1), late(S)), (1, 0));
        // Without overflow at the end of both clocks.
        assert_eq!(record.recent(None, Now { wall: u64::MAX, boot: u64::MAX }, u64::MAX, 100, |_| true), 1);
    }

    #[test]
    fn after_a_reboot_the_wall_clock_decides() {
        let file = scratch();
        let mut record = open(&file, None);
        use_key(&mut record, 3, WALL / S, 500_000);
        assert_eq!(record.recent(None, now(WALL / S + 30, 20), 60 * S, 100, |_| true), 3);
        assert_eq!(record.recent(None, now(WALL / S + 100, 20), 60 * S, 100, |_| true), 0);
    }

    #[test]
    fn a_new_file_continues_the_sequence_and_names_the_hash_of_the_previous_one() {
        let (mut old, new) = (scratch(), scratch());
        use_key(&mut open(&old, None), 700, 1000, 100);
        assert_eq!(header(&old), (1, [0; 32]), "the first file");
        // More than one block of the hash, and a torn row: the whole file counts for the one, not for the other.
        std::io::Seek::seek(&mut old, std::io::SeekFrom::End(0)).expect("seek");
        old.write_all(&[0xff; 30]).expect("torn");
        use_key(&mut open(&new, Some(&previous(&old))), 1, 1800, 900);
        let mut bytes = vec![0; 701 * ROW + 30];
        old.read_exact_at(&mut bytes, 0).expect("the old file");
        assert_eq!(header(&new), (701, Sha256::digest(&bytes).into()));
        let mut row = [0; ROW];
        new.read_exact_at(&mut row, ROW as u64).expect("a row");
        assert_eq!(number(&row[..8]), 701);
        // The next start changes nothing, and needs no previous file.
        assert_eq!(open(&new, None).0.next, 702);
    }

    #[test]
    fn the_count_goes_on_in_the_previous_file() {
        let (old, new) = (scratch(), scratch());
        use_key(&mut open(&old, None), 10, 1000, 100);
        let previous = previous(&old);
        let mut record = open(&new, Some(&previous));
        let count = |record: &Record, previous| record.recent(previous, now(1013, 113), 7 * S, 100, |_| true);
        assert_eq!(count(&record, Some(&previous)), 4, "a file without a row");
        use_key(&mut record, 3, 1010, 110);
        assert_eq!(count(&record, Some(&previous)), 7);
        assert_eq!(record.recent(Some(&previous), now(1013, 113), 1000 * S, 100, |_| true), 13);
        assert_eq!(record.recent(Some(&previous), now(1013, 113), 1000 * S, 5, |_| true), 5);
    }

    #[test]
    fn where_older_rows_are_missing_that_could_count_the_bucket_is_empty() {
        let (oldest, old, new) = (scratch(), scratch(), scratch());
        use_key(&mut open(&oldest, None), 10, 1000, 100);
        use_key(&mut open(&old, Some(&previous(&oldest))), 10, 1010, 110);
        let (before, long_before) = (previous(&old), previous(&oldest));
        let mut record = open(&new, Some(&before));
        use_key(&mut record, 10, 1020, 120);
        let count = |previous, memory| record.recent(previous, now(1030, 130), memory * S, 1000, |_| true);
        assert_eq!(count(Some(&before), 15), 15, "control");
        assert_eq!(count(Some(&before), 100), 1000);
        assert_eq!(count(None, 15), 1000);
        // Not the file before this one.
        assert_eq!(count(Some(&long_before), 15), 1000);
        assert_eq!(count(None, 5), 5, "control: what is at hand suffices");
    }

    #[test]
    fn a_torn_row_is_overwritten_and_never_counted() {
        let mut file = scratch();
        let mut record = open(&file, None);
        assert!(record.append(&at(1, 1)));
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).expect("seek");
        file.write_all(&[0xff; 30]).expect("torn");
        let mut again = open(&file, None);
        assert_eq!(again.recent(None, now(1, 1), S, 100, |_| true), 1);
        assert!(again.append(&at(2, 2)));
        assert_eq!(file.metadata().expect("size").len(), 3 * ROW as u64);
    }

    #[test]
    fn a_foreign_file_is_refused_and_untouched() {
        for size in [200, 30] {
            let mut file = scratch();
            file.write_all(&vec![b'x'; size]).expect("foreign");
            let refused = Rows::previous(file.as_raw_fd()).err().expect("refused");
            assert!(refused.contains("previous") && refused.contains("move it"), "{refused}");
            if size > ROW {
                assert!(Record::open(file.as_raw_fd(), None, [0; 16]).is_err_and(|e| e.contains("move it")));
            }
            assert_eq!(file.metadata().expect("size").len(), size as u64);
        }
        let null = fs::File::open("/dev/null").expect("/dev/null");
        assert!(Rows::previous(null.as_raw_fd()).expect("no file").is_none());
    }

    #[test]
    fn a_full_disk_means_no_row() {
        let full = fs::File::options().read(true).write(true).open("/dev/full").expect("/dev/full");
        let mut record = Record(Rows { fd: full.as_raw_fd(), first: 1, next: 1 });
        assert!(!record.append(&at(1, 1)));
        assert_eq!(record.0.next, 1);
    }
}
