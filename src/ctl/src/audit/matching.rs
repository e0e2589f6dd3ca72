//! One record against the log: each row matches one intent, in their order.
//!
//! A gate works off its requests in turn, and so does the ECDH holder: rows are the intents in the order of their lines, but for
//! those that were refused. Which row an intent with an outcome has is therefore certain. One that was cut off by a restart may
//! have one or not: for a gate the next start says how many rows there were; the ECDH holder lives on and may work off what it
//! was asked for later, so there all that is possible is followed up.

use std::collections::BTreeMap;
use std::io;

use nsecd_trail::entry::{self, Intent, Outcome, RowOf};
use nsecd_trail::line::Line;
use nsecd_trail::row::Row;
use nsecd_trail::unhex;

use super::chain::{At, Late};
use super::report::{Checked, Report, Unanswered};
use super::rows::Rows;

/// Rows that the ECDH holder may be ahead of what a file's first line counts.
const AHEAD: u64 = 4096;
/// How far away a row is looked for that is not where it should be.
const NEAR: u64 = 64;
/// Milliseconds by which the two clocks may drift from each other between an intent and its outcome.
const DRIFT: u64 = 1000;

/// An intent that waits for its outcome.
struct Open {
    at: At,
    line: u64,
    ms: u64,
    boot_ms: u64,
    intent: Intent,
    id: Option<[u8; 32]>,
}

/// An outcome's times.
struct Ended {
    ms: u64,
    boot_ms: u64,
    late: Late,
}

/// What could not be told yet: the row with this number was altered, or those from there to this intent's are nobody's, or its
/// row is missing.
struct Undecided {
    open: Open,
    sequence: u64,
    /// Number of a row further on that would be the intent's.
    extra: Option<u64>,
}

impl Undecided {
    /// Which of them it was, where these are the numbers that the row after it may have.
    fn verdict(&self, next: impl Fn(u64) -> bool) -> Mismatch {
        match self.extra {
            _ if next(self.sequence + 1) => Mismatch::Altered,
            Some(extra) if next(extra + 1) => Mismatch::Extra(extra),
            _ if next(self.sequence) => Mismatch::Missing,
            _ => Mismatch::Altered,
        }
    }
}

/// What a row that does not match is.
enum Mismatch {
    Altered,
    Extra(u64),
    Missing,
}

/// One record's matching.
pub struct Matcher {
    /// What was found.
    pub checked: Checked,
    rows: Rows,
    /// The numbers that the next row may have, in order; empty before the log has said where it begins.
    next: Vec<u64>,
    /// Whether a record is kept at all.
    kept: bool,
    /// Whether it is a gate's.
    settled: bool,
    /// By the numbers of their lines.
    pending: BTreeMap<u64, Open>,
    undecided: Option<Undecided>,
    /// Lines that are missing or altered: so much may be left unexplained.
    slack: u64,
    /// What the last start said is kept.
    oldest: u64,
    /// Boots by the last row before them.
    boots: Vec<(u64, String)>,
}

impl Matcher {
    /// Of these rows.
    pub fn new(record: &str, rows: Rows) -> Matcher {
        let checked = Checked { record: record.to_owned(), rows: rows.count(), ..Checked::default() };
        let (next, pending) = Default::default();
        Matcher {
            checked,
            rows,
            next,
            kept: true,
            settled: true,
            pending,
            undecided: None,
            slack: 0,
            oldest: 1,
            boots: Vec::new(),
        }
    }

    /// So many lines of the log are missing or altered.
    pub fn damage(&mut self, lines: u64) {
        self.slack = self.slack.saturating_add(lines);
    }

    /// A file begins: where the log does, so does the counting. `first`: it is the log's first, and not the first that is left.
    pub fn file(&mut self, rows: &entry::Rows, first: bool) {
        if let (true, Some(last)) = (self.next.is_empty(), rows.last) {
            self.kept = true;
            let ahead = if rows.settled || first { 0 } else { AHEAD };
            self.next = (last + 1..=last + 1 + ahead).collect();
            self.checked.older = (last + 1).saturating_sub(self.rows.first()).min(self.checked.rows);
        }
    }

