//! After the death of a broker, a gate or the daemon everything that a session or a window was still is.
//!
//! Checked: with a broker that does not read its journal every test of this file fails; with one that writes no ends of
//! sessions, or forgets what a first session allows, the test about it does.

use super::{STRIKES, Strike, recorded, struck};
use crate::support::client::{code, refusal, refused};
use crate::support::{Nsecd, PUBLIC_KEY, client, ctl, event, not_root};
use serde_json::json;

const KINDS: &str = "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1, 7, 1111]\ntokenless = [1, 7]\n";
const UNLIMITED: &str = "limits = \"none\"\ntotal = \"none\"\n";

#[test]
fn a_session_goes_on_as_it_was_and_a_revoked_one_stays_revoked() {
    let mut nsecd = Nsecd::start(&format!("{KINDS}limits = {{ burst = 50, per_minute = 50, per_hour = 50 }}\n"));
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1,7", "ttl": 3600}));
    let narrower = client.session(json!({"scope": "7", "ttl": 1800, "session_token": token}));
    let revoked = client.session(json!({"scope": "1"}));
    let orphan = client.session(json!({"scope": "1", "session_token": revoked}));
    let short = client.session(json!({"scope": "1", "ttl": 1}));
    assert_eq!(client.ask("session_revoke", json!({ "token": revoked })), json!({"revoked": true}));
    let info = |nsecd: &Nsecd, token: &str| nsecd.connect().ask("session_info", json!({ "token": token }));
    for (i, how) in (1..).zip(STRIKES) {
        event::signed(&nsecd.connect().sign(7, Some(&token)), PUBLIC_KEY);
        event::signed(&nsecd.connect().sign(7, Some(&narrower)), PUBLIC_KEY);
        let before = [&token, &narrower].map(|t| info(&nsecd, t));
        assert_eq!(before[0]["session"]["signCount"], i);
        nsecd = struck(nsecd, how);
        for (token, before) in [&token, &narrower].into_iter().zip(before) {
            let after = info(&nsecd, token);
            assert_eq!(after["session"], before["session"], "{how:?}");
            assert_eq!(after["rateStats"]["lastHour"], before["rateStats"]["lastHour"], "{how:?}");
        }
        let mut client = nsecd.connect();
        assert_eq!(code(&client.sign(1111, Some(&token))), "out_of_scope");
        assert_eq!(code(&client.sign(1, Some(&narrower))), "out_of_scope");
        for gone in [&revoked, &orphan] {
            assert_eq!(refusal(&client.sign(1, Some(gone))), "Invalid session token", "{how:?}");
        }
    }
    // Its time went on through all of this. A kind outside its scope uses no slot until it is over.
    let mut client = nsecd.connect();
    let ended = loop {
        let reply = client.sign(7, Some(&short));
        if code(&reply) != "out_of_scope" {
            break reply;
        }
    };
    assert!(["Session expired", "Invalid session token"].contains(&refusal(&ended)), "{ended}");
    // What ends with its parent still does.
    assert_eq!(client.ask("session_revoke", json!({ "token": token })), json!({"revoked": true}));
    let nsecd = struck(nsecd, Strike::Broker);
    for gone in [&token, &narrower] {
        assert_eq!(refusal(&nsecd.connect().sign(7, Some(gone))), "Invalid session token");
    }
}

#[test]
fn a_session_keeps_its_owner() {
    if not_root("clients of two uids") {
        return;
    }
    let mut nsecd = Nsecd::start(&format!("{KINDS}mode = \"0666\"\nbind = \"first_use\"\n{UNLIMITED}"));
    let token = ctl::session(&nsecd, ctl::ALICE);
    let unbound = ctl::session(&nsecd, ctl::ALICE);
    assert_eq!(ctl::sign(&nsecd, ctl::BOB, &token).0, 0);
    for how in STRIKES {
        nsecd = struck(nsecd, how);
        for other in [ctl::ALICE, 0] {
            assert_eq!(ctl::sign(&nsecd, other, &token).0, 1, "{how:?}");
        }
        let (code, reply) = ctl::sign(&nsecd, ctl::BOB, &token);
        assert_eq!(code, 0, "{how:?}");
        event::signed(&reply, PUBLIC_KEY);
    }
    // One that nobody has used is still of whoever uses it first.
    assert_eq!(ctl::sign(&nsecd, ctl::BOB, &unbound).0, 0);
    assert_eq!(ctl::sign(&nsecd, ctl::ALICE, &unbound).0, 1);
}

