//! Reading and continuing records of key uses (`nsecd_bounds::record`): who starts a gate or an ECDH holder does this before, so
//! that these have nothing to read and nothing to count.
//!
//! A file that has grown large is put aside while no process writes it. The next one's header continues it: its SHA-256,
//! and the sequence number after its last. Every field has a fixed place; nothing here depends on what an agent wrote.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nsecd_bounds::ceiling::Ceiling;
use nsecd_bounds::record::ROW;
use nsecd_sandbox::lock::clock;
use sha2::{Digest, Sha256};

/// magic(7) ‖ format(1). The header goes on with boot id(16) ‖ first sequence(8) ‖ SHA-256 of the previous file(32).
const MAGIC: &[u8; 8] = b"nsecrec\x01";
/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// NIP-59's seal, which has a ceiling of its own where there are two.
const SEAL: u64 = 13;

/// A ceiling: a bucket of `burst` tokens, of which `tokens` come back every `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its size.
    pub burst: u32,
    /// How many come back.
    pub tokens: u32,
    /// In which time.
    pub seconds: u32,
}

/// Two arguments of a record's writer (`nsecd_bounds::admission`): ceilings, each with the uses that the record leaves against
/// it, and where the next row goes.
pub type Arguments = [String; 2];

/// Those of a writer without a record: nothing is known to have been used.
pub fn without_record(ceilings: &[Option<Bucket>]) -> Arguments {
    [ceilings_with(ceilings, |_, _| 0), "none".into()]
}

/// Continues the record open for reading and writing, after the file before it; an empty one gets a header. Only while nobody
/// writes it. Of two ceilings the second is that of kind 13.
///
/// # Errors
/// One of the files is no record or cannot be read or written. They say what the operator can do.
pub fn with_record(ceilings: &[Option<Bucket>], file: &File, previous: Option<&File>) -> Result<Arguments, String> {
    let previous = previous.map(Rows::previous).transpose()?.flatten();
    let rows = Rows::open(file, previous.as_ref(), boot_id()?)?;
    let now = Now { wall: clock(libc::CLOCK_REALTIME), boot: clock(libc::CLOCK_BOOTTIME) };
    let uses = |which, bucket: Bucket| {
        let counts = |kind| ceilings.len() == 1 || (kind == SEAL) == (which == 1);
        let memory = Ceiling::new(bucket.burst, bucket.tokens, bucket.seconds, 0, 0).map_or(u64::MAX, |c| c.memory());
        rows.recent(previous.as_ref(), now, memory, bucket.burst.into(), counts)
    };
    let (sequence, offset) = rows.next();
    Ok([ceilings_with(ceilings, uses), format!("{sequence},{offset}")])
}

fn ceilings_with(ceilings: &[Option<Bucket>], uses: impl Fn(usize, Bucket) -> u64) -> String {
    let one = |(which, bucket): (usize, &Option<Bucket>)| match bucket {
        Some(b) => format!("{},{},{},{}", b.burst, b.tokens, b.seconds, uses(which, *b)),
        None => "none".into(),
    };
    ceilings.iter().enumerate().map(one).collect::<Vec<_>>().join("/")
}

/// This boot's random id, for a new record's header.
fn boot_id() -> Result<[u8; 16], String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(PATH).map_err(|e| format!("{PATH}: {e}"))?;
    let id = u128::from_str_radix(&text.trim().replace('-', ""), 16).map_err(|e| format!("{PATH}: {e}"))?;
    Ok(id.to_be_bytes())
}

/// The rows of one file.
pub struct Rows<'a> {
    file: &'a File,
    /// Sequence number of the first row.
    first: u64,
    /// Sequence number of the row after the last.
    next: u64,
}

/// What both clocks say, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Now {
    /// Since 1970 (CLOCK_REALTIME), which may step.
    pub wall: u64,
    /// Since the boot (CLOCK_BOOTTIME), which only ever goes on.
    pub boot: u64,
}

