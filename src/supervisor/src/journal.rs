//! The journal's files: opened, renamed and kept aside here, written by the broker, which can open nothing.
//!
//! Reads of it only as much as tells a journal from another program's file (threat B30). Must never follow or replace
//! what somebody else may have put there (threat B26).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::fault::{Fault, OrFault};
use crate::lockfile::Lock;
use crate::securefs::{Dir, Want, nobody_else, split};

/// No new file is made sooner after the last one.
const PAUSE: Duration = Duration::from_secs(1);
/// Damaged journals kept aside; more are the operator's to look at first.
const MOST_ASIDE: u32 = 8;

/// The journal, and the file that is to follow it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    next: Option<File>,
    made: Option<Instant>,
    /// Of a journal outside the state directory, which has a lock of its own: two nsecds in one journal would take each
    /// other's rows for their own.
    lock: Option<(Dir, Lock)>,
}

/// What lies at a path that is meant for the journal.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing, an empty file, or a journal.
    Ours,
    /// JSON: the reference daemon's session file.
    Reference,
    /// Neither.
    Foreign,
}

impl Journal {
    /// Opens or makes the journal.
    ///
    /// # Errors
    /// As [`Dir::file`]; a file that is no journal, which is left as it is.
    pub fn open(path: &Path) -> Result<Journal, Fault> {
        let (dir, name) = split(path)?;
        let dir = Dir::open_or_create(dir, 0o755)?;
        if let Some(file) = dir.existing(name, &want())?
            && look(&file).or_fault(|| format!("reading {}", path.display()))? != Seen::Ours
        {
            return Err(Fault::new(format!("{} is not a journal of nsecd's: move it away", path.display())));
        }
        let file = dir.file(name, &want())?;
        fchmod(&file, Mode::from_bits_truncate(0o600))
            .or_fault(|| format!("setting the mode of {}", path.display()))?;
        Ok(Journal { path: path.to_owned(), file, next: None, made: None, lock: None })
    }

    /// The same, for this nsecd alone as long as it runs.
    ///
    /// # Errors
    /// Another nsecd uses it.
    pub fn open_alone(path: &Path) -> Result<Journal, Fault> {
        let (dir, name) = split(path)?;
        let dir = Dir::open(dir)?;
        let Some(lock) = Lock::take(&dir, &suffixed(name, "lock"))? else {
            let text = format!("another nsecd uses the journal {}: stop it first, or name another", path.display());
            return Err(Fault::new(text));
        };
        let mut journal = Journal::open(path)?;
        journal.lock = Some((dir, lock));
        Ok(journal)
    }

    /// The open journal.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.size())
    }

    /// An empty file to follow the journal, beside it.
    ///
    /// # Errors
    /// One was made a moment ago; as [`Dir::file`].
    pub fn next(&mut self, now: Instant) -> Result<&File, Fault> {
        if self.made.is_some_and(|made| now.saturating_duration_since(made) < PAUSE) {
            return Err(Fault::new("a new journal was made a moment ago".to_owned()));
        }
        self.made = Some(now);
        let (dir, name) = split(&self.path)?;
        let (dir, next) = (Dir::open(dir)?, suffixed(name, "next"));
        // One that a broker did not finish; only a plain file of ours is removed.
        if dir.existing(&next, &want())?.is_some() {
            remove(&dir, &next)?;
        }
        Ok(self.next.insert(dir.file(&next, &want())?))
    }

    /// Gives the file that [`next`](Journal::next) made the journal's name. A damaged journal is kept aside.
    ///
    /// # Errors
    /// Too many are kept already; something else bears one of the names; renameat(2)'s. The old journal stays in use.
    pub fn replace(&mut self, damaged: bool) -> Result<(), Fault> {
        let Some(next) = self.next.take() else { return Err(Fault::new("no new journal was asked for".to_owned())) };
        let (dir, name) = split(&self.path)?;
        let dir = Dir::open(dir)?;
        dir.existing(name, &want())?;
        if damaged {
            let names = (1..=MOST_ASIDE).map(|n| suffixed(name, &format!("damaged.{n}")));
            let mut free = names.filter(|aside| matches!(dir.stat(aside), Ok(None)));
            let Some(aside) = free.next() else {
                let text = format!("{MOST_ASIDE} damaged journals lie beside {}: move them away", self.path.display());
                return Err(Fault::new(text));
            };
            set_aside(&dir, name, &aside)?;
            log::error!("the damaged journal is kept as {}", dir.path().join(&aside).display());
        } else {
            rename(&dir, &suffixed(name, "next"), name)?;
        }
        self.file = next;
        Ok(())
    }

    /// The broker that asked for a new file is gone, or will be.
    pub fn abandon(&mut self) {
        if self.next.take().is_none() {
            return;
        }
        let removed = split(&self.path).and_then(|(dir, name)| remove(&Dir::open(dir)?, &suffixed(name, "next")));
        if let Err(why) = removed {
            log::warn!("{why}");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.abandon();
        if let Some((dir, lock)) = self.lock.take() {
            lock.remove(&dir);
        }
    }
}

