//! The records of gates and ECDH holder: kept open, and put aside when they are full, between one writer and the next.
//!
//! Must never start a new file while the one before it is out of the next writer's sight: its uses would be forgiven.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nsecd_records::{Bucket, with_record, without_record};

use crate::config::{Ceiling, Config};
use crate::fault::{Fault, OrFault};
use crate::rotation;
use crate::securefs::Dir;
use crate::setup::{Setup, State, record_file};
use crate::uids::Ids;

/// Bytes of a row, and of the header (`nsecd_records`).
const ROW: u64 = 64;
/// The largest record in bytes: hashed in a second or so, in which nobody is served.
const LARGEST: u64 = 1 << 30;
/// How long a record that could not be put aside is left alone.
const RETRY: Duration = Duration::from_secs(600);

/// One record, of one writer.
pub struct Record {
    /// Its name without ".record".
    stem: String,
    writer: Option<Ids>,
    /// Bytes from which it is put aside.
    full: u64,
    file: File,
    /// When it last could not be.
    failed: Option<Instant>,
}

impl Record {
    /// Opens or makes STEM.record for its writer; with `full` bytes or more it is put aside.
    ///
    /// # Errors
    /// As [`State::record`].
    pub fn open(state: &State, stem: &str, writer: Option<Ids>, full: u64) -> Result<Record, Fault> {
        let file = state.record(stem, writer)?;
        Ok(Record { stem: stem.to_owned(), writer, full, file, failed: None })
    }

    /// Its name without ".record".
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// From now on put aside with `full` bytes or more.
    pub fn set_full(&mut self, full: u64) {
        self.full = full;
    }

    /// The open record.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What its writer is told of it: its ceilings with the uses that the record and the file before it leave, and where the next row
    /// goes. Only while nobody writes it; a new one gets its header.
    ///
    /// # Errors
    /// One of the files is no record, or cannot be read or written.
    pub fn arguments(
        &self,
        state: &State,
        config: &Config,
        ceilings: &[Option<Ceiling>],
    ) -> Result<nsecd_records::Arguments, Fault> {
        let bucket = |c: &Ceiling| Bucket { burst: c.burst, tokens: c.tokens, seconds: c.seconds };
        let ceilings: Vec<_> = ceilings.iter().map(|ceiling| ceiling.as_ref().map(bucket)).collect();
        if !config.holder.record {
            return Ok(without_record(&ceilings));
        }
        let previous = self.previous(state)?;
        with_record(&ceilings, &self.file, previous.as_ref()).map_err(|why| {
            let dir = state.dir().path().display();
            Fault::new(format!("{} in {dir} cannot be continued: {why}", self.name("").display()))
        })
    }

    /// The file before it, for reading, if there is one.
    ///
    /// # Errors
    /// What lies at its name is not of ours, and the record is empty, so that the next one cannot do without it.
    pub fn previous(&self, state: &State) -> Result<Option<File>, Fault> {
        let existing = state.dir().existing(&self.name(".1"), &record_file(OFlag::O_RDONLY, self.writer));
        match existing {
            // Who misses rows takes the bucket for empty.
            Err(why) if self.size() >= ROW => {
                log::warn!("the record before {} is not read: {why}", self.name("").display());
                Ok(None)
            }
            other => other,
        }
    }

    /// Its rows as they lie there, of which `keep` old files are kept: sequence numbers of the last and of the oldest one.
    pub fn rows(&self, state: &State, keep: u32) -> (u64, u64) {
        let mut rows = seen(&self.file);
        for n in 1..=keep {
            let old = state.dir().existing(&self.name(&format!(".{n}")), &record_file(OFlag::O_RDONLY, self.writer));
            let Some((first, last)) = old.ok().flatten().and_then(|file| seen(&file)) else { break };
            rows = Some((first, rows.map_or(last, |(_, last)| last)));
        }
        rows.map_or((0, 1), |(first, last)| (last, first))
    }

