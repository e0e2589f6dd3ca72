//! The decision log: opened and rotated here, written by the broker, which can open nothing.
//!
//! Must never follow or replace what somebody else may have put at one of its names (threat B26), nor let a broker that
//! asks too often burn through its own history.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat};

use crate::fault::{Fault, OrFault};
use crate::rotation;
use crate::securefs::{Dir, Want, nobody_else};
use crate::setup::State;

/// Its name in the state directory (`nsecd_trail::DECISIONS`, which is not linked here for one word).
const NAME: &str = "decisions.log";
/// It is not rotated again sooner than this, nor looked for.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one that cannot be rotated is left alone, and for how long the same complaint is not repeated.
const RETRY: Duration = Duration::from_secs(600);
/// So many complaints in that time, however often the reason changes.
const COMPLAINTS: u32 = 8;

/// The decision log. It belongs to nsecd's own user, not to the broker's: the broker has the descriptor and nothing else.
#[derive(Debug)]
pub struct DecisionLog {
    file: File,
    rotated: Option<Instant>,
    looked: Option<Instant>,
    failed: Option<Instant>,
    complaint: Complaint,
}

/// Why the log is not at its name, as it was said last: what stays as it is is said once, what changes is said again.
#[derive(Debug, Default)]
struct Complaint {
    text: String,
    since: Option<Instant>,
    times: u32,
}

impl DecisionLog {
    /// Opens or makes it.
    ///
    /// # Errors
    /// As [`Dir::file`].
    pub fn open(state: &State) -> Result<DecisionLog, Fault> {
        let file = open(state.dir())?;
        Ok(DecisionLog { file, rotated: None, looked: None, failed: None, complaint: Complaint::default() })
    }

    /// The open log.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.size())
    }

    /// The file before it, for reading, if there is one.
    ///
    /// # Errors
    /// What lies at its name is not ours, and the log is empty, so that nobody could tell where the chain goes on.
    pub fn previous(&self, state: &State) -> Result<Option<File>, Fault> {
        let want = Want { flags: OFlag::O_RDONLY, ..want() };
        match state.dir().existing(&old(1), &want) {
            Err(why) if self.size() > 0 => {
                log::warn!("the decision log before {NAME} is not read: {why}");
                Ok(None)
            }
            other => other,
        }
    }

    /// Whether it was rotated a moment ago, or could not be a while ago.
    pub fn is_fresh(&self, now: Instant) -> bool {
        let lately =
            |then: Option<Instant>, pause| then.is_some_and(|then| now.saturating_duration_since(then) < pause);
        lately(self.rotated, PAUSE) || lately(self.failed, RETRY)
    }

    /// Renames it to NAME.1, that to NAME.2 and so on, keeps `keep` old ones, and begins a new one.
    ///
    /// # Errors
    /// It is not where it was, or something that is no plain file of ours bears one of these names: the old one stays in use.
    pub fn rotate(&mut self, state: &State, keep: u32, now: Instant) -> Result<(), Fault> {
        self.rotated = Some(now);
        let file = self.put_aside(state, keep);
        // Said once, and then left alone for a while.
        self.failed = file.is_err().then_some(now);
        self.file = file?;
        Ok(())
    }

    fn put_aside(&self, state: &State, keep: u32) -> Result<File, Fault> {
        let dir = same(state)?;
        if !self.is_at(&dir)? {
            return Err(Fault::new(format!("{NAME} is not the file in use any more: move that back")));
        }
        rotation::rotate(&dir, OsStr::new(NAME), keep, &want())?;
        open(&dir)
    }

    /// Looks whether the log still has its name, now and then; a new file where it was deleted or moved away, since nobody
    /// would ever read what goes on being written to the old one.
    pub fn found_missing(&mut self, state: &State, now: Instant) -> Option<&File> {
        if self.looked.is_some_and(|then| now.saturating_duration_since(then) < PAUSE) {
            return None;
        }
        self.looked = Some(now);
        match self.replaced(state) {
            Ok(None) => {
                self.complaint.over();
                None
            }
            Ok(Some(file)) => {
                self.complaint.over();
                log::error!("the decision log was deleted or moved away: it goes on in a new {NAME}, which says so");
                self.file = file;
                Some(&self.file)
            }
            Err(why) => {
                if self.complaint.is_news(&why.to_string(), now) {
                    log::error!("the decision log goes on in a file that is not at its name any more: {why}");
                }
                None
            }
        }
    }

    fn replaced(&self, state: &State) -> Result<Option<File>, Fault> {
        let dir = same(state)?;
        if self.is_at(&dir)? {
            return Ok(None);
        }
        match dir.stat(OsStr::new(NAME))? {
            None => open(&dir).map(Some),
            Some(_) => Err(Fault::new(format!("something else is at {NAME}: move it away"))),
        }
    }

    fn is_at(&self, dir: &Dir) -> Result<bool, Fault> {
        let ours = self.file.metadata().or_fault(|| format!("looking at {NAME}"))?;
        let seen = dir.stat(OsStr::new(NAME))?.map(|s| (s.st_dev, s.st_ino));
        Ok(seen == Some((ours.dev(), ours.ino())))
    }
}

impl Complaint {
    fn is_news(&mut self, why: &str, now: Instant) -> bool {
        if self.since.is_none_or(|then| now.saturating_duration_since(then) >= RETRY) {
            *self = Complaint { since: Some(now), ..Complaint::default() };
        }
        if self.text == why || self.times == COMPLAINTS {
            return false;
        }
        self.text = why.to_owned();
        self.times += 1;
        true
    }

    /// All is well: whatever comes next is news.
    fn over(&mut self) {
        self.text.clear();
    }
}

/// The state directory, from the root again: others may have got access to it meanwhile, or put another in its place.
fn same(state: &State) -> Result<Dir, Fault> {
    let path = state.dir().path();
    let dir = Dir::open(path)?;
    let id = |dir: &Dir| fstat(dir).map(|s| (s.st_dev, s.st_ino)).or_fault(|| format!("looking at {}", path.display()));
    if id(&dir)? != id(state.dir())? {
        let text = format!("{} is not the directory in use any more: move that back, or restart nsecd", path.display());
        return Err(Fault::new(text));
    }
    Ok(dir)
}

fn open(dir: &Dir) -> Result<File, Fault> {
    let file = dir.file(OsStr::new(NAME), &want())?;
    fchmod(&file, Mode::from_bits_truncate(0o600)).or_fault(|| format!("setting the mode of {NAME}"))?;
    Ok(file)
}

fn want() -> Want {
    Want { flags: OFlag::O_RDWR | OFlag::O_APPEND, mode: 0o600, owner: nobody_else }
}

fn old(n: u32) -> OsString {
    format!("{NAME}.{n}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked: with one complaint in ten minutes, and without the bound, this fails.
    #[test]
    fn a_complaint_is_repeated_when_its_reason_changes_and_a_flood_of_reasons_is_bounded() {
        let (mut complaint, start) = (Complaint::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(complaint.is_news("gone", at(0)));
        assert!(!complaint.is_news("gone", at(1)));
        assert!(complaint.is_news("another is in its place", at(2)));
        complaint.over();
        assert!(complaint.is_news("another is in its place", at(3)));
        let said = (4..500).filter(|n| complaint.is_news(&n.to_string(), at(*n))).count() as u32;
        assert_eq!(said, COMPLAINTS - 3);
        // What lasts is said again after ten minutes.
        assert!(complaint.is_news("gone", at(600)) && !complaint.is_news("gone", at(601)));
    }
}
