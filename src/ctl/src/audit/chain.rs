//! The decision log for itself: every line continues the one before, from file to file.
//!
//! Goes on after what is wrong, so that one fault is said once and the next one as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read as _};

use nsecd_trail::DECISIONS;
use nsecd_trail::entry::{Entry, File};
use nsecd_trail::line::{Line, Read, after, origin};

use super::files::{Seen, read_line};
use super::report::Report;

/// Links of lines that are remembered: what is out of order is looked for no further away.
const REMEMBERED: usize = 1024;

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The file's name.
    pub file: String,
    /// From 1.
    pub line: u64,
}

/// What the chain hands on.
pub enum Event {
    /// A line, whether or not it is whole.
    Line(At, Box<Line>, Late),
    /// So many lines cannot be accounted for here.
    Damage(u64),
}

/// Whether a line was written after the records were opened.
pub type Late = bool;

/// The walk through all files.
pub struct Chain<'a> {
    report: &'a mut Report,
    /// Links by number.
    links: BTreeMap<u64, String>,
    /// The number that comes next; `None` before the first line.
    next: Option<u64>,
    /// Numbers that were left out, and the finding that says so.
    missing: BTreeMap<u64, usize>,
    /// Numbers of lines that were altered: those after them need not match.
    altered: BTreeSet<u64>,
    /// A last line that cannot be read, until the next one says what it was: where, its bytes.
    fragments: Vec<(At, u64)>,
    /// File numbers and what each keeps.
    kept: Vec<(u64, u64)>,
    /// Whether the files between the last one and this one have been said to be missing.
    gap_said: bool,
    /// A line that has to be there.
    head: Option<(u64, String)>,
}

impl<'a> Chain<'a> {
    /// `head`: number and link of a line as an earlier run has shown it.
    pub fn new(report: &'a mut Report, head: Option<(u64, String)>) -> Chain<'a> {
        let (links, missing, altered) = Default::default();
        Chain {
            report,
            links,
            next: None,
            missing,
            altered,
            fragments: Vec::new(),
            kept: Vec::new(),
            gap_said: false,
            head,
        }
    }

    /// Walks through the files, the oldest first. Lines from byte `settled` of the last one on are late.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn walk(&mut self, logs: &[Seen], settled: u64, each: &mut dyn FnMut(Event)) -> io::Result<()> {
        let mut before: Option<u32> = None;
        for log in logs {
            if let Some(before) = before
                && before != log.number + 1
            {
                let names: Vec<String> = (log.number + 1..before).map(name).collect();
                let text = format!("between it and the file before, {} is missing", names.join(", "));
                self.report.find("file_missing", &log.name, (Some(1), None), text);
                self.gap_said = true;
            }
            before = Some(log.number);
            self.file(log, if log.number == 0 { settled } else { u64::MAX }, each)?;
        }
        if before != Some(0) {
            self.report.find("file_missing", DECISIONS, (None, None), "the file in use is missing".into());
        }
        self.finish(logs);
        Ok(())
    }

