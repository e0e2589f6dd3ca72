//! The alert log of a socket: the reference daemon's lines, one for each refusal.
//!
//! Agents choose part of the text, so it is escaped and cut; they choose how many there are, so a flood is counted
//! instead of written, and the count is written. Never blocks on anything but the disk, and never fails a request.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;

use crate::clock::Now;
use crate::shown::push_shown;
use nsecd_policy::time::iso;
use nsecd_policy::units::counted;

/// Characters of an agent's text in a line.
const SHOWN: usize = 240;
/// Lines written in one [`SPAN`]; more are counted.
const MOST: u32 = 50;
/// Lines kept for each [`Rank`] that no flood of another's may hide.
const RESERVED: u32 = 20;
/// Milliseconds.
const SPAN: u64 = 10_000;

/// What a line says.
pub struct Alert<'a> {
    /// The method, or `request` where none was understood.
    pub method: &'a str,
    /// `rejected` or `rate-limited`.
    pub verb: &'a str,
    /// Why.
    pub text: &'a str,
    /// The event's kind.
    pub kind: Option<u16>,
    /// The first 12 digits of the token's hash.
    pub token: Option<String>,
    /// How grave it is.
    pub rank: Rank,
}

/// What an alert is about: each rank has lines that the others leave to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// A refusal.
    Common,
    /// Another principal's session was used.
    Foreign,
    /// A message names an author who did not write it.
    Forgery,
    /// A canary kind was tried.
    Canary,
}

/// One socket's log.
pub struct AlertLog {
    file: File,
    size: u64,
    limit: u64,
    /// Asked for a new file, and no answer yet.
    asked: bool,
    since: u64,
    /// Lines of each rank.
    written: [u32; 4],
    hidden: u64,
    /// Lines that the disk did not take.
    lost: u64,
}

impl AlertLog {
    /// `file`: opened for appending, `size` bytes long; `limit`: bytes after which it is rotated.
    pub fn new(file: File, size: u64, limit: u64) -> AlertLog {
        AlertLog { file, size, limit, asked: false, since: 0, written: [0; 4], hidden: 0, lost: 0 }
    }

    /// Writes or counts one line.
    pub fn write(&mut self, alert: &Alert<'_>, now: Now) {
        self.flush(now);
        let most = if alert.rank == Rank::Common { MOST } else { RESERVED };
        let written = &mut self.written[alert.rank as usize];
        if *written >= most {
            self.hidden += 1;
            return;
        }
        *written += 1;
        self.line(&line(alert, now));
    }

    /// Ends a span that is over: says how many lines it hid. To be called now and then.
    pub fn flush(&mut self, now: Now) {
        if now.boot < self.since.saturating_add(SPAN) && self.since != 0 {
            return;
        }
        (self.since, self.written) = (now.boot.max(1), [0; 4]);
        let hidden = std::mem::take(&mut self.hidden);
        if hidden > 0 {
            self.line(&format!("{} {hidden} more refusals in the last {}s not shown\n", iso(now.wall), SPAN / 1000));
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            log::error!("alert log: {} not written: free space where it lies", counted(lost, "line"));
        }
    }

    /// Whether the file is full and a new one should be asked for; true once for each.
    pub fn wants_new_file(&mut self) -> bool {
        self.size >= self.limit && !std::mem::replace(&mut self.asked, true)
    }

    /// The new file, or none: then the old one goes on for as long again.
    pub fn new_file(&mut self, file: Option<File>) {
        self.asked = false;
        self.size = 0;
        if let Some(file) = file {
            self.file = file;
        }
    }

    fn line(&mut self, line: &str) {
        // O_APPEND and one write: a line is whole or cut at its end by a full disk.
        match self.file.write(line.as_bytes()) {
            Ok(n) if n == line.len() => self.size += n as u64,
            _ => self.lost += 1,
        }
    }
}

