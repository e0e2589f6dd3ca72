//! The files of one moment, though nsecd goes on writing and may rotate them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nsecd_trail::DECISIONS;
use nsecd_trail::line::LONGEST;

/// How often files may be rotated while they are opened.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// A file as it was at that moment.
#[derive(Debug)]
pub struct Seen {
    /// Its name in the state directory.
    pub name: String,
    /// The number behind its name; 0 for the one in use.
    pub number: u32,
    /// Opened for reading.
    pub file: File,
    /// Its bytes; more may have come since.
    pub size: u64,
}

/// The state directory at one moment.
pub struct Snapshot {
    /// Of the decision log, the oldest first.
    pub logs: Vec<Seen>,
    /// Size of the log in use before the records were opened: lines from there on may be about rows that came too late for them.
    pub settled: u64,
    /// Of each record by its name without `.record`, the oldest first.
    pub records: BTreeMap<String, Vec<Seen>>,
}

/// Opens everything that there is. Between two renames of a rotation a number is missing, and a daemon that is not scheduled stays
/// there for a while: what is missing for good is still missing at the last try.
///
/// # Errors
/// The directory or a file of it cannot be read; files came and went each time.
pub fn snapshot(state: &Path) -> Result<Snapshot, String> {
    let failed = |e: io::Error| {
        format!(
            "reading {}: {e}; --state-dir names another directory, and it takes root or nsecd's own user to read it",
            state.display()
        )
    };
    for left in (0..TRIES).rev() {
        let before = identities(state).map_err(failed)?;
        match attempt(state) {
            Ok(found) if identities(state).map_err(failed)? == before && (left == 0 || found.is_gapless()) => {
                return Ok(found);
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => sleep(PAUSE),
        }
    }
    Err(format!("the files in {} are rotated faster than they can be opened", state.display()))
}

/// Reads a line, without its end, into `text`, which has no more of it than the longest line of the log and a byte. How many bytes were
/// read, and whether its end was among them.
///
/// # Errors
/// read(2)'s.
pub fn read_line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<(u64, bool)> {
    text.clear();
    let mut bytes = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|b| *b == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        text.extend_from_slice(&part[..part.len().min(LONGEST + 1 - text.len())]);
        let used = part.len() + usize::from(end.is_some());
        bytes += used as u64;
        reader.consume(used);
        if used == 0 || end.is_some() {
            return Ok((bytes, end.is_some()));
        }
    }
}

impl Snapshot {
    /// Whether the numbers of each kind of file go down to that of the one in use.
    fn is_gapless(&self) -> bool {
        let down = |all: &Vec<Seen>| all.iter().rev().map(|seen| seen.number).eq((0..).take(all.len()));
        down(&self.logs) && self.records.values().all(down)
    }
}

fn attempt(state: &Path) -> io::Result<Snapshot> {
    let names = names(state)?;
    let of = |stem: &str| -> io::Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for (_, number, name) in names.iter().filter(|(s, ..)| s == stem) {
            seen.push(open(state, name, *number)?);
        }
        seen.sort_by_key(|seen| std::cmp::Reverse(seen.number));
        Ok(seen)
    };
    // An intent is written before its row: what is in the records is in a log that is looked at later. An outcome is written
    // after its row: what is in a log is in records that are looked at later. So the log is looked at twice.
    let mut logs = of(DECISIONS)?;
    let settled = logs.last().filter(|log| log.number == 0).map_or(0, |log| log.size);
    let mut records = BTreeMap::new();
    for (stem, ..) in &names {
        if let Some(record) = stem.strip_suffix(".record") {
            records.insert(record.to_owned(), of(stem)?);
        }
    }
    if let Some(current) = logs.last_mut().filter(|log| log.number == 0) {
        current.size = whole(&current.file)?;
    }
    Ok(Snapshot { logs, settled, records })
}

/// Its size, once no line is half written, or none is finished for a while.
fn whole(file: &File) -> io::Result<u64> {
    let mut size = 0;
    for _ in 0..TRIES {
        size = file.metadata()?.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        if last == [b'\n'] {
            break;
        }
        sleep(PAUSE);
    }
    Ok(size)
}

fn open(state: &Path, name: &str, number: u32) -> io::Result<Seen> {
    let path = state.join(name);
    // A FIFO would hold us up, and a link lead elsewhere.
    if !fs::symlink_metadata(&path)?.is_file() {
        return Err(io::Error::other(format!("{name} is no plain file")));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok(Seen { name: name.to_owned(), number, file, size })
}

/// Stem, number and name of each log and record.
fn names(state: &Path) -> io::Result<Vec<(String, u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let (stem, number) = match name.rsplit_once('.') {
            Some((stem, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => (stem, digits.parse().ok()),
            _ => (name.as_str(), Some(0)),
        };
        if let Some(number) = number
            && (stem == DECISIONS || stem.ends_with(".record"))
        {
            found.push((stem.to_owned(), number, name.clone()));
        }
    }
    found.sort();
    Ok(found)
}

fn identities(state: &Path) -> io::Result<Vec<(String, u64)>> {
    let inode = |name: &str| fs::symlink_metadata(state.join(name)).map_or(0, |m| m.ino());
    Ok(names(state)?.into_iter().map(|(_, _, name)| (name.clone(), inode(&name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whole_or_no_further_than_any_line_of_the_log_goes() {
        let long = "y".repeat(3 * LONGEST);
        let all = format!("one\n\n{long}\nlast");
        let mut reader = io::BufReader::with_capacity(1000, all.as_bytes());
        for (bytes, ended, length, begin) in [
            (4, true, 3, "one"),
            (1, true, 0, ""),
            (3 * LONGEST as u64 + 1, true, LONGEST + 1, "yyyy"),
            (4, false, 4, "last"),
            (0, false, 0, ""),
        ] {
            let mut text = Vec::new();
            assert_eq!(read_line(&mut reader, &mut text).expect("memory"), (bytes, ended));
            assert_eq!((text.len(), &text[..text.len().min(4)]), (length, begin.as_bytes()));
        }
    }

    /// Checked: without the look at the numbers this fails.
    #[test]
    fn a_rotation_that_is_under_way_is_waited_for_and_a_file_that_is_gone_is_not_for_ever() {
        let state = std::env::temp_dir().join(format!("nsecctl-rotating-{}", std::process::id()));
        fs::create_dir(&state).expect("temp dir");
        for name in ["decisions.log", "decisions.log.2", "default.record"] {
            fs::write(state.join(name), "").expect("temp file");
        }
        let numbers = |found: &Snapshot| found.logs.iter().map(|seen| seen.number).collect::<Vec<_>>();
        let found = snapshot(&state).expect("readable");
        assert_eq!(numbers(&found), [2, 0], "what is gone stays gone");
        let rotating = std::thread::spawn({
            let state = state.clone();
            move || {
                sleep(3 * PAUSE);
                fs::rename(state.join("decisions.log"), state.join("decisions.log.1")).expect("renamed");
                fs::write(state.join("decisions.log"), "").expect("temp file");
            }
        });
        let found = snapshot(&state).expect("readable");
        rotating.join().expect("rotated");
        fs::remove_dir_all(&state).expect("temp dir");
        assert_eq!(numbers(&found), [2, 1, 0]);
    }
}
