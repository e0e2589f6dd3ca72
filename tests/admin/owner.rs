//! The owner's own signing: any kind that the account allows, whatever the sockets allow; on record like everything else.
//!
//! Checked: red with the gate's refusals passed on without advice.

use crate::support::admin::connect;
use crate::support::client::{code, refusal};
use crate::support::control::{freeze, thaw};
use crate::support::{Nsecd, PUBLIC_KEY, event};
use serde_json::{Value, json};
use std::fs;

/// An account that may sign profiles, and a socket that may not.
const CONFIG: &str = r#"
[key]
kinds = [0, 1, 3]
ceiling = "4, 1/h"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1]
tokenless = [1]
[[socket.rule]]
kind = 1
per_day = 1
"#;

fn lines(nsecd: &Nsecd) -> Vec<Value> {
    let text = fs::read_to_string(nsecd.dir.join("state/decisions.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The decision log and the records agree.
pub fn verified(nsecd: &Nsecd) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nsecctl"));
    let output = command.args(["audit", "verify", "--state-dir"]).arg(nsecd.dir.join("state")).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_owner_signs_what_the_account_allows_and_no_socket_does_and_it_is_on_record() {
    let nsecd = Nsecd::start(CONFIG);
    let mut operator = connect(&nsecd);
    assert_eq!(code(&nsecd.connect().sign(0, None)), "no_session", "control: the agent may not");
    let profile = json!({"kind": 0, "content": "{\"name\":\"x\"}", "tags": [["t", "a"]], "created_at": 1_700_000_000});
    // The account's own window is that of its sockets.
    let reply = operator.ask("sign_event", profile);
    assert_eq!(code(&reply), "out_of_scope", "{reply}");
    assert!(refusal(&reply).contains("give another created_at"), "{reply}");
    // The socket's rule for kind 1 is not the owner's.
    for kind in [0, 1, 1] {
        let reply = operator.ask("sign_event", json!({"kind": kind, "content": "x", "tags": [["t", "a"]]}));
        event::signed(&reply, PUBLIC_KEY);
        assert_eq!(reply["event"]["kind"], kind);
    }
    let own: Vec<Value> = lines(&nsecd).into_iter().filter(|l| l["is"] == "intent").collect();
    assert_eq!(own.len(), 4);
    let uid = nix::unistd::geteuid().as_raw();
    assert!(own.iter().all(|l| l["socket"] == "admin" && l["uid"] == uid && l["method"] == "sign_event"), "{own:?}");
    let record = fs::metadata(nsecd.dir.join("state/default.record")).unwrap().len();
    assert_eq!(record, 64 * 4, "a header and three rows");
    // And an agent's day of one note is as it was.
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    verified(&nsecd);
}

#[test]
fn what_the_gate_refuses_says_what_to_change() {
    let nsecd = Nsecd::start(CONFIG);
    let mut operator = connect(&nsecd);
    let mut sign = |kind: u32| operator.ask("sign_event", json!({"kind": kind, "content": "x"}));
    let reply = sign(5);
    assert_eq!(code(&reply), "out_of_scope");
    assert!(refusal(&reply).contains("add 5 to its kinds in the configuration"), "{reply}");
    freeze(&nsecd);
    let reply = sign(0);
    assert_eq!(code(&reply), "frozen");
    assert!(refusal(&reply).contains("nsecctl thaw --account default"), "{reply}");
    thaw(&nsecd);
    for _ in 0..4 {
        event::signed(&sign(0), PUBLIC_KEY);
    }
    let reply = sign(0);
    assert_eq!(code(&reply), "rate_limited");
    assert!(refusal(&reply).contains("higher ceiling") && reply["retry_after_ms"].as_u64().unwrap() > 0, "{reply}");
    let reply = operator.ask("sign_event", json!({"kind": 0, "content": "", "account": "other"}));
    assert_eq!((code(&reply), refusal(&reply)), ("forbidden", "Unknown or unloaded account: other. Loaded: default"));
    let told = lines(&nsecd);
    let last = told.last().unwrap();
    assert_eq!(
        (&last["is"], &last["socket"], &last["rule"]),
        (&json!("decided"), &json!("admin"), &json!("forbidden"))
    );
    verified(&nsecd);
}