/// What lies at `path`, opened as the journal would be.
///
/// # Errors
/// As [`Journal::open`], but for the content.
pub fn see(path: &Path) -> Result<Seen, Fault> {
    let (dir, name) = split(path)?;
    match Dir::open_or_create(dir, 0o755)?.existing(name, &want())? {
        Some(file) => look(&file).or_fault(|| format!("reading {}", path.display())),
        None => Ok(Seen::Ours),
    }
}

/// A journal's line begins with eight digits and a space, whatever else may be wrong with it.
fn look(file: &File) -> std::io::Result<Seen> {
    let mut start = [0; 64];
    let n = file.read_at(&mut start, 0)?;
    let start = &start[..n];
    let first = start.iter().position(|b| !b.is_ascii_whitespace()).map_or(&[][..], |i| &start[i..]);
    Ok(match first {
        [] if n < 64 => Seen::Ours,
        [b'{' | b'[', ..] => Seen::Reference,
        _ if first.len() > 9 && first[..8].iter().all(u8::is_ascii_hexdigit) && first[8] == b' ' => Seen::Ours,
        _ => Seen::Foreign,
    })
}

fn want() -> Want {
    Want { flags: OFlag::O_RDWR | OFlag::O_APPEND, mode: 0o600, owner: nobody_else }
}

fn suffixed(name: &OsStr, suffix: &str) -> OsString {
    let mut suffixed = name.to_owned();
    suffixed.push(".");
    suffixed.push(suffix);
    suffixed
}

/// Gives the new journal the name of the old one, and the old one this. At no time is there no journal: whoever ends nsecd
/// then would have it begin with nothing used.
fn set_aside(dir: &Dir, name: &OsStr, aside: &OsStr) -> Result<(), Fault> {
    let next = suffixed(name, "next");
    match renameat2(dir, next.as_os_str(), dir, name, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => {
            // The new one is the journal now, whatever the old one is called.
            if let Err(why) = rename(dir, &next, aside) {
                log::warn!("{why}");
            }
            Ok(())
        }
        // A file system that cannot exchange names.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            rename(dir, name, aside)?;
            rename(dir, &next, name).inspect_err(|_| drop(rename(dir, aside, name)))
        }
        Err(e) => Err(e).or_fault(|| format!("renaming {}", dir.path().join(&next).display())),
    }
}

fn rename(dir: &Dir, from: &OsStr, to: &OsStr) -> Result<(), Fault> {
    renameat(dir, from, dir, to).or_fault(|| format!("renaming {}", dir.path().join(from).display()))
}

fn remove(dir: &Dir, name: &OsStr) -> Result<(), Fault> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e).or_fault(|| format!("removing {}", dir.path().join(name).display())),
    }
}
