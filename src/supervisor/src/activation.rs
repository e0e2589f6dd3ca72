//! Sockets that systemd bound for us (sd_listen_fds(3)).
//!
//! They outlive every restart of nsecd, so nothing about them is changed or removed. Must never hand a socket to
//! the wrong policy: each must listen where the configuration says.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};

use crate::environment::Environment;
use crate::fault::{Fault, OrFault};
use crate::listeners::Listener;
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
