//! The decision log: who asked for what, what was decided and why, in a chain that shows what was taken out or changed.
//!
//! An intent is written before the gate or the ECDH holder is asked, its outcome after; both always. Of what is decided
//! without them agents choose how much there is, so a flood is counted and the counts are written. What the disk does not take
//! is kept and tried again; whoever needs a line on disk asks. The supervisor opens files and names them. Never blocks on
//! anything but the disk. Formats: `nsecd_trail`.

mod end;
mod flood;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use nsecd_policy::units::counted;
use nsecd_policy::{Policy, Record};
use nsecd_trail::entry::{self, Asked, Count, Entry, Outcome, Reloaded, RowOf, Rows, Said, SessionStarted, Start};
use nsecd_trail::hot;
use nsecd_trail::line::{Head, after, origin};

use crate::clock::Now;
use crate::day::DAY;

use crate::principal::{ADMIN, Principal};
use crate::row::Row;
use crate::shown::push_shown;
pub use end::Sized;
use end::{End, end, ordinal};
use flood::Flood;

/// Bytes that are kept for a disk that takes nothing. A line more than that is counted, but for outcomes: as many may be in flight as
/// requests.
const KEPT: usize = 64 * 1024;
/// Milliseconds before a file that could not be rotated is tried again, and from one that was to the next: the supervisor
/// gives none sooner than a second after the last.
const PAUSE: u64 = 10_000;
const SHORT: u64 = 1_500;
/// Characters of an agent's text that a line has.
const SHOWN: usize = 200;
/// The admin socket's name.
const OPERATOR: &str = "admin";

/// A decision for which nobody was asked.
pub struct Decision<'a> {
    /// Index of the socket.
    pub socket: usize,
    /// Who asked; `None`: nobody whom the kernel names.
    pub who: Option<Principal>,
    /// The method, `request` where none was understood, or `connect`.
    pub method: &'static str,
    /// The first 12 digits of the token's hash.
    pub session: Option<String>,
    /// The account that was named.
    pub account: Option<&'a str>,
    /// The event's kind.
    pub kind: Option<u16>,
    /// The rule that refused; `None`: it was done.
    pub rule: Option<&'static str>,
    /// Why, in words: may be an agent's.
    pub why: &'a str,
    /// Whether no flood may hide it.
    pub urgent: bool,
}

/// A use of a key that is about to be asked for.
pub struct Wanted<'a> {
    /// Who asks.
    pub who: Principal,
    /// The method.
    pub method: &'static str,
    /// The first 12 digits of the token's hash.
    pub session: Option<String>,
    /// Index of the account.
    pub account: usize,
    /// Whether of the ECDH holder, and not of the gate.
    pub agreement: bool,
    /// The event's kind, or the agreement's operation.
    pub kind: u32,
    /// The event's; 0 for an agreement.
    pub created_at: u64,
    /// The event's id, or the other's public key.
    pub id: &'a [u8; 32],
}

/// An intent that has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its line's number.
    line: u64,
    /// Index of its record.
    record: usize,
}

/// The log.
pub struct DecisionLog {
    file: File,
    size: u64,
    limit: u64,
    keep: u32,
    pending: Vec<u8>,
    /// Whether the file did not take something when that was last tried.
    stuck: bool,
    head: Head,
    /// Number of the file.
    ordinal: u64,
    /// A file to go on in, once the old one has taken everything.
    next: Option<File>,
    asked: bool,
    /// No rotation before this time (CLOCK_BOOTTIME, ms).
    not_before: u64,
    lost: u64,
    floods: Vec<Flood>,
    /// The admin socket's.
    operators: Flood,
    /// Refusals by socket and rule.
    refusals: BTreeMap<(usize, &'static str), u64>,
    sockets: Vec<String>,
    accounts: Vec<(String, String)>,
    /// One for each account, then the ECDH holder's, if there is one.
    records: Vec<Rows>,
}

impl DecisionLog {
    /// Goes on where the log ends: in `current`, opened for reading and appending, or, if no line is in that, after `previous`.
    ///
    /// # Errors
    /// The files', not their content's.
    pub fn open(current: Sized, previous: Option<&Sized>, policy: &Policy, now: Now) -> std::io::Result<DecisionLog> {
        let mut before = end(&current)?;
        let fresh = before.head.n == 0;
        let mut last = ordinal(&current)?;
        if let Some(previous) = previous.filter(|_| fresh) {
            let end = end(previous)?;
            before = End { head: end.head.clone(), ..if before.size > 0 { before } else { End { cut: false, ..end } } };
            last = ordinal(previous)?;
        }
        let mut log = DecisionLog {
            size: current.size,
            file: current.file,
            limit: policy.log_size,
            keep: policy.log_keep,
            pending: Vec::new(),
            stuck: false,
            head: before.head.clone(),
            ordinal: last,
            next: None,
            asked: false,
            not_before: 0,
            lost: 0,
            floods: policy.sockets.iter().map(|_| Flood::default()).collect(),
            operators: Flood::default(),
            refusals: BTreeMap::new(),
            sockets: policy.sockets.iter().map(|s| s.path.clone()).collect(),
            accounts: policy.accounts.iter().map(|a| (a.name.clone(), a.public_key.clone())).collect(),
            records: records(policy),
        };
        log.begin(before, fresh, &policy.boot_id, now);
        Ok(log)
    }

