//! The stack that the real clients run on: Node's sockets, with nostr-tools as the judge.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::node::{modules, run};
use support::{Nsecd, PUBLIC_KEY, Setup, event};

fn nanoclaw() -> Nsecd {
    Setup::profile("nanoclaw").start()
}

#[test]
fn a_client_that_half_closes_and_one_that_does_not_get_a_verified_event_and_the_end() {
    let Some(modules) = modules() else { return };
    let nsecd = nanoclaw();
    for mode in ["half-close", "open"] {
        let printed = run(&modules, "sign.js", &nsecd.socket, &[mode]);
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
        let printed = run(&modules, "crowd.js", &nsecd.socket, &["600"]);
        assert_eq!(printed.trim(), "{\"served\":600}");
    }
}
