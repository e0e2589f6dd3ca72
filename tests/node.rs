//! The stack that the real clients run on: Node's sockets, with nostr-tools as the judge.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Nsecd, PUBLIC_KEY, Setup, event, missing, skip};

/// Where tests/node/install.sh put nostr-tools; `None`, after saying so, if it did not run.
fn modules() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let installed = target.join("node/installed").exists();
    if !installed && !missing("node", "--version") {
        skip("nostr-tools is not installed: run tests/node/install.sh");
    }
    installed.then(|| target.join("node/node_modules"))
}

fn node(modules: &Path, script: &str, arguments: [&str; 2]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node").join(script);
    let mut command = Command::new("node");
    let output = command.env("NODE_PATH", modules).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn nanoclaw() -> Nsecd {
    Setup::profile("nanoclaw").start()
}

#[test]
fn a_client_that_half_closes_and_one_that_does_not_get_a_verified_event_and_the_end() {
    let Some(modules) = modules() else { return };
    let nsecd = nanoclaw();
    for mode in ["half-close", "open"] {
        let printed = node(&modules, "sign.js", [nsecd.socket.to_str().unwrap(), mode]);
        let signed: Value = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{mode}: {e}: {printed}"));
        assert!(event::valid(&signed, PUBLIC_KEY), "{signed}");
        assert_eq!(signed["content"], "hello from Node \u{2028} \u{1f600}");
    }
}

#[test]
fn of_six_hundred_connections_at_once_none_is_refused() {
    let Some(modules) = modules() else { return };
    let nsecd = nanoclaw();
    for _ in 0..3 {
        let printed = node(&modules, "crowd.js", [nsecd.socket.to_str().unwrap(), "600"]);
        assert_eq!(printed.trim(), "{\"served\":600}");
    }
}
