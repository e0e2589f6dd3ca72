//! The log as an operator reads it.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nsecd_policy::time::iso;
use nsecd_policy::units::counted;
use nsecd_trail::entry::{Asked, Count, Decided, Entry, Intent, More, Outcome, Reloaded, Rows, SessionStarted};
use nsecd_trail::line::{Line, Read};

use super::files::{read_line, snapshot};

/// Between looks for more.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints the last lines, and with `follow` those that come.
///
/// # Errors
/// The log cannot be read.
pub fn tail(state: &Path, lines: usize, follow: bool, json: bool) -> Result<(), String> {
    let found = snapshot(state)?;
    let failed = |e: io::Error| format!("reading the decision log in {}: {e}", state.display());
    let (mut last, mut current) = (VecDeque::new(), None);
    for log in found.logs {
        let (number, inode) = (log.number, log.file.metadata().map_err(failed)?.ino());
        let mut reader = BufReader::new(log.file);
        while let Some(text) = line(&mut reader).map_err(failed)? {
            if last.len() >= lines {
                last.pop_front();
            }
            if lines > 0 {
                last.push_back(text);
            }
        }
        current = (number == 0).then_some((inode, reader));
    }
    let Some((mut inode, mut reader)) = current else {
        return Err(format!("{} has no decision log: is it nsecd's state directory?", state.display()));
    };
    let mut out = io::stdout().lock();
    // A broker that was taken over may have written what a terminal obeys.
    let mut show = |text: &[u8]| {
        let shown = if json { String::from_utf8_lossy(text).into_owned() } else { words(text) };
        writeln!(out, "{}", crate::obeyed_by_none(&shown, false))
    };
    // Whoever reads them has had enough where they cannot be written.
    if last.iter().any(|text| show(text).is_err()) {
        return Ok(());
    }
    if !follow {
        return Ok(());
    }
    loop {
        // Looked at before the old file is read: it has all its lines once a new one is there.
        let path = state.join(nsecd_trail::DECISIONS);
        let replaced = began(&path).filter(|now| *now != inode);
        while let Some(text) = line(&mut reader).map_err(failed)? {
            if show(&text).is_err() {
                return Ok(());
            }
        }
        match replaced {
            Some(now) => {
                inode = now;
                reader = BufReader::new(fs::File::open(&path).map_err(failed)?);
            }
            _ => sleep(PAUSE),
        }
    }
}

/// The file that the broker goes on in.
fn began(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|meta| meta.len() > 0).map(|meta| meta.ino())
}

/// The next line, if all of it is there.
fn line(reader: &mut BufReader<fs::File>) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    let (bytes, ended) = read_line(reader, &mut text)?;
    if ended {
        return Ok(Some(text));
    }
    // Not finished: from its beginning, next time.
    reader.seek_relative(-i64::try_from(bytes).unwrap_or(0))?;
    Ok(None)
}

/// A line in words. What cannot be read is shown as far as it is printable.
fn words(text: &[u8]) -> String {
    let Some(read) = Read::parse(text) else {
        let shown: String =
            text.iter().take(200).flat_map(|b| std::ascii::escape_default(*b)).map(char::from).collect();
        return format!("(no line of the log) {shown}");
    };
    let Line { n, ms, entry, .. } = read.line;
    format!("{} {n} {}", iso(ms), said(entry))
}

fn said(entry: Entry) -> String {
    match entry {
        Entry::File(file) => format!("file {} begins, {} old ones are kept", file.file, file.keep),
        Entry::Start(start) => {
            let rows = |r: &Rows| format!("{}.record has {}", r.record, counted(r.last.unwrap_or_default(), "row"));
            let records: Vec<String> = start.records.iter().map(rows).collect();
            format!("a broker starts (nsecd {}): {}", start.version, records.join(", "))
        }
        Entry::Reloaded(Reloaded { uid, digest, accounts, .. }) => {
            let by = uid.map_or("SIGHUP".to_owned(), |uid| format!("uid {uid}"));
            let accounts: Vec<String> = accounts.into_iter().map(|(name, _)| name).collect();
            format!(
                "the configuration was reloaded by {by}: SHA-256 of the file {digest}, accounts {}",
                accounts.join(", ")
            )
        }
        Entry::Intent(Intent { asked, account, kind, created_at, id, .. }) => {
            format!(
                "intent: {} kind {kind} created_at {created_at} account {account} {id} for {}",
                asked.method,
                who(&asked)
            )
        }
        Entry::Outcome(Outcome { intent, verdict, rule, .. }) => {
            format!("outcome of {intent}: {verdict}{}", rule.map(|rule| format!(" ({rule})")).unwrap_or_default())
        }
        Entry::Decided(Decided { asked, kind, verdict, rule, why, .. }) => {
            let kind = kind.map(|kind| format!(" kind {kind}")).unwrap_or_default();
            format!("{verdict}: {}{kind} ({rule}) for {}: {why}", asked.method, who(&asked))
        }
        Entry::SessionStarted(SessionStarted { asked, started, account, scope, ends_ms, on, rules }) => {
            let on = on.map(|path| format!(" issued for {path}")).unwrap_or_default();
            let rules = if rules > 0 { format!(" with {rules} rules") } else { String::new() };
            let (ends, who) = (iso(ends_ms), who(&asked));
            format!("session {started} of account {account} kinds {scope:?}{rules} until {ends}{on} for {who}")
        }
        Entry::SessionEnded { session } => format!("session {session} has ended"),
        Entry::More(More { socket, counts, .. }) => {
            let count = |Count { uid, cgroup, method, rule, count }: &Count| {
                let uid = uid.map(|uid| format!(" uid {uid}")).unwrap_or_default();
                let cgroup = cgroup.map(|cgroup| format!(" cgroup {cgroup}")).unwrap_or_default();
                format!("{count} {method} ({rule}){uid}{cgroup}")
            };
            format!("more on {socket}: {}", counts.iter().map(count).collect::<Vec<_>>().join(", "))
        }
        Entry::Lost { lines } => format!("{} lost: the disk took none", counted(lines, "line")),
    }
}

fn who(asked: &Asked) -> String {
    let part = |name: &str, value: Option<String>| value.map(|v| format!(" {name} {v}")).unwrap_or_default();
    let (uid, cgroup) = (asked.uid.map(|n| n.to_string()), asked.cgroup.map(|n| n.to_string()));
    format!("{}{}{}{}", asked.socket, part("uid", uid), part("cgroup", cgroup), part("session", asked.session.clone()))
}
