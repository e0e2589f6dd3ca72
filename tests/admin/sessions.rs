//! A1, A2 with the new door: sessions that the operator issues lie within their socket, keep their rules whoever narrows them and
//! whatever dies, and are what an agent gets where `start_sessions = "admin"`; no agent starts, widens or sees one of another.
//!
//! Checked: red with the rules not journaled, and with sessions kept that agents had started before. More is taken out where the
//! engine is tested alone (policy/operator.rs of the broker).

use super::owner::verified;
use crate::support::admin::connect;
use crate::support::client::{code, refusal};
use crate::support::{Client, Nsecd, PUBLIC_KEY, event};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ADMIN: &str = r#"
[key]
ceiling = "none"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7, 9734]
max_ttl = "1h"
start_sessions = "admin"
limits = "none"
total = "none"
"#;

/// Issues a session for the first socket; the reply.
fn issue(operator: &mut Client, params: Value) -> Value {
    let mut all = json!({"socket": "s"});
    all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
    operator.ask("session_start", all)
}

fn token(reply: &Value) -> String {
    reply["session"]["token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

fn note(client: &mut Client, token: &str, content: &str) -> Value {
    client.ask("sign_event", json!({"kind": 1, "content": content, "session_token": token}))
}

#[test]
fn where_the_operator_starts_sessions_an_agent_has_what_it_is_given_and_narrows_it() {
    let nsecd = Nsecd::start(ADMIN);
    let (mut agent, mut operator) = (nsecd.connect(), connect(&nsecd));
    let reply = agent.ask("session_start", json!({"scope": "1"}));
    assert_eq!(code(&reply), "forbidden");
    assert!(refusal(&reply).contains("started by its operator"), "{reply}");
    for (params, expected) in [
        (json!({"scope": "1,0"}), "out_of_scope"),
        (json!({"ttl": 3601}), "out_of_scope"),
        (json!({"account": "other"}), "forbidden"),
        (json!({"socket": "t"}), "bad_request"),
        (json!({"rules": [{"kind": 7, "per_day": 1}], "scope": "1"}), "out_of_scope"),
        (json!({"rule": []}), "bad_request"),
    ] {
        assert_eq!(code(&issue(&mut operator, params.clone())), expected, "{params}");
    }
    let given = token(&issue(&mut operator, json!({"scope": "1,7", "ttl": 3600})));
    for (scope, ttl, expected) in [("1,9734", 60, "out_of_scope"), ("1", 3601, "out_of_scope")] {
        let reply = agent.ask("session_start", json!({"scope": scope, "ttl": ttl, "session_token": given}));
        assert_eq!(code(&reply), expected, "{scope} {ttl}");
    }
    let narrower = agent.session(json!({"scope": "7", "session_token": given}));
    event::signed(&agent.sign(7, Some(&narrower)), PUBLIC_KEY);
    event::signed(&agent.sign(1, Some(&given)), PUBLIC_KEY);
    assert_eq!(code(&agent.sign(1, Some(&narrower))), "out_of_scope");
    assert_eq!(code(&agent.sign(0, Some(&given))), "out_of_scope");
    assert_eq!(
        code(&agent.ask("session_start", json!({"scope": "7", "session_token": "ab".repeat(32)}))),
        "no_session"
    );
    verified(&nsecd);
}

#[test]
fn a_sessions_rules_hold_on_both_sides_of_each_bound_and_through_death_restart_and_narrowing() {
    let nsecd = Nsecd::start(ADMIN);
    let mut operator = connect(&nsecd);
    let rules = json!([
        {"kind": 1, "max_content": "4B", "forbid": ["q"], "per_day": 4},
        {"kind": 9734, "max_sats": 5, "max_sats_per_day": 8},
    ]);
    let given = token(&issue(&mut operator, json!({"scope": "1,7,9734", "rules": rules})));
    let mut agent = nsecd.connect();
    let by = |reply: &Value, rule: &str| {
        assert_eq!(reply["rule"].as_str(), Some(rule), "{reply}");
        assert!(refusal(reply).contains("refused by the session's rule"), "{reply}");
    };
    event::signed(&note(&mut agent, &given, "1234"), PUBLIC_KEY);
    by(&note(&mut agent, &given, "12345"), "max_content");
    let narrower = agent.session(json!({"scope": "1,9734", "session_token": given}));
    by(&note(&mut agent, &narrower, "12345"), "max_content");
    event::signed(&note(&mut agent, &narrower, "x"), PUBLIC_KEY);
    let tagged = json!({"kind": 1, "content": "", "tags": [["q", "x"]], "session_token": narrower});
    by(&agent.ask("sign_event", tagged), "forbid");
    let zap = |agent: &mut Client, msats: u32| {
        let tags = json!([["amount", msats.to_string()]]);
        agent.ask("sign_event", json!({"kind": 9734, "content": "", "tags": tags, "session_token": narrower}))
    };
    by(&zap(&mut agent, 5001), "max_sats");
    event::signed(&zap(&mut agent, 5000), PUBLIC_KEY);
    nsecd.kill("nsecd-broker");
    let mut agent = nsecd.connect();
    event::signed(&note(&mut agent, &given, "x"), PUBLIC_KEY);
    by(&zap(&mut agent, 3001), "max_sats_per_day");
    event::signed(&zap(&mut agent, 3000), PUBLIC_KEY);
    let nsecd = nsecd.restarted(Signal::SIGKILL);
    let mut agent = nsecd.connect();
    event::signed(&note(&mut agent, &narrower, "x"), PUBLIC_KEY);
    for token in [&given, &narrower] {
        let reply = note(&mut agent, token, "x");
        assert_eq!(code(&reply), "rate_limited");
        by(&reply, "per_day");
    }
    by(&note(&mut agent, &given, "12345"), "max_content");
    // Its other kind is as free as before, and another session's day is its own.
    event::signed(&agent.sign(7, Some(&given)), PUBLIC_KEY);
    let other = token(&issue(&mut connect(&nsecd), json!({"scope": "1"})));
    event::signed(&note(&mut agent, &other, "12345"), PUBLIC_KEY);
    verified(&nsecd);
}

#[test]
fn sessions_are_listed_described_and_revoked_by_name_and_never_by_token() {
    let nsecd = Nsecd::start(&ADMIN.replace("\"admin\"", "\"self\""));
    let (mut agent, mut operator) = (nsecd.connect(), connect(&nsecd));
    let own = agent.session(json!({"scope": "1"}));
    let given = issue(&mut operator, json!({"scope": "1,7", "rules": [{"kind": 7, "require": ["p"]}]}));
    let (label, given) = (given["session"]["session"].as_str().unwrap().to_owned(), token(&given));
    let narrower = agent.session(json!({"scope": "7", "session_token": given}));
    let all = operator.ask("session_list", json!({"socket": nsecd.socket.to_str().unwrap()}));
    let text = all.to_string();
    for token in [&own, &given, &narrower] {
        assert!(!text.contains(token.as_str()), "{text}");
    }
    let sessions = all["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &all["left_out"]), (3, &json!(0)));
    let uid = nix::unistd::geteuid().as_raw();
    let found = |name: &str| sessions.iter().find(|s| s["session"] == name).unwrap();
    let first = found(&label);
    assert_eq!((&first["starter"], &first["owner"]["uid"]), (&json!({"operator": uid}), &json!(uid)));
    assert_eq!(
        (&first["scope"], &first["account"], &first["parent"]),
        (&json!([1, 7]), &json!("default"), &Value::Null)
    );
    let child = sessions.iter().find(|s| s["parent"] == json!(label)).expect("the narrower one");
    for session in [first, child] {
        assert_eq!(session["rules"], json!([{"kind": 7, "require": ["p"]}]), "{session}");
        assert_eq!(session["frozen"], false);
    }
    let described = operator.ask("session_info", json!({"session": first["hash"]}));
    assert_eq!(described["session"], *first);
    for (name, expected) in [(given.as_str(), "no_session"), ("0000", "bad_request"), ("000000000000", "no_session")] {
        assert_eq!(code(&operator.ask("session_info", json!({"session": name}))), expected, "{name}");
        assert_eq!(code(&operator.ask("session_revoke", json!({"session": name}))), expected, "{name}");
    }
    let revoked = operator.ask("session_revoke", json!({"session": label}));
    assert_eq!(revoked["revoked"].as_array().unwrap().len(), 2, "{revoked}");
    for token in [&given, &narrower] {
        assert_eq!(code(&agent.sign(7, Some(token))), "no_session");
    }
    event::signed(&agent.sign(1, Some(&own)), PUBLIC_KEY);
    assert_eq!(operator.ask("session_list", json!({}))["sessions"].as_array().unwrap().len(), 1);
    let nsecd = nsecd.restarted(Signal::SIGTERM);
    assert_eq!(code(&nsecd.connect().sign(7, Some(&given))), "no_session", "it stays revoked");
    verified(&nsecd);
}

/// What an agent has started before is none of the operator's.
#[test]
fn sessions_that_agents_started_end_where_the_operator_starts_them_now() {
    let nsecd = Nsecd::start(&ADMIN.replace("\"admin\"", "\"self\""));
    let own = nsecd.connect().session(json!({"scope": "1"}));
    let given = token(&issue(&mut connect(&nsecd), json!({"scope": "1"})));
    let setup = nsecd.stopped(Signal::SIGTERM);
    std::fs::write(setup.dir.join("nsecd.toml"), ADMIN).unwrap();
    let nsecd = setup.start();
    assert_eq!(code(&nsecd.connect().sign(1, Some(&own))), "no_session");
    event::signed(&nsecd.connect().sign(1, Some(&given)), PUBLIC_KEY);
}

#[test]
fn a_socket_of_an_ambiguous_name_is_named_by_its_path() {
    let second = "[[socket]]\npath = \"@DIR@/other/s.sock\"\nkinds = [1]\n";
    let setup = crate::support::Setup::new(&format!("{ADMIN}{second}"));
    setup.dir.subdir("other", 0o755, None);
    let nsecd = setup.start();
    let mut operator = connect(&nsecd);
    let reply = operator.ask("session_start", json!({"socket": "s"}));
    assert_eq!(code(&reply), "bad_request");
    let other = nsecd.dir.join("other/s.sock");
    for path in [&nsecd.socket, &other] {
        assert!(refusal(&reply).contains(path.to_str().unwrap()), "{reply}");
    }
    let given = token(&operator.ask("session_start", json!({"socket": other, "scope": "1"})));
    event::signed(&Client::connect(&other).sign(1, Some(&given)), PUBLIC_KEY);
    assert_eq!(code(&nsecd.connect().sign(1, Some(&given))), "no_session", "it is that socket's");
}
