//! What a token is, what it says of itself, and how it ends.

use crate::support::client::{code, refusal};
use crate::support::{Nsecd, PUBLIC_KEY, event};
use serde_json::{Value, json};

const KINDS: &str = "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1, 7, 1111]\nmax_ttl = \"1h\"\n";

#[test]
fn a_session_ends_with_its_ttl_and_its_token_is_then_unknown() {
    let nsecd = Nsecd::start(KINDS);
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1", "ttl": 1}));
    // A kind outside the scope is refused without using a slot, until the session has expired.
    let ended = loop {
        let reply = client.sign(7, Some(&token));
        if code(&reply) != "out_of_scope" {
            break reply;
        }
    };
    assert_eq!((refusal(&ended), code(&ended)), ("Session expired", "expired"));
    for _ in 0..2 {
        let reply = client.sign(1, Some(&token));
        assert_eq!((refusal(&reply), code(&reply)), ("Invalid session token", "no_session"));
    }
    let info = client.ask("session_info", json!({ "token": token }));
    assert_eq!(info, json!({"session": null, "rateStats": null}));
}

#[test]
fn session_info_says_what_the_session_may_and_did() {
    let nsecd = Nsecd::start(KINDS);
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1,7", "ttl": "600"}));
    event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
    let reply = client.ask("session_info", json!({ "token": token }));
    let session = &reply["session"];
    assert_eq!(
        (&session["allowedKinds"], &session["signCount"], &session["expired"]),
        (&json!([1, 7]), &json!(1), &json!(false))
    );
    let life = session["expiresAt"].as_u64().unwrap() - session["createdAt"].as_u64().unwrap();
    assert_eq!(life, 600_000);
    let stats = &reply["rateStats"];
    assert_eq!((&stats["lastMinute"], &stats["lastHour"]), (&json!(1), &json!(1)));
    assert_eq!(stats["limits"], json!({"perMinute": 10, "perHour": 100, "burstWindow": 10_000, "burstMax": 5}));
}

#[test]
fn a_revoked_token_signs_nothing_more() {
    let nsecd = Nsecd::start(KINDS);
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    assert_eq!(client.ask("session_revoke", json!({ "token": token })), json!({"revoked": true}));
    assert_eq!(client.ask("session_revoke", json!({ "token": token })), json!({"revoked": false}));
    assert_eq!(refusal(&client.sign(1, Some(&token))), "Invalid session token");
}

#[test]
fn a_narrower_session_is_never_wider_or_longer_than_the_one_it_came_from() {
    let nsecd = Nsecd::start(KINDS);
    let mut client = nsecd.connect();
    let parent = client.session(json!({"scope": "1,7", "ttl": 600}));
    let mut start = |params: Value| {
        let mut all = json!({ "session_token": parent });
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        client.ask("session_start", all)
    };
    for wider in [json!({"scope": "1,7,1111"}), json!({"scope": "1111"}), json!({"scope": "1", "ttl": 3600})] {
        assert!(refusal(&start(wider.clone())).len() > 1, "{wider}");
    }
    let child = start(json!({"scope": "7", "ttl": 60}))["session"].clone();
    assert_eq!(child["allowedKinds"], json!([7]));
    // Nothing said is clipped to the parent.
    let clipped = start(json!({}))["session"].clone();
    assert_eq!(clipped["allowedKinds"], json!([1]));
    let expires = |token: &str, client: &mut crate::support::Client| {
        client.ask("session_info", json!({ "token": token }))["session"]["expiresAt"].as_u64().unwrap()
    };
    assert!(clipped["expiresAt"].as_u64().unwrap() <= expires(&parent, &mut client) + 1);
    let token = child["token"].as_str().unwrap();
    event::signed(&client.sign(7, Some(token)), PUBLIC_KEY);
    assert_eq!(code(&client.sign(1, Some(token))), "out_of_scope");
}

#[test]
fn the_least_recently_used_session_ends_when_a_principal_has_too_many() {
    let nsecd = Nsecd::start(&format!(
        "[limits]\nlive_sessions = 3\nsessions_per_minute = 100\nburst = 100\nper_minute = 100\n{KINDS}"
    ));
    let mut client = nsecd.connect();
    let tokens: Vec<String> = (0..3).map(|_| client.session(json!({"scope": "1"}))).collect();
    for token in [&tokens[1], &tokens[2], &tokens[0]] {
        event::signed(&client.sign(1, Some(token)), PUBLIC_KEY);
    }
    client.session(json!({"scope": "1"}));
    assert_eq!(refusal(&client.sign(1, Some(&tokens[1]))), "Invalid session token");
    for token in [&tokens[0], &tokens[2]] {
        event::signed(&client.sign(1, Some(token)), PUBLIC_KEY);
    }
}

#[test]
fn tokens_differ_and_none_lies_in_the_state_directory() {
    let nsecd = Nsecd::start(&format!("[limits]\nsessions_per_minute = 100\n{KINDS}"));
    let mut client = nsecd.connect();
    let tokens: Vec<String> = (0..20).map(|_| client.session(json!({"scope": "1"}))).collect();
    for token in &tokens {
        assert!(token.len() == 64 && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{token}");
        client.sign(0, Some(token));
    }
    let mut sorted = tokens.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 20);
    let mut all = nsecd.stderr();
    for file in nsecd.files_in_state("") {
        all += &String::from_utf8_lossy(&std::fs::read(file).unwrap());
    }
    assert!(tokens.iter().all(|t| !all.contains(t.as_str())));
}
