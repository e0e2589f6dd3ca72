//! The formats of what nsecd leaves behind for auditors: lines of the decision log, rows and headers of the records.
//!
//! Written out for other tools in docs/records.md. Knows no file and no clock. The gate and the ECDH holder write rows by code of their own
//! (`nsecd_bounds::record`), which is part of the trusted base; here they are only read.

pub mod entry;
pub mod hot;
pub mod line;
pub mod row;

/// The decision log's name in the state directory; old ones end in `.1`, `.2` and so on.
pub const DECISIONS: &str = "decisions.log";

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    push_hex(&mut out, bytes);
    out
}

/// Appends them to a text.
pub fn push_hex(out: &mut String, bytes: &[u8]) {
    bytes.chunks(32).for_each(|part| out.push_str(hex_in(part, &mut [0; 64])));
}

/// Those of up to 32 bytes, in this room.
pub fn hex_in<'a>(bytes: &[u8], room: &'a mut [u8; 64]) -> &'a str {
    for (pair, byte) in room.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    // Digits only.
    std::str::from_utf8(&room[..2 * bytes.len().min(32)]).unwrap_or_default()
}

/// Bytes of lower-case hex digits; `None` for anything else.
pub fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}