    fn begin(&mut self, before: End, fresh: bool, boot_id: &str, now: Now) {
        let End { torn, unreadable, cut, .. } = before;
        if cut {
            self.pending.push(b'\n');
        }
        if fresh {
            self.begin_file(now);
        }
        let start = Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: boot_id.to_owned(),
            accounts: self.accounts.clone(),
            records: self.records.clone(),
            torn,
            unreadable,
        };
        if torn.is_some() || unreadable > 0 {
            log::warn!(
                "decision log: {} cannot be read, or cut short: `nsecctl audit verify` names them",
                counted(unreadable + u64::from(torn.is_some()), "line")
            );
        }
        self.push(now, Entry::Start(start));
    }

    /// Goes on under another policy, and says so. Nothing may be in flight: records keep the account's number, and the ECDH
    /// holder's is the last.
    pub fn adopt(&mut self, policy: &Policy, uid: Option<u32>, digest: String, now: Now) {
        for socket in 0..self.floods.len() {
            self.end_span(socket, now, true);
        }
        let before = std::mem::replace(&mut self.records, records(policy));
        let (gates, ecdh) = before.split_at(self.accounts.len());
        for (rows, known) in self.records.iter_mut().zip(gates).filter(|(rows, known)| rows.record == known.record) {
            // The supervisor counted before the last outcomes came, or after: this broker knows of each.
            rows.last = known.last;
        }
        if let (Some(rows), Some(known)) = (self.records.last_mut().filter(|rows| !rows.settled), ecdh.first()) {
            rows.last = known.last;
        }
        self.limit = policy.log_size;
        self.keep = policy.log_keep;
        self.floods.resize_with(policy.sockets.len(), Flood::default);
        self.sockets = policy.sockets.iter().map(|s| s.path.clone()).collect();
        self.accounts = policy.accounts.iter().map(|a| (a.name.clone(), a.public_key.clone())).collect();
        let accounts = self.accounts.iter().filter(|(name, _)| !name.is_empty()).cloned().collect();
        let records = self.kept();
        self.push(now, Entry::Reloaded(Reloaded { uid, digest, accounts, records }));
    }

    /// Whether everything is in the file; tries again if not.
    pub fn is_whole(&mut self) -> bool {
        self.write();
        !self.stuck
    }

    /// Whether the file has refused something that it has not taken since: [`is_whole`](DecisionLog::is_whole) tries again.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Notes what is about to be asked for; `None` if the disk does not take it: then nobody is asked, and the line after says so.
    pub fn intent(&mut self, wanted: &Wanted<'_>, now: Now) -> Option<Noted> {
        let noted = self.intend(wanted, now)?;
        if !self.flush(now) {
            self.not_asked(noted, now);
            return None;
        }
        Some(noted)
    }

    /// Notes it with the next line that is written, or by [`flush`](DecisionLog::flush): nobody may be asked before that has
    /// said that it is written. `None` for an account or a record that there is not.
    pub fn intend(&mut self, wanted: &Wanted<'_>, now: Now) -> Option<Noted> {
        let record = if wanted.agreement { self.accounts.len() } else { wanted.account };
        let (account, rows) = self.accounts.get(wanted.account).zip(self.records.get(record))?;
        let mut id = [0; 64];
        let (line, ms, boot_ms) = (after(self.head.n), now.wall, now.boot.saturating_sub(DAY));
        let intent = hot::Intent {
            n: line,
            ms,
            boot_ms,
            is: "intent",
            method: wanted.method,
            socket: called(&self.sockets, wanted.who.socket.into()),
            uid: Some(wanted.who.uid),
            cgroup: wanted.who.cgroup,
            session: wanted.session.as_deref(),
            account: &account.0,
            record: &rows.record,
            kind: wanted.kind,
            created_at: wanted.created_at,
            id: nsecd_trail::hex_in(wanted.id, &mut id),
        };
        self.head.write(&mut self.pending, &intent);
        Some(Noted { line, record })
    }

    /// Says that nobody was asked: the intent could not be written.
    pub fn not_asked(&mut self, noted: Noted, now: Now) {
        let Some(rows) = self.records.get(noted.record) else { return };
        let outcome = Outcome::new(noted.line, &rows.record, None);
        self.push(now, Entry::Outcome(outcome));
    }

