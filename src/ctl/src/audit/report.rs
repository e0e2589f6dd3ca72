//! What verify says.

use std::fmt::Write as _;
use std::path::Path;

use nsecd_policy::units::counted;
use serde::Serialize;
use serde_json::json;

/// Findings that are shown in words; more are counted.
const SHOWN: usize = 50;
/// Intents without a reply that are listed.
const LISTED: usize = 50;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which kind: `line_altered`, `row_missing`, ….
    pub what: &'static str,
    /// In which file.
    pub file: String,
    /// At which line of it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// At which byte of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// In words.
    pub text: String,
}

/// An intent without an outcome: it stands before a restart, or at the log's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// Its line's number in the log.
    pub n: u64,
    /// Where it stands.
    pub file: String,
    /// The line of that file.
    pub line: u64,
    /// The record that its row would be in.
    pub record: String,
    /// The event's id, or the other's public key.
    pub id: String,
    /// Its row: then the key was used, and whoever asked may not know.
    pub sequence: u64,
}

/// A record, as far as it could be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its file's name without `.record`.
    pub record: String,
    /// Rows in its files.
    pub rows: u64,
    /// Those that match an intent.
    pub matched: u64,
    /// Those of intents that were cut off by a restart, and are not listed one by one: the ECDH holder's.
    pub cut_off: u64,
    /// Those that nobody asked for.
    pub extra: u64,
    /// Those that are older than the log, or than what is left of it.
    pub older: u64,
    /// Intents whose rows are in files that are no longer kept.
    pub gone: u64,
    /// Intents that were refused.
    pub refused: u64,
    /// Intents that were cut off by a restart and have no row: the key was not used.
    pub never_used: u64,
    /// Intents at the log's end without an outcome yet, and without a row.
    pub open: u64,
    /// Intents from times without a record (`record = false`).
    pub unrecorded: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Report {
    /// The first first, for each file.
    pub findings: Vec<Finding>,
    /// Signed or agreed on, and the reply lost.
    pub unanswered: Vec<Unanswered>,
    /// How many of those, listed or not.
    pub unanswered_count: u64,
    /// One for each record.
    pub records: Vec<Checked>,
    /// What an auditor should know and nobody has to answer for.
    pub notes: Vec<String>,
    /// Lines of the log.
    pub lines: u64,
    /// Files of the log.
    pub files: u64,
    /// Number and link of the last line.
    pub head: Option<(u64, String)>,
}

impl Report {
    /// Whether there is nothing to answer for.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Adds a finding.
    pub fn find(&mut self, what: &'static str, file: &str, at: (Option<u64>, Option<u64>), text: String) {
        self.findings.push(Finding { what, file: file.to_owned(), line: at.0, offset: at.1, text });
    }

    /// Adds one whose reply was lost.
    pub fn lost_reply(&mut self, unanswered: Unanswered) {
        self.unanswered_count += 1;
        if self.unanswered.len() < LISTED {
            self.unanswered.push(unanswered);
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        let head = self.head.as_ref().map(|(n, chain)| json!({ "n": n, "chain": chain }));
        json!({
            "clean": self.is_clean(),
            "findings": self.findings,
            "reply_lost": self.unanswered,
            "reply_lost_count": self.unanswered_count,
            "records": self.records,
            "notes": self.notes,
            "log": { "files": self.files, "lines": self.lines, "head": head },
        })
        .to_string()
    }

    /// In words.
    pub fn text(&self, state: &Path) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{}: {} in {} of the decision log",
            state.display(),
            counted(self.lines, "line"),
            counted(self.files, "file")
        );
        if let Some((n, chain)) = &self.head {
            let _ = writeln!(out, "  head {n}:{chain}");
        }
        for c in &self.records {
            let _ =
                write!(out, "  {}.record: {}, {} match an intent", plain(&c.record), counted(c.rows, "row"), c.matched);
            for (count, what) in [
                (c.cut_off, "of agreements whose reply was lost"),
                (c.extra, "that nobody asked for"),
                (c.older, "older than the log"),
                (c.gone, "intents whose rows are no longer kept"),
                (c.refused, "intents refused"),
                (c.never_used, "intents cut off before the key was used"),
                (c.open, "under way"),
                (c.unrecorded, "intents without a record, by configuration"),
            ] {
                if count > 0 {
                    let _ = write!(out, ", {count} {what}");
                }
            }
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {}", plain(note));
        }
        if self.unanswered_count > 0 {
            let _ = writeln!(out, "signed, reply lost: {}", self.unanswered_count);
            for u in &self.unanswered {
                let Unanswered { file, line, record, sequence, id, .. } = u;
                let _ = writeln!(out, "  {file} line {line}: {}.record row {sequence}, {}", plain(record), plain(id));
            }
        }
        for finding in self.findings.iter().take(SHOWN) {
            let Finding { what, file, text, .. } = finding;
            let line = finding.line.map(|line| format!(" line {line}")).unwrap_or_default();
            let offset = finding.offset.map(|offset| format!(" offset {offset}")).unwrap_or_default();
            let _ = writeln!(out, "FOUND {what}: {file}{line}{offset}: {}", plain(text));
        }
        if self.findings.len() > SHOWN {
            let _ = writeln!(out, "and {} more", self.findings.len() - SHOWN);
        }
        let verdict = if self.is_clean() { "clean" } else { "NOT as it was written" };
        let _ = writeln!(out, "{verdict}");
        out
    }
}

/// On one line, whatever a broker that was taken over has written.
fn plain(text: &str) -> String {
    crate::obeyed_by_none(text, false)
}
