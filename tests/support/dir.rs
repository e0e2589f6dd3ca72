//! A directory of a test's own, removed with everything in it when the test ends, panics included.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh directory under /tmp: its path is short enough for a socket's address (108 bytes).
pub struct Dir(PathBuf);

impl Dir {
    /// Makes one that belongs to `uid` (ours if `None`), mode 0755 so that other users reach sockets in it.
    pub fn new(uid: Option<u32>) -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = Dir(format!("/tmp/nsecd-t{}-{count}", std::process::id()).into());
        fs::create_dir(&dir.0).unwrap();
        fs::set_permissions(&dir.0, Permissions::from_mode(0o755)).unwrap();
        dir.give(&dir.0, uid);
        dir
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a subdirectory with this mode for `uid`.
    pub fn subdir(&self, name: &str, mode: u32, uid: Option<u32>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self.give(&path, uid);
        path
    }

    /// Writes a file with this mode for `uid`.
    pub fn file(&self, name: &str, mode: u32, uid: Option<u32>, content: &[u8]) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self.give(&path, uid);
        path
    }

    /// Copies a program into it. Not by this process itself: another thread's fork would inherit the descriptor that
    /// is open for writing, and the copy could not be executed (ETXTBSY) while that child lives.
    pub fn program(&self, from: &Path) -> PathBuf {
        let to = self.join(from.file_name().unwrap().to_str().unwrap());
        self.program_as(from, &to);
        to
    }

    /// The same, to this path in it.
    pub fn program_as(&self, from: &Path, to: &Path) {
        let status = std::process::Command::new("cp").arg(from).arg(to).status().unwrap();
        assert!(status.success(), "copying {}", from.display());
    }

    fn give(&self, path: &Path, uid: Option<u32>) {
        if uid.is_some() {
            chown(path, uid, uid).unwrap();
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // A test that made a part of it unwritable is root or has undone that; what is left would fail the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}