    /// Notes what the gate or the ECDH holder answered, with the next line that is written or [`flush`](DecisionLog::flush).
    pub fn outcome(&mut self, noted: Noted, status: u8, now: Now) {
        let Some(rows) = self.records.get_mut(noted.record) else { return };
        let said = Said::of(Some(status));
        if said.row() == RowOf::One
            && let Some(last) = &mut rows.last
        {
            *last += 1;
        }
        let outcome = hot::Outcome {
            n: after(self.head.n),
            ms: now.wall,
            boot_ms: now.boot.saturating_sub(DAY),
            is: "outcome",
            intent: noted.line,
            record: &rows.record,
            status: Some(status),
            verdict: said.verdict,
            rule: said.rule,
        };
        self.head.write(&mut self.pending, &outcome);
    }

    /// Writes or counts a decision.
    pub fn decided(&mut self, decision: Decision<'_>, now: Now) {
        let Decision { socket, who, method, session, account, kind, rule, why, urgent } = decision;
        self.end_span(socket, now, false);
        let rule_or_done = rule.unwrap_or("done");
        if let Some(rule) = rule {
            self.count(socket, rule);
        }
        let operator = socket == usize::from(ADMIN);
        let flood = if operator { Some(&mut self.operators) } else { self.floods.get_mut(socket) };
        let Some(flood) = flood else { return };
        if !flood.admits(urgent) {
            return flood.count(who, method, rule_or_done);
        }
        let decided = entry::Decided {
            asked: self.asked(socket, who, method, session),
            account: account.map(shown),
            kind,
            verdict: if rule.is_some() { "refused" } else { "done" }.to_owned(),
            rule: rule_or_done.to_owned(),
            why: shown(why),
        };
        self.push_or_lose(now, Entry::Decided(decided));
    }

    /// Counts a refusal: the broker's own, or one that it was told of.
    pub fn count(&mut self, socket: usize, rule: &'static str) {
        let count = self.refusals.entry((socket, rule)).or_default();
        *count = count.saturating_add(1);
    }

