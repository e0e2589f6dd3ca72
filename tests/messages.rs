//! Encryption and direct messages through the whole daemon, with nostr-tools at the other end.
//!
//! A6, A7, A8, A17 of SECURITY.md. The forgeries are built here, layer by layer, by tests/node/messages.js.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::client::{code, refusal};
use support::node::{modules, run};
use support::{Nsecd, PUBLIC_KEY, event};

/// Everything on, and as often as one likes.
const OPEN: &str = r#"
[key]
ceiling = "none"
ecdh_ceiling = "none"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1]
tokenless = [1]
methods = ["sign_event", "nip44", "nip04", "dm"]
limits = "none"
total = "none"
dm = "none"
crypt = "none"
"#;
/// Public keys of the secrets 5 and 7.
const PEER: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";
const OTHER: &str = "5cbdf0646e5db4eaa398f365f2ea7a0e3d419b7e0330e39ce92bddedcac4f9bc";

fn node(modules: &Path, nsecd: &Nsecd, arguments: &[&str]) -> Value {
    serde_json::from_str(&run(modules, "messages.js", &nsecd.socket, arguments)).unwrap()
}

#[test]
fn what_one_end_encrypts_or_wraps_the_other_reads_both_ways() {
    let Some(modules) = modules() else { return };
    let nsecd = Nsecd::start(OPEN);
    let counts = node(&modules, &nsecd, &["cross", "200"]);
    assert_eq!(counts, json!({"nip44": 200, "nip04": 200, "dm": 200}));
}

/// Checked: with the comparison of seal's and rumor's authors taken out, or with any verification of wrap or seal, this
/// fails.
#[test]
fn every_forged_wrap_is_refused_and_a_forged_author_raises_an_alert() {
    let Some(modules) = modules() else { return };
    let nsecd = Nsecd::start(OPEN);
    let mut answers = node(&modules, &nsecd, &["forge"]);
    let answers = answers.as_object_mut().unwrap();
    let genuine = answers.remove("genuine").unwrap();
    assert_eq!(genuine["rumor"]["content"], "SECRET hello", "control: {genuine}");
    assert_eq!(answers.len(), 14);
    for (name, answer) in answers.iter() {
        let text = refusal(answer);
        assert!(text.starts_with("Unwrap failed: "), "{name}: {answer}");
        assert!(!text.contains("SECRET") && answer.get("rumor").is_none(), "{name}: {answer}");
    }
    let of = |name: &str| refusal(&answers[name]).trim_start_matches("Unwrap failed: ");
    assert_eq!(of("another author"), "seal and rumor name different authors");
    assert_eq!(of("a seal with a bad signature"), "the seal's signature is invalid");
    assert_eq!(of("an unsigned seal"), "the seal's signature is invalid");
    assert_eq!(of("a rumor with a wrong id"), "the rumor's id does not match");
    assert_eq!(of("an unsigned wrap"), "the gift wrap's signature is invalid");
    let alerts = nsecd.alerts();
    assert!(
        alerts.contains("unwrap_gift_wrap rejected: Unwrap failed: seal and rumor name different authors"),
        "{alerts}"
    );
    assert!(!alerts.contains("SECRET"), "{alerts}");
}

/// nostr-dm after a reconnect. Under the default budgets, the default ceiling of key agreements included.
#[test]
fn of_a_backlog_of_two_hundred_among_twice_as_much_junk_no_genuine_message_is_lost() {
    let Some(modules) = modules() else { return };
    let config = OPEN.replace("dm = \"none\"\n", "").replace("ecdh_ceiling = \"none\"\n", "");
    let nsecd = Nsecd::start(&config);
    let counts = node(&modules, &nsecd, &["backlog", "200", "400"]);
    assert_eq!(counts, json!({"opened": 200, "refused": 400, "wrong": []}));
}

