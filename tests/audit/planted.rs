//! B26 and its kind: what lies at the log's names and is not ours is never followed or replaced; a log that is deleted, moved or
//! out of reach is said, and nothing is written where nobody looks.
//!
//! Checked: without `check_file`, without the look at old names before anything moves, without the look whether the log has its name, and
//! without the one at the directory, a test of this file fails.

use super::{OPEN, audit, clean, files, lines, sign, verify};
use crate::support::daemon::Setup;
use crate::support::{Nsecd, PUBLIC_KEY, event, root, sys};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Instant;

type Plant = fn(&Path, &Path);

fn plants() -> Vec<(&'static str, Plant)> {
    let mut all: Vec<(&str, Plant)> = vec![
        ("symbolic link", |path, victim| symlink(victim, path).unwrap()),
        ("dangling link", |path, victim| symlink(victim.with_extension("none"), path).unwrap()),
        ("hard link", |path, victim| fs::hard_link(victim, path).unwrap()),
        ("FIFO", |path, _| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap()),
        ("directory", |path, _| fs::create_dir(path).unwrap()),
    ];
    if root() {
        all.push(("another user's file", |path, _| {
            fs::write(path, "").unwrap();
            chown(path, Some(23_431), None).unwrap();
        }));
    }
    all
}

/// Makes nsecd's loop turn until something has happened.
fn until(nsecd: &Nsecd, what: &str, mut happened: impl FnMut() -> bool) {
    let patience = Instant::now() + sys::PATIENCE;
    while !happened() {
        assert!(Instant::now() < patience, "never: {what}:\n{}", nsecd.stderr());
        nsecd.serves();
    }
}

/// Signs until the log is full, and more.
fn fill(nsecd: &Nsecd) {
    (0..150).for_each(|n| drop(sign(nsecd, &format!("{n}"))));
}

#[test]
fn whatever_is_planted_at_the_decision_logs_path_is_refused_at_the_start_and_untouched() {
    for (what, plant) in plants() {
        let setup = Setup::new(OPEN);
        let (path, victim) =
            (setup.dir.join("state/decisions.log"), setup.dir.file("victim", 0o600, None, b"precious"));
        plant(&path, &victim);
        let inode = fs::symlink_metadata(&path).unwrap().ino();
        let exit = setup.refused();
        assert!(exit.stderr.contains("decisions.log"), "{what}: {}", exit.stderr);
        let path = exit.dir.join("state/decisions.log");
        assert_eq!(fs::symlink_metadata(path).unwrap().ino(), inode, "{what}");
        assert_eq!(fs::read(exit.dir.join("victim")).unwrap(), b"precious", "{what}");
        assert!(!exit.dir.join("victim.none").exists(), "{what}");
    }
    // And one that others can write, or that nsecd cannot.
    let mut modes = vec![(0o666, None)];
    if root() {
        modes.push((0o400, Some(23_402)));
    }
    for (mode, uid) in modes {
        let setup = Setup::of(uid, OPEN);
        setup.dir.file("state/decisions.log", mode, uid, b"");
        let exit = setup.refused();
        assert!(exit.stderr.contains("decisions.log"), "{mode:o}: {}", exit.stderr);
    }
}

#[test]
fn whatever_is_planted_where_an_old_decision_log_would_go_is_untouched_and_the_log_goes_on() {
    for (what, plant) in plants() {
        let nsecd = Nsecd::start(OPEN);
        let (path, victim) =
            (nsecd.dir.join("state/decisions.log.3"), nsecd.dir.file("victim", 0o600, None, b"precious"));
        plant(&path, &victim);
        let inode = fs::symlink_metadata(&path).unwrap().ino();
        fill(&nsecd);
        until(&nsecd, "said", || nsecd.stderr().contains("the decision log is not rotated"));
        sign(&nsecd, "goes on");
        assert!(!nsecd.dir.join("state/decisions.log.1").exists(), "{what}");
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode, "{what}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious", "{what}");
    }
}

#[test]
fn a_decision_log_that_is_deleted_goes_on_in_a_new_one_that_says_so() {
    let nsecd = Nsecd::start(OPEN);
    let state = nsecd.dir.join("state");
    let path = state.join("decisions.log");
    let mut client = nsecd.connect();
    (0..10).for_each(|n| drop(sign(&nsecd, &format!("{n}"))));
    let kept = nsecd.dir.join("moved-away");
    fs::rename(&path, &kept).unwrap();
    until(&nsecd, "a new log", || fs::metadata(&path).is_ok_and(|m| m.len() > 0));
    assert!(nsecd.stderr().contains("the decision log was deleted or moved away"), "{}", nsecd.stderr());
    sign(&nsecd, "after");
    // Without the lines that are gone the log is not whole, and that is what is said.
    let report = verify(&state);
    let first = &report["findings"][0];
    assert!(first["what"] == "file_missing" && first["file"] == "decisions.log", "{report:#}");
    assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{report:#}");
    // Who has them puts them where they belong.
    fs::rename(kept, state.join("decisions.log.1")).unwrap();
    clean(&state);
    // What was put there by somebody else is not written to, nor moved.
    let victim = nsecd.dir.file("victim", 0o600, None, b"precious");
    fs::rename(&path, nsecd.dir.join("again")).unwrap();
    symlink(&victim, &path).unwrap();
    until(&nsecd, "said", || nsecd.stderr().contains("goes on in a file that is not at its name"));
    event::signed(&client.sign(1, None), PUBLIC_KEY);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    let (code, text) = audit(&state, &["verify"]);
    assert!(code == 2 && text.contains("no plain file"), "{text}");
}

#[test]
fn a_directory_put_in_the_state_directorys_place_gets_no_log() {
    let nsecd = Nsecd::start(OPEN);
    let (state, aside) = (nsecd.dir.join("state"), nsecd.dir.join("aside"));
    sign(&nsecd, "before");
    fs::create_dir(&aside).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o700)).unwrap();
    sys::exchange(&state, &aside).unwrap();
    until(&nsecd, "said", || nsecd.stderr().contains("is not the directory in use any more"));
    sign(&nsecd, "after");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    let report = clean(&aside);
    assert_eq!(report["records"][0]["matched"], 2, "{report:#}");
    assert!(files(&aside, "decisions.log").len() == 1 && lines(&aside).len() > 4);
    // So that it is there when nsecd ends.
    sys::exchange(&state, &aside).unwrap();
}

/// The moment between the two steps of a swap may be all that nsecd saw: what it says then is not its last word.
#[test]
fn a_log_that_is_out_of_reach_for_another_reason_than_before_is_said_again() {
    let nsecd = Nsecd::start(OPEN);
    let (state, aside) = (nsecd.dir.join("state"), nsecd.dir.join("aside"));
    let complaints = || nsecd.stderr().matches("goes on in a file that is not at its name").count();
    fs::rename(&state, &aside).unwrap();
    until(&nsecd, "said that nothing is there", || complaints() == 1);
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    until(&nsecd, "said that another is there", || nsecd.stderr().contains("is not the directory in use any more"));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    // What was deleted meanwhile is put back as soon as the directory is.
    fs::remove_file(aside.join("decisions.log")).unwrap();
    sys::exchange(&state, &aside).unwrap();
    until(&nsecd, "a new log", || fs::metadata(state.join("decisions.log")).is_ok_and(|m| m.len() > 0));
}
