//! The roles' binaries, opened once: an upgrade on disk while nsecd runs never mixes versions.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::geteuid;

use crate::fault::{Fault, OrFault};
use crate::securefs::{Dir, writable_by_others};

/// Handles on the role binaries, for execveat(2).
pub struct Images {
    /// nsecd-keyholder.
    pub holder: OwnedFd,
    /// nsecd-gate.
    pub gate: OwnedFd,
    /// nsecd-ecdh, where it is needed.
    pub ecdh: Option<OwnedFd>,
    /// nsecd-broker.
    pub broker: OwnedFd,
}

impl Images {
    /// Opens the binaries that lie beside the running one, that of the ECDH holder only `with_ecdh`.
    ///
    /// # Errors
    /// One is missing, or others can change it or the directory it lies in.
    pub fn open(with_ecdh: bool) -> Result<Images, Fault> {
        let me = std::fs::read_link("/proc/self/exe").or_fault(|| "reading /proc/self/exe".into())?;
        let dir = me.parent().ok_or_else(|| Fault::new("/proc/self/exe names no directory"))?;
        // Who may write in the directory may put another file in a binary's place before the next start.
        Dir::open(dir)?;
        let image = |name: &str| image(dir, OsStr::new(name));
        Ok(Images {
            holder: image("nsecd-keyholder")?,
            gate: image("nsecd-gate")?,
            ecdh: with_ecdh.then(|| image("nsecd-ecdh")).transpose()?,
            broker: image("nsecd-broker")?,
        })
    }
}

fn image(dir: &Path, name: &OsStr) -> Result<OwnedFd, Fault> {
    let path = dir.join(name);
    let show = path.display();
    let fd = open(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
        .or_fault(|| format!("opening {show}, which must lie beside nsecd"))?;
    let stat = fstat(&fd).or_fault(|| format!("looking at {show}"))?;
    let owned = stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    if !owned || writable_by_others(&stat) {
        return Err(Fault::new(format!(
            "{show} (uid {}, mode {:04o}) can be changed by others, who would run as nsecd: install the binaries so that only root or nsecd's user can write them, e.g. `install -o root -m 0755 -t /usr/local/bin nsecd*`",
            stat.st_uid,
            stat.st_mode & 0o7777
        )));
    }
    Ok(fd)
}
