use std::os::unix::fs::FileExt;

use super::*;
use crate::fixture::{A, START, ask, at, engine_with, policy_with, scratch, sign};
use crate::ledger::Ledger;
use crate::policy::{Engine, Verdict};
use crate::principal::Principal;
use crate::replay::{Found, open, replay};

fn begin() -> (Engine, Journal, Row) {
    let row = Row::Open(open(&policy_with(|_| {}), START));
    let mut journal = Journal::new(scratch(), &Found::default(), &row);
    assert!(journal.is_whole());
    (engine_with(|_| {}), journal, row)
}

/// What a broker that reads `file` remembers, in words.
fn remembered(file: &File) -> Vec<String> {
    let policy = policy_with(|_| {});
    let mut ledger = Ledger::new(&policy);
    let found = replay(file, &policy, &mut ledger, START).expect("readable");
    assert_eq!(Found { size: 0, ..found }, Found::default());
    words(&ledger)
}

fn words(ledger: &Ledger) -> Vec<String> {
    let mut words: Vec<String> = ledger.pieces().into_iter().filter_map(|p| ledger.row(p)).map(|r| r.line()).collect();
    words.sort();
    words
}

fn keep(engine: &mut Engine, journal: &mut Journal) {
    for row in engine.take_rows() {
        assert!(journal.append(&row));
    }
}

/// Starts a session and signs with it, as a principal of its own.
fn visit(engine: &mut Engine, journal: &mut Journal, cgroup: u64, now: crate::clock::Now) {
    let who = Principal { cgroup: Some(cgroup), ..A };
    ask(engine, who, now, r#"{"method":"session_start","params":{}}"#);
    sign(engine, who, now, 1, None);
    keep(engine, journal);
}

#[test]
fn a_small_journal_is_left_as_it_is() {
    let (mut engine, mut journal, _) = begin();
    visit(&mut engine, &mut journal, 1, START);
    assert_eq!(journal.step(engine.ledger(), START.boot), None);
    assert_eq!(remembered(&journal.sheet.file), words(engine.ledger()));
}

#[test]
fn a_full_journal_is_replaced_step_by_step_while_things_go_on_and_nothing_is_forgotten() {
    let (mut engine, mut journal, open) = begin();
    let mut cgroup = 0;
    while journal.sheet.size <= SMALL {
        cgroup += 1;
        visit(&mut engine, &mut journal, cgroup % 500, at(cgroup / 20));
    }
    let now = at(cgroup / 20 + 70);
    let before = journal.sheet.size;
    assert_eq!(journal.step(engine.ledger(), now.boot), Some(Wish::NewFile));
    assert_eq!(journal.step(engine.ledger(), now.boot), None, "asked once");
    visit(&mut engine, &mut journal, 1001, now);
    journal.new_file(Some(scratch()), &open, engine.ledger());
    let mut steps = 0;
    let wish = loop {
        // Meanwhile: sessions of written and unwritten principals start, sign, and end.
        visit(&mut engine, &mut journal, steps, now);
        let line = match ask(&mut engine, A, now, r#"{"method":"session_start","params":{}}"#) {
            Verdict::Answer(answer) => answer.line,
            _ => String::new(),
        };
        if let Some(token) = line.split('"').nth(5) {
            ask(&mut engine, A, now, &format!(r#"{{"method":"session_revoke","params":{{"token":"{token}"}}}}"#));
        }
        keep(&mut engine, &mut journal);
        steps += 1;
        assert!(journal.is_busy());
        if let Some(wish) = journal.step(engine.ledger(), now.boot) {
            break wish;
        }
    };
    assert_eq!(wish, Wish::Replace(false));
    assert!(steps > 2, "in {steps} steps");
    // Written, not named yet: both files have everything.
    visit(&mut engine, &mut journal, 1002, now);
    let old = journal.sheet.file.try_clone().expect("a clone");
    journal.replaced();
    assert_eq!(remembered(&journal.sheet.file), words(engine.ledger()));
    assert_eq!(remembered(&old), words(engine.ledger()));
    assert!(journal.sheet.size < before, "{} is not less than {before}", journal.sheet.size);
    assert_eq!(journal.not_before, now.boot + SHORT, "the next one soon, however fast rows come");
    visit(&mut engine, &mut journal, 1003, now);
    assert_eq!(remembered(&journal.sheet.file), words(engine.ledger()));
}

#[test]
fn a_replacement_that_fails_leaves_the_old_file_in_use() {
    let (mut engine, _, open) = begin();
    let mut journal = Journal::new(scratch(), &Found { damaged: 1, ..Found::default() }, &open);
    let full = || Some(File::options().write(true).open("/dev/full").expect("/dev/full"));
    assert_eq!(journal.step(engine.ledger(), START.boot), Some(Wish::NewFile), "damage is replaced at once");
    journal.new_file(full(), &open, engine.ledger());
    assert_eq!(journal.step(engine.ledger(), START.boot), None);
    assert!(!journal.is_busy());
    visit(&mut engine, &mut journal, 1, START);
    assert_eq!(remembered(&journal.sheet.file), words(engine.ledger()));
    assert_eq!(journal.step(engine.ledger(), START.boot + PAUSE - 1), None, "not again and again");
    assert_eq!(journal.step(engine.ledger(), START.boot + PAUSE), Some(Wish::NewFile));
    journal.new_file(None, &open, engine.ledger());
    assert!(!journal.is_busy());
    assert_eq!(journal.step(engine.ledger(), START.boot + 2 * PAUSE), Some(Wish::NewFile));
    journal.new_file(Some(scratch()), &open, engine.ledger());
    assert_eq!(journal.step(engine.ledger(), START.boot), Some(Wish::Replace(true)));
    journal.not_replaced();
    visit(&mut engine, &mut journal, 2, START);
    assert_eq!(remembered(&journal.sheet.file), words(engine.ledger()));
}

#[test]
fn what_the_disk_does_not_take_is_kept_and_written_when_it_does() {
    let (mut engine, mut journal, open) = begin();
    let file = std::mem::replace(&mut journal.sheet.file, File::options().write(true).open("/dev/full").expect("open"));
    let who = Principal { cgroup: Some(1), ..A };
    ask(&mut engine, who, START, r#"{"method":"session_start","params":{}}"#);
    for row in engine.take_rows() {
        assert!(!journal.append(&row));
    }
    assert!(!journal.is_whole());
    journal.sheet.file = file;
    assert!(journal.is_whole());
    assert_eq!(remembered(&journal.sheet.file), words(engine.ledger()));
    let mut start = [0; 20];
    journal.sheet.file.read_exact_at(&mut start, 0).expect("readable");
    assert!(open.line().starts_with(std::str::from_utf8(&start).expect("text")));
}
