//! What a session loses by a reload it has lost: at once, after a crash, after a restart, and after the configuration has become
//! as wide as it was.

use super::{OPEN, reload};
use crate::support::client::{code, refusal};
use crate::support::{Client, Nsecd, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn wide() -> String {
    OPEN.replace("[[socket]]", "[[socket]]\nmax_ttl = \"10h\"")
}

fn info(client: &mut Client, token: &str) -> Value {
    client.ask("session_info", json!({"token": token}))
}

/// How the session is by now, whatever happens in between.
fn lasting(nsecd: &Nsecd, check: &dyn Fn(&mut Client)) {
    check(&mut nsecd.connect());
    nsecd.kill("nsecd-broker");
    until("a broker serves", || Client::try_connect(&nsecd.socket).is_ok());
    check(&mut nsecd.connect());
    reload(nsecd, &wide());
    check(&mut nsecd.connect());
    nsecd.kill("nsecd-broker");
    check(&mut nsecd.connect());
}

#[test]
fn kinds_and_time_that_a_session_has_lost_never_come_back() {
    let nsecd = Nsecd::start(&wide());
    let mut client = nsecd.connect();
    let session = client.session(json!({"scope": "1,7", "ttl": 36_000}));
    let child = client.session(json!({"scope": "1,7", "session_token": session}));
    let gone = client.session(json!({"scope": "1111"}));
    assert!(client.sign(1, Some(&session)).get("event").is_some());
    let narrow = "kinds = [7]\ntokenless = [7]\nmax_ttl = \"1h\"";
    let narrow = OPEN.replace("kinds = [1, 7, 1111]\ntokenless = [1, 7]", narrow);
    reload(&nsecd, &narrow);
    lasting(&nsecd, &|client| {
        for token in [&session, &child] {
            assert!(refusal(&client.sign(1, Some(token))).contains("not in session scope [7]"));
            assert!(client.sign(7, Some(token)).get("event").is_some());
            let left = info(client, token)["session"]["ttlRemaining"].as_u64();
            assert!(left.is_none_or(|left| left <= 3600), "{left:?}");
        }
        assert!(refusal(&client.sign(1111, Some(&gone))).contains("Invalid session token"));
    });
    let nsecd = nsecd.restarted(Signal::SIGTERM);
    assert!(refusal(&nsecd.connect().sign(1, Some(&session))).contains("not in session scope [7]"));
}

#[test]
fn what_a_first_session_allows_is_narrowed_as_well() {
    let once = |text: &str| text.replace("[[socket]]", "[[socket]]\nstart_sessions = \"once\"");
    let nsecd = Nsecd::start(&once(OPEN));
    let mut client = nsecd.connect();
    client.session(json!({"scope": "1,7"}));
    assert!(client.sign(1, None).get("event").is_some());
    reload(&nsecd, &once(&OPEN.replace("kinds = [1, 7, 1111]\ntokenless = [1, 7]", "kinds = [7]\ntokenless = [7]")));
    // By the way of another setting, under which a first session does not count.
    reload(&nsecd, OPEN);
    assert!(client.sign(1, None).get("event").is_some(), "control: now nothing holds it");
    nsecd.kill("nsecd-broker");
    reload(&nsecd, &once(OPEN));
    let mut client = nsecd.connect();
    assert!(refusal(&client.sign(1, None)).contains("first session"));
    assert_eq!(code(&client.ask("session_start", json!({"scope": "1"}))), "out_of_scope");
    assert!(client.sign(7, None).get("event").is_some());
}

#[test]
fn windows_that_are_full_stay_full() {
    let limited =
        |n: u32| OPEN.replace("limits = \"none\"", &format!("limits = {{ burst = {n}, burst_window = \"1h\" }}"));
    let nsecd = Nsecd::start(&limited(3));
    let mut client = nsecd.connect();
    let signed = |client: &mut Client| (0..9).filter(|_| client.sign(1, None).get("event").is_some()).count();
    assert_eq!(signed(&mut client), 3);
    reload(&nsecd, &limited(5));
    assert_eq!(signed(&mut client), 2);
    reload(&nsecd, &limited(3));
    assert_eq!(signed(&mut client), 0);
    // Not by a socket that goes and comes back.
    let second = super::another("second");
    reload(&nsecd, &second.replace("second", "s"));
    reload(&nsecd, &limited(5));
    assert_eq!(signed(&mut nsecd.connect()), 0);
}
