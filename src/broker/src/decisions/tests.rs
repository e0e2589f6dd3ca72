//! Checked: with a chain that begins anew at each start, without the newline behind a torn line, with a torn line taken for an
//! unreadable one, with lines of a flood written or not counted, with its counts not said, and with no escape, tests of this file fail.

use std::io::Write;
use std::os::unix::fs::FileExt;

use nsecd_trail::line::{Line, Read};

use super::*;
use crate::fixture::{A, B, START, at, policy_with, scratch};

fn open(file: &File, previous: Option<&File>) -> DecisionLog {
    let sized = |file: &File| Sized::new(file.try_clone().expect("dup")).expect("fstat");
    let previous = previous.map(sized);
    DecisionLog::open(sized(file), previous.as_ref(), &policy_with(|_| {}), START).expect("a log")
}

fn text(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("fstat").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

/// Its lines, each of which continues the one before: `head` at first, and then that of the last.
fn chained(file: &File, head: &mut Head) -> Vec<Entry> {
    let bytes = text(file);
    let mut entries = Vec::new();
    for line in bytes.strip_suffix(b"\n").expect("whole").split(|b| *b == b'\n') {
        let read = Read::parse(line).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(line)));
        assert!(read.continues(&head.chain) && read.line.n == head.n + 1, "{}", read.line.n);
        *head = read.head();
        let Line { entry, .. } = read.line;
        entries.push(entry);
    }
    entries
}

fn wanted(id: &[u8; 32]) -> Wanted<'_> {
    Wanted { who: A, method: "sign_event", session: None, account: 1, agreement: false, kind: 1, created_at: 5, id }
}

fn refused(why: &str) -> Decision<'_> {
    Decision {
        socket: 0,
        who: Some(A),
        method: "sign_event",
        session: None,
        account: None,
        kind: Some(1),
        rule: Some("out_of_scope"),
        why,
        urgent: false,
    }
}

#[test]
fn each_broker_continues_the_chain_of_the_one_before() {
    let file = scratch();
    for n in 0..3 {
        let mut log = open(&file, None);
        let noted = log.intent(&wanted(&[n; 32]), START).expect("room");
        log.outcome(noted, 0, START);
        assert!(log.flush(START));
    }
    let entries = chained(&file, &mut Head::origin());
    assert!(matches!(&entries[0], Entry::File(entry::File { file: 1, keep: 8, .. })));
    let kinds: Vec<u8> = entries[1..]
        .iter()
        .map(|entry| match entry {
            Entry::Start(_) => b's',
            Entry::Intent(_) => b'i',
            Entry::Outcome(_) => b'o',
            _ => b'?',
        })
        .collect();
    assert_eq!(kinds, b"siosiosio");
}

#[test]
fn a_new_file_names_the_line_before_it_and_the_rows_so_far() {
    let (first, second) = (scratch(), scratch());
    let mut log = open(&first, None);
    let [one, two] = [1, 2].map(|n| log.intent(&wanted(&[n; 32]), START).expect("room"));
    log.outcome(one, 0, START);
    log.new_file(Some(second.try_clone().expect("dup")), START);
    log.outcome(two, 1, START);
    assert!(log.flush(START));
    let mut head = Head::origin();
    chained(&first, &mut head);
    let last = head.chain.clone();
    let entries = chained(&second, &mut head);
    let Entry::File(entry::File { file: 2, prev, records, .. }) = &entries[0] else { panic!("{entries:?}") };
    assert_eq!((prev, records[1].last, records[0].last), (&last, Some(1), Some(0)));
    // And so does a broker that finds the new file empty.
    let third = scratch();
    drop(open(&third, Some(&second)));
    let entries = chained(&third, &mut head);
    assert!(matches!(&entries[0], Entry::File(entry::File { file: 3, .. })), "{entries:?}");
}

