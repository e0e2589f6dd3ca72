//! The supervisor's log: stderr, and syslog where there is one. Must never block signing or the watchdog: a line
//! that one of them does not take at once is lost there and counted, and the next one that it takes says so (threat B13).

use std::io::{self, stderr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;

use crate::output::offer;

const SYSLOG: &str = "/dev/log";
/// Longest line, so that one write of it cannot block (`output::offer`).
const LONGEST: usize = 3900;
/// syslog(3)'s LOG_DAEMON.
const FACILITY: u8 = 3 << 3;

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    journal: bool,
    syslog: Mutex<Option<UnixDatagram>>,
    /// Lines that each has not taken since the last that it took.
    lost_by_stderr: AtomicU64,
    lost_by_syslog: AtomicU64,
}

/// Installs the log, to stderr only as long as inherited descriptors are still to be closed.
pub fn start_early() {
    let logger = LOGGER.get_or_init(|| Logger {
        journal: stderr_is_journal(),
        syslog: Mutex::new(None),
        lost_by_stderr: AtomicU64::new(0),
        lost_by_syslog: AtomicU64::new(0),
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Adds syslog, unless stderr is the journal, which has every line already.
pub fn start() {
    if let Some(logger) = LOGGER.get()
        && !logger.journal
        && let Ok(mut syslog) = logger.syslog.lock()
    {
        *syslog = connect_syslog().ok();
    }
}

/// A connected, non-blocking socket to syslog for the broker; `None` where there is none, or where stderr is the
/// journal and has every line already.
pub fn syslog_for_broker() -> Option<UnixDatagram> {
    if stderr_is_journal() { None } else { connect_syslog().ok() }
}

fn connect_syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(SYSLOG)?;
    Ok(socket)
}

/// Whether stderr is the stream that JOURNAL_STREAM names (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(stderr().as_fd()).is_ok_and(|s| stream == format!("{}:{}", s.st_dev, s.st_ino))
}

/// syslog(3)'s severity.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// One line: control characters escaped, cut to [`LONGEST`] bytes.
fn one_line(message: &str) -> String {
    let mut line = String::new();
    for c in message.chars() {
        if line.len() >= LONGEST - 10 {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Hands a line to one of the two, with the count of those that it did not take before.
fn counted(lost: &AtomicU64, line: &str, take: impl FnOnce(&str) -> bool) {
    let before = lost.swap(0, Ordering::Relaxed);
    let taken = match before {
        0 => take(line),
        n => take(&format!("{line} ({n} earlier lines lost: nobody took them)")),
    };
    if !taken {
        lost.fetch_add(before + 1, Ordering::Relaxed);
    }
}

/// Whether syslog took the packet. A syslog daemon that was restarted has a new socket: that is looked for once.
fn send(syslog: &mut Option<UnixDatagram>, packet: &[u8]) -> bool {
    let sent = syslog.as_ref().map(|socket| socket.send(packet));
    match sent {
        Some(Ok(_)) => true,
        Some(Err(why)) if why.kind() == io::ErrorKind::WouldBlock => false,
        _ => {
            if let Ok(socket) = connect_syslog() {
                *syslog = Some(socket);
            }
            syslog.as_ref().is_some_and(|socket| socket.send(packet).is_ok())
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = one_line(&record.args().to_string());
        let severity = severity(record.level());
        let prefix = if self.journal { format!("<{severity}>") } else { String::new() };
        counted(&self.lost_by_stderr, &line, |line| offer(stderr(), format!("{prefix}nsecd: {line}\n").as_bytes()));
        let Ok(mut syslog) = self.syslog.lock() else { return };
        let pid = std::process::id();
        if syslog.is_some() {
            counted(&self.lost_by_syslog, &line, |line| {
                send(&mut syslog, format!("<{}>nsecd[{pid}]: {line}", FACILITY | severity).as_bytes())
            });
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_one_bounded_line() {
        assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\u{1b}");
        let long = one_line(&"é".repeat(10_000));
        assert!(long.len() <= LONGEST && long.ends_with('…'));
    }
}