    fn file(&mut self, log: &Seen, settled: u64, each: &mut dyn FnMut(Event)) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, (&log.file).take(log.size));
        let (mut text, mut at, mut offset) = (Vec::new(), At { file: log.name.clone(), line: 0 }, 0);
        loop {
            let (bytes, _) = read_line(&mut reader, &mut text)?;
            if bytes == 0 {
                return Ok(());
            }
            at.line += 1;
            let late = offset >= settled;
            offset += bytes;
            match Read::parse(&text) {
                Some(read) => self.line(&at, &read, late, each),
                None => self.fragments.push((at.clone(), text.len() as u64)),
            }
            self.report.lines += 1;
        }
    }

    fn line(&mut self, at: &At, read: &Read<'_>, late: Late, each: &mut dyn FnMut(Event)) {
        self.explain_fragments(&read.line, each);
        let n = read.line.n;
        if let Entry::File(file) = &read.line.entry {
            self.begin_file(at, file);
        } else if at.line == 1 {
            self.find("lines_missing", at, "a file of the log begins with a line that says so: it is missing".into());
        }
        let before = match (self.next, &read.line.entry) {
            // The first line that is left; what it continues is no longer kept.
            (None, Entry::File(file)) if n > 1 => {
                self.report.notes.push(format!("lines 1 to {} of the log are no longer kept", n - 1));
                Some(file.prev.clone())
            }
            (None, _) if n > 1 => None,
            (None, _) => Some(origin()),
            (Some(_), _) => self.links.get(&(n.wrapping_sub(1))).cloned(),
        };
        let whole = before.as_ref().map(|before| read.continues(before));
        let expected = self.next.unwrap_or(n);
        if n == expected {
            if whole == Some(false) && !self.altered.contains(&(n.wrapping_sub(1))) {
                self.altered.insert(n);
                self.find("line_altered", at, format!("line {n} of the log is not as it was written"));
                each(Event::Damage(1));
            }
        } else if n > expected {
            let (what, text) = match n - expected {
                1 => ("lines_missing", format!("line {expected} of the log is missing: here is {n}")),
                _ => ("lines_missing", format!("lines {expected} to {} of the log are missing: here is {n}", n - 1)),
            };
            if std::mem::take(&mut self.gap_said) {
                if let Some(finding) = self.report.findings.last_mut() {
                    finding.text = format!("{}; {text}", finding.text);
                }
            } else {
                self.find(what, at, text);
            }
            let finding = self.report.findings.len() - 1;
            self.missing.extend((expected..n).rev().take(REMEMBERED).map(|n| (n, finding)));
            each(Event::Damage(n - expected));
        } else if let Some(finding) = self.missing.remove(&n) {
            let finding = &mut self.report.findings[finding];
            finding.what = "lines_reordered";
            finding.text = format!("line {n} of the log does not stand here, but at {} line {}", at.file, at.line);
            // What refers to it may have come before it.
            each(Event::Damage(1));
        } else {
            self.find("line_extra", at, format!("line {n} of the log stands here again"));
            return;
        }
        self.links.insert(n, read.chain.to_owned());
        if self.links.len() > REMEMBERED {
            self.links.pop_first();
        }
        if n >= expected {
            self.next = Some(after(n));
            self.report.head = Some((n, read.chain.to_owned()));
        }
        if let Some((_, chain)) = self.head.take_if(|(wanted, _)| *wanted == n)
            && chain != read.chain
        {
            self.find("line_altered", at, format!("line {n} of the log is not the one that was seen earlier"));
        }
        self.gap_said = false;
        each(Event::Line(at.clone(), Box::new(read.line.clone()), late));
    }

    /// Lines that could not be read: a broker that starts says what it found.
    fn explain_fragments(&mut self, next: &Line, each: &mut dyn FnMut(Event)) {
        if self.fragments.is_empty() || matches!(next.entry, Entry::File(_)) && self.fragments.len() == 1 {
            return;
        }
        let torn = match &next.entry {
            Entry::Start(start) => start.torn,
            _ => None,
        };
        for (at, bytes) in std::mem::take(&mut self.fragments) {
            if Some(bytes) == torn {
                let text =
                    format!("{} line {}: cut short after {bytes} bytes, as the next start says", at.file, at.line);
                self.report.notes.push(text);
            } else {
                self.find("line_altered", &at, "it is no line of the log".into());
                // Where it stood is left out of the numbers, and need not be said again.
                self.next = Some(next.n.max(self.next.unwrap_or(0)));
                self.altered.insert(next.n.wrapping_sub(1));
                self.links.insert(next.n.wrapping_sub(1), String::new());
                each(Event::Damage(1));
            }
        }
    }

    fn begin_file(&mut self, at: &At, file: &File) {
        if let Some((last, _)) = self.kept.last()
            && file.file != last + 1
            && !std::mem::replace(&mut self.gap_said, true)
        {
            let text = format!("file {} of the log follows file {last}: what was between is missing", file.file);
            self.find("file_missing", at, text);
        }
        if at.line != 1 {
            let text = "a file begins in the middle of another".to_owned();
            self.find("line_extra", at, text);
        }
        self.kept.push((file.file, u64::from(file.keep)));
    }

    fn finish(&mut self, logs: &[Seen]) {
        for (at, bytes) in std::mem::take(&mut self.fragments) {
            self.find("line_altered", &at, format!("the last line is cut short after {bytes} bytes, or is none"));
        }
        // What rotation has left: every file has said how many before it are kept.
        let oldest = self.kept.iter().map(|(file, keep)| file.saturating_sub(*keep).max(1)).max();
        if let (Some(oldest), Some((first, _)), Some(log)) = (oldest, self.kept.first(), logs.first())
            && *first > oldest
        {
            let text = format!("files {oldest} to {} of the log should still be there, before this one", first - 1);
            self.report.find("file_missing", &log.name, (None, None), text);
        }
        if let Some((n, _)) = self.head.take()
            && self.next.is_none_or(|next| next <= n)
            && let Some(log) = logs.last()
        {
            let text = format!("the log ends before line {n}, which was there earlier");
            self.report.find("lines_missing", &log.name, (None, None), text);
        }
    }

    fn find(&mut self, what: &'static str, at: &At, text: String) {
        self.report.find(what, &at.file, (Some(at.line), None), text);
    }
}

/// The name of a file of the log.
fn name(number: u32) -> String {
    if number == 0 { DECISIONS.to_owned() } else { format!("{DECISIONS}.{number}") }
}
