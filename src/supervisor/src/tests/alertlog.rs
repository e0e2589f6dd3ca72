use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::{Scratch, chmod, fifo, mode};
use crate::alertlog::AlertLog;

#[test]
fn rotation_keeps_so_many_and_starts_a_new_file() {
    let scratch = Scratch::new();
    let mut log = AlertLog::open(&scratch.join("alerts.log"), None).unwrap();
    let start = Instant::now();
    for n in 0..4 {
        write!(log.file(), "{n}").unwrap();
        assert_eq!(log.size(), 1);
        log.rotate(2, start).unwrap();
    }
    assert!(log.is_fresh(start) && !log.is_fresh(start + Duration::from_secs(2)));
    assert_eq!(scratch.names(), ["alerts.log", "alerts.log.1", "alerts.log.2"]);
    let read = |name| fs::read_to_string(scratch.join(name)).unwrap();
    assert_eq!((log.size(), read("alerts.log.1"), read("alerts.log.2")), (0, "3".into(), "2".into()));
    assert_eq!(mode(&scratch.join("alerts.log")), 0o600);
    log.rotate(0, start).unwrap();
    assert_eq!(read("alerts.log.1"), "3");
}

#[test]
fn what_is_planted_where_a_rotation_would_go_survives_and_nothing_moves() {
    for planted in ["link", "fifo", "dir", "hard"] {
        let scratch = Scratch::new();
        let mut log = AlertLog::open(&scratch.join("a.log"), None).unwrap();
        let at = scratch.join("a.log.2");
        fs::write(scratch.join("precious"), "data").unwrap();
        match planted {
            "link" => symlink(scratch.join("precious"), &at).unwrap(),
            "fifo" => fifo(&at),
            "dir" => fs::create_dir(&at).unwrap(),
            _ => fs::hard_link(scratch.join("precious"), &at).unwrap(),
        }
        write!(log.file(), "kept").unwrap();
        let before = scratch.names();
        assert!(log.rotate(3, Instant::now()).is_err(), "{planted}");
        assert_eq!(scratch.names(), before);
        assert_eq!(fs::read_to_string(scratch.join("a.log")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(scratch.join("precious")).unwrap(), "data");
    }
}

#[test]
fn a_directory_that_has_become_writable_to_others_is_refused_at_rotation() {
    let scratch = Scratch::new();
    let mut log = AlertLog::open(&scratch.join("a.log"), None).unwrap();
    chmod(&scratch.0, 0o777);
    assert!(log.rotate(3, Instant::now()).is_err());
    assert_eq!(scratch.names(), ["a.log"]);
}

#[test]
fn a_log_that_the_operator_moved_away_is_started_anew() {
    let scratch = Scratch::new();
    let mut log = AlertLog::open(&scratch.join("a.log"), None).unwrap();
    fs::rename(scratch.join("a.log"), scratch.join("mine")).unwrap();
    log.rotate(3, Instant::now()).unwrap();
    assert_eq!(scratch.names(), ["a.log", "mine"]);
}
