//! The whole check: a snapshot, each record for itself, the log, and all of it together.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use nsecd_trail::entry::{Entry, RowOf};
use nsecd_trail::line::Line;

use super::chain::{At, Chain, Event, Late};
use super::files::{Seen, snapshot};
use super::matching::Matcher;
use super::report::Report;
use super::rows::Rows;

/// Checks what lies in this state directory; `head`: a line as an earlier run has shown it.
///
/// # Errors
/// There is nothing to check, or it cannot be read.
pub fn verify(state: &Path, head: Option<(u64, String)>) -> Result<Report, String> {
    let found = snapshot(state)?;
    if found.logs.is_empty() {
        return Err(format!("{} has no decision log: is it nsecd's state directory?", state.display()));
    }
    let failed = |e: io::Error| format!("reading in {}: {e}", state.display());
    let mut report = Report { files: found.logs.len() as u64, ..Report::default() };
    let mut all = All { matchers: BTreeMap::new(), first: None };
    for (record, files) in found.records {
        all.add(record, files, &mut report).map_err(failed)?;
    }
    // Of the records first what is wrong with each for itself; of the log its lines are said first of all.
    let of_records = std::mem::take(&mut report.findings);
    let mut matched = Report::default();
    let mut result = Ok(());
    let mut chain = Chain::new(&mut report, head);
    chain
        .walk(&found.logs, found.settled, &mut |event| {
            if result.is_ok() {
                result = all.take(event, &mut matched);
            }
        })
        .and(result)
        .and_then(|()| all.matchers.values_mut().try_for_each(|matcher| matcher.finish(&mut matched)))
        .map_err(failed)?;
    report.findings.extend(of_records);
    report.findings.append(&mut matched.findings);
    report.notes.append(&mut matched.notes);
    (report.unanswered, report.unanswered_count) = (matched.unanswered, matched.unanswered_count);
    report.records = all.matchers.into_values().map(|matcher| matcher.checked).collect();
    report.unanswered_count += report.records.iter().map(|checked| checked.cut_off).sum::<u64>();
    Ok(report)
}

/// All records.
struct All {
    matchers: BTreeMap<String, Matcher>,
    /// Number of the first line that is left.
    first: Option<u64>,
}

impl All {
    fn add(&mut self, record: String, files: Vec<Seen>, report: &mut Report) -> io::Result<()> {
        let rows = Rows::check(files, report)?;
        self.matchers.insert(record.clone(), Matcher::new(&record, rows));
        Ok(())
    }

    /// The matcher of a record, which may have no file any more.
    fn of(&mut self, record: &str) -> io::Result<&mut Matcher> {
        if !self.matchers.contains_key(record) {
            self.add(record.to_owned(), Vec::new(), &mut Report::default())?;
        }
        self.matchers.get_mut(record).ok_or_else(|| io::Error::other("no such record"))
    }

    fn take(&mut self, event: Event, report: &mut Report) -> io::Result<()> {
        match event {
            Event::Damage(lines) => self.matchers.values_mut().for_each(|matcher| matcher.damage(lines)),
            Event::Line(at, line, late) => self.line(&at, &line, late, report)?,
        }
        Ok(())
    }

    fn line(&mut self, at: &At, line: &Line, late: Late, report: &mut Report) -> io::Result<()> {
        let first = *self.first.get_or_insert(line.n);
        match &line.entry {
            Entry::File(file) => {
                for rows in &file.records {
                    self.of(&rows.record)?.file(rows, line.n == 1);
                }
            }
            Entry::Start(start) => {
                for rows in &start.records {
                    self.of(&rows.record)?.start(rows, &start.boot_id, report)?;
                }
            }
            Entry::Reloaded(reloaded) => {
                for rows in &reloaded.records {
                    self.of(&rows.record)?.join(rows);
                }
            }
            Entry::Intent(intent) => self.of(&intent.record)?.intent(at, line, intent),
            Entry::Outcome(outcome) => {
                let matcher = self.of(&outcome.record)?;
                if matcher.has(outcome.intent) {
                    matcher.outcome(line, outcome, late, report)?;
                } else if outcome.intent < first || matcher.spend() {
                    matcher.orphan(outcome);
                } else if outcome.row() != RowOf::None && matcher.is_kept() {
                    let text = format!("the intent of this outcome, line {}, is not there", outcome.intent);
                    report.find("lines_missing", &at.file, (Some(at.line), None), text);
                    matcher.orphan(outcome);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
