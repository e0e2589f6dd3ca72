//! What is so on this machine, as far as nsecctl's own user may see it.

use super::{Options, sys};
use crate::order::default_dirs;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes of memory that a holder of a key maps: a guard page, its stack, a page of data.
pub(super) const VAULT: usize = 40 << 10;

/// A directory or file as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub path: PathBuf,
    pub uid: u32,
    /// Permission bits, the sticky one included.
    pub mode: u32,
    pub is_dir: bool,
}

/// All that is judged. `None`: cannot be seen, or is not there.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Our uid, which is taken for nsecd's.
    pub uid: u32,
    /// As `uname -r` prints it.
    pub kernel: String,
    pub has_seccomp: bool,
    /// Why there is no secret memory, if there is none.
    pub no_secret_memory: Option<String>,
    pub landlock_abi: u32,
    pub has_mdwe: bool,
    pub tells_cgroups: bool,
    /// kernel.yama.ptrace_scope.
    pub ptrace_scope: Option<u32>,
    /// user.max_user_namespaces, and the two switches that distributions have added.
    pub max_user_namespaces: Option<u64>,
    pub unprivileged_userns_clone: Option<u32>,
    pub apparmor_restricts_userns: Option<u32>,
    /// Devices and files that are swapped to.
    pub swap: Vec<String>,
    pub core_pattern: String,
    /// Hard limits of this shell: bytes, and a number; `None`: unlimited.
    pub memlock: Option<u64>,
    pub nofile: Option<u64>,
    /// The directories nsecd would use and all above them, the deepest first; those that exist.
    pub state: (PathBuf, Vec<Seen>),
    pub admin: (PathBuf, Vec<Seen>),
    /// nsecd and the role binaries beside it: their names, and what is there.
    pub binaries: Vec<(&'static str, Option<Seen>)>,
    /// Role users that do not exist.
    pub missing_users: Vec<&'static str>,
}

/// The binaries that belong together.
const BINARIES: [&str; 5] = ["nsecd", "nsecd-keyholder", "nsecd-gate", "nsecd-ecdh", "nsecd-broker"];
const USERS: [&str; 4] = ["nsecd-keyholder", "nsecd-gate", "nsecd-ecdh", "nsecd-broker"];

impl Facts {
    /// Looks at the files below `root`, which is `/` but in tests, and asks the kernel that runs.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn gather(root: &Path, options: &Options) -> Result<Facts, String> {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned());
        let number = |path: &str| read(path)?.parse().ok();
        let uid = fs::metadata("/proc/self").map_err(|e| format!("/proc is needed: {e}"))?.uid();
        let limits = read("proc/self/limits").unwrap_or_default();
        let swaps = read("proc/swaps").unwrap_or_default();
        let swap = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(String::from).collect();
        let users = read("etc/passwd").unwrap_or_default();
        let has_user = |name: &str| users.lines().any(|line| line.split(':').next() == Some(name));
        // nsecd looks for them beside itself, and what lies beside nsecctl may be a link to it.
        let mine = std::env::current_exe().ok().and_then(|me| me.parent().map(Path::to_owned)).unwrap_or_default();
        let nsecd = fs::canonicalize(mine.join("nsecd"));
        let beside = nsecd.ok().and_then(|nsecd| nsecd.parent().map(Path::to_owned)).unwrap_or(mine);
        Ok(Facts {
            uid,
            kernel: read("proc/sys/kernel/osrelease").ok_or("/proc/sys/kernel/osrelease cannot be read")?,
            has_seccomp: sys::has_seccomp(),
            no_secret_memory: sys::secret_memory(VAULT).err().map(|e| e.to_string()),
            landlock_abi: sys::landlock_abi(),
            has_mdwe: sys::has_mdwe(),
            tells_cgroups: sys::tells_cgroups(),
            ptrace_scope: number("proc/sys/kernel/yama/ptrace_scope").map(|n: u64| n as u32),
            max_user_namespaces: number("proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: number("proc/sys/kernel/unprivileged_userns_clone").map(|n: u64| n as u32),
            apparmor_restricts_userns: number("proc/sys/kernel/apparmor_restrict_unprivileged_userns")
                .map(|n: u64| n as u32),
            swap,
            core_pattern: read("proc/sys/kernel/core_pattern").unwrap_or_default(),
            memlock: hard_limit(&limits, "Max locked memory"),
            nofile: hard_limit(&limits, "Max open files"),
            state: seen_up(options.state_dir.clone().unwrap_or_else(|| state_dir(uid))),
            admin: seen_up(
                options
                    .admin_dir
                    .clone()
                    .unwrap_or_else(|| admin_dir(uid, &default_dirs(uid, variable("XDG_RUNTIME_DIR")))),
            ),
            binaries: BINARIES.map(|name| (name, seen(&beside.join(name)))).into(),
            missing_users: USERS.into_iter().filter(|name| !has_user(name)).collect(),
        })
    }
}

