//! A1 to A4: what the reference daemon signs for anyone, nsecd signs only within the socket's ceiling.
//!
//! Each attack is run a second time on a socket that an operator opened for it: there it succeeds, so it is the
//! policy that stops it and not a mistake in the attack. Checked: with the tokenless list, or the principal's meter,
//! taken out of the broker's policy, tests of this file fail.

use crate::support::client::{code, refusal, refused};
use crate::support::{Client, Nsecd, PUBLIC_KEY, event};
use serde_json::{Value, json};

const STRICT: &str = r#"
[[socket]]
path = "/run/x.sock"
kinds = [1, 7, 1111, 9734]
tokenless = [7]
"#;
const OPENED: &str = include_str!("../wire/data/conform.toml");
const OTHER_KINDS: [u32; 8] = [0, 3, 5, 13, 1059, 10002, 22242, 27235];

#[test]
fn without_a_token_only_the_listed_kinds_are_signed_and_always_limited() {
    let nsecd = Nsecd::start(STRICT);
    let mut client = nsecd.connect();
    for kind in OTHER_KINDS.into_iter().chain([1, 1111, 9734]) {
        for extra in [json!({}), json!({"session_token": null}), json!({"session_token": ""}), json!({"token": "x"})] {
            let mut params = json!({"kind": kind, "content": "x"});
            params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let reply = client.ask("sign_event", params);
            assert!(!refusal(&reply).is_empty(), "kind {kind}");
        }
    }
    for _ in 0..5 {
        event::signed(&client.sign(7, None), PUBLIC_KEY);
    }
    let over = client.sign(7, None);
    assert_eq!(refusal(&over), "Rate limit: burst exceeded (5/5 in 10s)");
    assert_eq!(code(&over), "rate_limited");
    assert!(over["retry_after_ms"].as_u64().is_some_and(|ms| (1..=10_000).contains(&ms)), "{over}");
}

#[test]
fn control_an_opened_socket_signs_every_kind_without_a_token() {
    let nsecd = Nsecd::start(OPENED);
    let mut client = nsecd.connect();
    for kind in OTHER_KINDS {
        event::signed(&client.sign(kind, None), PUBLIC_KEY);
    }
}

#[test]
fn no_session_exceeds_its_sockets_kinds_and_ttl() {
    let nsecd = Nsecd::start(STRICT);
    let mut client = nsecd.connect();
    for kind in OTHER_KINDS {
        for scope in [format!("{kind}"), format!("1,{kind}"), format!("{kind},1")] {
            let reply = client.ask("session_start", json!({ "scope": scope }));
            refused(&reply);
        }
    }
    for ttl in [json!(86_401), json!("86401"), json!(4_294_967_296u64), json!("31536000"), json!(u64::MAX)] {
        let reply = client.ask("session_start", json!({"scope": "1", "ttl": ttl}));
        refused(&reply);
    }
    let token = client.session(json!({"scope": "1,7", "ttl": 86_400}));
    event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
    let outside = client.sign(0, Some(&token));
    assert_eq!(refusal(&outside), "Event kind 0 not in session scope [1,7]");
    assert_eq!(code(&outside), "out_of_scope");
    assert_eq!(client.sign(1111, Some(&token))["code"], "out_of_scope");
}

#[test]
fn an_omitted_scope_or_ttl_is_clipped_to_the_ceiling() {
    let nsecd = Nsecd::start("[[socket]]\npath = \"/run/x.sock\"\nkinds = [1, 7]\nmax_ttl = \"60s\"\n");
    let reply = nsecd.connect().ask("session_start", json!({}));
    assert_eq!(reply["session"]["allowedKinds"], json!([1]));
    let expires = reply["session"]["expiresAt"].as_u64().unwrap() as f64 / 1000.0;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(expires <= now + 60.5, "expires at {expires}, now {now}");
}

#[test]
fn a_scope_or_ttl_that_is_not_what_it_says_is_refused() {
    let nsecd = Nsecd::start(STRICT);
    let mut client = nsecd.connect();
    let scopes = [
        "1,",
        ",1",
        ",",
        "1,,7",
        "abc",
        "1,abc",
        "1.5",
        "1e0",
        "-1",
        "+1",
        "0x1",
        "65537",
        "65536",
        "4294967297",
        "1 7",
        "NaN",
    ];
    let not_text = [json!(true), json!({}), json!([true]), json!(1.5), json!(-1)];
    for scope in scopes.map(|s| json!(s)).into_iter().chain(not_text) {
        let reply = client.ask("session_start", json!({ "scope": scope }));
        assert!(!refusal(&reply).is_empty(), "{scope}");
    }
    let ttls = [
        "abc",
        "true",
        "Infinity",
        "NaN",
        "1e9",
        "-1",
        "+1",
        "0",
        "0x10",
        "1.5",
        " ",
        "8h",
        "1,0",
        "99999999999999999999",
    ];
    let not_text = [json!(true), json!({}), json!([60]), json!(-1), json!(0), json!(1.5), json!(1e300)];
    for ttl in ttls.map(|t| json!(t)).into_iter().chain(not_text) {
        let reply = client.ask("session_start", json!({"scope": "1", "ttl": ttl}));
        assert!(!refusal(&reply).is_empty(), "{ttl}");
    }
    for absent in [Value::Null, json!("")] {
        client.session(json!({"scope": absent, "ttl": absent}));
    }
}

#[test]
fn twenty_sessions_of_one_principal_sign_no_more_than_one() {
    let nsecd = Nsecd::start(
        "[limits]\nsessions_per_minute = 100\nlive_sessions = 100\n[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n",
    );
    let mut clients: Vec<Client> = (0..20).map(|_| nsecd.connect()).collect();
    let tokens: Vec<_> = clients.iter_mut().map(|c| c.session(json!({"scope": "1"}))).collect();
    let mut signed = 0;
    for n in (0..20).cycle().take(100) {
        signed += u32::from(clients[n].sign(1, Some(&tokens[n])).get("event").is_some());
    }
    // 5 in any 10 s: a slow machine may see a second window, never a session's own allowance.
    assert!((5..=10).contains(&signed), "{signed} signed");
}

#[test]
fn a_principals_bucket_cannot_be_reset_by_revoking_its_name() {
    let nsecd = Nsecd::start(STRICT);
    let mut client = nsecd.connect();
    while client.sign(7, None).get("event").is_some() {}
    for name in ["__crypto_ops", "__legacy", "legacy", "default", "tokenless", "0", ""] {
        let reply = client.ask("session_revoke", json!({ "token": name }));
        assert_ne!(reply["revoked"], true, "{name}");
        assert_eq!(client.sign(7, None)["code"], "rate_limited", "{name}");
    }
}
