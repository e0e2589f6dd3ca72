//! nsecctl as the operator: over the admin socket where `--admin`, `--for` or a session's name says so, and nowhere else.

use crate::support::admin::connect;
use crate::support::control::freeze;
use crate::support::{Nsecd, PUBLIC_KEY, event};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

const CONFIG: &str = r#"
[key]
kinds = [0, 1, 7]
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7]
start_sessions = "admin"
"#;

/// nsecctl in this admin directory: exit code, standard output, standard error.
fn ctl(nsecd: &Nsecd, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    command.args(words).arg("--admin-dir").arg(nsecd.dir.join("admin")).env_clear().stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn the_operator_issues_lists_and_revokes_sessions_and_signs() {
    let nsecd = Nsecd::start(CONFIG);
    let rules = nsecd.dir.file("rules.toml", 0o600, None, b"[[rule]]\nkind = 1\nmax_content = \"5B\"\n");
    let saved = nsecd.dir.join("token");
    let words = ["session", "start", "--for", "s", "--scope", "1,7", "--ttl", "1h"];
    let files = ["--rules", rules.to_str().unwrap(), "--save", saved.to_str().unwrap()];
    let (code, out, err) = ctl(&nsecd, &[&words[..], &files].concat());
    assert_eq!(code, 0, "{out}{err}");
    let session = &json(&out)["session"];
    let (name, token) = (session["session"].as_str().unwrap(), session["token"].as_str().unwrap());
    assert_eq!(fs::read_to_string(&saved).unwrap().trim(), token);
    let mut agent = nsecd.connect();
    // "hello": five bytes.
    event::signed(&agent.sign(1, Some(token)), PUBLIC_KEY);
    let (code, out, _) = ctl(&nsecd, &["session", "list", "--for", "s"]);
    assert_eq!((code, &json(&out)["sessions"][0]["session"]), (0, &name.into()));
    assert!(!out.contains(token), "{out}");
    let (code, out, _) = ctl(&nsecd, &["session", "info", name]);
    assert_eq!((code, &json(&out)["session"]["signCount"]), (0, &1.into()));
    let (code, out, _) = ctl(&nsecd, &["session", "revoke", name]);
    assert_eq!((code, &json(&out)["revoked"]), (0, &serde_json::json!([name])));
    assert_eq!(agent.sign(1, Some(token))["code"], "no_session");
    assert_eq!(ctl(&nsecd, &["session", "revoke", name]).0, 1, "it has ended");
    let (code, out, _) = ctl(&nsecd, &["sign", "--admin", "--kind", "0", "--content", "{}"]);
    assert_eq!(code, 0, "{out}");
    event::signed(&json(&out), PUBLIC_KEY);
    let (code, out, _) = ctl(&nsecd, &["pubkey", "--admin"]);
    assert_eq!((code, &json(&out)["pubkey"]), (0, &PUBLIC_KEY.into()));
}

#[test]
fn status_is_for_people_and_with_json_for_programs_and_says_what_is_frozen() {
    let nsecd = Nsecd::start(CONFIG);
    freeze(&nsecd);
    let (code, out, err) = ctl(&nsecd, &["status", "--json"]);
    assert_eq!(code, 0, "{err}");
    let status = json(&out);
    assert!(status["accounts"][0]["frozen"].as_str().unwrap().starts_with("20"), "{status}");
    let gate = status["processes"].as_array().unwrap().iter().find(|p| p["name"] == "the gate of account default");
    let kernel = &gate.unwrap()["kernel"];
    assert!(kernel["seccomp_filters"].as_u64() >= Some(1) && kernel["no_new_privs"] == true, "{status}");
    assert_eq!(kernel["capabilities"], "none");
    let (code, out, _) = ctl(&nsecd, &["status"]);
    assert_eq!(code, 0);
    for text in
        [PUBLIC_KEY, "FROZEN since 20", "sessions by admin", "the broker (pid ", "capabilities none", "journal: "]
    {
        assert!(out.contains(text), "{text}: {out}");
    }
}

#[test]
fn where_nobody_answers_nsecctl_says_so_and_what_it_is_for() {
    let nsecd = Nsecd::start(CONFIG);
    connect(&nsecd).public_key();
    let setup = nsecd.stopped(nix::sys::signal::Signal::SIGTERM);
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    let output = command.args(["status", "--admin-dir"]).arg(setup.dir.join("admin")).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("admin.sock") && err.contains("no nsecd serves it"), "{err}");
}
