//! Those who do not behave: junk, connections that say nothing, slow writers and slow readers.

use super::agents::{content, signed};
use super::link::{Link, Tally, Watch};
use crate::support::client::{Client, line};
use crate::support::{PUBLIC_KEY, sys};
use serde_json::{Value, json};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

/// Connections that say nothing.
const IDLE: usize = 50;
/// Requests whose replies nobody reads for a while.
const UNREAD: usize = 200;

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Bytes that are no request, some of which look like one for a while.
fn nonsense() -> Vec<u8> {
    let noise: Vec<u8> = (0..random() % 64 + 1).flat_map(|_| random().to_le_bytes()).collect();
    let brace = [b"{".as_slice(), &noise].concat();
    match random() % 6 {
        0 => noise,
        1 => brace,
        2 => b"{\"method\":\"sign_event\",\"params\":{\"kind\":1,\"kind\":7}}\n".into(),
        3 => b"{\"method\":\"sign_event\",\"params\":{\"kind\":7,\"content\":\"\\ud800\"}}\n".into(),
        4 => format!("{{\"method\":\"sign_event\",\"params\":{{\"content\":\"{}", "x".repeat(600 << 10)).into(),
        _ => b"{\"method\":\"sign_event\",\"params\":{\"kind\":7,\"content\":\"half".into(),
    }
}

/// Nothing that is no request is granted.
pub fn junk(watch: &Watch, tally: &Tally) {
    let link = Link::new(watch, tally, 0);
    while !watch.is_over() {
        let (mut client, _) = link.connect();
        // nsecd may close while we still write.
        let _ = client.try_send(nonsense());
        client.half_close();
        while let Some(line) = client.line() {
            let reply: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(reply["error"].is_string() && reply.get("event").is_none(), "{reply}");
            tally.refused();
        }
        watch.rest();
    }
}

/// They cost a descriptor each, and give way when others need it. When a broker dies they connect again.
pub fn idle(watch: &Watch, tally: &Tally) {
    let link = Link::new(watch, tally, 0);
    let mut idle: Vec<Client> = (0..IDLE).map(|_| link.connect().0).collect();
    while !watch.is_over() {
        thread::sleep(Duration::from_millis(200));
        let ended = sys::ready(&idle.iter().map(|client| client.stream().as_fd()).collect::<Vec<_>>());
        for at in ended {
            assert_eq!(idle[at].line(), None, "a reply to nothing");
            idle[at] = link.connect().0;
            tally.right();
        }
    }
}

/// A request that comes byte by byte, and replies that wait to be read.
pub fn slow(watch: &Watch, tally: &Tally) {
    let link = Link::new(watch, tally, 0);
    while !watch.is_over() {
        let asked = json!({"kind": 7, "content": content(), "tags": []});
        let (mut client, generation) = link.connect();
        for byte in line("sign_event", asked.clone()).as_bytes() {
            let _ = client.try_send([*byte]);
            thread::sleep(Duration::from_millis(5));
        }
        match client.line() {
            Some(line) => signed(&serde_json::from_str(&line).unwrap(), &asked),
            None => watch.excuses(generation, "a slow writer"),
        }
        tally.right();

        let (mut client, generation) = link.connect();
        let _ = client.try_send(line("get_public_key", json!({})).repeat(UNREAD));
        thread::sleep(Duration::from_millis(500));
        let replies = (0..UNREAD).map_while(|_| client.line()).inspect(|line| {
            assert_eq!(*line, json!({"pubkey": PUBLIC_KEY}).to_string());
        });
        if replies.count() < UNREAD {
            watch.excuses(generation, "a slow reader");
        }
        tally.right();
    }
}
