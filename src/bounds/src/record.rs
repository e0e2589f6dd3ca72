//! The record: one 64-byte row before each use of the key. No row, no use.
//!
//! File: a header of 64 bytes, then rows. All numbers big-endian. A torn last row (a crash, a full disk) is
//! overwritten by the next one. The page cache is trusted, a power loss is not survived: SECURITY.md says so.
//!
//! The supervisor, or whoever starts the writer, has made the file and its header and found its end (`nsecd_records`).

use std::{fs::File, os::unix::fs::FileExt};

/// Bytes of the header and of every row.
pub const ROW: usize = 64;

/// An open record, written by this process alone.
pub struct Record {
    /// Open for writing.
    pub file: File,
    /// Sequence number of the next row.
    pub sequence: u64,
    /// Where that goes, in bytes from the file's start.
    pub offset: u64,
}

impl Record {
    /// Writes the next row: a use of the key at `unix_ms` (since 1970), `boot_s` whole seconds after the boot (CLOCK_BOOTTIME), for
    /// an event of this created_at (NIP-01), kind and id. False, and the key must not be used, where it could not be written
    /// whole.
    pub fn append(&mut self, unix_ms: u64, boot_s: u32, created_at: u64, kind: u32, id: &[u8; 32]) -> bool {
        let mut row = [0; ROW];
        row[..8].copy_from_slice(&self.sequence.to_be_bytes());
        row[8..16].copy_from_slice(&unix_ms.to_be_bytes());
        row[16..24].copy_from_slice(&created_at.to_be_bytes());
        row[24..28].copy_from_slice(&kind.to_be_bytes());
        row[28..32].copy_from_slice(&boot_s.to_be_bytes());
        row[32..].copy_from_slice(id);
        let written = self.file.write_at(&row, self.offset).is_ok_and(|n| n == ROW);
        if written {
            self.sequence += 1;
            self.offset += ROW as u64;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_means_no_row() {
        let file = File::options().read(true).write(true).open("/dev/full").expect("/dev/full");
        let mut record = Record { file, sequence: 1, offset: 64 };
        assert!(!record.append(1, 1, 1, 1, &[0; 32]));
        assert_eq!((record.sequence, record.offset), (1, 64));
    }
}
