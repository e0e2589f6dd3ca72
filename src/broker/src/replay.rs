//! Reading the journal again: what the brokers before this one remembered.
//!
//! Rows of this boot are as good as if they had just happened. Those of earlier boots are counted by the wall clock. A
//! row that was cut short by the end of a broker is dropped; anything else that cannot be read is damage, after which no
//! session is trusted, since the row that ended it may be the one that is missing.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nsecd_policy::Policy;

use crate::clock::Now;
use crate::ledger::Ledger;
use crate::row::{OfSession, Open, Row};

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// The longest line: a session of every kind is a tenth of it.
const LONGEST: usize = 16 << 20;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes read.
    pub size: u64,
    /// Rows that were dropped since a broker's end had cut them short.
    pub torn: usize,
    /// Rows that could not be read for another reason.
    pub damaged: usize,
    /// Sessions that were ended for it, or by a policy that has become narrower, or with their socket or account.
    pub ended: usize,
    /// Whether another boot has begun since the last row.
    pub rebooted: bool,
    /// What has changed by being read under this policy, to be written after the row that a broker begins with.
    pub changed: Vec<Row>,
}

/// The row that a broker begins with.
pub fn open(policy: &Policy, now: Now) -> Open {
    Open {
        version: 1,
        boot: policy.boot_id.clone(),
        now,
        sockets: policy.sockets.iter().map(|s| s.path.clone()).collect(),
        accounts: policy.accounts.iter().map(|a| (a.name.clone(), a.public_key.clone())).collect(),
    }
}

/// Reads `file` from its beginning into an empty ledger.
///
/// # Errors
/// The file's, not its content's.
pub fn replay(file: &File, policy: &Policy, ledger: &mut Ledger, now: Now) -> io::Result<Found> {
    let mut reader = Reader { policy, ledger, found: Found::default(), before: None, bad: 0, cut: false };
    let mut buffer = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = match file.read_at(&mut chunk, reader.found.size) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        reader.found.size += n as u64;
        let mut lines = chunk[..n].split(|b| *b == b'\n');
        let rest = lines.next_back().unwrap_or_default();
        for line in lines {
            buffer.extend_from_slice(line);
            reader.line(&buffer);
            buffer.clear();
        }
        buffer.extend_from_slice(rest);
        if buffer.len() > LONGEST {
            buffer.clear();
            reader.bad += 2;
        }
    }
    reader.line(&buffer);
    Ok(reader.finish(now))
}

/// How the numbers of an [`Open`] row translate to this policy's; `None` for what is no more.
struct Names {
    boot: String,
    sockets: Vec<Option<u16>>,
    accounts: Vec<Option<usize>>,
}

struct Reader<'a> {
    policy: &'a Policy,
    ledger: &'a mut Ledger,
    found: Found,
    before: Option<Names>,
    /// Unreadable lines since the last good one.
    bad: usize,
    /// Whether the last of them may have been cut short.
    cut: bool,
}

impl Reader<'_> {
    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            // A row cut short has no newline but the one that the next broker begins with. Two: it was written whole.
            self.cut = false;
            return;
        }
        match Row::parse(line) {
            Some(Row::Open(open)) if open.version == 1 => {
                self.excuse();
                self.open(open);
            }
            // Of a version that is not known: it may say of a boot, or of numbers, what ends sessions.
            Some(row) if self.before.is_some() && !matches!(row, Row::Open(_)) => {
                self.blame();
                self.row(row);
            }
            _ => {
                self.bad += 1;
                self.cut = true;
            }
        }
    }

    /// A broker began here, so the one before it had ended: one unfinished row is no wonder.
    fn excuse(&mut self) {
        if self.bad == 1 && self.cut && self.before.is_some() {
            self.found.torn += 1;
            self.bad = 0;
        }
        self.blame();
    }

    fn blame(&mut self) {
        if self.bad > 0 {
            self.found.damaged += std::mem::take(&mut self.bad);
            self.found.ended += self.ledger.end_sessions();
        }
    }

    fn open(&mut self, open: Open) {
        if self.before.as_ref().is_some_and(|before| before.boot != open.boot) {
            self.ledger.reboot(open.now);
        }
        self.ledger.apply(&Row::Clock(open.now));
        let sockets: HashMap<&str, u16> = (0..).zip(&self.policy.sockets).map(|(i, s)| (s.path.as_str(), i)).collect();
        let account = |(name, key): &(String, String)| {
            self.policy.accounts.iter().position(|a| a.name == *name && a.public_key == *key)
        };
        self.before = Some(Names {
            boot: open.boot,
            sockets: open.sockets.iter().map(|path| sockets.get(path.as_str()).copied()).collect(),
            accounts: open.accounts.iter().map(account).collect(),
        });
    }

    fn row(&mut self, mut row: Row) {
        let Some(Names { sockets, accounts, .. }) = &self.before else { return };
        let known = row.renumber(
            |socket| sockets.get(usize::from(*socket)).copied().flatten().map(|new| *socket = new).is_some(),
            |account| accounts.get(*account).copied().flatten().map(|new| *account = new).is_some(),
        );
        if known {
            self.ledger.apply(&row);
        } else if let Row::Start(terms) | Row::Session(OfSession { terms, .. }) = row {
            self.found.ended += 1;
            // For good, even if its socket or account comes back.
            self.found.changed.push(Row::End(terms.token));
        }
    }

    fn finish(mut self, now: Now) -> Found {
        // The next row is the Open of the broker that reads this.
        self.excuse();
        if self.before.is_some_and(|before| before.boot != self.policy.boot_id) {
            self.ledger.reboot(now);
            self.found.rebooted = true;
        }
        let before = self.ledger.sessions().count();
        let narrowed = self.ledger.conform(self.policy, now);
        self.found.ended += before - self.ledger.sessions().count();
        self.found.changed.extend(narrowed);
        self.found
    }
}

#[cfg(test)]
mod tests;
