//! Cgroups of a test's own, in the unified hierarchy (cgroups(7)), removed when the test ends, panics included.

use super::{root, skip};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the unified hierarchy lies: alone, or beside those of version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// An empty cgroup without controllers.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one whose name no other test has.
    pub fn new() -> Cgroup {
        Cgroup::try_new().unwrap_or_else(|e| panic!("making a cgroup: {e}"))
    }

    fn try_new() -> std::io::Result<Cgroup> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros());
        let mount = MOUNTS.iter().map(Path::new).find(|m| m.join("cgroup.controllers").exists());
        let mount = mount.ok_or(ErrorKind::NotFound)?;
        let path = mount.join(format!("nsecd-t{}-{count}-{time}", std::process::id()));
        fs::create_dir(&path).map(|()| Cgroup(path))
    }

    /// Its id: the inode number of its directory.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.0).unwrap().ino()
    }

    /// The file that a process enters by.
    pub fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// `program`, which enters this cgroup before it starts. Arguments are added as to any command.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"echo $$ >"$0" && exec "$@""#]).arg(self.procs()).arg(program);
        command
    }

    /// Ends what still runs in it, and removes it; the next one has another id, even under the same name.
    pub fn remade(self) -> Cgroup {
        let path = self.0.clone();
        drop(self);
        fs::create_dir(&path).unwrap();
        Cgroup(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Refused by kernels before 5.14; then what runs in it must have ended by itself.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        remove(&self.0);
    }
}

/// Removes a cgroup and those below it.
pub fn remove(cgroup: &Path) {
    below(cgroup).iter().for_each(|child| remove(child));
    let until = Instant::now() + Duration::from_secs(10);
    // Busy until the last process is gone.
    while fs::remove_dir(cgroup).is_err_and(|e| e.kind() != ErrorKind::NotFound) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The cgroups in this one.
pub fn below(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// The roots of all hierarchies, those of version 1 included: runtimes make a container's cgroup in each.
pub fn hierarchies() -> Vec<PathBuf> {
    let below = fs::read_dir(MOUNTS[0]).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(MOUNTS[0].into()).chain(below).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// `true`, after saying so, if cgroups cannot be made here or this kernel does not tell a peer's.
pub fn no_cgroups() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 13) {
        skip(&format!("a peer's cgroup needs Linux 6.13, this is {}", release.trim()));
        return true;
    }
    if !root() {
        skip("making cgroups needs root");
        return true;
    }
    Cgroup::try_new().map(drop).inspect_err(|e| skip(&format!("no cgroup can be made here: {e}"))).is_err()
}
