//! Opens the config file, and only one that nobody but root and nsecd's own user can have written.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::error::Error;
use super::secrets::shown;
use crate::securefs::open_through_no_link;

/// Largest config file in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The config file's text. `uid` is nsecd's own. Refuses links anywhere in the path, anything but a regular file, and
/// a file or parent directory that another user can write (a sticky directory of root's counts as safe).
pub fn read(path: &Path, uid: u32) -> Result<String, Error> {
    let name = shown(&path.to_string_lossy());
    let whole = std::path::absolute(path).map_err(|e| Error::new(format!("{name}: {e}")))?;
    check_parents(&whole, uid)?;
    // Not blocking: at a FIFO the open would wait for a writer.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let fd = open_through_no_link(&whole, flags).map_err(|e| match e {
        Errno::ELOOP => Error::new(format!("{name}: a symbolic link lies in the path; name the file itself")),
        e => Error::new(format!("{name}: cannot open: {}", e.desc())),
    })?;
    let file = File::from(fd);
    let m = file.metadata().map_err(|e| Error::new(format!("{name}: {e}")))?;
    if !m.is_file() {
        return Err(Error::new(format!("{name}: not a regular file")));
    }
    if m.mode() & 0o022 != 0 || !trusted_owner(&m, uid) {
        return Err(Error::new(format!(
            "{name}: owned by uid {}, mode {:04o}: others could change nsecd's policy; `chown {uid} {name}` and `chmod go-w {name}`",
            m.uid(),
            m.mode() & 0o7777
        )));
    }
    let mut text = String::new();
    let read = file.take(MAX_SIZE + 1).read_to_string(&mut text);
    match read {
        Ok(n) if n as u64 <= MAX_SIZE => Ok(text),
        Ok(_) => Err(Error::new(format!("{name}: larger than {MAX_SIZE} bytes"))),
        Err(e) => Err(Error::new(format!("{name}: cannot read: {e}"))),
    }
}

/// Refuses an absolute path if a directory above it can be written by anyone but root and `uid`; a sticky directory
/// of root's, like /tmp, may be. Does not follow links: whoever opens the path must refuse them.
fn check_parents(path: &Path, uid: u32) -> Result<(), Error> {
    for dir in path.ancestors().skip(1) {
        let name = shown(&dir.to_string_lossy());
        let m = fs::symlink_metadata(dir).map_err(|e| Error::new(format!("{name}: {e}")))?;
        if m.file_type().is_symlink() {
            return Err(Error::new(format!("{name}: a symbolic link lies in the path; name the file itself")));
        }
        let shared = m.mode() & 0o022 != 0;
        let sticky_root = m.uid() == 0 && m.mode() & 0o1000 != 0;
        if !trusted_owner(&m, uid) || (shared && !sticky_root) {
            return Err(Error::new(format!(
                "{name}: owned by uid {}, mode {:04o}: others could replace what lies in it; `chown {uid} {name}` and `chmod go-w \
                 {name}`, or use another directory",
                m.uid(),
                m.mode() & 0o7777
            )));
        }
    }
    Ok(())
}

fn trusted_owner(m: &Metadata, uid: u32) -> bool {
    m.uid() == 0 || m.uid() == uid
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    /// A fresh directory with a good config file in it, and this process's uid.
    fn good() -> (PathBuf, PathBuf, u32) {
        let dir = nix::unistd::mkdtemp("/tmp/nsecd-config-XXXXXX").unwrap();
        let file = dir.join("nsecd.toml");
        fs::write(&file, "[key]\n").unwrap();
        set_mode(&file, 0o644);
        (dir, file, nix::unistd::geteuid().as_raw())
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path, uid: u32, why: &str) {
        let text = read(path, uid).unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
    }

    #[test]
    fn only_a_file_that_no_other_user_can_write_is_read() {
        let (dir, file, uid) = good();
        assert_eq!(read(&file, uid).unwrap(), "[key]\n");
        for mode in [0o664, 0o646, 0o666] {
            set_mode(&file, mode);
            refused(&file, uid, "chmod go-w");
        }
        set_mode(&file, 0o644);
        for mode in [0o770, 0o707, 0o1777] {
            set_mode(&dir, mode);
            if mode == 0o1777 && uid == 0 {
                assert!(read(&file, uid).is_ok());
            } else {
                refused(&file, uid, "others could replace");
            }
        }
        set_mode(&dir, 0o700);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn links_and_other_files_are_refused() {
        let (dir, file, uid) = good();
        symlink(&file, dir.join("link")).unwrap();
        symlink(&dir, dir.join("dir")).unwrap();
        nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        refused(&dir.join("link"), uid, "symbolic link");
        refused(&dir.join("dir/nsecd.toml"), uid, "symbolic link");
        refused(&dir.join("fifo"), uid, "not a regular file");
        refused(&dir, uid, "not a regular file");
        refused(&dir.join("none"), uid, "cannot open");
        fs::write(&file, [0xff]).unwrap();
        refused(&file, uid, "cannot read");
        fs::write(&file, vec![b'#'; 1 + MAX_SIZE as usize]).unwrap();
        refused(&file, uid, "larger than");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let (dir, file, uid) = good();
        if uid == 0 {
            std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
            refused(&file, uid, "owned by uid 12345");
            assert!(read(&file, 12_345).is_ok());
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
