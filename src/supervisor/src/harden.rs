//! What the supervisor gives up itself, before it opens or starts anything.

use std::os::fd::RawFd;

use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::chdir;

use crate::fault::{Fault, OrFault};
use crate::sys::{self, Inherited};
use nsecd_sandbox::filter;

/// Descriptors that the broker may have at most.
const DESCRIPTORS: u64 = 8192;
/// Descriptors of the broker's own beside connections: log files, pairs, some to spare.
const RESERVE: u64 = 64;

/// What a supervisor started as root keeps (numbers of capabilities(7)). Its own: chown 0, dac_override 1
/// (sockets, records, logs of other uids), kill 5. For the roles, which give up all of it: setgid 6, setuid 7,
/// setpcap 8, sys_chroot 18, sys_admin 21 (namespaces).
const KEPT: u64 = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 18 | 1 << 21;

/// Beside these until the sockets are there, whose modes are set when they have their owners already: fowner 3.
const AT_FIRST: u64 = KEPT | 1 << 3;

/// Connections that the broker may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// In all.
    pub total: usize,
    /// Per principal.
    pub per_principal: usize,
}

/// Takes the `wanted` ones of the inherited descriptors and closes all others but 0, 1 and 2; no core, no ptrace, no new privileges, files private by
/// default; raises the soft limits of descriptors and locked memory for the roles.
///
/// # Errors
/// A step that failed: all are mandatory, raising limits is not.
pub fn harden(wanted: &[RawFd]) -> Result<Inherited, Fault> {
    let inherited = sys::take_inherited(wanted).or_fault(|| "closing inherited descriptors".into())?;
    umask(Mode::from_bits_truncate(0o077));
    chdir("/").or_fault(|| "changing to /".into())?;
    set_dumpable(false).or_fault(|| "PR_SET_DUMPABLE".into())?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).or_fault(|| "RLIMIT_CORE".into())?;
    set_no_new_privs().or_fault(|| "PR_SET_NO_NEW_PRIVS".into())?;
    raise(Resource::RLIMIT_NOFILE, DESCRIPTORS);
    raise(Resource::RLIMIT_MEMLOCK, u64::MAX);
    Ok(inherited)
}

/// Gives up what the supervisor does not need of root's capabilities, but for what [`lock`] gives up.
///
/// # Errors
/// capset(2) failed.
pub fn drop_capabilities() -> Result<(), Fault> {
    sys::keep_capabilities(AT_FIRST).or_fault(|| "giving up capabilities".into())
}

/// The lock of the supervisor itself, before the first role is started: every role inherits it, so it allows what they need
/// until they have locked themselves, and nothing that none of them needs. Returns the optional steps that are missing.
///
/// Of Landlock only network and scopes: who handles files there may mount nothing any more (landlock(7)), and the roles
/// could not make themselves an empty root.
///
/// # Errors
/// The filter could not be installed.
pub fn lock() -> Result<Vec<&'static str>, Fault> {
    sys::keep_capabilities(KEPT).or_fault(|| "giving up capabilities".into())?;
    let mut missing = Vec::new();
    let landlock = sys::landlock_without_files();
    for (name, held) in [
        ("memory-deny-write-execute", sys::refuse_writable_code()),
        ("Landlock (network)", landlock.network),
        ("Landlock (scopes)", landlock.scopes),
    ] {
        if !held {
            missing.push(name);
        }
    }
    sys::install_filter(filter::SUPERVISOR).or_fault(|| "seccomp".into())?;
    Ok(missing)
}

/// Raises a soft limit to `wish`, as far as the hard limit lets it.
fn raise(resource: Resource, wish: u64) {
    if let Ok((soft, hard)) = getrlimit(resource)
        && soft < hard.min(wish)
    {
        let _ = setrlimit(resource, hard.min(wish), hard);
    }
}

/// How many connections fit under the descriptor limit beside `fixed` descriptors of the broker's own.
pub fn capacity(fixed: usize) -> Capacity {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    share(limit.min(DESCRIPTORS), fixed as u64)
}

/// One principal gets half, or, where descriptors are few, up to three quarters: a burst of 600 connections from
/// the one principal that most installations have must fit under the usual limit of 1024.
fn share(limit: u64, fixed: u64) -> Capacity {
    let total = limit.saturating_sub(RESERVE + fixed).clamp(16, 4096) as usize;
    Capacity { total, per_principal: (total / 2).max(1024.min(total / 4 * 3)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_under_the_descriptor_limit() {
        assert_eq!(share(8192, 10), Capacity { total: 4096, per_principal: 2048 });
        let few = share(1024, 10);
        assert_eq!((few.total, few.per_principal > 600 && few.per_principal < few.total), (950, true));
        assert_eq!(share(10, 10).total, 16);
    }
}
