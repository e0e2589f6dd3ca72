//! Where the broker's own log lines go: stderr and syslog, never waiting for either.
//!
//! A line that cannot be taken at once is lost and counted, and the count is said with the next one that is taken.

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
    lost: AtomicU64,
}

/// Starts logging. `syslog`: a connected, non-blocking datagram socket.
pub fn start(syslog: Option<OwnedFd>) {
    // A second call would be a bug that shows at once in every test; the first logger stays.
    if log::set_boxed_logger(Box::new(OperatorLog { syslog, lost: AtomicU64::new(0) })).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for OperatorLog {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut text: String = record.args().to_string().chars().flat_map(printable).collect();
        if lost > 0 {
            text = format!("{text} ({lost} earlier lines lost: nobody took them)");
        }
        if let Some((cut, _)) = text.char_indices().find(|(i, c)| i + c.len_utf8() > LONGEST / 2) {
            text.truncate(cut);
        }
        let (taken, sent) = (write_stderr(&text), self.send(record.level(), &text));
        if !taken && !sent {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

impl OperatorLog {
    fn send(&self, level: Level, text: &str) -> bool {
        let Some(syslog) = &self.syslog else { return false };
        let severity = match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        let line = format!("<{}>nsecd-broker: {text}", DAEMON | severity);
        send(syslog.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_ok()
    }
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
