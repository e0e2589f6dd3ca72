//! Putting a file aside: NAME becomes NAME.1, NAME.1 becomes NAME.2, and so on.
//!
//! Must never follow or move what somebody else may have put at one of these names (threat B26).

use std::ffi::{OsStr, OsString};

use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::fault::{Fault, OrFault};
use crate::securefs::{Dir, Want};

/// Looks at NAME and its `keep` old files, and moves nothing.
///
/// # Errors
/// Something that [`Dir::existing`] would not open bears one of these names.
pub fn look(dir: &Dir, name: &OsStr, keep: u32, want: &Want) -> Result<(), Fault> {
    names(name, keep).iter().try_for_each(|name| dir.existing(name, want).map(drop))
}

/// Renames NAME and its old files, of which `keep` are left; then there is no NAME.
///
/// # Errors
/// As [`look`], before any is moved; or a rename failed.
pub fn rotate(dir: &Dir, name: &OsStr, keep: u32, want: &Want) -> Result<(), Fault> {
    look(dir, name, keep, want)?;
    let done = |result: nix::Result<()>, what: &str| match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e).or_fault(|| format!("{what} {}", dir.path().join(name).display())),
    };
    for pair in names(name, keep).windows(2).rev() {
        done(renameat(dir, pair[0].as_os_str(), dir, pair[1].as_os_str()), "rotating")?;
    }
    if keep == 0 {
        done(unlinkat(dir, name, UnlinkatFlags::NoRemoveDir), "removing")?;
    }
    Ok(())
}

fn names(name: &OsStr, keep: u32) -> Vec<OsString> {
    let old = (1..=keep).map(|n| {
        let mut old = name.to_owned();
        old.push(format!(".{n}"));
        old
    });
    [name.to_owned()].into_iter().chain(old).collect()
}
