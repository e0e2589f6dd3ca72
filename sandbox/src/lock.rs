//! How a role gives everything up: the steps in order, each mandatory or optional.
//!
//! A mandatory step that fails ends the start. An optional one that this kernel or user cannot give is
//! reported in the role's hello and shown by the supervisor. SECURITY.md lists both.
//!
//! Order: [`begin`] before any input; the role then takes what it needs (a key, a record, a policy);
//! [`lock`] last. The filter is installed when nothing is left to do but serve.

use crate::sys;
use core::fmt;

/// What a role keeps.
pub struct Plan {
    /// Highest descriptor that stays open.
    pub max_fd: u32,
    /// Whether stderr stays open (the broker's log); descriptors 0 and 1 never do.
    pub keep_stderr: bool,
    /// The supervisor's process id: the role dies with it.
    pub supervisor: i32,
    /// Uid and gid to become, when started as root.
    pub ids: Option<(u32, u32)>,
    /// Whether an ordinary user's role may enter a user namespace of its own. Not the broker: it would see
    /// every peer as 65534 (user_namespaces(7)).
    pub user_namespace: bool,
    /// RLIMIT_NOFILE: 0 where no descriptor is ever opened again.
    pub descriptors: u64,
    /// RLIMIT_FSIZE in bytes; `None` leaves it.
    pub file_size: Option<u64>,
    /// The compiled policy.
    pub filter: &'static [u64],
}

/// The steps. An optional one's bit in [`Hello::missing`](crate::hello::Hello) is `1 << (step as u32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// SIGPIPE ignored, group signals blocked.
    Signals,
    /// Only the named descriptors stay open.
    Descriptors,
    /// RLIMIT_CORE 0.
    CoreLimit,
    /// PR_SET_DUMPABLE 0: no ptrace, no /proc/PID/mem, no core from the same uid.
    NonDumpable,
    /// Optional: a session keyring of its own, so that the starter's keys are out of reach.
    SessionKeyring,
    /// Optional (ordinary user): user namespace.
    UserNamespace,
    /// Optional: network, IPC, UTS and cgroup namespaces, all empty.
    Namespaces,
    /// Optional: mount namespace with an empty root.
    EmptyRoot,
    /// Optional: capability bounding set emptied.
    BoundingSet,
    /// Optional: securebits locked (no root fixups, no ambient capabilities).
    SecureBits,
    /// Ambient capabilities cleared.
    Ambient,
    /// Uid and gid of its own, no supplementary groups (started as root).
    Identity,
    /// Permitted, effective and inheritable capabilities emptied.
    Capabilities,
    /// PR_SET_NO_NEW_PRIVS.
    NoNewPrivs,
    /// PR_SET_PDEATHSIG, and the parent still is the supervisor.
    Parent,
    /// Optional: memory-deny-write-execute (Linux 6.3).
    Mdwe,
    /// RLIMIT_NPROC 0, RLIMIT_MEMLOCK 0, RLIMIT_FSIZE.
    Limits,
    /// Optional: Landlock, file system (ABI 1, Linux 5.13).
    LandlockFiles,
    /// Optional: Landlock, TCP (ABI 4, Linux 6.7).
    LandlockNetwork,
    /// Optional: Landlock, abstract sockets and signals (ABI 6, Linux 6.12).
    LandlockScopes,
    /// RLIMIT_NOFILE.
    DescriptorLimit,
    /// The seccomp filter.
    Seccomp,
}

/// The bit of a key-holder whose key is not in secret memory (memfd_secret(2)).
pub const SECRET_MEMORY: u32 = 22;

/// The bit of a broker whose kernel does not tell a peer's cgroup (SO_PEERPIDFD, PIDFD_GET_INFO; Linux 6.13).
pub const CGROUP_IDENTITY: u32 = 23;

/// Names for logs and `status`, in the order of [`Step`], then secret memory and cgroup identity.
pub const NAMES: [&str; 24] = [
    "signals",
    "descriptors",
    "core limit",
    "non-dumpable",
    "session keyring",
    "user namespace",
    "network, IPC, UTS and cgroup namespaces",
    "empty root",
    "bounding set",
    "securebits",
    "ambient set",
    "identity",
    "capabilities",
    "no_new_privs",
    "parent",
    "memory-deny-write-execute",
    "limits",
    "Landlock (files)",
    "Landlock (network)",
    "Landlock (scopes)",
    "descriptor limit",
    "seccomp",
    "secret memory",
    "cgroup identity",
];

/// Names of the optional steps in a hello's bitmap.
pub fn names(missing: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(i, _)| missing >> i & 1 == 1).map(|(_, name)| *name)
}

/// A mandatory step that failed, with its errno.
#[derive(Debug)]
pub struct Failure(pub Step, pub i32);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES[self.0 as usize];
        write!(f, "mandatory step '{name}' failed: {}", std::io::Error::from_raw_os_error(self.1))
    }
}

fn must(step: Step, done: sys::Result<usize>) -> Result<(), Failure> {
    done.map(|_| ()).map_err(|errno| Failure(step, errno))
}

/// Collects the optional steps that could not be done.
#[derive(Default)]
struct Missing(u64);

impl Missing {
    fn may(&mut self, step: Step, done: sys::Result<usize>) -> bool {
        self.0 |= u64::from(done.is_err()) << step as u32;
        done.is_ok()
    }
}

