//! The log and the records checked by somebody else: the script of docs/records.md, which is not nsecd's code.

use super::{OPEN, encrypt, sign, strike};
use crate::support::{Nsecd, Setup, control, missing};
use nix::sys::signal::Signal;
use nsecd_policy::operator::{Command, Status};
use serde_json::json;
use std::fs;
use std::path::Path;

/// The document's Python, run on a state directory.
fn script(state: &Path) -> (bool, String) {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/records.md")).unwrap();
    let code = text.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let output = std::process::Command::new("python3").arg("-c").arg(code).arg(state).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Checked: with the accounts of starts alone, the script finds nothing in a row of this one's that was altered.
#[test]
fn the_script_checks_the_record_of_an_account_that_came_by_a_reload_too() {
    if missing("python3", "--version") {
        return;
    }
    let setup = Setup::new(OPEN);
    setup.dir.file("credentials/biz", 0o400, None, &[5; 32]);
    let nsecd = setup.start();
    sign(&nsecd, "before");
    let account = "[[account]]\nname = \"biz\"\nsource = \"credential:biz\"\nceiling = \"none\"\n";
    let more = OPEN.replace("[[socket]]", &format!("{account}[[socket]]\naccounts = [\"default\", \"biz\"]"));
    nsecd.dir.file("nsecd.toml", 0o644, None, more.as_bytes());
    assert_eq!(control::order(&nsecd, Command::Reload, "")[0].status, Status::Done);
    let reply = super::ask(&nsecd, "sign_event", json!({"kind": 1, "content": "x", "account": "biz"}));
    assert!(reply["event"].is_object(), "{reply}");
    nsecd.signal(Signal::SIGTERM);
    let exit = nsecd.wait();
    let state = exit.dir.join("state");
    super::clean(&state);
    let (ok, text) = script(&state);
    assert!(ok && text.contains("1 rows of biz.record match") && text.contains("1 rows of default.record"), "{text}");
    let path = state.join("biz.record");
    let mut bytes = fs::read(&path).unwrap();
    bytes[64 + 40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(!script(&state).0, "an altered row of its was not found");
}

#[test]
fn an_independent_script_follows_the_document_and_agrees() {
    if missing("python3", "--version") {
        return;
    }
    let mut nsecd = Nsecd::start(OPEN);
    for round in 0..3 {
        (0..1100).for_each(|n| drop(sign(&nsecd, &format!("{round}: {n}"))));
        (0..5).for_each(|_| encrypt(&nsecd));
        match round {
            0 => nsecd = nsecd.restarted(Signal::SIGKILL),
            _ => strike(&nsecd, "nsecd-gate"),
        }
        nsecd.serves();
    }
    // Into the last file.
    (0..10).for_each(|n| drop(sign(&nsecd, &format!("last: {n}"))));
    nsecd.signal(Signal::SIGTERM);
    let exit = nsecd.wait();
    let state = exit.dir.join("state");
    let (ok, text) = script(&state);
    assert!(ok && text.contains("3310 rows of default.record match"), "{text}");
    assert!(super::files(&state, "default.record").len() > 2, "control: rotated");
    // Control: it finds something, too.
    for (name, byte) in [("decisions.log", 100), ("default.record", 64 + 40), ("default.record.1", 30)] {
        let path = state.join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[byte] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (ok, text) = script(&state);
        assert!(!ok, "{name}: {text}");
        bytes[byte] ^= 1;
        fs::write(&path, &bytes).unwrap();
    }
    assert!(script(&state).0);
}
