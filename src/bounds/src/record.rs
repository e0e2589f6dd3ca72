//! The record: one 64-byte row before each use of the key. No row, no use.
//!
//! File: a header of 64 bytes, then rows. All numbers big-endian. A torn last row (a crash, a full disk) is
//! overwritten by the next one. The page cache is trusted, a power loss is not survived: SECURITY.md says so.

use nsecd_sandbox::sys;

/// Bytes of the header and of every row.
pub const ROW: usize = 64;
/// magic(7) ‖ format(1). The header goes on with boot id(16) ‖ first sequence(8) ‖ SHA-256 of the previous file(32).
const MAGIC: &[u8; 8] = b"nsecrec\x01";

/// An open record, written by this process alone.
pub struct Record {
    fd: i32,
    /// Sequence number of the next row.
    sequence: u64,
    /// Sequence number of the file's first row.
    first: u64,
}

/// One use of the key.
pub struct Use<'a> {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The event's created_at (NIP-01), seconds since 1970.
    pub created_at: u64,
    /// The event's kind.
    pub kind: u32,
    /// The event's id.
    pub id: &'a [u8; 32],
}

impl Record {
    /// Continues the record open for reading and writing as `fd`; an empty one gets a header. Errors say what
    /// the operator can do.
    pub fn open(fd: i32, boot_id: [u8; 16]) -> Result<Record, String> {
        let failed = |what: &str, errno| format!("record: {what}: {}", std::io::Error::from_raw_os_error(errno));
        let size = sys::size(fd).map_err(|e| failed("cannot tell its size", e))?;
        let mut header = [0; ROW];
        if size < ROW as u64 {
            header[..8].copy_from_slice(MAGIC);
            header[8..24].copy_from_slice(&boot_id);
            header[24..32].copy_from_slice(&1u64.to_be_bytes());
            return match sys::pwrite(fd, &header, 0) {
                Ok(ROW) => Ok(Record { fd, sequence: 1, first: 1 }),
                Ok(_) => Err("record: no room for its header: free space in the state directory".into()),
                Err(errno) => Err(failed("cannot write its header", errno)),
            };
        }
        let read = sys::pread(fd, &mut header, 0).map_err(|e| failed("cannot read its header", e))?;
        if read != ROW || &header[..8] != MAGIC {
            return Err("record: the file is not a record of this version: move it out of the state directory".into());
        }
        let first = number(&header[24..32]);
        let rows = (size - ROW as u64) / ROW as u64;
        let sequence = first.checked_add(rows).ok_or("record: its header is damaged: move the file away")?;
        Ok(Record { fd, sequence, first })
    }

    /// Rows with a time of `since` (milliseconds) or later, counted from the end, at most `limit`. A row from the
    /// future counts: a clock that was set back forgives nothing.
    pub fn count_since(&self, since: u64, limit: u64) -> u64 {
        let mut count = 0;
        while count < limit && self.sequence - count > self.first {
            let mut row = [0; ROW];
            let whole = sys::pread(self.fd, &mut row, self.offset(self.sequence - count - 1)) == Ok(ROW);
            // A row that cannot be read counts as recent: it was a use.
            if whole && number(&row[8..16]) < since {
                break;
            }
            count += 1;
        }
        count
    }

    /// Writes the next row; false, and the key must not be used, where it could not be written whole.
    pub fn append(&mut self, u: &Use<'_>) -> bool {
        let mut row = [0; ROW];
        row[..8].copy_from_slice(&self.sequence.to_be_bytes());
        row[8..16].copy_from_slice(&u.unix_ms.to_be_bytes());
        row[16..24].copy_from_slice(&u.created_at.to_be_bytes());
        row[24..28].copy_from_slice(&u.kind.to_be_bytes());
        // row[28..32]: flags, none yet
        row[32..].copy_from_slice(u.id);
        let written = sys::pwrite(self.fd, &row, self.offset(self.sequence)) == Ok(ROW);
        self.sequence += u64::from(written);
        written
    }

    fn offset(&self, sequence: u64) -> u64 {
        ROW as u64 * (1 + sequence - self.first)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, os::fd::AsRawFd};

    fn scratch() -> fs::File {
        let path = std::env::temp_dir().join(format!("nsecd-record-{}-{:p}", std::process::id(), &0u8));
        let unique = path.with_extension(format!("{:?}", std::thread::current().id()));
        let file = fs::File::options().read(true).write(true).create_new(true).open(&unique).expect("temp file");
        fs::remove_file(&unique).expect("unlink");
        file
    }

    fn use_at(unix_ms: u64) -> Use<'static> {
        Use { unix_ms, created_at: 1_700_000_000, kind: 1, id: &[7; 32] }
    }

    #[test]
    fn rows_follow_each_other_over_restarts() {
        let file = scratch();
        let mut record = Record::open(file.as_raw_fd(), [9; 16]).expect("new");
        assert!(record.append(&use_at(1000)) && record.append(&use_at(2000)));
        let mut again = Record::open(file.as_raw_fd(), [1; 16]).expect("old");
        assert_eq!(again.count_since(0, 100), 2);
        assert_eq!(again.count_since(1500, 100), 1);
        assert_eq!(again.count_since(0, 1), 1);
        assert!(again.append(&use_at(3000)));
        let mut row = [0; ROW];
        sys::pread(file.as_raw_fd(), &mut row, 3 * ROW as u64).expect("third row");
        assert_eq!((number(&row[..8]), number(&row[8..16]), row[32]), (3, 3000, 7));
    }

    #[test]
    fn a_torn_row_is_overwritten_and_never_counted() {
        let mut file = scratch();
        let mut record = Record::open(file.as_raw_fd(), [9; 16]).expect("new");
        assert!(record.append(&use_at(1000)));
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).expect("seek");
        file.write_all(&[0xff; 30]).expect("torn");
        let mut again = Record::open(file.as_raw_fd(), [9; 16]).expect("torn tail");
        assert_eq!(again.count_since(0, 100), 1);
        assert!(again.append(&use_at(2000)));
        assert_eq!(file.metadata().expect("size").len(), 3 * ROW as u64);
    }

    #[test]
    fn a_foreign_file_is_refused_and_untouched() {
        let mut file = scratch();
        file.write_all(&[b'x'; 200]).expect("foreign");
        assert!(Record::open(file.as_raw_fd(), [0; 16]).is_err_and(|e| e.contains("move it")));
        assert_eq!(file.metadata().expect("size").len(), 200);
    }

    #[test]
    fn a_full_disk_means_no_row() {
        let full = fs::File::options().read(true).write(true).open("/dev/full").expect("/dev/full");
        let mut record = Record { fd: full.as_raw_fd(), sequence: 1, first: 1 };
        assert!(!record.append(&use_at(1)));
        assert_eq!(record.sequence, 1);
    }
}
