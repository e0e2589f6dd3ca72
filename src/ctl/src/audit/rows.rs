//! One record for itself: its files are one chain, its rows have numbers without a gap. No number is taken for more than [`MOST`], which none
//! reaches: whoever has altered one can bring no sum here to overflow.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::FileExt;

use nsecd_policy::units::counted;
use nsecd_trail::line::MOST;
use nsecd_trail::row::{Header, ROW, Row};
use sha2::{Digest, Sha256};

use super::files::Seen;
use super::report::Report;

/// Rows read at a time.
const BLOCK: u64 = 4096;

/// The rows of a record, by their numbers.
pub struct Rows {
    parts: Vec<Part>,
    /// Runs of rows with numbers in a row, in the order of the files.
    runs: Vec<Run>,
    cache: RefCell<Option<(usize, u64, Vec<u8>)>>,
}

struct Part {
    seen: Seen,
    header: Option<Header>,
    rows: u64,
}

struct Run {
    /// The first one's number.
    sequence: u64,
    part: usize,
    /// Its place in that file, from 0.
    index: u64,
    count: u64,
}

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The byte at which it begins.
    pub offset: u64,
}

impl Rows {
    /// Reads all of them once, and adds what is wrong with them.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn check(files: Vec<Seen>, report: &mut Report) -> io::Result<Rows> {
        let mut rows = Rows { parts: Vec::new(), runs: Vec::new(), cache: RefCell::new(None) };
        // The number that the next row has to have, once it is known.
        let mut expected = None;
        let mut above: Option<(u32, [u8; 32])> = None;
        for seen in files {
            let mut bytes = [0; ROW];
            let whole = seen.size >= ROW as u64;
            if whole {
                seen.file.read_exact_at(&mut bytes, 0)?;
            }
            let header = Header::parse(&bytes).filter(|_| whole);
            let header = header.map(|header| Header { first: header.first.min(MOST), ..header });
            let (number, name) = (seen.number, seen.name.clone());
            let torn = seen.size % ROW as u64;
            if torn > 0 {
                report.notes.push(format!("{name}: a last row was cut short after {torn} bytes, and is none"));
            }
            let count = (seen.size / ROW as u64).saturating_sub(1);
            let part = rows.parts.len();
            let hash = if number > 0 { Some((number, hash(&seen)?)) } else { None };
            rows.parts.push(Part { seen, header: header.clone(), rows: count });
            if let Some((before, _)) = above
                && before != number + 1
            {
                let missing = format!(
                    "between it and the file before, {} missing",
                    counted(u64::from(before - number - 1), "file")
                );
                report.find("file_missing", &name, (None, Some(0)), missing);
            }
            match &header {
                None if rows.parts[part].seen.size == 0 => {}
                None => report.find("header_altered", &name, (None, Some(0)), "it has no header of a record".into()),
                Some(header) => rows.compare(header, part, &mut expected, above, report)?,
            }
            rows.scan(part, &mut expected, report)?;
            above = hash;
        }
        Ok(rows)
    }

    /// A header with the file before and the row after it.
    fn compare(
        &self,
        header: &Header,
        part: usize,
        expected: &mut Option<u64>,
        above: Option<(u32, [u8; 32])>,
        report: &mut Report,
    ) -> io::Result<()> {
        let Part { seen, rows, .. } = &self.parts[part];
        let (name, number) = (&seen.name, seen.number);
        let first = if *rows > 0 { Some(self.at(part, 0)?.sequence) } else { None };
        let wrong = |report: &mut Report, text: String| report.find("header_altered", name, (None, Some(0)), text);
        if let Some(expected) = *expected
            && header.first != expected
            && first.is_none_or(|first| first == expected)
        {
            wrong(report, format!("it says that its first row is {}, which is {expected}", header.first));
        } else if expected.is_none() && first.is_some_and(|first| first != header.first) {
            // Either may be the one that was altered: the rows after it say which.
            if *rows > 1 && self.at(part, 1)?.sequence == header.first.wrapping_add(1) || *rows == 1 {
                *expected = Some(header.first);
            } else {
                wrong(
                    report,
                    format!("it says that its first row is {}, which is {}", header.first, first.unwrap_or(0)),
                );
            }
        }
        match above {
            Some((before, hash)) if before == number + 1 && hash != header.previous => wrong(
                report,
                format!(
                    "it names another SHA-256 of {}: that file or this header was altered",
                    self.parts[part - 1].seen.name
                ),
            ),
            None if header.first == 1 && header.previous != [0; 32] => {
                wrong(report, "it is the record's first file and names one before it".into());
            }
            _ => {}
        }
        if expected.is_none() {
            *expected = Some(first.unwrap_or(header.first));
        }
        Ok(())
    }

    /// Every row's number, with the one after it to tell what happened.
    fn scan(&mut self, part: usize, expected: &mut Option<u64>, report: &mut Report) -> io::Result<()> {
        let mut index = 0;
        let count = self.parts[part].rows;
        while index < count {
            let found = self.at(part, index)?.sequence;
            let after = if index + 1 < count { Some(self.at(part, index + 1)?.sequence) } else { None };
            let next = expected.unwrap_or(found);
            let file = self.parts[part].seen.name.clone();
            let mut say = |what, text| report.find(what, &file, (None, Some(ROW as u64 * (index + 1))), text);
            let mut take = 1;
            if found == next {
                self.run(next, part, index);
            } else if found == next.wrapping_add(1) && after == Some(next) {
                say("rows_reordered", format!("rows {next} and {found} stand in the wrong order"));
                self.run(found, part, index);
                self.run(next, part, index + 1);
                take = 2;
            } else if after == Some(next.wrapping_add(1)) {
                say("row_altered", format!("row {next} bears the number {found}"));
                self.run(next, part, index);
            } else if after == Some(next) || found < next {
                say("row_extra", format!("a row with the number {found} where {next} is expected"));
                index += 1;
                continue;
            } else {
                let missing = if found == next.wrapping_add(1) {
                    format!("row {next} is missing")
                } else {
                    format!("rows {next} to {} are missing", found.wrapping_sub(1))
                };
                say("row_missing", format!("{missing}: here is {found}"));
                self.run(found, part, index);
                *expected = Some(found.wrapping_add(1));
                index += 1;
                continue;
            }
            *expected = Some(next + take);
            index += take;
        }
        Ok(())
    }

    fn run(&mut self, sequence: u64, part: usize, index: u64) {
        if let Some(last) = self.runs.last_mut()
            && last.part == part
            && last.sequence + last.count == sequence
            && last.index + last.count == index
        {
            last.count += 1;
        } else {
            self.runs.push(Run { sequence, part, index, count: 1 });
        }
    }

    fn at(&self, part: usize, index: u64) -> io::Result<Row> {
        let block = index / BLOCK;
        let mut cache = self.cache.borrow_mut();
        let Part { seen, rows, .. } = &self.parts[part];
        let bytes = match &mut *cache {
            Some((p, b, bytes)) if (*p, *b) == (part, block) => bytes,
            other => {
                let count = (*rows - block * BLOCK).min(BLOCK);
                let mut bytes = vec![0; count as usize * ROW];
                seen.file.read_exact_at(&mut bytes, ROW as u64 * (1 + block * BLOCK))?;
                &mut other.insert((part, block, bytes)).2
            }
        };
        let mut row = [0; ROW];
        let at = (index % BLOCK) as usize * ROW;
        row.copy_from_slice(&bytes[at..at + ROW]);
        let row = Row::parse(&row);
        Ok(Row { sequence: row.sequence.min(MOST), ..row })
    }

    fn find(&self, sequence: u64) -> Option<(usize, u64)> {
        // Of a record that nobody touched there is one run in each file.
        let run = self.runs.iter().find(|r| r.sequence <= sequence && sequence - r.sequence < r.count)?;
        Some((run.part, run.index + sequence - run.sequence))
    }

    /// The row with this number.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn get(&self, sequence: u64) -> io::Result<Option<Row>> {
        self.find(sequence).map(|(part, index)| self.at(part, index)).transpose()
    }

    /// Where it stands, or where the record ends.
    pub fn place(&self, sequence: u64) -> Place {
        if let Some((part, index)) = self.find(sequence) {
            return Place { file: self.parts[part].seen.name.clone(), offset: ROW as u64 * (index + 1) };
        }
        let last = self.parts.last();
        Place {
            file: last.map(|part| part.seen.name.clone()).unwrap_or_default(),
            offset: last.map_or(0, |part| ROW as u64 * (part.rows + 1)),
        }
    }

    /// Number of the oldest row that is here, or would be.
    pub fn first(&self) -> u64 {
        let header = self.parts.iter().find_map(|part| part.header.as_ref());
        self.runs.iter().map(|run| run.sequence).min().or(header.map(|h| h.first)).unwrap_or(1)
    }

    /// Number of the last row; that before the first, if there is none.
    pub fn last(&self) -> u64 {
        self.runs
            .iter()
            .map(|run| (run.sequence + run.count).saturating_sub(1))
            .max()
            .unwrap_or(self.first().saturating_sub(1))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Boot and first number of each file's header, with the file's name.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &Header)> {
        self.parts.iter().filter_map(|part| Some((part.seen.name.as_str(), part.header.as_ref()?)))
    }
}

/// SHA-256 of a whole file.
fn hash(seen: &Seen) -> io::Result<[u8; 32]> {
    let (mut hash, mut at, mut block) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match seen.file.read_at(&mut block, at)? {
            0 => return Ok(hash.finalize().into()),
            n => {
                hash.update(&block[..n]);
                at += n as u64;
            }
        }
    }
}
