//! The alert logs: opened and rotated here, written by the broker, which can open nothing.
//!
//! Must never follow or replace what an agent may have put beside a log (threat B26), nor let a broker that asks
//! too often burn through its own history.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, fchown, getegid};

use crate::fault::{Fault, OrFault};
use crate::rotation;
use crate::securefs::{Dir, Want, nobody_else, split};

/// A log is not rotated again sooner than this.
const PAUSE: Duration = Duration::from_secs(1);

/// The alert log of one socket.
#[derive(Debug)]
pub struct AlertLog {
    path: PathBuf,
    readers: Option<Gid>,
    file: File,
    rotated: Option<Instant>,
}

impl AlertLog {
    /// Opens or makes the log; `readers` is the group of its socket's agents, who may read it.
    ///
    /// # Errors
    /// As [`Dir::file`].
    pub fn open(path: &Path, readers: Option<Gid>) -> Result<AlertLog, Fault> {
        let (dir, name) = split(path)?;
        let file = open(&Dir::open_or_create(dir, 0o755)?, name, readers)?;
        Ok(AlertLog { path: path.to_owned(), readers, file, rotated: None })
    }

    /// The open log.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it to another group of readers, the next file too.
    ///
    /// # Errors
    /// Only root, and groups of one's own.
    pub fn give(&mut self, readers: Option<Gid>) -> Result<(), Fault> {
        if self.readers != readers {
            give(&self.file, readers, &self.path)?;
            self.readers = readers;
        }
        Ok(())
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.size())
    }

    /// Whether it was rotated a moment ago.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.rotated.is_some_and(|then| now.saturating_duration_since(then) < PAUSE)
    }

    /// Renames LOG to LOG.1, LOG.1 to LOG.2 and so on, keeps `keep` old ones, and opens a new LOG.
    ///
    /// # Errors
    /// Something that is no plain file of ours bears one of these names, or others can write the directory: the
    /// old log stays in use.
    pub fn rotate(&mut self, keep: u32, now: Instant) -> Result<(), Fault> {
        self.rotated = Some(now);
        let (path, name) = split(&self.path)?;
        let dir = Dir::open(path)?;
        rotation::rotate(&dir, name, keep, &want())?;
        self.file = open(&dir, name, self.readers)?;
        Ok(())
    }
}

fn want() -> Want {
    Want { flags: OFlag::O_WRONLY | OFlag::O_APPEND, mode: 0o600, owner: nobody_else }
}

fn open(dir: &Dir, name: &OsStr, readers: Option<Gid>) -> Result<File, Fault> {
    let file = dir.file(name, &want())?;
    if readers.is_some() {
        give(&file, readers, &dir.path().join(name))?;
    }
    Ok(file)
}

fn give(file: &File, readers: Option<Gid>, path: &Path) -> Result<(), Fault> {
    let what = || format!("giving {} to its readers' group", path.display());
    let (group, mode) = readers.map_or((getegid(), 0o600), |gid| (gid, 0o640));
    fchown(file, None, Some(group)).or_fault(what)?;
    fchmod(file, Mode::from_bits_truncate(mode)).or_fault(what)
}