/// `2026-04-02T05:37:39.123Z sign_event rejected: … (kind=0, token=…)`, newline included.
fn line(alert: &Alert<'_>, now: Now) -> String {
    let mut out = format!("{} {} {}: ", iso(now.wall), alert.method, alert.verb);
    push_shown(&mut out, alert.text, SHOWN);
    out.push_str(" (");
    if let Some(kind) = alert.kind {
        let _ = write!(out, "kind={kind}, "); // writing to a String cannot fail
    }
    match &alert.token {
        Some(token) => out.extend(["token=", token, "...)\n"]),
        None => out.push_str("token=none)\n"),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn scratch() -> File {
        let path = std::env::temp_dir().join(format!("nsecd-alert-{:?}", std::thread::current().id()));
        let file = File::options().read(true).append(true).create_new(true).open(&path).expect("temp file");
        std::fs::remove_file(&path).expect("unlink");
        file
    }

    fn text(log: &mut AlertLog) -> String {
        let mut text = String::new();
        log.file.rewind().expect("rewind");
        log.file.read_to_string(&mut text).expect("read");
        text
    }

    const NOW: Now = Now { boot: 5000, wall: 1_775_108_259_123 };

    fn refused(text: &str) -> Alert<'_> {
        Alert {
            method: "sign_event",
            verb: "rejected",
            text,
            kind: Some(0),
            token: Some("0123456789ab".into()),
            rank: Rank::Common,
        }
    }

    #[test]
    fn lines_are_the_references() {
        let mut log = AlertLog::new(scratch(), 0, 1 << 20);
        log.write(&refused("Event kind 0 not in session scope [1,9734]"), NOW);
        let limited = "Rate limit: burst exceeded (5/5 in 10s)";
        log.write(&Alert { verb: "rate-limited", kind: None, token: None, ..refused(limited) }, NOW);
        assert_eq!(
            text(&mut log),
            "2026-04-02T05:37:39.123Z sign_event rejected: Event kind 0 not in session scope [1,9734] (kind=0, token=0123456789ab...)\n\
             2026-04-02T05:37:39.123Z sign_event rate-limited: Rate limit: burst exceeded (5/5 in 10s) (token=none)\n"
        );
    }

    #[test]
    fn agents_forge_no_lines_and_write_no_novels() {
        let mut log = AlertLog::new(scratch(), 0, 1 << 20);
        log.write(&refused(&format!("a\nb\r\u{1b}[31m\u{2028}{}", "x".repeat(100_000))), NOW);
        let text = text(&mut log);
        assert_eq!(text.lines().count(), 1);
        assert!(text.len() < 400 && text.contains(r"a\nb\r\u{1b}[31m\u{2028}xxx"), "{text}");
    }

    #[test]
    fn a_flood_is_counted_and_the_count_is_written() {
        let mut log = AlertLog::new(scratch(), 0, 1 << 20);
        for _ in 0..1000 {
            log.write(&refused("no"), NOW);
        }
        assert_eq!(text(&mut log).lines().count(), 50);
        for _ in 0..100 {
            log.write(&Alert { rank: Rank::Forgery, ..refused("another author") }, NOW);
        }
        log.write(&Alert { rank: Rank::Foreign, ..refused("another principal") }, NOW);
        let shown = text(&mut log);
        assert_eq!(shown.matches("another author").count(), 20, "a flood hides no forgery");
        assert!(shown.contains("another principal"), "nor does either hide a use of a foreign token");
        log.flush(Now { boot: NOW.boot + SPAN, ..NOW });
        assert!(text(&mut log).ends_with("Z 1030 more refusals in the last 10s not shown\n"));
    }

    #[test]
    fn a_full_log_asks_once_for_a_new_file() {
        let mut log = AlertLog::new(scratch(), 990, 1000);
        assert!(!log.wants_new_file());
        log.write(&refused("no"), NOW);
        assert!(log.wants_new_file() && !log.wants_new_file());
        log.new_file(Some(scratch()));
        log.write(&refused("after"), NOW);
        assert!(!log.wants_new_file());
        assert_eq!(text(&mut log).lines().count(), 1);
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut log = AlertLog::new(full, 0, 1 << 20);
        log.write(&refused("no"), NOW);
        assert_eq!((log.lost, log.size), (1, 0));
    }
}
