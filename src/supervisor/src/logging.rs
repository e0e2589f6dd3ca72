//! The supervisor's log: stderr, and syslog where there is one. Must never block signing or the watchdog: a line
//! that cannot be written at once is lost (threat B13).

use std::io::{self, stderr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;

use crate::output::offer;

const SYSLOG: &str = "/dev/log";
/// Longest line, so that one write of it cannot block (`output::offer`).
const LONGEST: usize = 4000;
/// syslog(3)'s LOG_DAEMON.
const FACILITY: u8 = 3 << 3;

static LOGGER: OnceLock<Logger> = OnceLock::new();

struct Logger {
    journal: bool,
    syslog: Mutex<Option<UnixDatagram>>,
}

/// Installs the log, to stderr only as long as inherited descriptors are still to be closed.
pub fn start_early() {
    let logger = LOGGER.get_or_init(|| Logger { journal: stderr_is_journal(), syslog: Mutex::new(None) });
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
        offer(stderr(), format!("{prefix}nsecd: {line}\n").as_bytes());
        let Ok(mut syslog) = self.syslog.lock() else { return };
        let packet = format!("<{}>nsecd[{}]: {line}", FACILITY | severity, std::process::id());
        let sent = syslog.as_ref().map(|socket| socket.send(packet.as_bytes()));
        // A syslog daemon that was restarted has a new socket.
        if sent.is_some_and(|sent| sent.is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock)) {
            *syslog = connect_syslog().ok();
            if let Some(socket) = &*syslog {
                let _ = socket.send(packet.as_bytes());
            }
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
