//! Rules on the whole event, through the socket: each on both sides of its bound, by its name, and through no session,
//! restart or other way round.
//!
//! Checked, each taken out alone: the rules' being asked at all, each rule, the counting of a day's budget, its rows in the
//! journal, its snapshot.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "rules/canary.rs"]
mod canary;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::client::{code, refusal};
use support::{Client, Nsecd, PUBLIC_KEY, event};

/// As often as one likes, but for the rules.
const OPEN: &str = r#"
[key]
ceiling = "none"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7, 9734, 27235]
tokenless = "any"
limits = "none"
total = "none"
"#;

fn with(rule: &str) -> Nsecd {
    Nsecd::start(&format!(
        "{}[[socket.rule]]\n{rule}\n",
        OPEN.replace("tokenless = \"any\"", "tokenless = [1, 7, 9734, 27235]")
    ))
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn ask(client: &mut Client, params: Value) -> Value {
    client.ask("sign_event", params)
}

/// What was refused by this rule, in the error and in the alert log alike.
fn refused_by(nsecd: &Nsecd, rule: &str, reply: &Value) {
    assert_eq!((code(reply), reply["rule"].as_str()), ("rule", Some(rule)), "{reply}");
    let said = format!("refused by rule {rule}: ");
    assert!(refusal(reply).contains(&said), "{reply}");
    assert!(nsecd.alerts().contains(&said), "{}", nsecd.alerts());
}

#[test]
fn http_authentication_is_signed_for_the_listed_addresses_and_methods_only() {
    let nsecd = with("kind = 27235\ntag = { u = [\"https://api.example.org/*\"], method = [\"GET\"] }");
    let mut client = nsecd.connect();
    let mut with = |u: &str, method: &str| {
        ask(&mut client, json!({"kind": 27235, "content": "", "tags": [["u", u], ["method", method]]}))
    };
    event::signed(&with("https://api.example.org/upload?x=1", "GET"), PUBLIC_KEY);
    refused_by(&nsecd, "tag", &with("https://api.example.org.evil.example/", "GET"));
    refused_by(&nsecd, "tag", &with("https://api.example.org/upload", "DELETE"));
    let two = json!([["u", "https://api.example.org/"], ["u", "https://evil.example/"], ["method", "GET"]]);
    refused_by(&nsecd, "tag", &ask(&mut client, json!({"kind": 27235, "content": "", "tags": two})));
    refused_by(&nsecd, "tag", &ask(&mut client, json!({"kind": 27235, "content": ""})));
    // Another kind has no such rule.
    event::signed(&client.sign(1, None), PUBLIC_KEY);
}

#[test]
fn a_note_names_whom_it_may_has_what_it_must_and_is_no_longer_and_no_older() {
    let rule = format!(
        "kind = 1\nrecipients = [\"{PUBLIC_KEY}\"]\nrequire = [\"client\"]\nforbid = [\"q\"]\nmax_content = \"8B\"\ncreated_at = \"-5m..+5m\""
    );
    let nsecd = with(&rule);
    let mut client = nsecd.connect();
    let mut note = |content: &str, created_at: u64, tags: &[&[&str]]| {
        let client_tag: &[&str] = &["client", "x"];
        let tags: Vec<_> = tags.iter().copied().chain([client_tag]).collect();
        ask(&mut client, json!({"kind": 1, "content": content, "created_at": created_at, "tags": tags}))
    };
    event::signed(&note("12345678", now() - 290, &[&["p", PUBLIC_KEY]]), PUBLIC_KEY);
    event::signed(&note("", now() + 290, &[]), PUBLIC_KEY);
    refused_by(&nsecd, "recipients", &note("", now(), &[&["p", PUBLIC_KEY], &["p", &"a".repeat(64)]]));
    refused_by(&nsecd, "forbid", &note("", now(), &[&["q", "x"]]));
    refused_by(&nsecd, "max_content", &note("123456789", now(), &[]));
    refused_by(&nsecd, "created_at", &note("", now() - 310, &[]));
    refused_by(&nsecd, "created_at", &note("", now() + 310, &[]));
    refused_by(&nsecd, "require", &client.sign(1, None));
}

/// No session is a way round a rule, nor one narrowed from it.
#[test]
fn rules_hold_whoever_asks_with_whatever_session() {
    let nsecd = with("kind = 1\nforbid = [\"q\"]");
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1,7"}));
    let narrower = client.session(json!({"scope": "1", "session_token": token}));
    for token in [Value::Null, json!(token), json!(narrower)] {
        let params = json!({"kind": 1, "content": "", "tags": [["q", "x"]], "session_token": token});
        refused_by(&nsecd, "forbid", &nsecd.connect().ask("sign_event", params));
        let params = json!({"kind": 1, "content": "", "session_token": token});
        event::signed(&nsecd.connect().ask("sign_event", params), PUBLIC_KEY);
    }
}

#[test]
fn so_many_a_day_are_signed_and_no_death_or_restart_brings_more() {
    let nsecd = with("kind = 1\nper_day = 5");
    let mut client = nsecd.connect();
    for _ in 0..2 {
        event::signed(&client.sign(1, None), PUBLIC_KEY);
    }
    // A refused one is not counted.
    assert_eq!(code(&ask(&mut client, json!({"kind": 1, "content": 5}))), "bad_request");
    nsecd.kill("nsecd-broker");
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    let nsecd = nsecd.restarted(Signal::SIGKILL);
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    event::signed(&client.sign(1, Some(&token)), PUBLIC_KEY);
    for reply in [client.sign(1, None), client.sign(1, Some(&token))] {
        assert_eq!((code(&reply), reply["rule"].as_str()), ("rate_limited", Some("per_day")), "{reply}");
        assert_eq!(refusal(&reply), "Event kind 1 refused by rule per_day: 5/5 in 24 hours");
        let day = 24 * 60 * 60 * 1000;
        let wait = reply["retry_after_ms"].as_u64().unwrap();
        assert!(wait > day - 3_600_000 && wait <= day, "{wait}");
    }
    event::signed(&client.sign(7, None), PUBLIC_KEY);
}

#[test]
fn zaps_stay_within_the_amount_of_each_and_of_a_day() {
    let nsecd = with("kind = 9734\nmax_sats = 5000\nmax_sats_per_day = 10000");
    let zap = |tags: Value| nsecd.connect().ask("sign_event", json!({"kind": 9734, "content": "", "tags": tags}));
    event::signed(&zap(json!([["amount", "5000000"]])), PUBLIC_KEY);
    for tags in [
        json!([["amount", "5000001"]]),
        json!([]),
        json!([["amount", "1"], ["amount", "1"]]),
        json!([["amount", "1e3"]]),
        json!([["amount", "-1"]]),
    ] {
        refused_by(&nsecd, "max_sats", &zap(tags));
    }
    nsecd.kill("nsecd-broker");
    event::signed(&zap(json!([["amount", "4000000"]])), PUBLIC_KEY);
    let reply = zap(json!([["amount", "1000001"]]));
    assert_eq!((code(&reply), reply["rule"].as_str()), ("rate_limited", Some("max_sats_per_day")), "{reply}");
    event::signed(&zap(json!([["amount", "1000000"]])), PUBLIC_KEY);
    assert_eq!(code(&zap(json!([["amount", "1"]]))), "rate_limited");
}

/// What the gate refuses was not made: its slot of the day comes back.
#[test]
fn a_signature_that_the_gate_refuses_is_not_counted() {
    let config = OPEN.replace("ceiling = \"none\"", "ceiling = \"2, 50/s\"").replace("\"any\"", "[1]");
    let nsecd = Nsecd::start(&format!("{config}[[socket.rule]]\nkind = 1\nper_day = 20\n"));
    let mut client = nsecd.connect();
    let mut signed = 0;
    let last = loop {
        let reply = client.sign(1, None);
        match reply["rule"].as_str() {
            Some(_) => break reply,
            None => signed += usize::from(reply.get("event").is_some()),
        }
    };
    assert_eq!((signed, last["rule"].as_str()), (20, Some("per_day")), "{last}");
}
