//! Lock files: one nsecd per socket, one per state directory.
//!
//! The lock is flock(2)'s, so it ends with its holder, however that died; the file may outlive it. Must never
//! remove or trust a lock file that is not the one it holds.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::fault::{Fault, OrFault};
use crate::securefs::{Dir, Want, nobody_else};

/// Device and inode: which file a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// A lock that is held.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    name: OsString,
}

impl Lock {
    /// Takes the lock `name` in `dir`; `None` if a living process holds it.
    ///
    /// # Errors
    /// A lock file that is not plainly ours ([`Dir::file`]).
    pub fn take(dir: &Dir, name: &OsStr) -> Result<Option<Lock>, Fault> {
        let what = || format!("locking {}", dir.path().join(name).display());
        loop {
            let file = dir.file(name, &Want { flags: OFlag::O_RDWR, mode: 0o600, owner: nobody_else })?;
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, e)) => return Err(e).or_fault(what),
            };
            // Its last holder may have removed the file between our open and our lock: then it guards nothing.
            let held = fstat(&*file).or_fault(what)?;
            if dir.stat(name)?.is_some_and(|s| s.st_dev == held.st_dev && s.st_ino == held.st_ino) {
                return Ok(Some(Lock { file, name: name.to_owned() }));
            }
        }
    }

    /// What [`Lock::record`] wrote last, by this process or an earlier one; `None` if nothing that reads as such.
    pub fn recorded(&mut self) -> Option<Identity> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        (&*self.file).take(64).read_to_string(&mut text).ok()?;
        let (dev, ino) = text.trim_end().split_once(':')?;
        Some(Identity { dev: dev.parse().ok()?, ino: ino.parse().ok()? })
    }

    /// Writes down which socket is ours.
    pub fn record(&mut self, socket: Identity) -> Result<(), Fault> {
        let mut write = || {
            self.file.rewind()?;
            self.file.set_len(0)?;
            writeln!(self.file, "{}:{}", socket.dev, socket.ino)
        };
        write().or_fault(|| format!("writing lock file {}", self.name.display()))
    }

    /// Removes the file while it is still locked, then lets go.
    pub fn remove(self, dir: &Dir) {
        if let Err(e) = unlinkat(dir, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            log::warn!("removing {}: {e}", dir.path().join(&self.name).display());
        }
    }
}
