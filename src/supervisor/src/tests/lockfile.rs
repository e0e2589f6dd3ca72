use std::ffi::OsStr;

use super::Scratch;
use crate::lockfile::{Identity, Lock};
use crate::securefs::Dir;

#[test]
fn a_lock_is_held_once_and_its_record_outlives_its_holder() {
    let scratch = Scratch::new();
    let dir = Dir::open(&scratch.0).unwrap();
    let name = OsStr::new("lock");
    let socket = Identity { dev: 7, ino: u64::MAX };
    let mut first = Lock::take(&dir, name).unwrap().unwrap();
    assert_eq!(first.recorded(), None);
    first.record(Identity { dev: u64::MAX, ino: u64::MAX }).unwrap();
    first.record(socket).unwrap();
    assert!(Lock::take(&dir, name).unwrap().is_none());
    // As after a kill: the lock is free, the file stays.
    drop(first);
    let mut second = Lock::take(&dir, name).unwrap().unwrap();
    assert_eq!(second.recorded(), Some(socket));
    second.remove(&dir);
    assert!(scratch.names().is_empty());
}

#[test]
fn a_lock_file_with_other_content_records_nothing() {
    let scratch = Scratch::new();
    let dir = Dir::open(&scratch.0).unwrap();
    for text in ["", "1", "1:2:3", "-1:2", "x:y", &"1".repeat(1000)] {
        std::fs::write(scratch.join("lock"), text).unwrap();
        super::chmod(&scratch.join("lock"), 0o600);
        assert_eq!(Lock::take(&dir, OsStr::new("lock")).unwrap().unwrap().recorded(), None, "{text}");
    }
}
