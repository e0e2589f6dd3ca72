//! A failure in the middle: each deed of an adoption, and of going back, fails in turn, and nsecctl dies after each. The host is
//! then where it began, or what is printed says where it is; and from there the same command leads to the end, and `--undo` to
//! the beginning.
//!
//! Checked, one of the two turns red: without stopping, disabling or masking the old daemon, without doctor; without noting a credential,
//! the start, a link or a key before it is made or taken away; without keeping a file, under a name that was free, with its mode; without
//! what nsecd's units were before, links and unit files that were links; without the line that says which daemon runs; where an undo that was cut
//! off counts as an adoption.

use super::host::{Fake, NOTES, REFERENCE, State, Way};
use super::{KEY, OTHER, SOCKET};
use crate::adopt::layout::DEFAULT;
use crate::adopt::texts::CONFIG;
use std::path::Path;

/// The hosts, and how each is adopted.
fn hosts() -> Vec<(&'static str, State, &'static str)> {
    let business = |mut state: State| {
        state.keyring.insert("nostr:business".into(), OTHER);
        state.running = Some(state.keyring.clone());
        state
    };
    let with = |change: fn(&mut State)| {
        let mut state = State::new();
        change(&mut state);
        state
    };
    vec![
        ("as NanoClaw has it", State::new(), ""),
        ("one socket", State::new(), "--shared"),
        ("two accounts, whose keys are removed", business(State::new()), "--remove-key"),
        ("an edited configuration", State::new().with_file(CONFIG, "# mine\n", 0o640), "--replace"),
        (
            "files of the same names",
            State::new()
                .with_file(CONFIG, "# mine\n", 0o600)
                .with_file(&format!("{CONFIG}.before-adopt"), "# of an earlier one\n", 0o644)
                .with_file(&format!("{CONFIG}.adopted"), "# being edited\n", 0o644)
                .with_file("/etc/systemd/system/nsecd.socket.d/adopted.conf", "[Socket]\nBacklog=7\n", 0o640),
            "--replace",
        ),
        ("enabled for all users", with(|state| (state.enabled, state.for_all) = (false, true)), ""),
        ("not enabled", with(|state| state.enabled = false), ""),
        (
            "a unit that is a link",
            with(|state| state.unit_file = Some(("/home/nora/nanoclaw/s.service".into(), true))),
            "",
        ),
        (
            "a link that is not enabled",
            with(|state| {
                state.enabled = false;
                state.unit_file = Some(("/home/nora/nanoclaw/s.service".into(), true));
            }),
            "",
        ),
        (
            "nsecd is enabled already, and listens",
            with(|state| {
                state.nsecd_enabled.extend(["nsecd.service".into(), "nsecd.socket".into()]);
                state.nsecd_active.insert("nsecd.socket".into());
            }),
            "",
        ),
        ("its socket at nsecd's place", with(|state| state.socket = DEFAULT.into()), ""),
        (
            "its socket is a link to another place",
            with(|state| {
                state.socket = "/run/user/1000/elsewhere.sock".into();
                state.links.insert(SOCKET.into(), "/run/user/1000/elsewhere.sock".into());
            }),
            "",
        ),
        ("a link at nsecd's place", with(|state| drop(state.links.insert(DEFAULT.into(), SOCKET.into()))), ""),
    ]
}

/// Undisturbed: the host afterwards.
fn adopted(name: &str, start: &State, line: &str) -> State {
    let host = Fake::new(start.clone(), None);
    let said = host.apply(line).unwrap().unwrap_or_else(|why| panic!("{name}: {why}"));
    let end = host.now();
    assert!(end.running.is_none() && !(end.enabled || end.for_all && !end.masked), "{name}: the old daemon: {end:?}");
    assert!(end.nsecd_runs() && end.nsecd_enabled.contains("nsecd.service"), "{name}: {end:?}");
    assert!(said.iter().any(|line| line.contains("doctor: ")), "{name}: doctor was not run: {said:?}");
    end
}