/// Takes a slot before each strike and one after the last; then there is none left, and no strike makes one.
fn no_slot_comes_back(limits: &str, mut take: impl FnMut(&Nsecd) -> bool) {
    let mut nsecd = Nsecd::start(&format!("{limits}\n"));
    for how in STRIKES {
        assert!(take(&nsecd), "before {how:?}");
        nsecd = struck(nsecd, how);
    }
    assert!(take(&nsecd));
    for how in STRIKES {
        assert!(!take(&nsecd), "before {how:?}");
        nsecd = struck(nsecd, how);
        assert!(!take(&nsecd), "after {how:?}");
    }
}

fn taken(reply: &serde_json::Value) -> bool {
    match reply.get("event") {
        Some(_) => event::signed(reply, PUBLIC_KEY).is_object(),
        None => {
            assert_eq!(code(reply), "rate_limited", "{reply}");
            false
        }
    }
}

const FIVE: &str = "{ burst = 5, burst_window = \"1h\" }";

#[test]
fn no_window_is_forgiven_to_a_principal() {
    no_slot_comes_back(&format!("{KINDS}limits = {FIVE}\ntotal = \"none\""), |nsecd| {
        taken(&nsecd.connect().sign(1, None))
    });
}

/// A principal's windows are as wide as its sessions': what a session itself has used is told by session_info above.
#[test]
fn no_window_is_forgiven_to_a_session() {
    let mut token = None;
    no_slot_comes_back(&format!("{KINDS}limits = {FIVE}\ntotal = \"none\""), |nsecd| {
        let mut client = nsecd.connect();
        let token = token.get_or_insert_with(|| client.session(json!({"scope": "1"})));
        taken(&client.sign(1, Some(token)))
    });
}

#[test]
fn no_window_is_forgiven_to_a_socket() {
    no_slot_comes_back(&format!("{KINDS}limits = \"none\"\ntotal = {FIVE}"), |nsecd| {
        taken(&nsecd.connect().sign(1, None))
    });
}

#[test]
fn no_start_of_a_session_is_forgiven() {
    no_slot_comes_back(&format!("[limits]\nsessions_per_minute = 5\n{KINDS}"), |nsecd| {
        let reply = nsecd.connect().ask("session_start", json!({"scope": "1"}));
        reply["session"]["token"].is_string() || {
            assert_eq!(code(&reply), "rate_limited");
            false
        }
    });
}

#[test]
fn a_first_session_holds_its_principal_for_good() {
    let mut nsecd = Nsecd::start(&format!("{KINDS}start_sessions = \"once\"\n{UNLIMITED}"));
    let first = nsecd.connect().session(json!({"scope": "1", "ttl": 3600}));
    for how in STRIKES {
        nsecd = struck(nsecd, how);
        let mut client = nsecd.connect();
        refused(&client.ask("session_start", json!({"scope": "7"})));
        refused(&client.ask("session_start", json!({"scope": "1", "ttl": 7200})));
        assert_eq!(code(&client.sign(7, None)), "out_of_scope", "{how:?}");
        event::signed(&client.sign(1, None), PUBLIC_KEY);
        // Its end does not let go of the principal.
        client.ask("session_revoke", json!({ "token": first }));
    }
}

#[test]
fn a_request_that_waits_when_its_broker_dies_is_not_signed() {
    for role in ["nsecd-broker", "nsecd-gate"] {
        let nsecd = Nsecd::start(&format!(
            "{KINDS}on_limit = \"wait 20s\"\nlimits = {{ burst = 1, burst_window = \"20s\" }}\ntotal = \"none\"\n"
        ));
        let token = nsecd.connect().session(json!({"scope": "1"}));
        let signed = nsecd.connect().sign(1, Some(&token));
        let id = event::signed(&signed, PUBLIC_KEY)["id"].as_str().unwrap().to_string();
        let mut waiting = nsecd.connect();
        waiting.send(client::line("sign_event", json!({"kind": 1, "content": "late", "session_token": token})));
        // Answered by the loop that has read the line before.
        nsecd.serves();
        nsecd.kill(role);
        assert_eq!(waiting.line(), None, "{role}");
        // Asked without patience: the window is as full as it was.
        assert_eq!(code(&nsecd.connect().sign(1, None)), "rate_limited");
        assert_eq!(recorded(&nsecd.dir.join("state/default.record")), [id], "{role}");
    }
}
