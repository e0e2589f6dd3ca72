//! A session belongs to one principal; other users of the same socket have their own sessions and windows.

use crate::support::ctl::{ALICE, BOB, ctl, session, sign};
use crate::support::daemon::Setup;
use crate::support::{Nsecd, PUBLIC_KEY, event, not_root};

const SHARED: &str = "path = \"/run/x.sock\"\nmode = \"0666\"\nkinds = [1]\ntokenless = [1]\n";

#[test]
fn with_first_use_the_first_user_owns_a_token_and_every_other_is_refused() {
    if not_root("clients of two uids") {
        return;
    }
    let nsecd = Nsecd::start(&format!("[[socket]]\n{SHARED}bind = \"first_use\"\n"));
    let token = session(&nsecd, ALICE);
    let (code, reply) = sign(&nsecd, BOB, &token);
    assert_eq!(code, 0);
    event::signed(&reply, PUBLIC_KEY);
    for uid in [ALICE, 0] {
        let (code, reply) = sign(&nsecd, uid, &token);
        assert_eq!(code, 1, "{reply}");
    }
    assert_eq!(sign(&nsecd, BOB, &token).0, 0);
    assert!(!nsecd.alerts().is_empty(), "another principal's use raises an alert");
    // A stranger may not end or look at it either; who started it may.
    assert_ne!(ctl(&nsecd, 0, &["session", "revoke"], &token).1["revoked"], true);
    assert!(ctl(&nsecd, 0, &["session", "info"], &token).1["session"].is_null());
    assert_eq!(sign(&nsecd, BOB, &token).0, 0);
    assert_eq!(ctl(&nsecd, ALICE, &["session", "revoke"], &token).1["revoked"], true);
    assert_eq!(sign(&nsecd, BOB, &token).0, 1);
}

#[test]
fn narrowing_a_session_is_using_it() {
    if not_root("clients of two uids") {
        return;
    }
    let nsecd = Nsecd::start(&format!("[[socket]]\n{SHARED}bind = \"first_use\"\n"));
    let parent = session(&nsecd, ALICE);
    let (code, reply) = ctl(&nsecd, BOB, &["session", "start", "--scope", "1", "--token-file", "-"], &parent);
    assert_eq!(code, 0, "{reply}");
    assert_eq!(sign(&nsecd, ALICE, &parent).0, 1, "the token is Bob's since he used it");
    assert_eq!(sign(&nsecd, BOB, &parent).0, 0);
}

#[test]
fn with_starter_a_token_is_of_no_use_to_another_user() {
    if not_root("clients of two uids") {
        return;
    }
    let nsecd = Nsecd::start(&format!("[[socket]]\n{SHARED}bind = \"starter\"\n"));
    let token = session(&nsecd, ALICE);
    assert_eq!(sign(&nsecd, BOB, &token).0, 1);
    assert_eq!(sign(&nsecd, ALICE, &token).0, 0);
}

#[test]
fn one_users_windows_are_not_anothers() {
    if not_root("clients of two uids") {
        return;
    }
    let nsecd = Nsecd::start(&format!(
        "[[socket]]\n{SHARED}limits = {{ burst = 2, burst_window = \"1h\" }}\ntotal = \"none\"\n"
    ));
    for uid in [ALICE, BOB] {
        let codes = [(); 3].map(|()| ctl(&nsecd, uid, &["sign", "--kind", "1"], "").0);
        assert_eq!(codes, [0, 0, 1], "uid {uid}");
    }
}

#[test]
fn a_socket_for_named_uids_serves_no_other_and_never_an_unmapped_one() {
    if not_root("clients of two uids") {
        return;
    }
    let nsecd = Nsecd::start(&format!("[[socket]]\n{SHARED}peer_uids = [{ALICE}, 65534]\n"));
    assert_eq!(ctl(&nsecd, ALICE, &["pubkey"], "").0, 0);
    for uid in [BOB, 65_534, 0] {
        assert_ne!(ctl(&nsecd, uid, &["pubkey"], "").0, 0, "uid {uid}");
    }
}

#[test]
fn a_second_socket_has_its_own_ceiling_and_sessions() {
    let config = "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\n\
                  [[socket]]\npath = \"@DIR@/second.sock\"\nkinds = [7]\n";
    let nsecd = Setup::new(config).start();
    let second = nsecd.dir.join("second.sock");
    let mut client = crate::support::Client::connect(&second);
    let token = client.session(serde_json::json!({"scope": "7"}));
    event::signed(&client.sign(7, Some(&token)), PUBLIC_KEY);
    assert!(client.sign(1, None)["error"].is_string());
    assert!(nsecd.connect().sign(7, Some(&token))["error"].is_string(), "a session is of one socket");
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
}
