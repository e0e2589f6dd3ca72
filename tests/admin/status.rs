//! What `status` says, and that it is so.
//!
//! Checked: red with processes not handed over.

use crate::support::admin::connect;
use crate::support::client::code;
use crate::support::{Nsecd, PUBLIC_KEY, event, process};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[key]
ceiling = "50, 1/s"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 7]
tokenless = [1]
limits = { burst = 3 }
"#;

fn status(nsecd: &Nsecd) -> Value {
    connect(nsecd).ask("status", json!({}))
}

#[test]
fn status_tells_processes_accounts_sockets_rates_refusals_and_where_it_writes() {
    let nsecd = Nsecd::start(CONFIG);
    let mut agent = nsecd.connect();
    for _ in 0..3 {
        event::signed(&agent.sign(1, None), PUBLIC_KEY);
    }
    assert_eq!(code(&agent.sign(1, None)), "rate_limited");
    assert_eq!(code(&agent.sign(7, None)), "no_session");
    let token = agent.session(json!({"scope": "7"}));
    let told = status(&nsecd);
    assert!(!told.to_string().contains(&token), "{told}");
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    let pid =
        |name: &str| told["processes"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()["pid"].clone();
    for (name, role) in [
        ("nsecd", "nsecd"),
        ("the key-holder of account default", "nsecd-keyholder"),
        ("the gate of account default", "nsecd-gate"),
        ("the broker", "nsecd-broker"),
    ] {
        assert_eq!(pid(name), nsecd.role(role), "{told}");
    }
    for process in told["processes"].as_array().unwrap() {
        let uid = process::status(process["pid"].as_i64().unwrap() as i32)["Uid"].clone();
        assert_eq!(uid.split_whitespace().next(), Some(&*process["uid"].to_string()), "{process}");
    }
    let account = &told["accounts"][0];
    assert_eq!((&account["pubkey"], &account["ceiling"]), (&json!(PUBLIC_KEY), &json!("50, 1/s")));
    assert_eq!((&account["kinds"], &account["record"]["rows"]), (&json!([1, 7]), &json!(3)));
    let socket = &told["sockets"][0];
    assert_eq!((&socket["name"], &socket["start_sessions"]), (&json!("s"), &json!("self")));
    assert_eq!((&socket["connections"], &socket["sessions"]), (&json!(1), &json!(1)));
    assert_eq!(socket["refusals"], json!({"rate_limited": 1, "no_session": 1}));
    let who = &socket["principals"][0];
    assert_eq!(who["rates"]["burst"], json!({"used": 3, "most": 3, "seconds": 10}));
    assert_eq!((&who["connections"], &socket["total"]["minute"]["used"]), (&json!(1), &json!(3)));
    assert_eq!((&told["journal"]["writable"], &told["decision_log"]["writable"]), (&json!(true), &json!(true)));
    assert!(told["decision_log"]["line"].as_u64().unwrap() > 6, "{told}");
    // Counts of refusals are since the broker's start; rows and windows are not.
    nsecd.kill("nsecd-broker");
    let told = status(&nsecd);
    assert_eq!(told["sockets"][0]["refusals"], json!({}));
    assert_eq!(
        (&told["accounts"][0]["record"]["rows"], &told["sockets"][0]["total"]["hour"]["used"]),
        (&json!(3), &json!(3))
    );
}

#[test]
fn what_is_switched_off_is_among_the_warnings() {
    let config = CONFIG
        .replace("\"50, 1/s\"", "\"none\"")
        .replace("limits = { burst = 3 }", "limits = \"none\"\ntotal = \"none\"");
    let nsecd = Nsecd::start(&format!("{config}[holder]\nrecord = false\n"));
    let told = status(&nsecd);
    let warnings = told["warnings"].to_string();
    for what in ["record = false", "ceiling = \\\"none\\\"", "limits = \\\"none\\\"", "total = \\\"none\\\""] {
        assert!(warnings.contains(what), "{what}: {warnings}");
    }
    assert_eq!(told["accounts"][0]["record"], Value::Null);
    let quiet = status(&Nsecd::start(CONFIG))["warnings"].to_string();
    assert!(!quiet.contains("none") && !quiet.contains("record"), "control: {quiet}");
}
