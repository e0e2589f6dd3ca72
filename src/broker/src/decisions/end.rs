//! Where a log ends: what a broker that starts has to continue.
//!
//! Nothing is repaired or overwritten. A line that was cut short, by a full disk or a power failure, stays where it is, and the
//! chain goes on from the last line that can be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nsecd_trail::entry::Entry;
use nsecd_trail::line::{Head, LONGEST, Read};

/// Bytes that are looked at first; twice as many each time they are not enough.
const WINDOW: u64 = 64 * 1024;

/// The end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Bytes of the file.
    pub size: u64,
    /// The last line that can be read.
    pub head: Head,
    /// Whether the file's last byte is no newline.
    pub cut: bool,
    /// Bytes of a last line that was cut short.
    pub torn: Option<u64>,
    /// Lines after [`head`](End::head) that cannot be read, and were not cut short.
    pub unreadable: u64,
}

/// A file of the log and its size in bytes, taken when the broker could still ask for it.
pub struct Sized {
    /// Opened for reading.
    pub file: File,
    /// Its size.
    pub size: u64,
}

impl Sized {
    /// To be called before the lock, which allows no fstat(2).
    ///
    /// # Errors
    /// fstat(2)'s.
    pub fn new(file: File) -> io::Result<Sized> {
        let size = file.metadata()?.len();
        Ok(Sized { file, size })
    }
}

/// Where a file ends.
///
/// # Errors
/// read(2)'s.
pub fn end(Sized { file, size }: &Sized) -> io::Result<End> {
    let size = *size;
    let mut window = WINDOW;
    loop {
        let from = size.saturating_sub(window);
        let mut bytes = vec![0; (size - from) as usize];
        file.read_exact_at(&mut bytes, from)?;
        if let Some(end) = look(&bytes, size, from == 0) {
            return Ok(end);
        }
        window = window.saturating_mul(2);
    }
}

/// In these last bytes of a file; `None` if they have to be more.
fn look(bytes: &[u8], size: u64, all: bool) -> Option<End> {
    let mut end = End { size, head: Head::origin(), cut: false, torn: None, unreadable: 0 };
    let mut lines = bytes.split(|b| *b == b'\n').rev();
    let last = lines.next().unwrap_or_default();
    end.cut = !last.is_empty();
    if end.cut {
        match Read::parse(last) {
            // All but the newline.
            Some(read) => {
                end.head = read.head();
                return Some(end);
            }
            None => end.torn = Some(last.len() as u64),
        }
    }
    let lines: Vec<&[u8]> = lines.collect();
    // The first may have begun before these bytes.
    let whole = if all { lines.len() } else { lines.len().saturating_sub(1) };
    for line in &lines[..whole] {
        if let Some(read) = Read::parse(line) {
            end.head = read.head();
            return Some(end);
        }
        end.unreadable += 1;
    }
    all.then_some(end)
}

/// The number that a file's first line gives it; 0 if it has none.
///
/// # Errors
/// read(2)'s.
pub fn ordinal(Sized { file, size }: &Sized) -> io::Result<u64> {
    let mut bytes = vec![0; LONGEST.min(usize::try_from(*size).unwrap_or(LONGEST))];
    file.read_exact_at(&mut bytes, 0)?;
    let first = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    Ok(match Read::parse(first).map(|read| read.line.entry) {
        Some(Entry::File(file)) => file.file,
        _ => 0,
    })
}
