//! Every tampering with the files of a stopped nsecd is named: what it is, and where.
//!
//! Checked: without the comparison of a line with the one before, of numbers, of row and intent, of times, of headers, or of what is
//! kept, the case that is about it fails.

use super::{OPEN, audit, clean, encrypt, files, sign, strike, verify};
use crate::support::daemon::Setup;
use crate::support::{Dir, event, sys};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

static ORIGINAL: OnceLock<Dir> = OnceLock::new();

/// What is static is not dropped.
extern "C" fn remove_original() {
    if let Some(dir) = ORIGINAL.get() {
        let _ = fs::remove_dir_all(dir.path());
    }
}

/// The state of an nsecd that has signed 4,430 events and made 24 agreements, with several rotations and two kills; stopped.
fn original() -> &'static Dir {
    ORIGINAL.get_or_init(|| {
        sys::at_exit(remove_original);
        let mut nsecd = Setup::new(OPEN).start();
        for round in 1..=4 {
            // More rows than a file has room for before it is full: the next start puts it aside.
            for n in 0..1100 {
                sign(&nsecd, &format!("{round}: {n}"));
            }
            (0..6).for_each(|_| encrypt(&nsecd));
            let patience = Instant::now() + sys::PATIENCE;
            while !nsecd.dir.join(&format!("state/decisions.log.{round}")).exists() {
                assert!(Instant::now() < patience, "never rotated");
                nsecd.serves();
            }
            match round {
                1 => nsecd = nsecd.restarted(Signal::SIGKILL),
                2 => nsecd = nsecd.restarted(Signal::SIGTERM),
                3 => strike(&nsecd, "nsecd-broker"),
                _ => {}
            }
            nsecd.serves();
        }
        (0..30).for_each(|n| drop(sign(&nsecd, &format!("into the last file: {n}"))));
        nsecd.signal(Signal::SIGTERM);
        nsecd.wait().dir
    })
}

/// A copy to be changed.
struct Copy {
    dir: Dir,
}

