//! `nsecctl policy`: check says what `nsecd --check` says, and explain what a running nsecd does.
//!
//! Checked: with the rules left out of the policy that explain and the broker are handed (`config::handed`), explain's fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use support::{Client, Dir, Nsecd, PUBLIC_KEY};

/// A socket for each rule that has two sides, and one without tokens.
const CONFIG: &str = r#"
[key]
ceiling = "none"
kinds = [1, 4, 7, 1111, 9734, 27235]
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7, 9734, 27235]
tokenless = [1, 9734, 27235]
limits = "none"
total = "none"
[[socket.rule]]
kind = 27235
tag = { u = ["https://api.example.org/*"], method = ["GET"] }
[[socket.rule]]
kind = 9734
max_sats = 5000
max_sats_per_day = 6000
[[socket.rule]]
kind = 1
recipients = ["f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"]
require = ["client"]
forbid = ["q"]
max_content = "8B"
created_at = "-5m..+5m"
per_day = 50
[[socket.rule]]
kind = 4
canary = true
"#;

fn ctl(arguments: &[&str], input: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    command
        .arg("policy")
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn explain_says_of_every_event_what_a_running_nsecd_says() {
    let nsecd = Nsecd::start(CONFIG);
    let file = nsecd.dir.join("nsecd.toml");
    let note = |content: &str, age: i64, tags: Value| json!({"kind": 1, "content": content, "created_at": now() as i64 + age, "tags": tags});
    let zap = |tags: Value| json!({"kind": 9734, "content": "", "tags": tags});
    let auth =
        |url: &str, method: &str| json!({"kind": 27235, "content": "", "tags": [["u", url], ["method", method]]});
    let other = "a".repeat(64);
    let c = json!(["client", "x"]);
    // The event, the scope of a session if one asks, and the rule that decides, if one does.
    let cases: Vec<(Value, Option<&str>, &str)> = vec![
        (note("12345678", 0, json!([c])), None, ""),
        (note("123456789", 0, json!([c])), None, "max_content"),
        (note("", -290, json!([c])), None, ""),
        (note("", -310, json!([c])), None, "created_at"),
        (note("", 290, json!([c])), None, ""),
        (note("", 310, json!([c])), None, "created_at"),
        (note("", 0, json!([])), None, "require"),
        (note("", 0, json!([c, ["q", "x"]])), None, "forbid"),
        (note("", 0, json!([c, ["p", PUBLIC_KEY]])), None, ""),
        (note("", 0, json!([c, ["p", other]])), None, "recipients"),
        (note("", 0, json!([c])), Some("1"), ""),
        (note("", 0, json!([])), Some("1,7"), "require"),
        (note("", 0, json!([c])), Some("7"), "-"),
        (auth("https://api.example.org/x", "GET"), None, ""),
        (auth("https://api.example.org.evil/", "GET"), None, "tag"),
        (auth("https://api.example.org/x", "PUT"), None, "tag"),
        (zap(json!([["amount", "5000000"]])), None, ""),
        (zap(json!([["amount", "5000001"]])), None, "max_sats"),
        (zap(json!([])), None, "max_sats"),
        (json!({"kind": 7, "content": "+"}), None, "-"),
        (json!({"kind": 7, "content": "+"}), Some("7"), ""),
        (json!({"kind": 0, "content": "{}"}), None, "-"),
        (json!({"kind": 0, "content": "{}"}), Some("0"), "-"),
        (json!({"kind": 1111, "content": ""}), Some("1,1111"), "-"),
        (json!({"kind": "1", "content": ""}), None, "-"),
        (json!({"kind": 1}), None, "-"),
        (json!({"kind": 1, "content": "", "tags": [[1]]}), None, "-"),
        (json!({"kind": 1, "content": "", "created_at": 5}), None, "-"),
        (json!({"kind": 1, "content": "", "pubkey": "ab"}), None, "-"),
        // Last: it may hold whoever tries it.
        (json!({"kind": 4, "content": ""}), None, "canary"),
    ];
    let mut told = std::collections::BTreeSet::new();
    for (event, scope, rule) in cases {
        let arguments = ["explain", "--json", "--config", file.to_str().unwrap(), "--event", "-"];
        let session = scope.map(|scope| format!("--scope={scope}"));
        let all: Vec<&str> = arguments.into_iter().chain(session.as_deref()).collect();
        let (exit, text) = ctl(&all, &event.to_string());
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {event}: {text}"));
        let done = asked(&mut nsecd.connect(), event.clone(), scope);
        assert_eq!(
            (exit == 0, said["signed"] == true),
            (done["event"].is_object(), exit == 0),
            "{event}: {said}\n{done}"
        );
        if exit != 0 {
            let error = &said["refusal"];
            assert_eq!((&error["error"], &error["code"]), (&done["error"], &done["code"]), "{event}");
            assert_eq!(error["rule"], done["rule"], "{event}");
            assert!(said["would_allow"].as_str().is_some_and(|advice| advice.len() > 10), "{said}");
        }
        match rule {
            "" => assert_eq!(exit, 0, "{event}: {said}"),
            "-" => assert_eq!(exit, 1, "{event}: {said}"),
            rule => assert_eq!(said["decided_by"], rule, "{event}: {said}"),
        }
        told.insert(rule);
    }
    for rule in ["max_content", "created_at", "require", "forbid", "recipients", "tag", "max_sats", "canary"] {
        assert!(told.contains(rule), "never tried: {rule}");
    }
}

/// The same of nsecd itself.
fn asked(client: &mut Client, mut event: Value, scope: Option<&str>) -> Value {
    if let Some(scope) = scope {
        let started = client.ask("session_start", json!({"scope": scope}));
        if started["session"].is_null() {
            return started;
        }
        event["session_token"] = started["session"]["token"].clone();
    }
    client.ask("sign_event", event)
}

#[test]
fn check_says_what_nsecd_says() {
    let dir = Dir::new(None);
    for (text, code) in [(CONFIG, 0), ("[[socket]]\npath = 5\n", 1), ("[sokcet]\n", 1)] {
        let file = dir.file("nsecd.toml", 0o600, None, text.as_bytes());
        let file = file.to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nsecd"));
        let nsecd = command.args(["--check", file]).env_clear().env("HOME", "/nonexistent").output().unwrap();
        assert_eq!(nsecd.status.code(), Some(code), "{}", String::from_utf8_lossy(&nsecd.stdout));
        let (exit, said) = ctl(&["check", file], "");
        assert_eq!((exit, said), (code, String::from_utf8(nsecd.stdout).unwrap()));
        let (exit, said) = ctl(&["check", "--json", file], "");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((exit, said["ok"] == true), (code, code == 0), "{said}");
    }
    let (exit, said) = ctl(&["explain", "--profile", "nanoclaw", "--kind", "0"], "");
    assert!(exit == 1 && said.contains("allowed with kind 0 in `kinds`"), "{said}");
}
