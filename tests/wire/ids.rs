//! Event ids hash JSON.stringify's text, and replies carry it in the reference daemon's order of keys.

use crate::support::daemon::OPEN;
use crate::support::{Nsecd, PUBLIC_KEY, client, event};
use serde_json::json;

#[test]
fn ids_of_the_texts_that_serialisers_disagree_on_are_the_recorded_ones() {
    let nsecd = Nsecd::start(include_str!("data/conform.toml"));
    let mut client = nsecd.connect();
    for (content, prefix) in [("\0", "6549d74a"), ("\u{2028}\u{2029}", "a2e707c4"), ("😀", "cd531a56")] {
        let params = json!({"kind": 1, "content": content, "tags": [], "created_at": 1700000000});
        let reply = client.ask("sign_event", params);
        let id = event::signed(&reply, PUBLIC_KEY)["id"].as_str().unwrap().to_string();
        assert!(id.starts_with(prefix), "{content:?}: {id}");
    }
}

#[test]
fn every_control_character_and_u007f_is_escaped_as_nip01_says() {
    let nsecd = Nsecd::start(include_str!("data/conform.toml"));
    let mut client = nsecd.connect();
    let all: String = (0..=0x9f).filter_map(char::from_u32).chain("\\/\"é漢".chars()).collect();
    let reply = client.ask("sign_event", json!({"kind": 1, "content": all, "tags": [["t", all]]}));
    let event = event::signed(&reply, PUBLIC_KEY);
    assert_eq!(event["content"], json!(all));
}

#[test]
fn a_signed_event_is_written_in_the_reference_daemons_order() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    client.send(client::line("sign_event", json!({"content": "x", "kind": 1})));
    let line = client.line().unwrap();
    let at = |key: &str| line.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key}: {line}"));
    let places = ["event", "kind", "content", "tags", "created_at", "pubkey", "id", "sig"].map(at);
    assert!(places.is_sorted(), "{line}");
}
