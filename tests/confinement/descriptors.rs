//! B8: each role holds exactly the descriptors named in its crate, whatever nsecd was started with.
//!
//! Checked: with close_range(2) taken out of supervisor, spawn and lock, which each suffice, the second test fails; with 0 to 2 left open by the lock,
//! or the freeze page once it is mapped, both do.

use crate::support::daemon::{DM, OPEN, Setup};
use crate::support::{Nsecd, not_root, process, sys};
use std::collections::BTreeMap;

fn kinds(nsecd: &Nsecd, role: &str) -> BTreeMap<i32, String> {
    process::descriptors(nsecd.role(role))
}

fn expected(pairs: &[(i32, &str)]) -> BTreeMap<i32, String> {
    pairs.iter().map(|(n, what)| (*n, what.to_string())).collect()
}

fn check(nsecd: &Nsecd, encryption: bool) {
    let state = nsecd.dir.join("state");
    assert_eq!(kinds(nsecd, "nsecd-keyholder"), expected(&[(3, "socket")]));
    let record = nsecd.files_in_state("default.record").pop().expect("a record in the state directory");
    assert_eq!(
        kinds(nsecd, "nsecd-gate"),
        expected(&[(3, "socket"), (4, "socket"), (5, "socket"), (6, record.to_str().unwrap())])
    );
    if encryption {
        let record = nsecd.files_in_state("default.ecdh.record").pop().expect("a record of its own");
        let own = [(3, "socket"), (4, "socket"), (5, record.to_str().unwrap())];
        assert_eq!(kinds(nsecd, "nsecd-ecdh"), expected(&own));
    }
    let broker = kinds(nsecd, "nsecd-broker");
    let stderr = nsecd.dir.join("stderr");
    let is = |n: i32| broker.get(&n).map(String::as_str);
    assert_eq!((is(2), is(3), is(4)), (stderr.to_str(), Some("socket"), Some("pipe")), "{broker:?}");
    // Beyond these: sockets (the admin socket, listener, gate, perhaps ECDH holder and syslog), an alert log, the journal, the decision log, its own event descriptors.
    let rest: Vec<_> = broker.iter().filter(|(n, _)| **n > 4).map(|(_, what)| what.as_str()).collect();
    let logs = rest.iter().filter(|w| w.starts_with(state.to_str().unwrap())).count();
    let sockets = rest.iter().filter(|w| **w == "socket").count();
    let own = rest.iter().filter(|w| w.starts_with("anon_inode")).count();
    assert_eq!((logs, sockets + logs + own), (3, rest.len()), "{broker:?}");
    let least = 3 + usize::from(encryption);
    assert!((least..=least + 1).contains(&sockets) && own <= 3, "{broker:?}");
    let numbers: Vec<_> = broker.keys().copied().collect();
    assert_eq!(numbers, (2..2 + numbers.len() as i32).collect::<Vec<_>>(), "{broker:?}");
}

#[test]
fn each_role_holds_exactly_its_own_descriptors() {
    if not_root("reading the descriptors of a non-dumpable process") {
        return;
    }
    check(&Nsecd::start(OPEN), false);
    check(&Nsecd::start(DM), true);
    check(&Setup::of(Some(23_402), DM).start(), true);
}

#[test]
fn fifty_inherited_descriptors_reach_no_role() {
    if not_root("reading the descriptors of a non-dumpable process") {
        return;
    }
    let mut setup = Setup::new(DM);
    sys::give_junk(&mut setup.command, 10, 50);
    check(&setup.start(), true);
}
