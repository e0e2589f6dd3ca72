//! Direct messages and NIP-44, there and back. That others read them is told by nostr-tools (tests/messages.rs).

use super::agents::content;
use super::link::{Link, Tally, Watch};
use crate::support::{PUBLIC_KEY, event};
use serde_json::{Value, json};

/// Public key of the secret 5.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";

/// A gift wrap: signed by a key that is not the author's.
fn wrapped(wrap: &Value) {
    let by = wrap["pubkey"].as_str().unwrap();
    assert!(by != PUBLIC_KEY && wrap["kind"] == 1059 && event::valid(wrap, by), "{wrap}");
}

pub fn messages(watch: &Watch, tally: &Tally) {
    let mut link = Link::new(watch, tally, 0);
    while !watch.is_over() {
        let text = content();
        let (reply, _) = link.ask("wrap_dm", json!({"recipientPubkey": PEER, "message": text}));
        let wraps = reply["events"].as_array().unwrap_or_else(|| panic!("not wrapped: {reply}"));
        assert_eq!(wraps.len(), 2);
        wraps.iter().for_each(wrapped);
        tally.right();
        watch.rest();

        let (reply, _) = link.ask("unwrap_gift_wrap", json!({"event": wraps[0]}));
        let rumor = &reply["rumor"];
        assert_eq!((&rumor["content"], &rumor["pubkey"]), (&json!(text), &json!(PUBLIC_KEY)), "{reply}");
        assert_eq!((&rumor["tags"][0], &rumor["id"]), (&json!(["p", PEER]), &json!(event::id(rumor))), "{reply}");
        tally.right();

        // The other copy is for the peer alone.
        let (reply, _) = link.ask("unwrap_gift_wrap", json!({"event": wraps[1]}));
        let refusal = reply["error"].as_str().unwrap_or_else(|| panic!("opened: {reply}"));
        assert!(refusal.starts_with("Unwrap failed: ") && !refusal.contains(&text), "{reply}");
        tally.refused();
        watch.rest();

        let (reply, _) = link.ask("nip44_encrypt", json!({"plaintext": text, "peer_pubkey": PEER}));
        let ciphertext = reply["result"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        let (reply, _) = link.ask("nip44_decrypt", json!({"ciphertext": ciphertext, "peer_pubkey": PEER}));
        assert_eq!(reply, json!({"result": text, "error": null}));
        (0..2).for_each(|_| tally.right());
        watch.rest();

        let other = json!({"ciphertext": ciphertext, "peer_pubkey": PUBLIC_KEY});
        let (reply, _) = link.ask("nip44_decrypt", other);
        assert!(reply["result"].is_null() && reply["error"].as_str().is_some_and(|e| !e.contains(&text)), "{reply}");
        tally.refused();
    }
}
