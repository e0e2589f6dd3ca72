//! Children that somebody else can hold up: their user may stop them, or keep their pipes open. They have so long, and so much to say;
//! then all of their group is killed.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Bytes that a child may say.
const MOST: usize = 1 << 20;
/// How soon it is looked again whether one that has said all has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What a child writes is kept here.
pub(crate) trait Keeps {
    /// Reads once; false: that was all.
    fn take(&mut self, from: BorrowedFd<'_>) -> Result<bool>;
}

impl Keeps for Vec<u8> {
    fn take(&mut self, from: BorrowedFd<'_>) -> Result<bool> {
        let mut part = [0; 4096];
        match nix::unistd::read(from, &mut part) {
            Ok(0) => Ok(false),
            Ok(_) if self.len() > MOST => Err(Error::other(format!("it says more than {MOST} bytes"))),
            Ok(count) => {
                self.extend_from_slice(&part[..count]);
                Ok(true)
            }
            Err(Errno::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

/// A child and until when it may run. Dropped before its end, it is killed with its group.
pub(crate) struct Bounded {
    pub child: Child,
    within: Duration,
    until: Instant,
    /// Whether it was waited for: its number may be another's then.
    ended: bool,
}

impl Bounded {
    /// Starts it in a group of its own, with pipes for what it says; its standard output is `command`'s if that names one.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command, within: Duration) -> Result<Bounded> {
        let child = command.stderr(Stdio::piped()).process_group(0).spawn()?;
        Ok(Bounded { child, within, until: Instant::now() + within, ended: false })
    }

    /// Takes all that it says, until it ends; how it ended, and its standard error.
    ///
    /// # Errors
    /// It did not end in time, or said too much: it is killed, and so is its group.
    pub fn finish(mut self, out: &mut dyn Keeps) -> Result<(ExitStatus, Vec<u8>)> {
        let (mut said, mut err) = ((self.child.stdout.take(), self.child.stderr.take()), Vec::new());
        while said.0.is_some() || said.1.is_some() {
            let ends = [said.0.as_ref().map(AsFd::as_fd), said.1.as_ref().map(AsFd::as_fd)];
            let mut fds: Vec<PollFd<'_>> =
                ends.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let left = PollTimeout::try_from(self.left()? + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, left) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
            let [first, second] = ends.map(|end| end.is_some() && ready.next().unwrap_or(false));
            drop(ready);
            let over = |fd: Option<BorrowedFd<'_>>, keeps: &mut dyn Keeps, is_ready: bool| match fd {
                Some(fd) if is_ready => keeps.take(fd).map(|more| !more),
                _ => Ok(false),
            };
            let over = [over(ends[0], out, first)?, over(ends[1], &mut err, second)?];
            if over[0] {
                said.0 = None;
            }
            if over[1] {
                said.1 = None;
            }
        }
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok((status, err));
            }
            self.left()?;
            std::thread::sleep(LOOK);
        }
    }

    fn left(&self) -> Result<Duration> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => {
                let text = format!("it did not end within {} s, and was killed", self.within.as_secs());
                Err(Error::new(ErrorKind::TimedOut, text))
            }
            left => Ok(left),
        }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        if !self.ended {
            if let Ok(group) = i32::try_from(self.child.id()) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            // It may have left its group.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs it: how it ended, its standard output, its standard error.
///
/// # Errors
/// As [`Bounded::start`] and [`Bounded::finish`].
pub(crate) fn run(command: &mut Command, within: Duration) -> Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut out = Vec::new();
    let (status, err) = Bounded::start(command.stdout(Stdio::piped()), within)?.finish(&mut out)?;
    Ok((status, out, err))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn what_ends_in_time_is_heard_whole() {
        let (status, out, err) = run(&mut sh("seq 20000; echo no >&2; exit 3"), LONG).expect("in time");
        assert_eq!((status.code(), out.len(), err), (Some(3), 108_894, b"no\n".to_vec()));
    }

    /// Stopped by its user, with a child of its own; and once more, with its pipes closed.
    ///
    /// Checked: without a look at the time this never ends; with the child alone killed, the other one stays.
    #[test]
    fn one_that_is_stopped_is_killed_with_its_group() {
        for closing in ["", "exec >&- 2>&-;"] {
            let dir = nix::unistd::mkdtemp("/tmp/nsecd-ctl-XXXXXX").expect("a directory");
            let pid = dir.join("pid");
            let script =
                format!("sleep 1000 & echo $! >{0}.new; mv {0}.new {0}; {closing} kill -STOP $$", pid.display());
            let mut bounded = Bounded::start(sh(&script).stdout(Stdio::piped()), LONG).expect("it starts");
            while !pid.exists() {
                std::thread::yield_now();
            }
            // As if its time were over.
            bounded.until = Instant::now();
            let error = bounded.finish(&mut Vec::new()).expect_err("it is stopped");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let other = fs::read_to_string(&pid).expect("it is there");
            let stat = format!("/proc/{}/stat", other.trim());
            // Dead, though perhaps not waited for by whoever is its parent now.
            let lives =
                || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(sleep)") && !stat.contains(") Z"));
            let late = Instant::now() + LONG;
            while lives() {
                assert!(Instant::now() < late, "process {other} of the group goes on");
                std::thread::yield_now();
            }
            fs::remove_dir_all(dir).expect("removed");
        }
    }

    /// One that has ended, but for what it has left in another session with its pipes.
    #[test]
    fn one_whose_pipes_are_held_open_is_not_waited_for_without_end() {
        let (mut keeper, end) = (sh("echo; exec sleep 1000"), nix::unistd::pipe().expect("a pipe"));
        let mut keeper = keeper.stdout(end.1.try_clone().expect("dup")).spawn().expect("it starts");
        let mut child =
            Bounded::start(sh("exit 0").stdout(Stdio::piped()), Duration::from_millis(1)).expect("it starts");
        child.child.stdout = Some(end.0.into());
        assert_eq!(child.finish(&mut Vec::new()).expect_err("held open").kind(), ErrorKind::TimedOut);
        keeper.kill().expect("it runs");
        keeper.wait().expect("it was ours");
    }

    #[test]
    fn one_that_says_too_much_is_not_heard_to_the_end() {
        let error = run(&mut sh("exec cat /dev/zero"), LONG).expect_err("too much");
        assert!(error.to_string().contains("more than"), "{error}");
    }
}
