//! What agents encrypt and decrypt is nowhere once it is answered: not in the broker's buffers, its parser, its stack, nor in
//! what a message is made from.
//!
//! Checked, each taken out alone: the allocator that wipes, the framer's wiping of what it has given out and of what it
//! moves, the wiping of what was received.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::forms::Forms;
use crate::scan;
use crate::support::client::line;
use crate::support::daemon::Setup;
use crate::support::{event::hex, not_root};

const OPEN: &str = r#"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1]
methods = ["sign_event", "nip44", "nip04", "dm"]
crypt = "none"
"#;
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";

/// A text that nothing else has.
fn text(name: &str) -> String {
    hex(&Sha256::digest(name))
}

#[test]
fn no_text_that_was_encrypted_or_decrypted_is_left_in_any_memory() {
    if not_root("reading another process's memory") {
        return;
    }
    let nsecd = Setup::new(OPEN).start();
    let names = ["nip44", "nip04", "message", "title", "a long one", "two at once", "refused", "unfinished"];
    let texts: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (*name, text(name).into_bytes())).collect();
    let forms = Forms::raw(&texts);
    // One connection stays open; others come and go.
    let mut client = nsecd.connect();
    for name in ["nip44", "nip04"] {
        let (key, peer) = if name == "nip44" { ("result", "peer_pubkey") } else { ("ciphertext", "recipientPubkey") };
        let sent = client.ask(&format!("{name}_encrypt"), json!({"plaintext": text(name), peer: PEER}));
        let peer = if name == "nip44" { "peer_pubkey" } else { "senderPubkey" };
        let back = nsecd.connect().ask(&format!("{name}_decrypt"), json!({"ciphertext": sent[key], peer: PEER}));
        assert!(back.to_string().contains(&text(name)), "{back}");
    }
    let params = json!({"recipientPubkey": PEER, "message": text("message"), "conversationTitle": text("title")});
    let sent = client.ask("wrap_dm", params);
    let opened = nsecd.connect().ask("unwrap_gift_wrap", json!({"event": sent["events"][0]}));
    assert_eq!(opened["rumor"]["content"], text("message"), "{opened}");
    let long = text("a long one").repeat(1000);
    assert!(client.ask("nip44_encrypt", json!({"plaintext": long, "peer_pubkey": PEER}))["result"].is_string());
    // A request and most of another in one packet: the second is moved to the front once the first is answered.
    let twice = line("nip44_encrypt", json!({"plaintext": text("two at once"), "peer_pubkey": PEER}));
    let (most, last) = twice.split_at(twice.len() - 2);
    client.send(format!("{twice}{most}"));
    assert!(client.reply()["result"].is_string());
    client.send(last);
    assert!(client.reply()["result"].is_string());
    assert!(
        client.ask("nip44_encrypt", json!({"plaintext": text("refused"), "peer_pubkey": "x"}))["error"].is_string()
    );

    // Control: while a request is unfinished, its text is there to be found.
    let unfinished = line("nip44_encrypt", json!({"plaintext": text("unfinished"), "peer_pubkey": PEER}));
    let (all_but_one, last) = unfinished.split_at(unfinished.len() - 2);
    client.send(all_but_one);
    nsecd.serves();
    let broker = nsecd.role("nsecd-broker");
    assert!(scan(&forms, broker).iter().any(|found| found.starts_with("unfinished")), "control");
    client.send(last);
    assert!(client.reply()["result"].is_string());
    for (name, pid) in nsecd.processes() {
        let found = scan(&forms, pid);
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}