/// The hard limit in a line of /proc/PID/limits (proc_pid_limits(5)); `None`: unlimited, or no such line.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().nth(1)?.parse().ok()
}

fn seen(path: &Path) -> Option<Seen> {
    let meta = fs::metadata(path).ok()?;
    Some(Seen { path: path.into(), uid: meta.uid(), mode: meta.permissions().mode() & 0o7777, is_dir: meta.is_dir() })
}

fn seen_up(path: PathBuf) -> (PathBuf, Vec<Seen>) {
    let all = path.ancestors().filter_map(seen).collect();
    (path, all)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where nsecd keeps its state unless told otherwise.
fn state_dir(uid: u32) -> PathBuf {
    match variable("STATE_DIRECTORY") {
        Some(dir) => dir,
        None if uid == 0 => "/var/lib/nsecd".into(),
        None => variable("XDG_STATE_HOME")
            .unwrap_or_else(|| variable("HOME").unwrap_or_else(|| "/".into()).join(".local/state"))
            .join("nsecd"),
    }
}

/// Which of its default directories it has, or would make: the one that is there, else the first in a directory of ours, else the last,
/// above which it makes one.
fn admin_dir(uid: u32, dirs: &[PathBuf]) -> PathBuf {
    let ours = |dir: &Path| fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
    let found = dirs.iter().find(|dir| ours(dir)).or_else(|| dirs.iter().find(|dir| dir.parent().is_some_and(ours)));
    found.or(dirs.last()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max locked memory         8388608              9388608              bytes     \n\
                    Max open files            1024                 unlimited            files     \n";
        assert_eq!(hard_limit(text, "Max locked memory"), Some(9_388_608));
        assert_eq!(hard_limit(text, "Max open files"), None);
        assert_eq!(hard_limit(text, "Max cpu time"), None);
    }

    /// Checked: with the first of them taken whatever is there, this fails.
    #[test]
    fn the_admin_directory_is_looked_for_where_nsecd_may_have_it() {
        let top = nix::unistd::mkdtemp("/tmp/nsecd-ctl-XXXXXX").expect("a directory");
        let uid = fs::metadata(&top).expect("it is there").uid();
        let dirs = ["run", "user", "tmp"].map(|name| top.join(name).join("nsecd-admin"));
        assert_eq!(admin_dir(uid, &dirs), dirs[2], "nsecd makes the last one's parent");
        fs::create_dir(top.join("user")).expect("made");
        assert_eq!(admin_dir(uid, &dirs), dirs[1]);
        assert_eq!(admin_dir(uid + 1, &dirs), dirs[2], "another's directory is not used");
        fs::create_dir_all(&dirs[2]).expect("made");
        assert_eq!(admin_dir(uid, &dirs), dirs[2], "nsecd is there");
        fs::remove_dir_all(top).expect("removed");
    }
}
