//! A role's process: started, watched by descriptor, ended.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use nsecd_sandbox::hello;

use crate::fault::{Fault, OrFault};
use crate::sys;
use crate::uids::Ids;

/// How a role ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(Signal),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal(Signal::SIGSYS) => write!(f, "SIGSYS: it tried a system call that its policy excludes"),
            End::Signal(signal) => write!(f, "{signal}"),
        }
    }
}

/// A running role. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: Pid,
    pidfd: OwnedFd,
    end: Option<End>,
}

/// What to start.
pub struct Start<'a> {
    /// For the operator: "the gate of account default".
    pub name: String,
    /// argv\[0\].
    pub program: &'a str,
    /// The binary.
    pub image: BorrowedFd<'a>,
    /// What to change to.
    pub ids: Option<Ids>,
    /// The role's own arguments, after version, supervisor, uid and gid.
    pub arguments: Vec<String>,
    /// The n-th becomes descriptor n.
    pub fds: Vec<BorrowedFd<'a>>,
}

impl Child {
    /// Starts a role.
    ///
    /// # Errors
    /// It could not be forked or executed.
    pub fn start(start: Start) -> Result<Child, Fault> {
        let what = || format!("starting {}", start.name);
        let (uid, gid) = match start.ids {
            Some(ids) => (ids.uid.to_string(), ids.gid.to_string()),
            None => ("-".into(), "-".into()),
        };
        let common = [start.program.into(), hello::VERSION.into(), std::process::id().to_string(), uid, gid];
        let argv: Vec<CString> =
            common.into_iter().chain(start.arguments).map(CString::new).collect::<Result<_, _>>().or_fault(what)?;
        let pid = sys::fork_exec(start.image, &argv, &start.fds).or_fault(what)?;
        match sys::pidfd_open(pid) {
            Ok(pidfd) => Ok(Child { name: start.name, pid, pidfd, end: None }),
            Err(e) => {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED);
                Err(e).or_fault(what)
            }
        }
    }

    /// What the operator knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, for the log.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it has; reaps it.
    pub fn ended(&mut self) -> Option<End> {
        self.reap(WaitPidFlag::WNOHANG)
    }

    /// Waits until it ends, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<End> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(end) = self.ended() {
                return Some(end);
            }
            if left.is_zero() {
                return None;
            }
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    /// Kills it, whatever it is doing, and reaps it.
    pub fn kill(&mut self) {
        self.begin_kill();
        self.reap(WaitPidFlag::empty());
    }

    /// Kills it and does not wait for its end, which a disk that does not answer may put off.
    pub fn begin_kill(&mut self) {
        if self.ended().is_none() {
            // Not reaped, so the number is still its own.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    fn reap(&mut self, how: WaitPidFlag) -> Option<End> {
        if self.end.is_none() {
            self.end = match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | how) {
                Ok(WaitStatus::Exited(_, code)) => Some(End::Code(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(End::Signal(signal)),
                _ => None,
            };
        }
        self.end
    }
}

impl AsFd for Child {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