#[test]
fn without_the_method_nothing_is_encrypted_and_with_it_only_so_often() {
    let nsecd = Nsecd::start("[[socket]]\npath = \"/run/nsecd-test.sock\"\nkinds = [1]");
    let requests = [
        ("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": PEER})),
        (
            "nip04_decrypt",
            json!({"ciphertext": "AUWpKbGz2Np5ZC75dTuQGA==?iv=AQEBAQEBAQEBAQEBAQEBAQ==", "senderPubkey": PEER}),
        ),
        ("wrap_dm", json!({"recipientPubkey": PEER, "message": "x"})),
        ("unwrap_gift_wrap", json!({"event": {}})),
    ];
    for (method, params) in &requests {
        assert_eq!(code(&nsecd.connect().ask(method, params.clone())), "forbidden", "{method}");
    }
    assert!(nsecd.processes().iter().all(|(name, _)| name != "nsecd-ecdh"), "{:?}", nsecd.processes());
    // 500 decrypts in 2.7 s was the reference's record (A6).
    let config = OPEN.replace("crypt = \"none\"\n", "crypt = { per_minute = 7, per_hour = 9 }\n");
    let nsecd = Nsecd::start(&config);
    let mut client = nsecd.connect();
    let (decrypt, params) = &requests[1];
    let answers: Vec<Value> = (0..20).map(|_| client.ask(decrypt, params.clone())).collect();
    assert!(answers[..7].iter().all(|a| a["plaintext"] == "hello"), "{answers:?}");
    assert!(answers[7..].iter().all(|a| code(a) == "rate_limited" && a["retry_after_ms"].is_u64()), "{answers:?}");
    assert_eq!(refusal(&answers[8]), "nip04_decrypt failed: Rate limit: 7/7 per minute");
    // Not even over the broker's end.
    nsecd.kill("nsecd-broker");
    assert_eq!(code(&nsecd.connect().ask(decrypt, params.clone())), "rate_limited");
    // The owner's messages and notes are of other classes (A8).
    let mut client = nsecd.connect();
    assert!(client.ask("wrap_dm", requests[2].1.clone()).get("events").is_some());
    event::signed(&client.sign(1, None), PUBLIC_KEY);
}

#[test]
fn junk_has_a_budget_of_its_own_and_leaves_the_owners_alone() {
    let dm = "dm = { unwrap_burst = 3, unwrap_per_minute = 1, failed_per_minute = 5, wrap_per_minute = 4 }\n";
    let nsecd = Nsecd::start(&OPEN.replace("dm = \"none\"\n", dm));
    let mut client = nsecd.connect();
    let wrap = |client: &mut support::Client| client.ask("wrap_dm", json!({"recipientPubkey": OTHER, "message": "hi"}));
    let copies = wrap(&mut client)["events"].clone();
    let mut junk = || client.ask("unwrap_gift_wrap", json!({"event": {"kind": 1059, "content": "x"}}));
    let answers: Vec<Value> = (0..100).map(|_| junk()).collect();
    assert!(answers[..5].iter().all(|a| code(a) == "bad_request"), "{answers:?}");
    assert!(answers[5..].iter().all(|a| code(a) == "rate_limited"), "{answers:?}");
    let mut own = || client.ask("unwrap_gift_wrap", json!({"event": copies[0]}));
    let answers: Vec<Value> = (0..5).map(|_| own()).collect();
    assert!(answers[..3].iter().all(|a| a["rumor"]["content"] == "hi"), "{answers:?}");
    assert!(answers[3..].iter().all(|a| code(a) == "rate_limited"), "{answers:?}");
    let sent = (0..10).filter(|_| wrap(&mut client).get("events").is_some()).count();
    assert_eq!(sent, 3, "of four a minute one had been sent");
}

#[test]
fn only_peers_that_are_listed_are_written_to_and_read_from() {
    let Some(modules) = modules() else { return };
    let nsecd = Nsecd::start(&OPEN.replace("dm = \"none\"\n", &format!("dm = \"none\"\npeers = [\"{PEER}\"]\n")));
    let mut client = nsecd.connect();
    let mut encrypt = |peer: &str| client.ask("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": peer}));
    assert!(encrypt(PEER)["result"].is_string());
    assert_eq!(code(&encrypt(OTHER)), "forbidden");
    let mut wrap = |peer: &str| client.ask("wrap_dm", json!({"recipientPubkey": peer, "message": "x"}));
    assert!(wrap(PEER)["events"].is_array());
    assert_eq!(code(&wrap(OTHER)), "forbidden");
    // The outer author is a one-time key; the seal's is a stranger.
    let answers = node(&modules, &nsecd, &["forge"]);
    assert_eq!(code(&answers["genuine"]), "forbidden", "{answers}");
}

/// What one has sent is read again from the copy to oneself, whoever the peers are.
#[test]
fn with_peers_the_own_copy_opens_and_so_does_what_one_encrypts_to_oneself() {
    let nsecd = Nsecd::start(&OPEN.replace("dm = \"none\"\n", &format!("dm = \"none\"\npeers = [\"{PEER}\"]\n")));
    let mut client = nsecd.connect();
    let sent = client.ask("wrap_dm", json!({"recipientPubkey": PEER, "message": "hi"}));
    let own = client.ask("unwrap_gift_wrap", json!({"event": sent["events"][0]}));
    assert_eq!(own["rumor"]["content"], "hi", "{own}");
    let note = client.ask("nip44_encrypt", json!({"plaintext": "a note", "peer_pubkey": PUBLIC_KEY}));
    let note = client.ask("nip44_decrypt", json!({"ciphertext": note["result"], "peer_pubkey": PUBLIC_KEY}));
    assert_eq!(note["result"], "a note", "{note}");
}