impl Copy {
    fn new() -> Copy {
        let dir = Dir::new(None);
        for entry in fs::read_dir(original().join("state")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.contains("decisions.log") || name.contains(".record") {
                fs::copy(&path, dir.join(name)).unwrap();
            }
        }
        Copy { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Changes a file's bytes.
    fn bytes(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> &Copy {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// Changes a file's rows, the header among them.
    fn rows(&self, name: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> &Copy {
        self.bytes(name, |bytes| {
            let mut rows: Vec<Vec<u8>> = bytes.chunks(64).map(<[u8]>::to_vec).collect();
            change(&mut rows);
            *bytes = rows.concat();
        })
    }

    /// Changes a file's lines.
    fn lines(&self, name: &str, change: impl FnOnce(&mut Vec<String>)) -> &Copy {
        self.bytes(name, |bytes| {
            let text = String::from_utf8(std::mem::take(bytes)).unwrap();
            let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
            change(&mut lines);
            *bytes = lines.concat().into_bytes();
        })
    }

    /// Panics unless the first thing found is this, there.
    #[track_caller]
    fn found(&self, what: &str, file: &str, at: &str, place: u64) -> Value {
        let report = verify(self.dir.path());
        let first = &report["findings"][0];
        assert_eq!(
            (&first["what"], &first["file"], &first[at]),
            (&json!(what), &json!(file), &json!(place)),
            "{report:#}"
        );
        report
    }

    /// The same of something that says these words.
    #[track_caller]
    fn says(&self, what: &str, words: &str) -> Value {
        let report = verify(self.dir.path());
        let first = &report["findings"][0];
        assert!(first["what"] == what && first["text"].as_str().unwrap().contains(words), "{report:#}");
        report
    }

    /// Panics unless that is all that was found.
    #[track_caller]
    fn only(report: &Value, count: usize) {
        assert_eq!(report["findings"].as_array().unwrap().len(), count, "{report:#}");
    }
}

const LOG: &str = "decisions.log.2";
const RECORD: &str = "default.record";
const OLD: &str = "default.record.1";

/// Number of a line of [`LOG`] that says so, counted from 1.
fn line_with(copy: &Copy, text: &str) -> u64 {
    let all = fs::read_to_string(copy.path(LOG)).unwrap();
    all.lines().skip(10).position(|line| line.contains(text)).unwrap() as u64 + 11
}

#[test]
fn control_what_nobody_touched_is_clean() {
    let report = clean(original().join("state").as_path());
    assert!(report["reply_lost_count"] == 0 && report["notes"] == json!([]), "{report:#}");
    clean(Copy::new().dir.path());
    let state = original().join("state");
    for (name, least) in [("decisions.log", 5), (RECORD, 3)] {
        assert!(files(&state, name).len() >= least, "control: {name} was rotated");
    }
}

#[test]
fn a_row_that_is_removed_altered_swapped_or_added_is_named() {
    for name in [RECORD, OLD] {
        let first = number(&fs::read(Copy::new().path(name)).unwrap()[24..32]);
        let copy = Copy::new();
        copy.rows(name, |rows| drop(rows.remove(10)));
        copy.found("row_missing", name, "offset", 640);
        copy.says("row_missing", &format!("row {} is missing", first + 9));

        let copy = Copy::new();
        copy.rows(name, |rows| rows.swap(10, 11));
        copy.found("rows_reordered", name, "offset", 640);

        let copy = Copy::new();
        copy.rows(name, |rows| rows.insert(10, rows[9].clone()));
        copy.found("row_extra", name, "offset", 640);
    }
    // Of the file in use there is no other finding to each.
    let copy = Copy::new();
    Copy::only(&copy.rows(RECORD, |rows| drop(rows.remove(10))).says("row_missing", "missing"), 1);
    Copy::only(&Copy::new().rows(RECORD, |rows| rows.swap(10, 11)).says("rows_reordered", "wrong order"), 1);
}

#[test]
fn every_byte_of_a_row_and_of_a_header_counts() {
    for byte in 0..64 {
        let copy = Copy::new();
        // The lowest bits of the milliseconds are not known to anybody else.
        let bit = if (14..=15).contains(&byte) { 0x80 } else { 1 };
        let seen = if byte == 15 { "" } else { "row_" };
        copy.rows(RECORD, |rows| rows[10][byte] ^= bit);
        if seen.is_empty() {
            continue;
        }
        let report = copy.found("row_altered", RECORD, "offset", 640);
        Copy::only(&report, 1);
        let copy = Copy::new();
        copy.rows(RECORD, |rows| rows[0][byte] ^= 1);
        copy.found("header_altered", RECORD, "offset", 0);
    }
    // In a file that is not in use any more the next header shows the rest.
    let copy = Copy::new();
    copy.rows(OLD, |rows| rows[10][15] ^= 1);
    copy.says("header_altered", "names another SHA-256 of default.record.1");
}

#[test]
fn a_row_that_nobody_asked_for_and_one_that_is_cut_off_are_named_whatever_their_numbers_say() {
    // A hijacked writer's: with the right number, at the end.
    let copy = Copy::new();
    let mut rows = 0;
    copy.rows(RECORD, |all| {
        let mut row = all.last().unwrap().clone();
        let next = number(&row[..8]) + 1;
        row[..8].copy_from_slice(&next.to_be_bytes());
        rows = all.len() as u64;
        all.push(row);
    });
    let report = copy.found("row_extra", RECORD, "offset", 64 * rows);
    Copy::only(&report, 1);
    // And in the middle, with the numbers after it moved on.
    let copy = Copy::new();
    copy.rows(RECORD, |all| {
        let mut row = all[10].clone();
        row[40] ^= 1;
        all.insert(10, row);
        renumber(all);
    });
    copy.found("row_extra", RECORD, "offset", 640);
    // One taken out, likewise.
    let copy = Copy::new();
    copy.rows(RECORD, |all| {
        all.remove(10);
        renumber(all);
    });
    copy.found("row_missing", RECORD, "offset", 640);
    // The last ones.
    let copy = Copy::new();
    copy.rows(RECORD, |all| all.truncate(all.len() - 3));
    copy.found("row_missing", RECORD, "offset", 64 * (rows - 3));
    // The ECDH holder's.
    for (what, at) in [("row_missing", 9), ("row_altered", 5)] {
        let copy = Copy::new();
        copy.rows("default.ecdh.record", |all| if at == 9 { drop(all.remove(9)) } else { all[5][50] ^= 1 });
        copy.found(what, "default.ecdh.record", "offset", 64 * at);
    }
}

/// Checked: red without the bound in `audit/rows.rs` (an overflow ends nsecctl).
#[test]
fn numbers_at_either_end_of_their_range_are_named_and_do_not_end_the_check() {
    for value in [0, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX] {
        // Of a header, of a first and of a last row; and of all three in a file that has no other.
        for (name, at) in
            [(RECORD, &[0][..]), (RECORD, &[1]), (OLD, &[1]), ("default.ecdh.record", &[1]), (OLD, &[0, 1])]
        {
            let copy = Copy::new();
            copy.rows(name, |rows| {
                for row in at {
                    let field = if *row == 0 { 24..32 } else { 0..8 };
                    rows[*row][field].copy_from_slice(&u64::to_be_bytes(value));
                }
                if at.len() > 1 {
                    rows.truncate(2);
                }
            });
            assert_eq!(verify(copy.dir.path())["clean"], json!(false), "{name} {at:?} {value}");
        }
    }
}

#[test]
fn a_line_that_is_altered_removed_reordered_or_repeated_is_named() {
    for what in ["\"is\":\"intent\"", "\"is\":\"outcome\""] {
        let at = line_with(&Copy::new(), what);
        let i = at as usize - 1;
        let copy = Copy::new();
        copy.lines(LOG, |lines| lines[i] = lines[i].replace("\"ms\":1", "\"ms\":2"));
        Copy::only(&copy.found("line_altered", LOG, "line", at), 1);

        let copy = Copy::new();
        copy.lines(LOG, |lines| drop(lines.remove(i)));
        let report = copy.found("lines_missing", LOG, "line", at);
        Copy::only(&report, 1);

        let copy = Copy::new();
        copy.lines(LOG, |lines| lines.swap(i, i + 1));
        Copy::only(&copy.found("lines_reordered", LOG, "line", at), 1);

        let copy = Copy::new();
        copy.lines(LOG, |lines| lines.insert(i + 1, lines[i].clone()));
        Copy::only(&copy.found("line_extra", LOG, "line", at + 1), 1);

        let copy = Copy::new();
        copy.lines(LOG, |lines| lines[i] = "rubbish\n".into());
        Copy::only(&copy.found("line_altered", LOG, "line", at), 1);
    }
    // The last line of all, of which no other line knows.
    let copy = Copy::new();
    let mut last = 0;
    copy.lines("decisions.log", |lines| {
        last = lines.len();
        lines[last - 1] = lines[last - 1].replace("\"ms\":1", "\"ms\":2");
    });
    copy.found("line_altered", "decisions.log", "line", last as u64);
}

#[test]
fn a_tail_that_is_cut_off_is_named_by_the_rows_it_leaves_or_by_an_earlier_head() {
    let head = |report: &Value| {
        let head = &report["log"]["head"];
        format!("{}:{}", head["n"], head["chain"].as_str().unwrap())
    };
    let before = head(&clean(Copy::new().dir.path()));
    // In the middle of a line.
    let copy = Copy::new();
    let mut lines = 0;
    copy.bytes("decisions.log", |bytes| {
        lines = bytes.iter().filter(|b| **b == b'\n').count();
        bytes.truncate(bytes.len() - 20);
    });
    copy.found("line_altered", "decisions.log", "line", lines as u64);
    // Whole lines, with intents among them: their rows stand there alone.
    let copy = Copy::new();
    copy.lines("decisions.log", |lines| {
        let last = lines.iter().rposition(|line| line.contains("\"intent\",\"method\":\"sign_event\"")).unwrap();
        lines.truncate(last);
    });
    let row = fs::metadata(copy.path(RECORD)).unwrap().len() - 64;
    copy.found("row_extra", RECORD, "offset", row);
    // Even where no row is left alone, whoever has kept the head sees it.
    let copy = Copy::new();
    copy.lines("decisions.log", |lines| drop(lines.pop()));
    let (code, text) = audit(copy.dir.path(), &["verify", "--head", &before]);
    assert!(code == 1 && text.contains("the log ends before line"), "{text}");
}

#[test]
fn a_whole_file_that_is_gone_is_named_the_oldest_too() {
    let oldest = |name: &str| {
        let all = files(&original().join("state"), name);
        (all[0].file_name().unwrap().to_str().unwrap().to_owned(), all.len())
    };
    let gone = |name: &str| {
        let copy = Copy::new();
        fs::remove_file(copy.path(name)).unwrap();
        copy
    };
    gone("decisions.log.2").says("file_missing", "decisions.log.2 is missing");
    gone("decisions.log").says("file_missing", "the file in use is missing");
    let (name, _) = oldest("decisions.log");
    gone(&name).says("file_missing", "should still be there");
    gone(OLD).says("file_missing", "1 file missing");
    let (name, _) = oldest(RECORD);
    gone(&name).says("file_missing", "rows 1 to 1100 should still be there");
    gone(RECORD).says("row_missing", "is missing");
    // Nothing to check is no clean bill.
    let empty = Dir::new(None);
    let (code, text) = audit(empty.path(), &["verify"]);
    assert!(code == 2 && text.contains("no decision log"), "{text}");
    assert_eq!(audit(Path::new("/nonexistent"), &["verify"]).0, 2);
}

/// Who writes the whole log anew can make it a chain again, but not make rows of it.
#[test]
fn a_log_that_is_written_anew_from_some_line_on_does_not_match_the_rows() {
    let copy = Copy::new();
    let at = line_with(&copy, "\"is\":\"intent\"") as usize - 1;
    let mut prev = None;
    let mut files = files(copy.dir.path(), "decisions.log");
    let from = files.iter().position(|path| path.ends_with(LOG)).unwrap();
    for (i, path) in files.drain(from..).enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        copy.lines(&name, |lines| {
            let start = if i == 0 { at } else { 0 };
            for j in start..lines.len() {
                let before = if j > 0 { chain(&lines[j - 1]) } else { prev.clone().unwrap() };
                let mut body = lines[j].rsplit_once(",\"chain\":\"").unwrap().0.to_owned();
                if i == 0 && j == at {
                    body = body.replace("\"id\":\"", "\"id\":\"0").replace("0\",\"chain", "\",\"chain");
                    let id = body.find("\"id\":\"").unwrap() + 6;
                    body.replace_range(id + 64..id + 65, "");
                }
                if j == 0 {
                    let p = body.find("\"prev\":\"").unwrap() + 8;
                    body.replace_range(p..p + 64, &before);
                }
                lines[j] = relink(&before, &body);
            }
            prev = lines.last().map(|line| chain(line));
        });
    }
    let report = verify(copy.dir.path());
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() == 1 && findings[0]["what"] == "row_altered", "{report:#}");
}

fn chain(line: &str) -> String {
    line.rsplit_once(",\"chain\":\"").unwrap().1[..64].to_owned()
}

fn relink(before: &str, body: &str) -> String {
    use sha2::{Digest, Sha256};
    let link = event::hex(&Sha256::digest(format!("{before}{body}")));
    format!("{body},\"chain\":\"{link}\"}}\n")
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

fn renumber(rows: &mut [Vec<u8>]) {
    let first = number(&rows[0][24..32]);
    for (n, row) in rows[1..].iter_mut().enumerate() {
        row[..8].copy_from_slice(&(first + n as u64).to_be_bytes());
    }
}