    /// A broker starts: what was open is cut off, and the rows are counted.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn start(&mut self, rows: &entry::Rows, boot_id: &str, report: &mut Report) -> io::Result<()> {
        let begun = !self.next.is_empty();
        let Some(last) = rows.last else {
            self.kept = false;
            self.pending.clear();
            return Ok(());
        };
        (self.kept, self.settled) = (true, rows.settled);
        self.oldest = rows.oldest;
        self.boots.push((last, boot_id.to_owned()));
        if !begun {
            self.pending.clear();
            self.next = vec![last + 1];
            self.checked.older = (last + 1).saturating_sub(self.rows.first()).min(self.checked.rows);
            return Ok(());
        }
        if self.pending.is_empty() {
            self.decide(last + 1, report)?;
        }
        let (_, unused) = self.cut_off(last, rows.settled, report)?;
        self.checked.never_used += unused;
        self.decide(last + 1, report)?;
        if rows.settled {
            self.next = vec![last + 1];
        } else {
            self.next.retain(|next| *next > last);
            if self.next.is_empty() {
                self.next = vec![last + 1];
            }
        }
        Ok(())
    }

    /// The configuration was reloaded: of a record that was not in it before the counting begins here.
    pub fn join(&mut self, rows: &entry::Rows) {
        if let (true, Some(last)) = (self.next.is_empty(), rows.last) {
            self.pending.clear();
            (self.kept, self.settled, self.oldest) = (true, rows.settled, rows.oldest);
            self.next = vec![last + 1];
            self.checked.older = (last + 1).saturating_sub(self.rows.first()).min(self.checked.rows);
        } else if rows.last.is_none() {
            self.kept = false;
        }
    }

    /// An intent, before anybody is asked.
    pub fn intent(&mut self, at: &At, line: &Line, intent: &Intent) {
        if !self.kept {
            self.checked.unrecorded += 1;
            return;
        }
        let Line { n, ms, boot_ms, .. } = *line;
        let id = unhex(&intent.id);
        self.pending.insert(n, Open { at: at.clone(), line: n, ms, boot_ms, intent: intent.clone(), id });
    }

    /// Whether this intent waits for its outcome here.
    pub fn has(&self, line: u64) -> bool {
        self.pending.contains_key(&line)
    }

    /// What came of an intent.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn outcome(&mut self, line: &Line, outcome: &Outcome, late: Late, report: &mut Report) -> io::Result<()> {
        let Some(open) = self.pending.remove(&outcome.intent) else { return Ok(()) };
        // Who was not asked has its outcome out of turn.
        if outcome.status.is_some() {
            let later = self.pending.split_off(&open.line);
            for passed in std::mem::replace(&mut self.pending, later).into_values() {
                if !self.spend() {
                    let text = format!("the outcome of line {} is missing", passed.line);
                    report.find("lines_missing", &passed.at.file, (Some(passed.at.line), None), text);
                }
                self.perhaps(&passed)?;
            }
        }
        let ended = Ended { ms: line.ms, boot_ms: line.boot_ms, late };
        match outcome.row() {
            RowOf::None => self.checked.refused += 1,
            RowOf::Unknown => self.perhaps(&open)?,
            RowOf::One => self.certain(open, &ended, report)?,
        }
        Ok(())
    }

    /// An outcome whose intent is in no file that is left; `kept`: it should be.
    pub fn orphan(&mut self, outcome: &Outcome) {
        if outcome.row() == RowOf::One && self.kept {
            self.checked.gone += 1;
            self.next.iter_mut().for_each(|next| *next += 1);
        }
    }

    /// Whether a record is kept.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Takes one of the lines that are missing as the reason for something.
    pub fn spend(&mut self) -> bool {
        let there = self.slack > 0;
        self.slack = self.slack.saturating_sub(1);
        there
    }

    /// The log has ended.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn finish(&mut self, report: &mut Report) -> io::Result<()> {
        if self.next.is_empty() {
            if self.checked.rows > 0 {
                let text = format!("{}.record: the decision log knows nothing of it", self.checked.record);
                report.notes.push(text);
                self.checked.older = self.checked.rows;
            }
            return Ok(());
        }
        let last = self.rows.last();
        if self.pending.is_empty() {
            self.decide(last + 1, report)?;
        }
        let (_, unused) = self.cut_off(last, true, report)?;
        self.checked.open += unused;
        self.decide(last + 1, report)?;
        if self.next.len() == 1 && !self.settled {
            let Checked { rows, older, matched, extra, .. } = self.checked;
            self.checked.cut_off = rows.saturating_sub(older + matched + extra);
        }
        if self.rows.first() > self.oldest {
            let place = self.rows.place(self.rows.first());
            let text =
                format!("rows {} to {} should still be there, before this file", self.oldest, self.rows.first() - 1);
            report.find("file_missing", &place.file, (None, None), text);
        }
        self.check_boots(report);
        Ok(())
    }

    /// Headers name the boot in which their file was begun: after the row at which a start says which boot it was.
    fn check_boots(&self, report: &mut Report) {
        for (file, header) in self.rows.headers() {
            let hex = nsecd_trail::hex(&header.boot_id);
            let mut at = self.boots.iter().filter(|(last, _)| last + 1 == header.first).peekable();
            if at.peek().is_some() && !at.any(|(_, boot)| boot.replace('-', "") == hex) {
                let text = "it names another boot than the start after which it was begun".into();
                report.find("header_altered", file, (None, Some(0)), text);
            }
        }
    }

    /// Intents that have no outcome and will get none; `last`: the rows there were then. How many have a row, or may have
    /// one, and how many have none.
    fn cut_off(&mut self, last: u64, settled: bool, report: &mut Report) -> io::Result<(u64, u64)> {
        let pending: Vec<Open> = std::mem::take(&mut self.pending).into_values().collect();
        if !settled || self.next.len() != 1 {
            let before = self.next.len();
            for open in &pending {
                self.perhaps(open)?;
            }
            let used = ((self.next.len() - before) as u64).min(pending.len() as u64);
            if let Some(next) = self.next.last().copied().filter(|next| *next <= last) {
                self.unexplained(next, last, report)?;
                self.next = vec![last + 1];
            }
            return Ok((used, pending.len() as u64 - used));
        }
        let mut next = self.next.first().copied().unwrap_or_default();
        let (mut used, mut unused) = (0, 0);
        for open in &pending {
            let row = if next <= last { self.rows.get(next)? } else { None };
            if let Some(row) = row
                && same(open, &row)
            {
                used += 1;
                self.checked.matched += 1;
                report.lost_reply(Unanswered {
                    n: open.line,
                    file: open.at.file.clone(),
                    line: open.at.line,
                    record: self.checked.record.clone(),
                    id: open.intent.id.clone(),
                    sequence: next,
                });
                next += 1;
            } else {
                unused += 1;
            }
        }
        if next <= last {
            self.unexplained(next, last, report)?;
        }
        self.next = vec![next.max(last + 1)];
        Ok((used, unused))
    }

    /// Rows that no intent asked for.
    fn unexplained(&mut self, first: u64, last: u64, report: &mut Report) -> io::Result<()> {
        let mut from = first.max(self.rows.first());
        while from <= last && self.spend() {
            from += 1;
        }
        self.checked.extra += (last + 1).saturating_sub(first);
        if from <= last && self.rows.get(from)?.is_some() {
            let place = self.rows.place(from);
            let which = if from == last { format!("row {from} has") } else { format!("rows {from} to {last} have") };
            report.find(
                "row_extra",
                &place.file,
                (None, Some(place.offset)),
                format!("{which} no intent in the decision log"),
            );
        }
        Ok(())
    }

    /// An intent that may have its row or not.
    fn perhaps(&mut self, open: &Open) -> io::Result<()> {
        for next in self.next.clone() {
            if self.rows.get(next)?.is_some_and(|row| same(open, &row)) {
                self.next.push(next + 1);
            }
        }
        self.next.sort_unstable();
        self.next.dedup();
        Ok(())
    }

    /// An intent that has its row.
    fn certain(&mut self, open: Open, ended: &Ended, report: &mut Report) -> io::Result<()> {
        let mut after = Vec::new();
        let mut gone = false;
        for next in &self.next {
            if *next < self.rows.first() {
                gone = true;
                after.push(next + 1);
            } else if self.rows.get(*next)?.is_some_and(|row| same(&open, &row)) {
                after.push(next + 1);
            }
        }
        if let Some(undecided) = self.undecided.take() {
            let verdict = undecided.verdict(|next| after.contains(&(next + 1)));
            let next = self.settle(undecided, &verdict, report)?;
            after.retain(|after| *after == next + 1);
            self.next = vec![next];
        }
        if let Some(first) = after.first().copied() {
            if gone {
                self.checked.gone += 1;
            } else {
                self.checked.matched += 1;
                if after.len() == 1 {
                    self.check_times(&open, first - 1, ended, report)?;
                }
            }
            self.next = after;
            return Ok(());
        }
        let next = self.next.last().copied().unwrap_or_default();
        if next > self.rows.last() {
            if !ended.late && !self.spend() {
                self.missing(&open, next, report);
            }
            return Ok(());
        }
        if self.rows.get(next)?.is_none() {
            // That it is missing has been said with its number.
            self.next = vec![next + 1];
            return Ok(());
        }
        let near = next + 1..=(next + NEAR).min(self.rows.last());
        let mut extra = None;
        for other in near {
            if extra.is_none() && self.rows.get(other)?.is_some_and(|row| same(&open, &row)) {
                extra = Some(other);
            }
        }
        self.next = [next, next + 1].into_iter().chain(extra.map(|extra| extra + 1)).collect();
        if !self.spend() {
            self.undecided = Some(Undecided { open, sequence: next, extra });
        }
        Ok(())
    }

    /// Nothing came after it: it was the last, and this is the number after its row.
    fn decide(&mut self, end: u64, report: &mut Report) -> io::Result<()> {
        if let Some(undecided) = self.undecided.take() {
            let verdict = undecided.verdict(|next| next == end);
            let next = self.settle(undecided, &verdict, report)?;
            self.next = vec![next];
        }
        Ok(())
    }

    /// The number of the row after.
    fn settle(&mut self, undecided: Undecided, verdict: &Mismatch, report: &mut Report) -> io::Result<u64> {
        let Undecided { open, sequence, .. } = undecided;
        match *verdict {
            Mismatch::Missing => {
                self.missing(&open, sequence, report);
                Ok(sequence)
            }
            Mismatch::Extra(own) => {
                self.unexplained(sequence, own - 1, report)?;
                self.checked.matched += 1;
                Ok(own + 1)
            }
            Mismatch::Altered => {
                let place = self.rows.place(sequence);
                let Intent { kind, created_at, id, .. } = &open.intent;
                let At { file, line } = &open.at;
                let text = format!(
                    "row {sequence} is not what {file} line {line} asked for (kind {kind}, created_at {created_at}, {id})"
                );
                report.find("row_altered", &place.file, (None, Some(place.offset)), text);
                Ok(sequence + 1)
            }
        }
    }

    fn missing(&self, open: &Open, sequence: u64, report: &mut Report) {
        let place = self.rows.place(sequence);
        let Intent { kind, id, .. } = &open.intent;
        let text = format!(
            "the row of {} line {} (kind {kind}, {id}) is missing, before row {sequence}",
            open.at.file, open.at.line
        );
        let file = if place.file.is_empty() { format!("{}.record", self.checked.record) } else { place.file };
        report.find("row_missing", &file, (None, Some(place.offset)), text);
    }

    /// A row is written between its intent and its outcome, by both clocks, unless one of them was set between them.
    fn check_times(&self, open: &Open, sequence: u64, ended: &Ended, report: &mut Report) -> io::Result<()> {
        let Some(row) = self.rows.get(sequence)? else { return Ok(()) };
        let boot = u64::from(row.boot_s);
        let by_boot = (open.boot_ms / 1000..=ended.boot_ms / 1000).contains(&boot);
        let (wall, booted) = (ended.ms.wrapping_sub(open.ms), ended.boot_ms.wrapping_sub(open.boot_ms));
        let was_set = wall.wrapping_sub(booted).wrapping_add(DRIFT) > 2 * DRIFT;
        let by_wall = (open.ms.saturating_sub(DRIFT)..=ended.ms.saturating_add(DRIFT)).contains(&row.unix_ms);
        if !by_boot || !by_wall && !was_set {
            let place = self.rows.place(sequence);
            let text =
                format!("row {sequence} says another time than {} line {} and its outcome", open.at.file, open.at.line);
            report.find("row_altered", &place.file, (None, Some(place.offset)), text);
        }
        Ok(())
    }
}

fn same(open: &Open, row: &Row) -> bool {
    open.id == Some(row.id) && open.intent.kind == row.kind && open.intent.created_at == row.created_at
}
