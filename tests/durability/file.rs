//! A14: the journal is nsecd's alone, holds no token, is appended to, and is replaced when it is full.
//!
//! Checked: with a new file on each start, with tokens in place of their hashes, without the snapshot's sessions, and with
//! rows left out that come while a snapshot is written, a test of this file fails.

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
    let config = "[limits]\nsessions_per_minute = 100000\nlive_sessions = 50\n[key]\nceiling = \"none\"\n\
                  [[socket]]\npath = \"/run/x.sock\"\nkinds = [1, 7]\nlimits = \"none\"\ntotal = \"none\"\n";
    let nsecd = Nsecd::start(config);
    let path = journal(&nsecd);
    let inode = || fs::metadata(&path).unwrap().ino();
    let (first, mut largest) = (inode(), 0);
    let mut client = nsecd.connect();
    let mut tokens: Vec<String> = Vec::new();
    // The snapshot is written while this goes on.
    while inode() == first {
        largest = largest.max(fs::metadata(&path).unwrap().len());
        assert!(largest < 4 << 20, "never replaced");
        round(&mut client, &mut tokens);
    }
    let size = fs::metadata(&path).unwrap().len();
    // Seen last before the round in which it grew over a mebibyte.
    assert!(largest > 1 << 19 && size < largest / 2, "{size} bytes after {largest}");
    assert!(!nsecd.dir.join("state/journal.next").exists());
    // Once more, to be sure that the new file is the one that is written to.
    round(&mut client, &mut tokens);
    let live = tokens.split_off(tokens.len() - 50);
    let info = |nsecd: &Nsecd| {
        let mut client = nsecd.connect();
        live.iter().map(|t| client.ask("session_info", json!({ "token": t }))).collect::<Vec<_>>()
    };
    let before = info(&nsecd);
    assert!(before.iter().all(|i| i["session"]["signCount"] == 1), "{before:?}");
    let mut nsecd = nsecd;
    for how in [Strike::Broker, Strike::Kill] {
        nsecd = struck(nsecd, how);
        assert_eq!(info(&nsecd), before, "{how:?}");
    }
    let mut client = nsecd.connect();
    event::signed(&client.sign(1, Some(&live[0])), PUBLIC_KEY);
    for ended in tokens.iter().step_by(50) {
        assert_eq!(refusal(&client.sign(1, Some(ended))), "Invalid session token");
    }
}

/// A hundred sessions, requests and replies sent ahead of each other, and a signature with each of the last fifty.
fn round(client: &mut Client, tokens: &mut Vec<String>) {
    client.send(client::line("session_start", json!({"scope": "1,7", "ttl": 86400})).repeat(100));
    for _ in 0..100 {
        tokens.push(client.reply()["session"]["token"].as_str().unwrap().into());
    }
    let sign = |token| client::line("sign_event", json!({"kind": 1, "content": "x", "session_token": token}));
    client.send(tokens[tokens.len() - 50..].iter().map(sign).collect::<String>());
    for _ in 0..50 {
        assert!(client.reply()["event"].is_object());
    }
}