/// The first steps, before a role reads anything. Returns the optional ones that are missing.
pub fn begin(plan: &Plan) -> Result<u64, Failure> {
    let mut missing = Missing::default();
    must(Step::Signals, sys::mute_signals())?;
    must(Step::Descriptors, sys::close_from(plan.max_fd + 1))?;
    must(Step::CoreLimit, sys::limit(libc::RLIMIT_CORE, 0))?;
    must(Step::NonDumpable, sys::prctl(libc::PR_SET_DUMPABLE, 0, 0))?;
    missing.may(Step::SessionKeyring, fresh_session_keyring());
    Ok(missing.0)
}

/// Leaves the session keyring for a new, empty one (keyctl_join_session_keyring(3)).
pub fn fresh_session_keyring() -> sys::Result<usize> {
    sys::keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
}

/// Everything else, the filter last. `missing` is what [`begin`] returned; the result adds to it.
pub fn lock(plan: &Plan, missing: u64) -> Result<u64, Failure> {
    let mut missing = Missing(missing);
    namespaces(plan, &mut missing);
    missing.may(Step::BoundingSet, drop_bounding_set());
    // SECBIT_NOROOT, NO_SETUID_FIXUP, KEEP_CAPS_LOCKED, NO_CAP_AMBIENT_RAISE and the locks (capabilities(7)).
    missing.may(Step::SecureBits, sys::prctl(libc::PR_SET_SECUREBITS, 0xef, 0));
    must(Step::Ambient, sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as _, 0))?;
    if let Some((uid, gid)) = plan.ids {
        must(Step::Identity, sys::become_user(uid, gid))?;
    }
    must(Step::Capabilities, sys::drop_capabilities())?;
    must(Step::NoNewPrivs, sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0))?;
    // Again: a change of uid resets both of these (prctl(2)).
    must(Step::NonDumpable, sys::prctl(libc::PR_SET_DUMPABLE, 0, 0))?;
    must(Step::Parent, sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as _, 0))?;
    must(Step::Parent, if sys::parent() == plan.supervisor { Ok(0) } else { Err(libc::ESRCH) })?;
    missing.may(Step::Mdwe, sys::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN as _, 0));
    must(Step::Limits, sys::limit(libc::RLIMIT_NPROC, 0))?;
    must(Step::Limits, sys::limit(libc::RLIMIT_MEMLOCK, 0))?;
    if let Some(bytes) = plan.file_size {
        must(Step::Limits, sys::limit(libc::RLIMIT_FSIZE, bytes))?;
    }
    landlock(&mut missing);
    must(Step::DescriptorLimit, sys::limit(libc::RLIMIT_NOFILE, plan.descriptors))?;
    must(Step::Seccomp, sys::seccomp_kill_available())?;
    sys::close(0);
    sys::close(1);
    if !plan.keep_stderr {
        sys::close(2);
    }
    must(Step::Seccomp, sys::seccomp(plan.filter))?;
    Ok(missing.0)
}

/// Empty namespaces and an empty root, as far as this user may.
fn namespaces(plan: &Plan, missing: &mut Missing) {
    let alone = plan.ids.is_some() || plan.user_namespace && missing.may(Step::UserNamespace, user_namespace());
    if !alone {
        for step in [Step::Namespaces, Step::EmptyRoot] {
            missing.may(step, Err(libc::EPERM));
        }
        return;
    }
    let rest = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    missing.may(Step::Namespaces, sys::unshare(rest));
    let mounts = sys::unshare(libc::CLONE_NEWNS).and_then(|_| sys::mounts_private());
    missing.may(Step::EmptyRoot, mounts.and_then(|_| sys::empty_root()));
}

/// A user namespace made in place, after exec: one made before would undo "non-dumpable" (ptrace(2)).
fn user_namespace() -> sys::Result<usize> {
    let (uid, gid) = sys::ids();
    sys::unshare(libc::CLONE_NEWUSER)?;
    // The kernel lets only a dumpable process write its own maps.
    sys::prctl(libc::PR_SET_DUMPABLE, 1, 0)?;
    let write = |file, text: String| std::fs::write(file, text).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO));
    let mapped = write("/proc/self/setgroups", "deny".into())
        .and_then(|()| write("/proc/self/uid_map", format!("{uid} {uid} 1")))
        .and_then(|()| write("/proc/self/gid_map", format!("{gid} {gid} 1")));
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    mapped.map(|()| 0)
}

fn drop_bounding_set() -> sys::Result<usize> {
    for capability in 0..64 {
        match sys::prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Err(libc::EINVAL) => break, // past the last one this kernel knows
            other => other?,
        };
    }
    Ok(0)
}

/// Handles every access this kernel's ABI knows and allows none (landlock(7)). Open descriptors stay usable.
fn landlock(missing: &mut Missing) {
    let abi = sys::landlock_abi().unwrap_or(0);
    let files = match abi {
        0 | 1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,     // + refer
        3 | 4 => (1 << 15) - 1, // + truncate
        _ => (1 << 16) - 1,     // + ioctl on devices
    };
    let attr: &[u64] = match abi {
        0..=3 => &[files],
        4 | 5 => &[files, 3], // + TCP bind and connect
        _ => &[files, 3, 3],  // + abstract sockets and signals
    };
    let held = sys::landlock_deny(attr).is_ok();
    for (step, since) in [(Step::LandlockFiles, 1), (Step::LandlockNetwork, 4), (Step::LandlockScopes, 6)] {
        missing.may(step, if held && abi >= since { Ok(0) } else { Err(libc::ENOSYS) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_beyond_the_steps_have_their_own_names() {
        let name = |bit: u32| names(1 << bit).collect::<Vec<_>>();
        assert_eq!(name(Step::Seccomp as u32), ["seccomp"]);
        assert_eq!(name(SECRET_MEMORY), ["secret memory"]);
        assert_eq!(name(CGROUP_IDENTITY), ["cgroup identity"]);
    }
}