    /// Whether it is full and can be put aside. If it cannot, the operator is told, and it is left alone for a while.
    pub fn is_due(&mut self, state: &State, keep: u32) -> bool {
        let lately = self.failed.is_some_and(|then| then.elapsed() < RETRY);
        !lately && self.size() >= self.full && self.noted(|record| record.look(state, keep).map(drop))
    }

    /// Puts it aside and starts a new one, if it is due.
    pub fn rotate(&mut self, state: &State, keep: u32) {
        if self.is_due(state, keep) {
            self.noted(|record| record.put_aside(state, keep));
        }
    }

    fn put_aside(&mut self, state: &State, keep: u32) -> Result<(), Fault> {
        let dir = self.look(state, keep)?;
        rotation::rotate(&dir, &self.name(""), keep, &record_file(OFlag::O_RDWR, self.writer))?;
        self.file = state.record(&self.stem, self.writer)?;
        log::info!("{} was full: it is {} now", self.name("").display(), self.name(".1").display());
        Ok(())
    }

    fn look(&self, state: &State, keep: u32) -> Result<Dir, Fault> {
        // From the root again: others may have got access to it meanwhile.
        let dir = Dir::open(state.dir().path())?;
        let name = self.name("");
        let ours = self.file.metadata().or_fault(|| format!("looking at {}", name.display()))?;
        let seen = dir.stat(&name)?.map(|s| (s.st_dev, s.st_ino));
        if seen != Some((ours.dev(), ours.ino())) {
            return Err(Fault::new(format!("{} is not the file in use any more: move that back", name.display())));
        }
        rotation::look(&dir, &name, keep, &record_file(OFlag::O_RDWR, self.writer))?;
        Ok(dir)
    }

    /// Whether `step` went well; the operator is told if not.
    fn noted(&mut self, step: impl FnOnce(&mut Record) -> Result<(), Fault>) -> bool {
        let result = step(self);
        if let Err(why) = &result {
            self.failed = Some(Instant::now());
            log::warn!("{} is full, but goes on in the same file: {why}", self.name("").display());
        }
        result.is_ok()
    }

    fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.size())
    }

    /// Its file's name in the state directory, with `end` behind it.
    pub fn name(&self, end: &str) -> OsString {
        OsStr::new(&format!("{}.record{end}", self.stem)).to_owned()
    }
}

/// Sequence numbers of a file's first and last row; `None` if it has no header yet. A row cut short is none.
fn seen(file: &File) -> Option<(u64, u64)> {
    let mut first = [0; 8];
    file.read_exact_at(&mut first, 24).ok()?;
    let (first, size) = (u64::from_be_bytes(first), file.metadata().ok()?.size());
    Some((first, (first.checked_add(size / ROW)?).checked_sub(2)?))
}

/// Bytes with which a record under this ceiling is put aside.
pub fn full(config: &Config, ceilings: &[Option<Ceiling>]) -> u64 {
    // As many rows as empty the buckets: their writer reads no further back than the previous file.
    let burst: u64 = ceilings.iter().flatten().map(|c| u64::from(c.burst)).sum();
    match config.holder.record {
        true => config.state.log_size.max(LARGEST.min(ROW * (burst + 1))),
        false => u64::MAX,
    }
}

/// Old records that are kept: at least the one that the next writer reads.
pub fn keep(config: &Config) -> u32 {
    config.state.log_keep.max(1)
}

impl Setup {
    /// Whether a record is full and can be put aside.
    pub fn has_full_record(&mut self) -> bool {
        let keep = keep(&self.config);
        self.records.iter_mut().any(|record| record.is_due(&self.state, keep))
    }

    /// Puts every full record aside. Only while no gate writes: the next one reads what it continues.
    pub fn rotate_records(&mut self) {
        let keep = keep(&self.config);
        for record in &mut self.records {
            record.rotate(&self.state, keep);
        }
    }
}
