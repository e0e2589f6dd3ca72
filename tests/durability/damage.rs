//! A journal that is not as nsecd left it: what cannot be read is said, kept, and never to an agent's advantage.
//!
//! Checked: where unreadable rows are passed over, where the damaged file is not kept, or by two renames of which only the
//! first may happen, where an altered last row is taken for a torn one, or a torn one for damage, tests of this file fail.

use super::{Strike, journal, struck, until};
use crate::support::client::{code, refusal};
use crate::support::daemon::Setup;
use crate::support::{Nsecd, PUBLIC_KEY, event, missing, not_root, process, sys};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::time::Instant;

const CONFIG: &str = "[limits]\nsessions_per_minute = 100\n[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n\
                      tokenless = [1]\nlimits = { burst = 3, burst_window = \"1h\" }\ntotal = \"none\"\n";

/// Flips a bit in the middle of the last row of this sort.
fn flip(text: &mut [u8], sort: &str) {
    let needle = format!("{{\"{sort}\":");
    let at = text.windows(needle.len()).rposition(|w| w == needle.as_bytes()).unwrap();
    text[at + needle.len() + 5] ^= 1;
}

#[test]
fn a_damaged_journal_is_said_and_kept_ends_the_sessions_before_it_and_forgives_nothing() {
    let nsecd = Nsecd::start(CONFIG);
    let mut client = nsecd.connect();
    let [used, revoked] = [(); 2].map(|()| client.session(json!({"scope": "1"})));
    for token in [Some(used.as_str()), Some(&used), None] {
        event::signed(&client.sign(1, token), PUBLIC_KEY);
    }
    client.ask("session_revoke", json!({ "token": revoked }));
    let later = client.session(json!({"scope": "1", "ttl": 3600}));
    let before = client.ask("session_info", json!({ "token": later }));
    let setup = nsecd.stopped(Signal::SIGTERM);
    let path = setup.dir.join("state/journal");
    let mut text = fs::read(&path).unwrap();
    // The row that ended a session: whoever passes it over has the session again.
    flip(&mut text, "end");
    fs::write(&path, &text).unwrap();
    let mut nsecd = setup.start();
    let aside = nsecd.dir.join("state/journal.damaged.1");
    until(&nsecd, "kept aside", || aside.exists() && journal(&nsecd).exists());
    assert!(nsecd.stderr().contains("cannot be read"), "{}", nsecd.stderr());
    assert!(nsecd.stderr().contains(aside.to_str().unwrap()), "{}", nsecd.stderr());
    let kept = fs::read(&aside).unwrap();
    assert!(kept.starts_with(&text));
    for how in [Strike::Broker, Strike::Stop, Strike::Kill] {
        let mut client = nsecd.connect();
        for gone in [&used, &revoked] {
            assert_eq!(refusal(&client.sign(1, Some(gone))), "Invalid session token");
        }
        assert_eq!(client.ask("session_info", json!({ "token": later })), before);
        for token in [None, Some(later.as_str())] {
            assert_eq!(code(&client.sign(1, token)), "rate_limited");
        }
        nsecd = struck(nsecd, how);
    }
    // It was damaged once, and what follows it is whole.
    assert!(!nsecd.stderr().contains("cannot be read"), "{}", nsecd.stderr());
    assert!(!nsecd.dir.join("state/journal.damaged.2").exists());
}

#[test]
fn a_last_row_that_is_altered_and_not_cut_short_is_damage_too() {
    let nsecd = Nsecd::start(CONFIG);
    let mut client = nsecd.connect();
    let [other, revoked] = [(); 2].map(|()| client.session(json!({"scope": "1"})));
    client.ask("session_revoke", json!({ "token": revoked }));
    let setup = nsecd.stopped(Signal::SIGTERM);
    let path = setup.dir.join("state/journal");
    let mut text = fs::read(&path).unwrap();
    flip(&mut text, "end");
    fs::write(&path, &text).unwrap();
    let nsecd = setup.start();
    for token in [&other, &revoked] {
        assert_eq!(refusal(&nsecd.connect().sign(1, Some(token))), "Invalid session token");
    }
    assert!(nsecd.stderr().contains("cannot be read"), "{}", nsecd.stderr());
}

#[test]
fn a_row_cut_short_is_dropped_with_a_warning_and_nothing_else_changes() {
    for cut in [1, 2, 40, 100] {
        let nsecd = Nsecd::start(CONFIG);
        let mut client = nsecd.connect();
        let token = client.session(json!({"scope": "1"}));
        for _ in 0..2 {
            event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
        }
        let setup = nsecd.stopped(Signal::SIGTERM);
        let path = setup.dir.join("state/journal");
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - cut]).unwrap();
        let nsecd = struck(setup.start(), Strike::Broker);
        let mut client = nsecd.connect();
        // Without its newline a row is whole; else the last signature is the one that is not known.
        let known = if cut == 1 { 2 } else { 1 };
        assert_eq!(client.ask("session_info", json!({ "token": token }))["session"]["signCount"], known, "cut {cut}");
        for _ in known..3 {
            event::signed(&client.sign(1, None), PUBLIC_KEY);
        }
        assert_eq!(code(&client.sign(1, None)), "rate_limited");
        let stderr = nsecd.stderr();
        assert_eq!(stderr.contains("cut short"), cut > 1, "{stderr}");
        assert!(!stderr.contains("cannot be read") && !nsecd.dir.join("state/journal.damaged.1").exists(), "{stderr}");
        assert!(fs::read(&path).unwrap().starts_with(&text[..text.len() - cut]));
    }
}

/// Two names change where a damaged journal is kept: nsecd may end before either.
#[test]
fn an_nsecd_that_ends_while_it_puts_a_damaged_journal_aside_forgives_nothing() {
    if not_root("tracing what is not dumpable") || missing("strace", "--version") {
        return;
    }
    for when in [1, 2] {
        let nsecd = Nsecd::start(CONFIG);
        let mut client = nsecd.connect();
        client.session(json!({"scope": "1"}));
        for _ in 0..3 {
            event::signed(&client.sign(1, None), PUBLIC_KEY);
        }
        let socket = nsecd.socket.clone();
        let setup = nsecd.stopped(Signal::SIGTERM);
        let state = setup.dir.join("state");
        let mut text = fs::read(state.join("journal")).unwrap();
        flip(&mut text, "start");
        fs::write(state.join("journal"), &text).unwrap();
        let nsecd = setup.killed_at("renameat", when).start();
        let settled = || ["journal", "journal.damaged.1"].iter().all(|name| state.join(name).exists());
        let patience = Instant::now() + sys::PATIENCE;
        while !process::name(nsecd.pid()).is_empty() && !settled() {
            assert!(Instant::now() < patience, "neither ended nor done");
            std::thread::yield_now();
        }
        nsecd.signal(Signal::SIGKILL);
        let exit = nsecd.wait();
        assert!(exit.stderr.contains("cannot be read"), "{}", exit.stderr);
        let again = Setup::at(socket.to_str().unwrap(), CONFIG);
        fs::remove_dir(again.dir.join("state")).unwrap();
        fs::rename(exit.dir.join("state"), again.dir.join("state")).unwrap();
        assert_eq!(code(&again.start().connect().sign(1, None)), "rate_limited", "before rename {when}");
    }
}