#[test]
fn two_names_of_one_field_with_two_values_are_refused_and_with_one_they_are_not() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    let mut ask = |other: &str| {
        let params = json!({"plaintext": "x", "recipientPubkey": PEER, "peer_pubkey": other, "message": null});
        client.ask("nip04_encrypt", params)
    };
    assert!(ask(PEER)["ciphertext"].is_string());
    let why = "nip04_encrypt failed: recipientPubkey and peer_pubkey contradict each other: give one of them";
    assert_eq!(refusal(&ask(OTHER)), why);
}

/// Checked: with the size looked at by the ciphers only, an agreement is made for a message that no wrap can hold.
#[test]
fn a_message_too_long_for_a_gift_wrap_is_refused_before_any_key_is_asked_for() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    let mut send =
        |length: usize| client.ask("wrap_dm", json!({"recipientPubkey": PEER, "message": "x".repeat(length)}));
    let rows =
        || nsecd.files_in_state("default.ecdh.record").iter().map(|f| std::fs::metadata(f).unwrap().len()).sum::<u64>();
    let longest = (30_000..50_000).step_by(500).rev().find(|length| send(*length)["events"].is_array());
    let before = rows();
    let longest = longest.expect("some length fits");
    assert!(before > 0 && longest > 40_000, "{longest}, {before} bytes of record");
    assert_eq!(code(&send(longest + 500)), "bad_request");
    assert_eq!(rows(), before);
}

/// A7: neither a flood of other refusals nor a budget that is used up hides from the operator that somebody forges.
#[test]
fn a_forgery_is_told_however_much_junk_there_is() {
    let Some(modules) = modules() else { return };
    let dm = "dm = { failed_per_minute = 1 }\n";
    let nsecd = Nsecd::start(&OPEN.replace("dm = \"none\"\n", dm));
    let mut client = nsecd.connect();
    for _ in 0..100 {
        client.ask("unwrap_gift_wrap", json!({"event": {"kind": 1059, "content": "x"}}));
    }
    let answer = &node(&modules, &nsecd, &["forge", "another author"])["another author"];
    assert_eq!(refusal(answer), "Unwrap failed: Rate limit: 1/1 failed per minute");
    let told = "unwrap_gift_wrap rejected: Unwrap failed: seal and rumor name different authors";
    assert!(nsecd.alerts().contains(told), "{}", nsecd.alerts());
}

#[test]
fn a_token_that_is_not_good_is_refused_with_encryption_too() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    let mut encrypt = |token: Value| {
        client.ask("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": PEER, "session_token": token}))
    };
    assert!(encrypt(json!(null))["result"].is_string());
    for token in [json!(""), json!("ab"), json!(5), json!("0".repeat(64))] {
        assert_eq!(refusal(&encrypt(token)), "Invalid session token");
    }
    let token = client.session(json!({}));
    let reply = client.ask("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": PEER, "session_token": token}));
    assert!(reply["result"].is_string(), "{reply}");
}

/// A seal is of kind 13, which no socket here allows to sign.
#[test]
fn a_seal_is_signed_for_a_message_only() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    assert_eq!(code(&client.sign(13, None)), "no_session");
    let token = client.session(json!({"scope": "1"}));
    assert_eq!(code(&client.sign(13, Some(&token))), "out_of_scope");
    assert!(client.ask("wrap_dm", json!({"recipientPubkey": PEER, "message": ""}))["events"].is_array());
}

/// Two seals a message, which the automatic ceiling of notes would not last for. Checked: with seals counted in the
/// account's own ceiling, this fails.
#[test]
fn messages_use_up_their_own_ceiling_and_not_that_of_notes() {
    let total = "total = { burst = 5, burst_window = \"1h\", per_minute = 5, per_hour = 5 }";
    let config = OPEN.replace("ceiling = \"none\"\necdh", "ecdh").replace("total = \"none\"", total);
    let config = config.replace("dm = \"none\"\n", "dm = { wrap_per_minute = 20 }\n");
    let nsecd = Nsecd::start(&config);
    let mut client = nsecd.connect();
    for _ in 0..10 {
        let reply = client.ask("wrap_dm", json!({"recipientPubkey": PEER, "message": "x"}));
        assert!(reply["events"].is_array(), "{reply}");
    }
    for _ in 0..5 {
        event::signed(&client.sign(1, None), PUBLIC_KEY);
    }
    // A ceiling that is written holds for both.
    let written = config.replace("[key]\n", "[key]\nceiling = \"3, 1/h\"\n");
    let nsecd = Nsecd::start(&written);
    let mut client = nsecd.connect();
    assert!(client.ask("wrap_dm", json!({"recipientPubkey": PEER, "message": "x"}))["events"].is_array());
    event::signed(&client.sign(1, None), PUBLIC_KEY);
    assert_eq!(code(&client.sign(1, None)), "rate_limited");
    assert_eq!(code(&client.ask("wrap_dm", json!({"recipientPubkey": PEER, "message": "x"}))), "rate_limited");
}