impl<'a> Rows<'a> {
    /// The rows of a file open for reading and writing; an empty one gets a header that continues `previous`. Errors say what
    /// the operator can do.
    pub fn open(file: &'a File, previous: Option<&Rows>, boot_id: [u8; 16]) -> Result<Rows<'a>, String> {
        let size = size(file)?;
        if size >= ROW as u64 {
            return Rows::read(file, size);
        }
        let first = previous.map_or(1, |previous| previous.next);
        let mut header = [0; ROW];
        header[..8].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(&boot_id);
        header[24..32].copy_from_slice(&first.to_be_bytes());
        if let Some(previous) = previous {
            header[32..].copy_from_slice(&previous.hash()?);
        }
        match file.write_at(&header, 0) {
            Ok(ROW) => Ok(Rows { file, first, next: first }),
            Ok(_) => Err("no room for its header: free space in the state directory".into()),
            Err(e) => Err(format!("cannot write its header: {e}")),
        }
    }

    /// The previous file's, open for reading; `None` if that is empty.
    pub fn previous(file: &'a File) -> Result<Option<Rows<'a>>, String> {
        let rows = |size| Rows::read(file, size).map_err(|e| format!("the previous file: {e}"));
        Some(size(file)?).filter(|size| *size > 0).map(rows).transpose()
    }

    /// The next row's sequence number, and where it goes, in bytes from the file's start.
    pub fn next(&self) -> (u64, u64) {
        (self.next, self.offset(self.next))
    }

    fn read(file: &'a File, size: u64) -> Result<Rows<'a>, String> {
        let mut header = [0; ROW];
        let read = file.read_at(&mut header, 0).map_err(|e| format!("cannot read its header: {e}"))?;
        if read != ROW || &header[..8] != MAGIC {
            return Err("it is not a record of this version: move it out of the state directory".into());
        }
        let first = number(&header[24..32]);
        let next = first.checked_add(size / ROW as u64 - 1).ok_or("its header is damaged: move the file away")?;
        Ok(Rows { file, first, next })
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
        for rows in [Some(self), previous.filter(|p| p.next == self.first)].into_iter().flatten() {
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

    /// SHA-256 of the whole file.
    fn hash(&self) -> Result<[u8; 32], String> {
        let (mut hash, mut at, mut block) = (Sha256::new(), 0, [0; 16 * 1024]);
        loop {
            match self.file.read_at(&mut block, at).map_err(|e| format!("cannot read the previous file: {e}"))? {
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
        (self.file.read_at(&mut row, self.offset(sequence)).ok() == Some(ROW)).then_some(row)
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

fn size(file: &File) -> Result<u64, String> {
    file.metadata().map(|m| m.len()).map_err(|e| format!("cannot tell its size: {e}"))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    // Checked, tests turn red: one of the two clocks not asked, seconds not rounded, another boot's not told apart; no hash, or
    // of one block only, or first sequence 1; no count in the previous file, or in one that is not; missing rows forgiven.
    use super::*;
    use nsecd_bounds::record::Record;
    use std::{fs, io::Write};

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

    /// A record's writer, and its reader.
    struct Writer<'a>(&'a fs::File, Record);

    impl Writer<'_> {
        /// A use when the clocks say this, in seconds.
        fn append(&mut self, wall: u64, boot: u64) -> bool {
            self.1.append(wall * 1000, boot as u32, 1_700_000_000, 1, &[7; 32])
        }

        /// The row that will come next, and where it goes.
        fn next(&self) -> (u64, u64) {
            (self.1.sequence, self.1.offset)
        }

        fn recent(&self, previous: Option<&Rows>, now: Now, memory: u64, limit: u64, counts: fn(u64) -> bool) -> u64 {
            let rows = Rows::open(self.0, previous, [9; 16]).expect("a record");
            assert_eq!(rows.next(), self.next(), "reader and writer agree");
            rows.recent(previous, now, memory, limit, counts)
        }
    }

    fn open<'a>(file: &'a fs::File, previous: Option<&Rows>) -> Writer<'a> {
        let (sequence, offset) = Rows::open(file, previous, [9; 16]).expect("a record").next();
        Writer(file, Record { file: file.try_clone().expect("a duplicate"), sequence, offset })
    }

    fn previous(file: &fs::File) -> Rows<'_> {
        Rows::previous(file).expect("a record").expect("not empty")
    }

    /// `count` uses, the first when the clocks say this, one each second.
    fn use_key(record: &mut Writer, count: u64, wall: u64, boot: u64) {
        assert!((0..count).all(|i| record.append(wall + i, boot + i)));
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
        assert!(record.append(1000, 10) && record.append(2000, 1010));
        let mut again = open(&file, None);
        assert_eq!(again.recent(None, now(2001, 1011), 2000 * S, 100, |_| true), 2);
        assert_eq!(again.recent(None, now(2001, 1011), 500 * S, 100, |_| true), 1);
        assert_eq!(again.recent(None, now(2001, 1011), 2000 * S, 1, |_| true), 1);
        assert!(again.append(3000, 2010));
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
        assert_eq!(open(&new, None).next().0, 702);
    }

    #[test]
    fn the_count_goes_on_in_the_previous_file() {
        let (old, new) = (scratch(), scratch());
        use_key(&mut open(&old, None), 10, 1000, 100);
        let previous = previous(&old);
        let mut record = open(&new, Some(&previous));
        let count = |record: &Writer, previous| record.recent(previous, now(1013, 113), 7 * S, 100, |_| true);
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
        assert!(record.append(1, 1));
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).expect("seek");
        file.write_all(&[0xff; 30]).expect("torn");
        let mut again = open(&file, None);
        assert_eq!(again.recent(None, now(1, 1), S, 100, |_| true), 1);
        assert!(again.append(2, 2));
        assert_eq!(file.metadata().expect("size").len(), 3 * ROW as u64);
    }

    #[test]
    fn a_foreign_file_is_refused_and_untouched() {
        for size in [200, 30] {
            let mut file = scratch();
            file.write_all(&vec![b'x'; size]).expect("foreign");
            let refused = Rows::previous(&file).err().expect("refused");
            assert!(refused.contains("previous") && refused.contains("move it"), "{refused}");
            if size > ROW {
                assert!(Rows::open(&file, None, [0; 16]).is_err_and(|e| e.contains("move it")));
            }
            assert_eq!(file.metadata().expect("size").len(), size as u64);
        }
        let null = fs::File::open("/dev/null").expect("/dev/null");
        assert!(Rows::previous(&null).expect("no file").is_none());
    }

    fn bucket(burst: u32, tokens: u32, seconds: u32) -> Option<Bucket> {
        Some(Bucket { burst, tokens, seconds })
    }

    #[test]
    fn a_writer_is_told_its_ceilings_with_what_was_used_and_where_it_goes_on() {
        let file = scratch();
        let ceilings = [bucket(4, 1, 1000), bucket(5, 1, 1000)];
        let told = |ceilings: &[Option<Bucket>]| with_record(ceilings, &file, None).expect("a record");
        assert_eq!(told(&ceilings), ["4,1,1000,0/5,1,1000,0", "1,64"]);
        let now = Now { wall: clock(libc::CLOCK_REALTIME), boot: clock(libc::CLOCK_BOOTTIME) };
        let mut record = Record { file: file.try_clone().expect("a duplicate"), sequence: 1, offset: 64 };
        for kind in [13, 1, 13, 7, 13, 1059] {
            assert!(record.append(now.wall / 1_000_000, (now.boot / SECOND) as u32, 0, kind, &[0; 32]));
        }
        assert_eq!(told(&ceilings), ["4,1,1000,3/5,1,1000,3", "7,448"]);
        assert_eq!(
            told(&ceilings[..1]),
            ["4,1,1000,4", "7,448"],
            "one ceiling is for all kinds, and no more count than empty it"
        );
        assert_eq!(told(&[None, bucket(5, 1, 1000)]), ["none/5,1,1000,3", "7,448"]);
        assert_eq!(without_record(&ceilings), ["4,1,1000,0/5,1,1000,0", "none"]);
    }
}
