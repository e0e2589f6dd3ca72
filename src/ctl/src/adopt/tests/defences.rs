//! What an adoption refuses, on a host in memory that is not what it seems.
//!
//! Checked: without each of the comparisons (the key that is taken, what is decrypted again, a credential that is there, what nsecd answers for
//! the default account and for others), without asking whether somebody still answers, whether a file was edited since, or whose daemon is at
//! nsecd's place, the test that names it turns red, and no other.

use super::host::{Fake, Lies, State};
use super::{KEY, OTHER};
use std::path::Path;

fn refused(host: &Fake) -> String {
    host.apply("").unwrap().expect_err("it is not what it seems")
}

fn lying(lies: Lies) -> (Fake, State) {
    let start = State::new();
    (Fake::lying(start.clone(), lies), start)
}

#[test]
fn a_key_that_was_exchanged_since_the_plan_is_not_sealed() {
    let (host, start) = lying(Lies { taken: Some(OTHER), ..Lies::default() });
    let why = refused(&host);
    assert!(why.contains(KEY) && why.contains(OTHER) && why.contains("Nothing is changed."), "{why}");
    assert_eq!(host.now(), start);
}

#[test]
fn what_comes_back_from_the_credential_is_compared_before_anything_is_stopped() {
    let (host, start) = lying(Lies { sealed: Some(OTHER), ..Lies::default() });
    let why = refused(&host);
    assert!(why.contains("decrypted again") && why.contains(KEY) && why.contains(OTHER), "{why}");
    // Nothing but the notes, which say so.
    assert_eq!(host.now().without_notes(), start);
}

#[test]
fn a_credential_of_another_key_is_neither_used_nor_overwritten() {
    let mut start = State::new();
    start.credentials.insert("nsec".into(), OTHER);
    let host = Fake::new(start.clone(), None);
    let why = refused(&host);
    assert!(why.contains("/etc/credstore.encrypted/nsec is there already") && why.contains("move it away"), "{why}");
    assert_eq!(host.now(), start);
}

#[test]
fn what_nsecd_answers_is_compared_for_each_account() {
    let (host, _) = lying(Lies { served: Some(OTHER), ..Lies::default() });
    let why = refused(&host);
    assert!(
        why.contains(&format!("nsecd answers {OTHER} on /run/nostr/signer.sock")) && why.contains("--undo"),
        "{why}"
    );

    let mut start = State::new();
    start.keyring.insert("nostr:business".into(), OTHER);
    start.running = Some(start.keyring.clone());
    let host = Fake::lying(start.clone(), Lies { served_for_others: Some(KEY), ..Lies::default() });
    let why = refused(&host);
    assert!(why.contains(&format!("nsecd answers {KEY} for account business")), "{why}");
    host.undo().unwrap().unwrap();
    assert_eq!(host.now().without_credentials(), start);
}

#[test]
fn a_daemon_that_goes_on_answering_is_no_daemon_that_is_stopped() {
    let (host, _) = lying(Lies { will_not_stop: true, ..Lies::default() });
    let why = refused(&host);
    assert!(why.contains("somebody still answers") && !host.now().nsecd_runs(), "{why}");
}

#[test]
fn nothing_runs_otherwise_before_all_that_can_be_refused_was_tried() {
    let host = Fake::new(State::new(), None);
    host.apply("").unwrap().unwrap();
    let deeds = host.deeds.borrow();
    let place = |what: &str| {
        deeds.iter().position(|deed| deed.starts_with(what)).unwrap_or_else(|| panic!("{what}: {deeds:?}"))
    };
    let stop = place("--user stop");
    assert!(place("seal nsec") < place("check") && place("check") < place("put /etc/nsecd/nsecd.toml"), "{deeds:?}");
    assert!(deeds.iter().rposition(|deed| deed.contains("/adopted.conf")).unwrap() < stop, "{deeds:?}");
    assert!(stop < place("--user disable") && stop < place("stop nsecd.socket"), "{deeds:?}");
    // Each socket is asked, as the user, and the link that containers have.
    assert_eq!(deeds.iter().filter(|deed| deed.starts_with("ask ")).count(), 3, "{deeds:?}");
}

#[test]
fn what_somebody_has_edited_since_stays_when_going_back() {
    let host = Fake::new(State::new().with_file("/etc/nsecd/nsecd.toml", "# mine\n", 0o640), None);
    host.apply("--replace").unwrap().unwrap();
    let edited = ("# edited\n".to_owned(), 0o644);
    let path = Path::new("/etc/nsecd/nsecd.toml");
    host.state.borrow_mut().files.insert(path.into(), edited.clone());
    let said = host.undo().unwrap().unwrap().join("\n");
    assert!(said.contains("left: /etc/nsecd/nsecd.toml") && said.contains("nsecd.toml.before-adopt"), "{said}");
    assert_eq!(host.now().files[path], edited);
    assert_eq!(host.now().files[Path::new("/etc/nsecd/nsecd.toml.before-adopt")].0, "# mine\n");
}

#[test]
fn another_daemon_at_nsecds_place_is_left_alone() {
    let host = Fake::new(State::new(), None);
    let (files, mut live) = host.look();
    live.stranger = Some(1001);
    let stops = super::stopped(&files, &live, "");
    assert!(stops.lines[0].contains("served by uid 1001"), "{stops:?}");
}
