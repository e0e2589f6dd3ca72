//! Checked, tests turn red: names not looked at before they are moved, no comparison with the file in use, an empty chain begun
//! beside a previous file that cannot be read.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};

use super::{Scratch, chmod, fifo, mode, root};
use crate::record::Record;
use crate::setup::State;
use crate::uids::{DYNAMIC, Ids};

/// A state directory and a record in it that is full with 128 bytes.
fn record(scratch: &Scratch, gate: Option<Ids>) -> (State, Record) {
    let state = State::open(&scratch.join("state"), false).unwrap();
    let record = Record::open(&state, "a", gate, 128).unwrap();
    (state, record)
}

fn fill(record: &Record, with: u8) {
    record.file().write_all(&[with; 128]).unwrap();
}

fn first_byte(mut file: &File) -> u8 {
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    byte[0]
}

fn records(scratch: &Scratch) -> Vec<String> {
    let names = fs::read_dir(scratch.join("state")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("a.record")).collect();
    names.sort();
    names
}

#[test]
fn a_full_record_is_put_aside_and_the_next_gate_gets_both() {
    let scratch = Scratch::new();
    let (state, mut record) = record(&scratch, None);
    assert!(record.previous(&state).unwrap().is_none());
    record.file().write_all(&[9; 127]).unwrap();
    assert!(!record.is_due(&state, 2));
    record.rotate(&state, 2);
    assert_eq!(records(&scratch), ["a.record"]);
    record.file().write_all(&[9]).unwrap();
    for n in 0..4 {
        assert!(record.is_due(&state, 2));
        record.rotate(&state, 2);
        assert_eq!(record.file().metadata().unwrap().len(), 0);
        let previous = record.previous(&state).unwrap().unwrap();
        assert_eq!((first_byte(&previous), previous.metadata().unwrap().len()), (9 - n, 128));
        assert!((&previous).write_all(b"x").is_err(), "the previous file can be written");
        fill(&record, 8 - n);
    }
    assert_eq!(records(&scratch), ["a.record", "a.record.1", "a.record.2"]);
}

#[test]
fn what_is_planted_where_a_record_would_go_survives_and_the_old_file_stays_in_use() {
    let mut plants = vec!["link", "fifo", "dir", "hard", "wide"];
    plants.extend(root("a file of another uid").then_some("foreign"));
    for planted in plants {
        let scratch = Scratch::new();
        let (state, mut record) = record(&scratch, None);
        let at = scratch.join("state/a.record.1");
        fs::write(scratch.join("precious"), "data").unwrap();
        match planted {
            "link" => symlink(scratch.join("precious"), &at).unwrap(),
            "fifo" => fifo(&at),
            "dir" => fs::create_dir(&at).unwrap(),
            "hard" => fs::hard_link(scratch.join("precious"), &at).unwrap(),
            _ => fs::write(&at, "data").unwrap(),
        }
        match planted {
            "wide" => chmod(&at, 0o666),
            "foreign" => std::os::unix::fs::chown(&at, Some(1234), None).unwrap(),
            _ => {}
        }
        assert!(record.previous(&state).is_err(), "{planted}: a new chain beside what cannot be read");
        fill(&record, 1);
        let before = (records(&scratch), fs::symlink_metadata(&at).unwrap().ino());
        assert!(record.previous(&state).unwrap().is_none());
        assert!(!record.is_due(&state, 3), "{planted}");
        record.rotate(&state, 3);
        assert_eq!((records(&scratch), fs::symlink_metadata(&at).unwrap().ino()), before);
        assert_eq!(fs::read(scratch.join("state/a.record")).unwrap(), [1; 128]);
        assert_eq!(fs::read_to_string(scratch.join("precious")).unwrap(), "data");
    }
}

#[test]
fn a_record_that_was_moved_away_is_not_replaced_by_an_empty_one() {
    let scratch = Scratch::new();
    let (state, mut record) = record(&scratch, None);
    fill(&record, 1);
    fs::rename(scratch.join("state/a.record"), scratch.join("mine")).unwrap();
    record.rotate(&state, 3);
    assert_eq!(records(&scratch), [""; 0]);
    assert_eq!(record.file().metadata().unwrap().len(), 128);
}

#[test]
fn a_state_directory_that_has_become_writable_to_others_stops_the_rotation() {
    let scratch = Scratch::new();
    let (state, mut record) = record(&scratch, None);
    fill(&record, 1);
    chmod(&scratch.join("state"), 0o777);
    record.rotate(&state, 3);
    assert_eq!(records(&scratch), ["a.record"]);
}

#[test]
fn old_records_of_a_gates_uid_are_moved_and_the_new_one_is_its_own() {
    if !root("records of other uids") {
        return;
    }
    let scratch = Scratch::new();
    let gate = Some(Ids { uid: *DYNAMIC.end(), gid: *DYNAMIC.end() });
    let (state, mut record) = record(&scratch, gate);
    for n in 0..3 {
        fill(&record, n);
        record.rotate(&state, 2);
    }
    assert_eq!(records(&scratch), ["a.record", "a.record.1", "a.record.2"]);
    let path = scratch.join("state/a.record");
    assert_eq!((fs::metadata(&path).unwrap().uid(), mode(&path)), (*DYNAMIC.end(), 0o600));
}