    /// Refusals of a socket since this broker began, by rule.
    pub fn refusals(&self, socket: usize) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.refusals
            .range((socket, "")..)
            .take_while(move |((of, _), _)| *of == socket)
            .map(|((_, rule), n)| (*rule, *n))
    }

    /// Bytes of the file, and the number of its last line.
    pub fn extent(&self) -> (u64, u64) {
        (self.size, self.head.n)
    }

    /// Rows of an account's record: the last one's number, if one is kept, and that of the oldest.
    pub fn rows(&self, account: usize) -> Option<(u64, u64)> {
        let rows = self.records.get(account)?;
        rows.last.map(|last| (last, rows.oldest))
    }

    /// Writes what has become of sessions.
    pub fn happened(&mut self, row: &Row, now: Now) {
        let entry = match row {
            Row::Start(terms) => {
                let parent = terms.parent.map(|hash| hash.label());
                let socket = usize::from(terms.starter.socket);
                // The operator asks on his own socket, for another.
                let issued = terms.issued.filter(|_| terms.starter.is_issuer());
                let operator = issued.map(|issued| Principal { socket: ADMIN, uid: issued.by, cgroup: None });
                let asked_on = if operator.is_some() { usize::from(ADMIN) } else { socket };
                Entry::SessionStarted(SessionStarted {
                    asked: self.asked(asked_on, operator.or(Some(terms.starter)), "session_start", parent),
                    on: operator.map(|_| called(&self.sockets, socket).to_owned()),
                    rules: u32::try_from(terms.rules.len()).unwrap_or(u32::MAX),
                    started: terms.token.label(),
                    account: self.accounts.get(terms.account).map(|(name, _)| name.clone()).unwrap_or_default(),
                    scope: terms.scope.clone(),
                    ends_ms: terms.ends.wall,
                })
            }
            Row::End(hash) => Entry::SessionEnded { session: hash.label() },
            _ => return,
        };
        self.push_or_lose(now, entry);
    }

    /// Counts connections of which nothing is known but their socket's class of refusal.
    pub fn nameless(&mut self, rule: &'static str, count: u64, now: Now) {
        let counts = vec![Count { uid: None, cgroup: None, method: "connect".into(), rule: rule.into(), count }];
        self.push_or_lose(now, Entry::More(entry::More { socket: String::new(), since_ms: now.wall, counts }));
    }

    /// Ends spans that are over, and says what was lost. To be called now and then.
    pub fn sweep(&mut self, now: Now) {
        for socket in (0..self.floods.len()).chain([usize::from(ADMIN)]) {
            self.end_span(socket, now, false);
        }
        if self.lost > 0 && self.is_whole() {
            let lines = std::mem::take(&mut self.lost);
            log::error!("decision log: {} lost: the disk took none", counted(lines, "line"));
            self.push(now, Entry::Lost { lines });
        }
    }

    /// The broker ends: what has been counted is said now.
    pub fn close(&mut self, now: Now) {
        for socket in (0..self.floods.len()).chain([usize::from(ADMIN)]) {
            self.end_span(socket, now, true);
        }
        self.is_whole();
    }

    /// Whether the file is full and a new one should be asked for; true once for each.
    pub fn wants_new_file(&mut self, now: Now) -> bool {
        let full = self.size >= self.limit && now.boot >= self.not_before && !self.asked && self.next.is_none();
        self.asked |= full;
        full
    }

    /// Goes on in another file, with what the old one has not taken.
    #[cfg(test)]
    pub fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    /// The new file, or none: then the old one goes on for a while.
    pub fn new_file(&mut self, file: Option<File>, now: Now) {
        self.asked = false;
        self.not_before = now.boot.saturating_add(PAUSE);
        self.next = file;
        self.flush(now);
    }

    /// Goes on in the new file once the old one has everything.
    fn go_on(&mut self, now: Now) {
        if !self.pending.is_empty() {
            return;
        }
        if let Some(file) = self.next.take() {
            self.file = file;
            self.size = 0;
            self.not_before = now.boot.saturating_add(SHORT);
            self.begin_file(now);
        }
    }

    fn begin_file(&mut self, now: Now) {
        self.ordinal = after(self.ordinal);
        let prev = if self.head.n == 0 { origin() } else { self.head.chain.clone() };
        let (format, file, keep, records) = (entry::FORMAT, self.ordinal, self.keep, self.kept());
        self.push(now, Entry::File(entry::File { format, file, keep, prev, records }));
    }

    /// The records, without those of accounts that are no more.
    fn kept(&self) -> Vec<Rows> {
        self.records.iter().filter(|rows| !rows.record.is_empty()).cloned().collect()
    }

    fn end_span(&mut self, socket: usize, now: Now, at_once: bool) {
        let operator = socket == usize::from(ADMIN);
        let flood = if operator { Some(&mut self.operators) } else { self.floods.get_mut(socket) };
        let Some((since_ms, counts)) = flood.and_then(|flood| flood.end(now, at_once)) else { return };
        let socket = called(&self.sockets, socket).to_owned();
        self.push_or_lose(now, Entry::More(entry::More { socket, since_ms, counts }));
    }

    fn asked(&self, socket: usize, who: Option<Principal>, method: &str, session: Option<String>) -> Asked {
        Asked {
            method: method.to_owned(),
            socket: called(&self.sockets, socket).to_owned(),
            uid: who.map(|who| who.uid),
            cgroup: who.and_then(|who| who.cgroup),
            session,
        }
    }

    fn push_or_lose(&mut self, now: Now, entry: Entry) {
        if self.pending.len() > KEPT {
            self.lost += 1;
        } else {
            self.push(now, entry);
        }
    }

    /// Appends a line; whether all of it is in the file.
    fn push(&mut self, now: Now, entry: Entry) -> bool {
        let line = self.head.next(now.wall, now.boot.saturating_sub(DAY), entry);
        self.pending.extend_from_slice(line.as_bytes());
        self.flush(now)
    }

    /// Writes what there is; whether all of it is in the file.
    pub fn flush(&mut self, now: Now) -> bool {
        let whole = self.is_whole();
        if whole && self.next.is_some() {
            self.go_on(now);
        }
        whole
    }

    /// O_APPEND and one write: lines are whole, or the rest is written as soon as there is room.
    fn write(&mut self) {
        self.stuck = false;
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(n) if n > 0 => {
                    self.pending.drain(..n);
                    self.size += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                _ => {
                    self.stuck = true;
                    return;
                }
            }
        }
    }
}

/// What a socket is called in the log.
fn called(sockets: &[String], socket: usize) -> &str {
    if socket == usize::from(ADMIN) { OPERATOR } else { sockets.get(socket).map_or("", String::as_str) }
}

/// The records that rows of intents go to: the gates', then the ECDH holder's.
fn records(policy: &Policy) -> Vec<Rows> {
    let rows = |record: &Record, settled| Rows {
        record: record.name.clone(),
        last: record.last,
        oldest: record.oldest,
        settled,
    };
    let gates = policy.accounts.iter().map(|account| rows(&account.record, true));
    gates.chain(policy.ecdh_record.iter().map(|record| rows(record, false))).collect()
}

fn shown(text: &str) -> String {
    let mut out = String::new();
    push_shown(&mut out, text, SHOWN);
    out
}

#[cfg(test)]
mod tests;
