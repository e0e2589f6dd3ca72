//! Those who behave: sessions from their start to their end, signatures, and requests that must be refused.

use super::link::{Link, Tally, Watch};
use crate::support::client::line;
use crate::support::{PUBLIC_KEY, event};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// A content that nobody else asks for, with all that JSON escapes.
pub fn content() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{} \"\\\n\u{1}\u{7f} é \u{2028} 漢 \u{1f600}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The event that was asked for, signed.
pub fn signed(reply: &Value, asked: &Value) {
    let event = event::signed(reply, PUBLIC_KEY);
    for field in ["kind", "content", "tags"] {
        assert_eq!(event[field], asked[field], "{field}: not what was asked for: {reply}");
    }
}

/// The refusal that must come, word for word.
pub fn refused(reply: &Value, text: &str, code: &str) {
    assert_eq!((reply["error"].as_str(), reply["code"].as_str()), (Some(text), Some(code)), "{reply}");
}

fn note(kind: u32) -> Value {
    json!({"kind": kind, "content": content(), "tags": [["t", "soak"], ["e", "ab".repeat(32)]]})
}

fn under(token: &str, mut params: Value) -> Value {
    params["session_token"] = json!(token);
    params
}

/// Starts a session; its token.
fn start(link: &mut Link, params: Value, kinds: Value) -> String {
    let (reply, _) = link.ask("session_start", params);
    assert_eq!(reply["session"]["allowedKinds"], kinds, "{reply}");
    reply["session"]["token"].as_str().unwrap().to_owned()
}

/// Signs under a session; what may have been signed besides, since its reply was cut off.
fn sign(link: &mut Link, tally: &Tally, token: &str, kind: u32) -> u64 {
    let asked = note(kind);
    let (reply, cut) = link.ask("sign_event", under(token, asked.clone()));
    signed(&reply, &asked);
    tally.right();
    cut as u64
}

/// One session for good, which outlives every death, and others that are started, narrowed, asked about and revoked.
pub fn sessions(watch: &Watch, tally: &Tally) {
    let mut link = Link::new(watch, tally, 0);
    let whole = json!([1, 1111]);
    let oldest = start(&mut link, json!({"scope": "1,1111", "ttl": 86_400}), whole.clone());
    while !watch.is_over() {
        sign(&mut link, tally, &oldest, 1111);
        let token = start(&mut link, json!({"scope": "1,1111", "ttl": "600"}), whole.clone());
        let mut perhaps = 0;
        for kind in [1, 1111, 1, 1] {
            perhaps += sign(&mut link, tally, &token, kind);
            watch.rest();
        }
        let (reply, _) = link.ask("sign_event", under(&token, note(7)));
        refused(&reply, "Event kind 7 not in session scope [1,1111]", "out_of_scope");
        tally.refused();

        let narrow = start(&mut link, json!({"scope": "1", "session_token": token}), json!([1]));
        sign(&mut link, tally, &narrow, 1);
        let (reply, _) = link.ask("sign_event", under(&narrow, note(1111)));
        refused(&reply, "Event kind 1111 not in session scope [1]", "out_of_scope");
        tally.refused();

        let (reply, _) = link.ask("session_info", json!({"token": token}));
        let count = reply["session"]["signCount"].as_u64().unwrap_or_else(|| panic!("{reply}"));
        // The narrower session's signature counts in both.
        assert!((4..=5 + perhaps).contains(&count), "{count} signatures, {perhaps} replies cut off: {reply}");
        assert_eq!((&reply["session"]["allowedKinds"], &reply["session"]["expired"]), (&whole, &json!(false)));
        tally.right();

        let (reply, cut) = link.ask("session_revoke", json!({"token": token}));
        assert!(reply == json!({"revoked": true}) || cut > 0 && reply == json!({"revoked": false}), "{reply}");
        for gone in [&token, &narrow] {
            let (reply, _) = link.ask("sign_event", under(gone, note(1)));
            refused(&reply, "Invalid session token", "no_session");
            tally.refused();
        }
        watch.rest();
    }
}

/// Several requests sent before the first reply is read, answered in their order.
pub fn ahead(watch: &Watch, tally: &Tally) {
    let mut link = Link::new(watch, tally, 0);
    while !watch.is_over() {
        let asked: Vec<Value> = (0..4).map(|_| note(7)).collect();
        let lines: String = asked.iter().map(|params| line("sign_event", params.clone())).collect();
        let (replies, _) = link.ask_all(&lines, asked.len());
        for (reply, asked) in replies.iter().zip(&asked) {
            signed(reply, asked);
            tally.right();
        }
        watch.rest();
    }
}

/// A connection for each request, as NanoClaw's tools make it.
pub fn single(watch: &Watch, tally: &Tally) {
    let mut link = Link::new(watch, tally, 0);
    while !watch.is_over() {
        let asked = note(7);
        signed(&link.ask_once("sign_event", asked.clone()).0, &asked);
        assert_eq!(link.ask_once("get_public_key", json!({})).0, json!({"pubkey": PUBLIC_KEY}));
        let accounts = json!({"accounts": [{"name": "default", "pubkey": PUBLIC_KEY, "default": true}]});
        assert_eq!(link.ask_once("list_accounts", json!({})).0, accounts);
        (0..3).for_each(|_| tally.right());
        watch.rest();
    }
}

/// What must be refused, and how.
pub fn refusals(watch: &Watch, tally: &Tally) {
    let mut link = Link::new(watch, tally, 0);
    let note = |kind: u32| json!({"kind": kind, "content": ""});
    let token = "ab".repeat(32);
    let other = json!({"kind": 7, "content": "", "account": "other"});
    let cases: [(&str, Value, &str, &str); 9] = [
        ("sign_event", note(0), "Event kind 0 not allowed without a session token", "no_session"),
        ("sign_event", note(1), "Event kind 1 not allowed without a session token", "no_session"),
        ("sign_event", json!({"content": "x"}), "Missing required field: kind", "bad_request"),
        ("sign_event", json!({"kind": 7}), "Missing required field: content", "bad_request"),
        ("sign_event", under(&token, note(1)), "Invalid session token", "no_session"),
        ("sign_event", other, "Unknown or unloaded account: other. Loaded: default", "forbidden"),
        ("nip04_encrypt", json!({"plaintext": "x", "recipientPubkey": PUBLIC_KEY}), "", "forbidden"),
        ("session_start", json!({"scope": "0"}), "", "out_of_scope"),
        ("rm -rf", json!({}), "Unknown method: rm -rf", "bad_request"),
    ];
    while !watch.is_over() {
        for (method, params, text, code) in &cases {
            let (reply, _) = link.ask(method, params.clone());
            let said =
                if text.is_empty() { reply["error"].as_str().unwrap_or_default().to_owned() } else { (*text).into() };
            refused(&reply, &said, code);
            tally.refused();
            watch.rest();
        }
    }
}
