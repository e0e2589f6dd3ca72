//! A14: the journal is nsecd's alone, holds no token, is appended to, and is replaced when it is full.
//!
//! Checked: with a new file on each start, with mode 0644, with tokens in place of their hashes, without the sessions in a
//! new file, and without the rows that come while it is written, tests of this file fail.

use super::{Strike, journal, struck};
use crate::support::client::{self, refusal};
use crate::support::{Client, Nsecd, PUBLIC_KEY, event};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn the_journal_is_nsecds_alone_holds_no_token_and_is_only_appended_to() {
    let mut nsecd = Nsecd::start("[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n");
    let path = journal(&nsecd);
    let (mut before, inode) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().ino());
    let mut grown = |nsecd: &Nsecd, what: &str| {
        let (now, meta) = (fs::read(journal(nsecd)).unwrap(), fs::metadata(journal(nsecd)).unwrap());
        assert_eq!((meta.ino(), meta.mode() & 0o7777, meta.uid()), (inode, 0o600, nix::unistd::geteuid().as_raw()));
        assert!(now.starts_with(&before) && now.len() > before.len(), "{what}");
        before = now;
    };
    let mut tokens = Vec::new();
    for how in [Strike::Broker, Strike::Gate, Strike::Stop, Strike::Kill] {
        let token = nsecd.connect().session(json!({"scope": "1"}));
        grown(&nsecd, "session_start");
        event::signed(&nsecd.connect().sign(1, Some(&token)), PUBLIC_KEY);
        grown(&nsecd, "sign_event");
        nsecd.connect().ask("session_revoke", json!({ "token": token }));
        grown(&nsecd, "session_revoke");
        tokens.push(token);
        nsecd = struck(nsecd, how);
        grown(&nsecd, &format!("{how:?}"));
    }
    let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
    for token in tokens {
        assert!(!text.contains(&token));
        // Control: what is looked for would be found.
        assert!(text.contains(&event::hex(&Sha256::digest(&token))));
    }
}

#[test]
fn a_full_journal_is_replaced_and_nothing_is_forgotten() {
    let config = "[limits]\nsessions_per_minute = 100000\nlive_sessions = 600\n[key]\nceiling = \"none\"\n\
                  [[socket]]\npath = \"/run/x.sock\"\nkinds = [1, 7]\nlimits = \"none\"\ntotal = \"none\"\n";
    let mut nsecd = Nsecd::start(config);
    let path = journal(&nsecd);
    let inode = || fs::metadata(&path).unwrap().ino();
    let (first, mut largest, mut rounds) = (inode(), 0, 0);
    let mut client = nsecd.connect();
    let old: Vec<String> = (0..20).map(|_| client.session(json!({"scope": "1,7", "ttl": 86400}))).collect();
    let mut ended = Vec::new();
    // The new file is written while this goes on.
    while inode() == first {
        largest = largest.max(fs::metadata(&path).unwrap().len());
        assert!(largest < 4 << 20, "never replaced");
        ended.push(round(&mut client, &old));
        rounds += 1;
    }
    let size = fs::metadata(&path).unwrap().len();
    // Seen last before the round in which it grew over a mebibyte.
    assert!(largest > 1 << 19 && size < largest / 2, "{size} bytes after {largest}");
    assert!(!nsecd.dir.join("state/journal.next").exists());
    // Nobody has ended those of the round in which it was replaced, and the new ones those of twelve rounds ago.
    let new = ended.split_off(rounds - 1).remove(0);
    ended.truncate(rounds - 12);
    let info = |nsecd: &Nsecd| {
        let mut client = nsecd.connect();
        old.iter().chain(&new).map(|t| client.ask("session_info", json!({ "token": t }))).collect::<Vec<_>>()
    };
    let before = info(&nsecd);
    assert!(before[..old.len()].iter().all(|i| i["session"]["signCount"] == rounds), "{before:?}");
    assert!(before[old.len()..].iter().all(|i| i["session"]["signCount"] == 0), "{before:?}");
    for how in [Strike::Broker, Strike::Kill] {
        nsecd = struck(nsecd, how);
        assert_eq!(info(&nsecd), before, "{how:?}");
        let mut client = nsecd.connect();
        for ended in &ended {
            assert_eq!(refusal(&client.sign(1, Some(&ended[0]))), "Invalid session token");
        }
    }
    for token in &old {
        event::signed(&nsecd.connect().sign(1, Some(token)), PUBLIC_KEY);
    }
}

/// A signature with each of the old sessions, which keeps them, between new ones that make each other end; requests are
/// sent ahead of the replies. The tokens of the new.
fn round(client: &mut Client, old: &[String]) -> Vec<String> {
    let start = client::line("session_start", json!({"scope": "1,7", "ttl": 86400}));
    let sign = |token| client::line("sign_event", json!({"kind": 1, "content": "x", "session_token": token}));
    client.send(old.iter().map(|token| start.repeat(3) + &sign(token)).collect::<String>());
    let mut new = Vec::new();
    for _ in old {
        for _ in 0..3 {
            new.push(client.reply()["session"]["token"].as_str().unwrap().into());
        }
        assert!(client.reply()["event"].is_object());
    }
    new
}
