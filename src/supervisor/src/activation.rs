//! Sockets that systemd bound for us (sd_listen_fds(3)).
//!
//! They outlive every restart of nsecd, so nothing about them is changed or removed. Must never hand a socket to
//! the wrong policy: each must listen where the configuration says.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};
use nix::sys::stat::lstat;
use nix::unistd::{Gid, Uid};

use crate::environment::Environment;
use crate::fault::{Fault, OrFault};
use crate::listeners::{Access, Listener};
use crate::sys::Inherited;

/// What LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    names: Vec<String>,
}

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;
/// The broker's table is small, and so is any sensible number of agents.
const MOST: usize = 1024;

impl Given {
    /// Reads the three variables; nothing is given if they are meant for another process.
    ///
    /// # Errors
    /// More sockets than anybody configures.
    pub fn read(environment: &Environment) -> Result<Given, Fault> {
        if environment.listen_pid != Some(std::process::id()) {
            return Ok(Given::default());
        }
        let count = environment.listen_fds.unwrap_or(0) as usize;
        if count > MOST {
            return Err(Fault::new(format!("LISTEN_FDS={count}: at most {MOST} sockets are taken")));
        }
        let mut names = environment.listen_fdnames.clone();
        names.resize(count, String::new());
        Ok(Given { names })
    }

    /// The descriptors' numbers.
    pub fn descriptors(&self) -> Vec<RawFd> {
        (FIRST..).take(self.names.len()).collect()
    }

    /// Whether systemd gave any.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Takes the sockets in the order of `paths`: by FileDescriptorName= if every path's file name without
    /// suffix is among the names, else in the order given.
    ///
    /// # Errors
    /// Not one socket for each path, or one that does not listen at its path.
    pub fn take(&self, paths: &[&Path], inherited: &mut Inherited) -> Result<Vec<Listener>, Fault> {
        let order = order(&self.names, paths)?;
        let mut taken = Vec::new();
        for (&at, &path) in order.iter().zip(paths) {
            let number = FIRST + at as RawFd;
            let missing = || Fault::new(format!("LISTEN_FDS says so, but descriptor {number} is not open"));
            let fd = inherited.remove(&number).ok_or_else(missing)?;
            check(&fd, path)?;
            taken.push(Listener::given(fd, path));
        }
        Ok(taken)
    }
}

/// For each path, which of the descriptors is meant.
fn order(names: &[String], paths: &[&Path]) -> Result<Vec<usize>, Fault> {
    if names.len() != paths.len() {
        return Err(Fault::new(format!(
            "systemd handed over {} sockets, the configuration has {}: give each [[socket]] one ListenStream=",
            names.len(),
            paths.len()
        )));
    }
    let by_name: Vec<usize> = paths
        .iter()
        .filter_map(|path| names.iter().position(|n| path.file_stem().is_some_and(|s| s == n.as_str())))
        .collect();
    let mut distinct = by_name.clone();
    distinct.sort_unstable();
    distinct.dedup();
    Ok(if distinct.len() == paths.len() { by_name } else { (0..paths.len()).collect() })
}

/// Says where the configuration names another owner or group than systemd has given the socket's file, which is what counts.
pub fn compare(path: &Path, access: Access) {
    // The name alone is looked at: nothing is decided by it.
    let Ok(found) = lstat(path) else { return };
    for line in differences(path, access, found.st_uid, found.st_gid) {
        log::warn!("{line}");
    }
}

fn differences(path: &Path, access: Access, uid: u32, gid: u32) -> Vec<String> {
    let wants =
        [("owner", "User", access.owner.map(Uid::as_raw), uid), ("group", "Group", access.group.map(Gid::as_raw), gid)];
    let differ = |(key, directive, wanted, is): (&str, &str, Option<u32>, u32)| {
        let wanted = wanted.filter(|wanted| *wanted != is)?;
        Some(format!(
            "socket {}: {key} is {wanted} in the configuration, but systemd has made it for {is}, and that counts: Socket{directive}={wanted} in \
             its socket unit (systemctl edit), and restart that unit, which makes another socket; or the same {key} in the configuration",
            path.display()
        ))
    };
    wants.into_iter().filter_map(differ).collect()
}

fn check(fd: &OwnedFd, path: &Path) -> Result<(), Fault> {
    let what = || format!("looking at the socket that systemd handed over for {}", path.display());
    let stream = getsockopt(fd, sockopt::SockType).or_fault(what)? == SockType::Stream;
    let listening = getsockopt(fd, sockopt::AcceptConn).or_fault(what)?;
    let address: UnixAddr = getsockname(fd.as_raw_fd()).or_fault(what)?;
    if !stream || !listening || address.path() != Some(path) {
        let at = address.path().map_or("no path".into(), |p| p.display().to_string());
        return Err(Fault::new(format!(
            "systemd's socket for {} is bound to {at}: ListenStream= and the configuration's path must be the same, FileDescriptorName= its file name without suffix",
            path.display()
        )));
    }
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).or_fault(what)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).or_fault(what)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn sockets_are_matched_by_name_or_else_by_order() {
        let paths = [Path::new("/run/a/one.sock"), Path::new("/run/a/two.sock")];
        assert_eq!(order(&names(&["two", "one"]), &paths).unwrap(), [1, 0]);
        assert_eq!(order(&names(&["nsecd.socket", "nsecd.socket"]), &paths).unwrap(), [0, 1]);
        assert_eq!(order(&names(&["one", "other"]), &paths).unwrap(), [0, 1]);
        assert!(order(&names(&["one"]), &paths).is_err());
    }

    #[test]
    fn an_owner_or_group_that_systemd_has_not_given_the_socket_is_said() {
        let path = Path::new("/run/nostr/signer.sock");
        let said = |owner: Option<u32>, group: Option<u32>| {
            let access = Access { mode: 0o600, owner: owner.map(Uid::from_raw), group: group.map(Gid::from_raw) };
            differences(path, access, 1000, 1001)
        };
        // What is not named is systemd's business alone.
        assert!(said(None, None).is_empty() && said(Some(1000), Some(1001)).is_empty());
        let both = said(Some(7), Some(8));
        assert!(
            both.len() == 2 && both[0].contains("made it for 1000") && both[0].contains("SocketUser=7"),
            "{both:?}"
        );
        assert!(both[1].contains("made it for 1001") && both[1].contains("SocketGroup=8"), "{both:?}");
        assert!(said(Some(0), None)[0].contains("owner is 0"));
    }

    #[test]
    fn variables_meant_for_another_process_give_nothing() {
        let read = |pid, count| {
            let listen_fdnames = names(&["a", "b"]);
            Given::read(&Environment { listen_pid: pid, listen_fds: Some(count), listen_fdnames, ..Default::default() })
        };
        let me = Some(std::process::id());
        assert_eq!(read(Some(1), 2).unwrap(), Given::default());
        assert_eq!(read(None, 2).unwrap(), Given::default());
        assert_eq!(read(me, 3).unwrap().names, names(&["a", "b", ""]));
        assert!(read(me, u32::MAX).is_err());
    }
}
