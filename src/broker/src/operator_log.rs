//! Where the broker's own log lines go: stderr and syslog, never waiting for either.
//!
//! A line that one of them does not take at once is lost there and counted, and the count is said with the next one that it takes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// The most that poll(2) promises a pipe takes without blocking (PIPE_BUF).
const LONGEST: usize = 4096;
/// syslog's facility "daemon" (RFC 3164), shifted.
const DAEMON: u8 = 3 << 3;

struct OperatorLog {
    syslog: Option<OwnedFd>,
    /// Lines that each has not taken since the last that it took.
    lost_by_stderr: AtomicU64,
    lost_by_syslog: AtomicU64,
}

/// Starts logging. `syslog`: a connected, non-blocking datagram socket.
pub fn start(syslog: Option<OwnedFd>) {
    // A second call would be a bug that shows at once in every test; the first logger stays.
    if log::set_boxed_logger(Box::new(OperatorLog { syslog, lost_by_stderr: 0.into(), lost_by_syslog: 0.into() }))
        .is_ok()
    {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for OperatorLog {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let mut text: String = record.args().to_string().chars().flat_map(printable).collect();
        if let Some((cut, _)) = text.char_indices().find(|(i, c)| i + c.len_utf8() > LONGEST / 2) {
            text.truncate(cut);
        }
        offer(&self.lost_by_stderr, &text, write_stderr);
        if let Some(syslog) = &self.syslog {
            offer(&self.lost_by_syslog, &text, |line| send_to(syslog, record.level(), line));
        }
    }

    fn flush(&self) {}
}

/// Hands a line to one of the two, with the count of those that it did not take before.
fn offer(lost: &AtomicU64, line: &str, take: impl FnOnce(&str) -> bool) {
    let before = lost.swap(0, Ordering::Relaxed);
    let taken = match before {
        0 => take(line),
        n => take(&format!("{line} ({n} earlier lines lost: nobody took them)")),
    };
    if !taken {
        lost.fetch_add(before + 1, Ordering::Relaxed);
    }
}

fn send_to(syslog: &OwnedFd, level: Level, text: &str) -> bool {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let line = format!("<{}>nsecd-broker: {text}", DAEMON | severity);
    send(syslog.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_ok()
}

fn printable(c: char) -> Box<dyn Iterator<Item = char>> {
    if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
}

/// One line, if stderr takes it at once.
fn write_stderr(text: &str) -> bool {
    let stderr = std::io::stderr();
    let line = format!("nsecd-broker: {text}\n");
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let ready =
        poll(&mut fds, PollTimeout::ZERO) == Ok(1) && fds[0].revents().is_some_and(|got| got == PollFlags::POLLOUT);
    ready && nix::unistd::write(&stderr, line.as_bytes()) == Ok(line.len())
}
