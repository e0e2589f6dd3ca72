//! What an adoption has done, noted before each step, in a file of root's: what `--undo` goes by, and a second `--apply`.

use super::found::at;
use super::system::Host;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The notes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub user: String,
    /// The reference daemon's unit, its socket, its default account's public key.
    pub unit: String,
    pub socket: PathBuf,
    pub public: String,
    /// That account's name.
    pub default: String,
    /// The other accounts and theirs.
    pub accounts: Vec<(String, String)>,
    /// Whether the unit was enabled, and whether it had to be masked.
    pub was_enabled: bool,
    pub masked: bool,
    /// Files that were written, each with what it was before.
    pub files: Vec<Written>,
    /// A link at nsecd's default socket that was taken away, and where it led.
    pub default_link: Option<PathBuf>,
    /// The link in place of the reference daemon's socket.
    pub link: Option<(PathBuf, PathBuf)>,
    /// Where that led before, if it was a link of the user's.
    #[serde(default)]
    pub linked: Option<PathBuf>,
    /// The file that the unit was a link to, which `systemctl disable` takes away.
    #[serde(default)]
    pub unit_file: Option<PathBuf>,
    /// nsecd's sockets' units.
    pub sockets: Vec<String>,
    /// nsecd's units that were enabled, and sockets that listened, before any of this.
    #[serde(default)]
    pub before: Vec<Before>,
    /// Credentials that were made, each from a keyring key.
    pub credentials: Vec<(String, String)>,
    /// Keyring keys that were removed, each with the credential that has it.
    pub removed: Vec<(String, String)>,
    /// Whether all of it was done.
    pub done: bool,
}

/// What one of nsecd's units was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Before {
    pub unit: String,
    pub enabled: bool,
    pub active: bool,
}

/// A file that was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Written {
    pub path: PathBuf,
    pub text: String,
    /// What was there before, kept here.
    pub kept: Option<PathBuf>,
}

fn path(user: &str) -> PathBuf {
    format!("/etc/nsecd/adopted-{user}.json").into()
}

impl Journal {
    /// What was noted of that user, below a root directory.
    pub fn read(root: &Path, user: &str) -> Option<Journal> {
        Journal::of_text(&crate::named::text(&at(root, &path(user))).ok()?)
    }

    /// The same, of a host.
    pub fn of(host: &dyn Host, user: &str) -> Option<Journal> {
        Journal::of_text(&host.read(&path(user))?)
    }

    fn of_text(text: &str) -> Option<Journal> {
        serde_json::from_str(text).ok()
    }

    /// Notes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, host: &dyn Host) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())? + "\n";
        host.put(&path(&self.user), &text, 0o600)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, host: &dyn Host) -> Result<(), String> {
        host.remove(&path(&self.user))
    }
}
