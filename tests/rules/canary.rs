//! Canary kinds: whoever tries one is held, and nobody else.
//!
//! Checked: without the hold, or the thaw told to the broker, without its row in the journal, or with all of a uid held, these fail.

use crate::support::cgroup::no_cgroups;
use crate::support::client::code;
use crate::support::control::thaw;
use crate::support::{Cgroup, Nsecd, PUBLIC_KEY, event, until};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

const CANARY: &str = r#"
[[socket]]
path = "/run/nsecd-test.sock"
kinds = [1, 0]
tokenless = [1, 0]
[[socket.rule]]
kind = 0
canary = true
[[socket.rule]]
kind = 3
canary = true
"#;

/// nsecctl run in a cgroup; `input` is its standard input. Its reply.
fn ctl(nsecd: &Nsecd, cgroup: &Cgroup, arguments: &[&str], input: &str) -> Value {
    let mut command = cgroup.command(env!("CARGO_BIN_EXE_nsecctl").as_ref());
    command.arg("--socket").arg(&nsecd.socket).args(arguments).env_clear();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // It may not read its input at all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap_or(Value::Null)
}

fn sign(nsecd: &Nsecd, cgroup: &Cgroup, kind: &str) -> Value {
    ctl(nsecd, cgroup, &["sign", "--kind", kind], "")
}

#[test]
fn who_tries_a_canary_kind_is_held_with_its_sessions_and_no_other_container_is() {
    if no_cgroups() {
        return;
    }
    let nsecd = Nsecd::start(CANARY);
    let (bad, good, heir) = (Cgroup::new(), Cgroup::new(), Cgroup::new());
    // One that it has used, and one that it hands on.
    let start = |cgroup| ctl(&nsecd, cgroup, &["session", "start", "--scope", "1"], "");
    let handed = start(&bad)["session"]["token"].as_str().unwrap().to_owned();
    event::signed(&sign(&nsecd, &bad, "1"), PUBLIC_KEY);
    // Whether the socket signs the kind or not.
    for (cgroup, kind) in [(&bad, "3"), (&bad, "0")] {
        let reply = sign(&nsecd, cgroup, kind);
        assert_eq!((code(&reply), reply["rule"].as_str()), ("rule", Some("canary")), "{reply}");
    }
    let held = |nsecd: &Nsecd| {
        assert_eq!(code(&sign(nsecd, &bad, "1")), "frozen");
        assert_eq!(code(&ctl(nsecd, &bad, &["session", "start", "--scope", "1"], "")), "frozen");
        let taken = ctl(nsecd, &heir, &["sign", "--kind", "1", "--token-file", "-"], &handed);
        assert_eq!(code(&taken), "frozen", "{taken}");
        event::signed(&sign(nsecd, &good, "1"), PUBLIC_KEY);
    };
    held(&nsecd);
    let alerts = nsecd.alerts();
    let told = "sign_event rejected: Event kind 3 refused by rule canary: ";
    assert!(alerts.contains(told) && alerts.contains(&format!("cgroup {}", bad.id())), "{alerts}");
    assert!(alerts.contains("its sessions are frozen"), "{alerts}");
    nsecd.kill("nsecd-broker");
    held(&nsecd);
    let nsecd = nsecd.restarted(nix::sys::signal::Signal::SIGKILL);
    held(&nsecd);
    // The operator thaws; and what is thawed stays so.
    thaw(&nsecd);
    until("let go", || sign(&nsecd, &bad, "1")["event"].is_object());
    nsecd.kill("nsecd-broker");
    event::signed(&sign(&nsecd, &bad, "1"), PUBLIC_KEY);
}
