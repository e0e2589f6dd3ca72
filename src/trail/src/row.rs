//! A record's header and rows, read: 64 bytes each, numbers big-endian.

/// Bytes of the header and of every row.
pub const ROW: usize = 64;
/// magic(7) ‖ format(1).
pub const MAGIC: &[u8; 8] = b"nsecrec\x01";

/// A file's first 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The boot in which the file was begun.
    pub boot_id: [u8; 16],
    /// Sequence number of its first row.
    pub first: u64,
    /// SHA-256 of the whole previous file; zeros without one.
    pub previous: [u8; 32],
}

/// One use of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// 1, 2, … over all files of the record.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The event's; 0 for a key agreement.
    pub created_at: u64,
    /// The event's kind, or a key agreement's operation.
    pub kind: u32,
    /// Whole seconds since the boot (CLOCK_BOOTTIME).
    pub boot_s: u32,
    /// The event's id, or a key agreement's other public key.
    pub id: [u8; 32],
}

impl Header {
    /// `None` without the magic of this format.
    pub fn parse(bytes: &[u8; ROW]) -> Option<Header> {
        if &bytes[..8] != MAGIC {
            return None;
        }
        let (mut boot_id, mut previous) = ([0; 16], [0; 32]);
        boot_id.copy_from_slice(&bytes[8..24]);
        previous.copy_from_slice(&bytes[32..]);
        Some(Header { boot_id, first: number(&bytes[24..32]), previous })
    }
}

impl Row {
    /// Any 64 bytes are a row; whether they are the right one is for who reads them.
    pub fn parse(bytes: &[u8; ROW]) -> Row {
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[32..]);
        Row {
            sequence: number(&bytes[..8]),
            unix_ms: number(&bytes[8..16]),
            created_at: number(&bytes[16..24]),
            kind: number(&bytes[24..28]) as u32,
            boot_s: number(&bytes[28..32]) as u32,
            id,
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_read_where_it_stands() {
        let mut bytes = [0; ROW];
        for (i, end) in [7, 15, 23, 27, 31].into_iter().enumerate() {
            bytes[end] = i as u8 + 1;
        }
        bytes[32..].fill(9);
        let row = Row { sequence: 1, unix_ms: 2, created_at: 3, kind: 4, boot_s: 5, id: [9; 32] };
        assert_eq!(Row::parse(&bytes), row);
        assert_eq!(Header::parse(&bytes), None);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].fill(6);
        bytes[24..32].copy_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(Header::parse(&bytes), Some(Header { boot_id: [6; 16], first: 258, previous: [9; 32] }));
    }
}
