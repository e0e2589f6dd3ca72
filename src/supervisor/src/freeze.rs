//! Which accounts are frozen: a page for those who use the key (`page`), and a file that outlives nsecd.
//!
//! NAME.frozen in the state directory: while it is there the account is frozen, whatever is in it. Must never thaw an account
//! because something could not be read, or before the file is gone for good.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use nsecd_policy::time::iso;

use crate::fault::{Fault, OrFault};
use crate::page::Page;
use crate::securefs::{Dir, Want, nobody_else};

/// Bytes of a file that are read.
const MOST: u64 = 64;

/// Whether one account is frozen.
#[derive(Debug)]
pub struct Freeze {
    account: String,
    page: Page,
    since: Option<Since>,
    /// Whether the file says the same.
    saved: bool,
}

/// When a freeze came into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Unix time in milliseconds.
    Known(u64),
    /// Its file is there, and does not say.
    Unknown,
}

impl Freeze {
    /// The state in which the last nsecd left `account`.
    ///
    /// # Errors
    /// What bears the file's name is no plain file of ours; the kernel gives no page.
    pub fn open(dir: &Dir, account: &str) -> Result<Freeze, Fault> {
        let page = Page::new()?;
        let file = dir.existing(&file_name(account, ""), &want(OFlag::O_RDONLY))?;
        let since = file.map(|file| read(file).map_or(Since::Unknown, Since::Known));
        if since == Some(Since::Unknown) {
            log::error!(
                "{account}.frozen in {} does not say since when: account {account} starts frozen, as it would with a whole file; `nsecctl thaw --account {account}` ends that",
                dir.path().display()
            );
        }
        page.set(since.is_some());
        Ok(Freeze { account: account.to_owned(), page, since, saved: true })
    }

    /// What gates and ECDH holder of the account look at.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// The account's name.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Since when it is frozen, if it is.
    pub fn since(&self) -> Option<Since> {
        self.since
    }

    /// Whether the next nsecd will find it as it is.
    pub fn is_saved(&self) -> bool {
        self.saved
    }

    /// Freezes it: when this returns, whoever begins to use the key sees it, and so will the next nsecd. One that is frozen stays so
    /// since it was.
    ///
    /// # Errors
    /// It is frozen, but could not be saved: the next nsecd would not know.
    pub fn freeze(&mut self, dir: &Dir) -> Result<(), Fault> {
        // The page first: a disk that is slow or full is no reason to sign on.
        self.page.set(true);
        let since = *self.since.get_or_insert_with(|| {
            self.saved = false;
            Since::Known(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
        });
        if !self.saved {
            save(dir, &self.account, since)
                .or_fault(|| format!("account {} is frozen, but not saved", self.account))?;
            self.saved = true;
        }
        Ok(())
    }

    /// Thaws it, for good before at all.
    ///
    /// # Errors
    /// The file could not be removed: the account stays frozen.
    pub fn thaw(&mut self, dir: &Dir) -> Result<(), Fault> {
        let name = file_name(&self.account, "");
        match unlinkat(dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => {
                return Err(e).or_fault(|| format!("removing {}", dir.path().join(&name).display()));
            }
        }
        self.saved = false;
        dir.sync()?;
        (self.since, self.saved) = (None, true);
        self.page.set(false);
        Ok(())
    }
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Since::Known(ms) => f.write_str(&iso(*ms)),
            Since::Unknown => f.write_str("an unknown time"),
        }
    }
}

fn file_name(account: &str, suffix: &str) -> OsString {
    format!("{account}.frozen{suffix}").into()
}

fn want(flags: OFlag) -> Want {
    Want { flags, mode: 0o600, owner: nobody_else }
}

/// `frozen since MS`, a newline.
fn read(file: File) -> Option<u64> {
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).ok()?;
    let digits = text.strip_prefix("frozen since ")?.strip_suffix('\n')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Writes the file so that it is there whole after a power loss, or the old one is.
fn save(dir: &Dir, account: &str, since: Since) -> Result<(), Fault> {
    let (name, next) = (file_name(account, ""), file_name(account, ".next"));
    let what = || format!("writing {}", dir.path().join(&name).display());
    // One that an nsecd did not finish; only a plain file of ours is removed.
    if dir.existing(&next, &want(OFlag::O_WRONLY))?.is_some() {
        unlinkat(dir, next.as_os_str(), UnlinkatFlags::NoRemoveDir).or_fault(what)?;
    }
    let mut file = dir.file(&next, &want(OFlag::O_WRONLY))?;
    let text = match since {
        Since::Known(ms) => format!("frozen since {ms}\n"),
        Since::Unknown => String::new(),
    };
    file.write_all(text.as_bytes()).or_fault(what)?;
    file.sync_all().or_fault(what)?;
    dir.existing(&name, &want(OFlag::O_WRONLY))?;
    renameat(dir, next.as_os_str(), dir, name.as_os_str()).or_fault(what)?;
    dir.sync()
}
