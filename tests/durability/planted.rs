//! B26: what lies at the journal's names and is not ours is never followed, opened or replaced.
//!
//! Checked: without `check_file` all but one of these fail; without the supervisor's look at the new file's, the journal's,
//! or the kept file's name before it uses it, the one about that name.

use super::{identity, journal, until};
use crate::support::daemon::Setup;
use crate::support::{Nsecd, PUBLIC_KEY, event, root};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileExt, chown, symlink};
use std::path::Path;

const CONFIG: &str = "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\nlimits = \"none\"\ntotal = \"none\"\n";

/// Makes something at a path; the second one is a file that it may lead to.
type Plant = fn(&Path, &Path);

/// What can be planted, by name.
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

/// `path` and `victim` are as they were planted when this is called again.
fn untouched(path: &Path, victim: &Path) -> impl Fn(&str) {
    let (path, victim) = (path.to_path_buf(), victim.to_path_buf());
    let before = (identity(&path), identity(&victim));
    move |what| {
        assert_eq!((identity(&path), identity(&victim)), before, "{what}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious", "{what}");
        assert!(!victim.with_extension("none").exists(), "{what}");
    }
}

#[test]
fn whatever_is_planted_at_the_journals_path_is_refused_at_the_start_and_untouched() {
    for (what, plant) in plants() {
        let setup = Setup::new(CONFIG);
        let (path, victim) = (setup.dir.join("state/journal"), setup.dir.file("victim", 0o600, None, b"precious"));
        plant(&path, &victim);
        let untouched = untouched(&path, &victim);
        let exit = setup.refused();
        assert!(exit.code.is_some_and(|code| code != 0), "{what}");
        assert!(exit.stderr.contains(path.to_str().unwrap()), "{what}: {}", exit.stderr);
        untouched(what);
    }
}

/// Damages the journal and kills the broker: the one that follows asks for a new journal at once.
fn wants_another(nsecd: &Nsecd, journal: &Path) {
    let file = fs::File::options().write(true).open(journal).unwrap();
    let end = fs::read(journal).unwrap().windows(9).position(|w| w == b"{\"start\":").unwrap();
    file.write_all_at(b"X", end as u64).unwrap();
    nsecd.kill("nsecd-broker");
}

/// It went on with the old journal, which has what came after.
fn goes_on(nsecd: &Nsecd, journal: &Path, what: &str) {
    until(nsecd, what, || nsecd.stderr().contains("the journal is not replaced"));
    let token = nsecd.connect().session(json!({"scope": "1"}));
    nsecd.kill("nsecd-broker");
    event::signed(&nsecd.connect().sign(1, Some(&token)), PUBLIC_KEY);
    assert!(fs::read_to_string(journal).unwrap().contains(&token_hash(&token)), "{what}");
}

fn token_hash(token: &str) -> String {
    use sha2::{Digest, Sha256};
    event::hex(&Sha256::digest(token))
}

#[test]
fn whatever_is_planted_where_a_new_journal_is_made_is_untouched_and_the_old_one_goes_on() {
    for (what, plant) in plants() {
        let nsecd = Nsecd::start(CONFIG);
        nsecd.connect().session(json!({"scope": "1"}));
        let path = nsecd.dir.join("state/journal.next");
        let victim = nsecd.dir.file("victim", 0o600, None, b"precious");
        plant(&path, &victim);
        let untouched = untouched(&path, &victim);
        wants_another(&nsecd, &journal(&nsecd));
        let old = journal(&nsecd);
        until(&nsecd, what, || nsecd.stderr().contains("the journal is not replaced"));
        assert!(nsecd.stderr().contains(path.to_str().unwrap()), "{what}: {}", nsecd.stderr());
        goes_on(&nsecd, &old, what);
        untouched(what);
    }
}

#[test]
fn whatever_is_planted_at_the_journals_path_is_not_replaced_either() {
    for (what, plant) in plants() {
        let nsecd = Nsecd::start(CONFIG);
        nsecd.connect().session(json!({"scope": "1"}));
        let (path, moved) = (journal(&nsecd), nsecd.dir.join("state/moved"));
        fs::rename(&path, &moved).unwrap();
        let victim = nsecd.dir.file("victim", 0o600, None, b"precious");
        plant(&path, &victim);
        let untouched = untouched(&path, &victim);
        wants_another(&nsecd, &moved);
        goes_on(&nsecd, &moved, what);
        untouched(what);
    }
}

#[test]
fn whatever_is_planted_where_a_damaged_journal_is_kept_is_untouched() {
    for (what, plant) in plants() {
        let nsecd = Nsecd::start(CONFIG);
        nsecd.connect().session(json!({"scope": "1"}));
        let path = nsecd.dir.join("state/journal.damaged.1");
        let victim = nsecd.dir.file("victim", 0o600, None, b"precious");
        plant(&path, &victim);
        let untouched = untouched(&path, &victim);
        wants_another(&nsecd, &journal(&nsecd));
        let second = nsecd.dir.join("state/journal.damaged.2");
        until(&nsecd, what, || second.exists());
        untouched(what);
    }
}
