//! The journal's file: rows appended, a full one replaced by what still counts.
//!
//! The supervisor opens files and names them; here is only written to them. What the disk does not take is kept and
//! tried again, and whoever needs it on disk asks first. Never blocks on anything but the disk.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;

use crate::ledger::{Ledger, Piece};
use crate::replay::Found;
use crate::row::Row;

/// A journal is replaced when it is larger than this and has doubled since it was last replaced. Bytes.
const SMALL: u64 = 1 << 20;
/// Bytes of a snapshot written at a time.
const CHUNK: usize = 32 * 1024;
/// Milliseconds before a replacement that failed is tried again, and from the start of one that did not to the next: agents
/// choose how fast rows come, those of refused requests too.
const PAUSE: u64 = 60_000;
const SHORT: u64 = 2_000;

/// What the supervisor is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new, empty file.
    NewFile,
    /// The new file is complete: it is to have the journal's name. `true`: the old one is damaged, and to be kept.
    Replace(bool),
}

/// A file and what it has not taken yet.
struct Sheet {
    file: File,
    size: u64,
    pending: Vec<u8>,
    /// Whether the file did not take something when that was last tried.
    stuck: bool,
}

impl Sheet {
    /// Writes what there is to write; whether nothing is left.
    fn flush(&mut self) -> bool {
        self.stuck = false;
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(n) if n > 0 => {
                    self.pending.drain(..n);
                    self.size += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                _ => {
                    self.stuck = true;
                    break;
                }
            }
        }
        !self.stuck
    }

    fn append(&mut self, line: &[u8]) -> bool {
        self.pending.extend_from_slice(line);
        self.flush()
    }
}

/// A replacement under way.
enum Replacement {
    /// Since when a file has been asked for (CLOCK_BOOTTIME, ms).
    Asked,
    /// What is still to be written to it.
    Writing(Sheet, VecDeque<Piece>),
    /// It is complete, and to be named.
    Named(Sheet),
}

/// The journal.
pub struct Journal {
    sheet: Sheet,
    replacement: Option<Replacement>,
    /// Its size when it was last replaced.
    base: u64,
    /// Whether something in the file could not be read.
    damaged: bool,
    /// No replacement before this time (CLOCK_BOOTTIME, ms).
    not_before: u64,
    /// Whether a file that may have the journal's name by now did not take a row.
    lacking: bool,
}

impl Journal {
    /// `file`: opened for appending, with `found` in it. `open`: the row that a broker begins with.
    pub fn new(file: File, found: &Found, open: &Row) -> Journal {
        // Where the last row was cut short, the next one begins a line of its own.
        let pending = format!("{}{}", if found.size > 0 { "\n" } else { "" }, open.line()).into_bytes();
        let sheet = Sheet { file, size: found.size, pending, stuck: false };
        Journal { sheet, replacement: None, base: 0, damaged: found.damaged > 0, not_before: 0, lacking: false }
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.sheet.size
    }

    /// Whether all rows are in the file; tries again if not.
    pub fn is_whole(&mut self) -> bool {
        self.sheet.flush()
    }

    /// Whether the file has refused something that it has not taken since: [`is_whole`](Journal::is_whole) tries again.
    pub fn is_stuck(&self) -> bool {
        self.sheet.stuck
    }

    /// Appends a row with the next that is written, or when [`is_whole`](Journal::is_whole) is asked.
    pub fn append_later(&mut self, row: &Row) {
        if self.replacement.is_some() {
            self.lacking |= !self.append(row);
        } else {
            row.write(&mut self.sheet.pending);
        }
    }

    /// Whether every file that needs them has got the rows since this was last asked, or may yet get them.
    pub fn has_all(&mut self) -> bool {
        !std::mem::take(&mut self.lacking)
    }

    /// Appends a row; false if the file has not taken it, or not whole.
    pub fn append(&mut self, row: &Row) -> bool {
        let line = row.line();
        // The new file is complete by the time that it counts only if it gets every row from here on.
        let ok = match &mut self.replacement {
            Some(Replacement::Writing(sheet, _) | Replacement::Named(sheet)) => sheet.append(line.as_bytes()),
            Some(Replacement::Asked) | None => true,
        };
        if !ok && matches!(self.replacement, Some(Replacement::Writing(..))) {
            self.replacement = None;
        }
        // One that may have the journal's name already has to have the row as well.
        let named = matches!(self.replacement, Some(Replacement::Named(_)));
        self.sheet.append(line.as_bytes()) && (ok || !named)
    }

    /// Whether a snapshot is being written, and [`step`](Journal::step) should be called soon.
    pub fn is_busy(&self) -> bool {
        matches!(self.replacement, Some(Replacement::Writing(..)))
    }

    /// Goes on with a replacement, or begins one if it is time; what the supervisor is to be asked for. `now`:
    /// CLOCK_BOOTTIME, ms.
    pub fn step(&mut self, ledger: &Ledger, now: u64) -> Option<Wish> {
        match self.replacement.take() {
            None if now >= self.not_before && (self.damaged || self.sheet.size > SMALL.max(2 * self.base)) => {
                self.not_before = now.saturating_add(PAUSE);
                self.replacement = Some(Replacement::Asked);
                Some(Wish::NewFile)
            }
            Some(Replacement::Writing(mut sheet, mut pieces)) => {
                while sheet.pending.len() < CHUNK {
                    let Some(piece) = pieces.pop_front() else { break };
                    if let Some(row) = ledger.row(piece) {
                        sheet.pending.extend_from_slice(row.line().as_bytes());
                    }
                }
                // A disk without room: the old file goes on.
                if !sheet.flush() {
                    return None;
                }
                let done = pieces.is_empty();
                self.replacement =
                    Some(if done { Replacement::Named(sheet) } else { Replacement::Writing(sheet, pieces) });
                done.then_some(Wish::Replace(self.damaged))
            }
            other => {
                self.replacement = other;
                None
            }
        }
    }

    /// The new file, or none: then the old one goes on for a while. `open`: the row that begins a file.
    pub fn new_file(&mut self, file: Option<File>, open: &Row, ledger: &Ledger) {
        let asked = matches!(self.replacement, Some(Replacement::Asked));
        self.replacement = None;
        let Some(file) = file.filter(|_| asked) else { return };
        let mut sheet = Sheet { file, size: 0, stuck: false, pending: open.line().into_bytes() };
        let (wholes, pieces): (Vec<Piece>, Vec<Piece>) =
            ledger.pieces().into_iter().partition(|p| matches!(p, Piece::Total(_) | Piece::User(_)));
        // At once: principals that come meanwhile begin with what their user has.
        for row in wholes.into_iter().filter_map(|piece| ledger.row(piece)) {
            sheet.pending.extend_from_slice(row.line().as_bytes());
        }
        self.replacement = Some(Replacement::Writing(sheet, pieces.into()));
    }

    /// The new file has the journal's name.
    pub fn replaced(&mut self) {
        self.not_before = self.not_before.saturating_sub(PAUSE - SHORT);
        if let Some(Replacement::Named(sheet)) = self.replacement.take() {
            self.base = sheet.size;
            self.sheet = sheet;
            self.damaged = false;
        }
    }

    /// The new file was not named: the old one goes on for a while.
    pub fn not_replaced(&mut self) {
        self.replacement = None;
    }
}

#[cfg(test)]
mod tests;