#[test]
fn a_line_cut_short_stays_where_it_is_and_the_chain_goes_on_from_the_last_whole_one() {
    for cut in [1, 30, 200] {
        let mut file = scratch();
        drop(open(&file, None));
        let before = text(&file);
        let torn = before.len() as u64 - cut;
        file.set_len(torn).expect("ftruncate");
        drop(open(&file, None));
        let after = text(&file);
        assert!(after.starts_with(&before[..torn as usize]), "nothing is overwritten");
        let lines: Vec<&[u8]> = after.split(|b| *b == b'\n').collect();
        let read = Read::parse(lines[2]).expect("the line after it");
        let Entry::Start(start) = &read.line.entry else { panic!("{read:?}") };
        if cut == 1 {
            // All but its newline was there.
            assert_eq!((read.line.n, start.torn, start.unreadable), (3, None, 0));
        } else {
            assert_eq!((read.line.n, start.torn, start.unreadable), (2, Some(lines[1].len() as u64), 0));
            assert!(read.continues(Read::parse(lines[0]).expect("the first").chain));
        }
        // What no broker wrote is told apart.
        file.write_all(b"rubbish\n").expect("write");
        drop(open(&file, None));
        let after = text(&file);
        let last = after.split(|b| *b == b'\n').rev().nth(1).expect("a line");
        let Entry::Start(start) = Read::parse(last).expect("a line").line.entry else { panic!() };
        assert_eq!((start.torn, start.unreadable), (None, 1));
    }
}

#[test]
fn a_flood_of_refusals_is_counted_by_principal_and_rule_and_hides_nothing_urgent() {
    let file = scratch();
    let mut log = open(&file, None);
    for n in 0..1000 {
        let why = "a\n\u{1b}\"\u{2028}é".repeat(1000);
        let who = Some(if n % 10 == 0 { B } else { A });
        log.decided(Decision { who, ..refused(&why) }, START);
    }
    let size = text(&file).len();
    assert!(size < 20_000, "{size}");
    assert!(text(&file).iter().all(|b| matches!(b, b' '..=b'~' | b'\n')), "what an agent chose is escaped");
    log.decided(Decision { urgent: true, rule: Some("forged"), ..refused("x") }, START);
    let noted = log.intent(&wanted(&[1; 32]), START).expect("room");
    log.outcome(noted, 0, START);
    assert!(log.flush(START));
    log.sweep(at(60));
    let entries = chained(&file, &mut Head::origin());
    let count = |is: fn(&Entry) -> bool| entries.iter().filter(|e| is(e)).count();
    assert_eq!(count(|e| matches!(e, Entry::Decided(d) if d.rule == "out_of_scope")), 20);
    assert_eq!(count(|e| matches!(e, Entry::Decided(d) if d.rule == "forged")), 1);
    assert_eq!(count(|e| matches!(e, Entry::Intent(_) | Entry::Outcome(_))), 2);
    let Some(Entry::More(more)) = entries.last() else { panic!("{:?}", entries.last()) };
    let counts: Vec<_> = more.counts.iter().map(|c| (c.uid, c.rule.as_str(), c.count)).collect();
    assert_eq!(counts, [(Some(1000), "out_of_scope", 882), (Some(1001), "out_of_scope", 98)]);
    log.decided(refused("the next span"), at(61));
    assert!(String::from_utf8(text(&file)).expect("ASCII").contains("the next span"));
}

#[test]
fn principals_without_number_are_counted_in_one_line_of_bounded_length() {
    let file = scratch();
    let mut log = open(&file, None);
    for n in 0..10_000 {
        let who = Some(Principal { socket: 0, uid: 1000, cgroup: Some(n) });
        log.decided(Decision { who, ..refused("no") }, START);
    }
    log.sweep(at(60));
    let entries = chained(&file, &mut Head::origin());
    let Some(Entry::More(more)) = entries.last() else { panic!("{:?}", entries.last()) };
    assert_eq!((more.counts.len(), more.counts.iter().map(|c| c.count).sum::<u64>()), (33, 9980));
}

#[test]
fn what_a_full_disk_did_not_take_is_written_later_or_counted() {
    let (first, second) = (scratch(), scratch());
    let mut log = open(&first, None);
    let head = log.head.clone();
    log.replace_file(File::options().write(true).open("/dev/full").expect("it exists"));
    assert!(log.is_whole());
    for n in 0..1000 {
        log.happened(&Row::End(crate::session::TokenHash::of(&format!("{n}"))), START);
    }
    assert!(!log.is_whole() && log.pending.len() < 2 * KEPT);
    assert_eq!(log.intent(&wanted(&[1; 32]), START), None);
    log.replace_file(second.try_clone().expect("dup"));
    log.sweep(at(1));
    let entries = chained(&second, &mut { head });
    let Some(Entry::Lost { lines }) = entries.last() else { panic!("{:?}", entries.last()) };
    let ended = entries.iter().filter(|e| matches!(e, Entry::SessionEnded { .. })).count() as u64;
    assert_eq!(ended + lines, 1000);
    let not_asked = |e: &Entry| matches!(e, Entry::Outcome(Outcome { status: None, .. }));
    assert!(entries.iter().any(not_asked), "the intent that was not taken asked nobody, and says so");
}