/// What is there lies somewhere still, as it was.
fn nothing_is_lost(name: &str, start: &State, now: &State) {
    for file in start.files.values() {
        assert!(now.files.values().any(|other| other == file), "{name}: {file:?} is lost: {now:#?}");
    }
}

fn leads_back(name: &str, start: &State, middle: &State) {
    let host = Fake::new(middle.clone(), None);
    let undone = host.undo().unwrap();
    if let Err(why) = undone {
        assert!(why.contains("nothing was adopted") && !middle.files.contains_key(Path::new(NOTES)), "{name}: {why}");
    }
    assert_eq!(host.now().without_credentials(), start.without_credentials(), "{name}: undone");
}

fn leads_on(name: &str, end: &State, middle: &State, line: &str) {
    let host = Fake::new(middle.clone(), None);
    host.apply(line).unwrap().unwrap_or_else(|why| panic!("{name}: again: {why}\n{middle:#?}"));
    assert_eq!(host.now().without_notes(), end.without_notes(), "{name}: again");
}

#[test]
fn whatever_fails_the_host_is_where_it_began_or_it_is_said_and_both_ways_lead_on() {
    let mut tried = 0;
    for (name, start, line) in hosts() {
        let end = adopted(name, &start, line);
        leads_back(name, &start, &end);
        for way in [Way::Fails, Way::Dies] {
            for at in 0.. {
                let host = Fake::new(start.clone(), Some((at, way)));
                let outcome = host.apply(line);
                if !host.went_wrong() {
                    break;
                }
                tried += 1;
                let middle = host.now();
                let name = format!("{name}: {way:?} at {}", host.deeds.borrow().last().unwrap());
                if let Some(outcome) = outcome {
                    let why = outcome.expect_err(&name);
                    assert!(why.contains("this failed: ") && why.contains("made to fail"), "{name}: {why}");
                    is_named(&name, &why, &start, &middle);
                }
                nothing_is_lost(&name, &start, &middle);
                leads_on(&name, &end, &middle, line);
                leads_back(&name, &start, &middle);
            }
        }
    }
    assert!(tried > 200, "{tried}");
}

/// What is printed is so.
fn is_named(name: &str, why: &str, start: &State, middle: &State) {
    if why.contains("Nothing is changed.") {
        assert_eq!(middle, start, "{name}: {why}");
        return;
    }
    let runs = |yes| if yes { "runs" } else { "does not run" };
    let (old, new) = (runs(middle.running.is_some()), runs(middle.nsecd_runs()));
    assert!(why.contains(&format!("Now {REFERENCE} of nora {old}, and nsecd {new}.")), "{name}: {why}");
    assert!(why.contains("Back: nsecctl adopt --user nora --undo"), "{name}: {why}");
}

#[test]
fn going_back_that_fails_can_be_gone_on_with_in_both_directions() {
    let mut tried = 0;
    for (name, start, line) in hosts() {
        let end = adopted(name, &start, line);
        for way in [Way::Fails, Way::Dies] {
            for at in 0.. {
                let host = Fake::new(end.clone(), Some((at, way)));
                let outcome = host.undo();
                if !host.went_wrong() {
                    break;
                }
                tried += 1;
                let middle = host.now();
                let name = format!("{name}: {way:?} at {}", host.deeds.borrow().last().unwrap());
                if let Some(outcome) = outcome {
                    let why = outcome.expect_err(&name);
                    assert!(why.contains("Again: nsecctl adopt --user nora --undo"), "{name}: {why}");
                }
                nothing_is_lost(&name, &start, &middle);
                leads_back(&name, &start, &middle);
                leads_on(&name, &end, &middle, line);
            }
        }
    }
    assert!(tried > 200, "{tried}");
    // And the key of it all is still served.
    assert_eq!(adopted("", &State::new(), "").credentials["nsec"], KEY);
}
