//! Each kind of decision has its line: who, what, and why; and no token, content or key in any.
//!
//! Checked: without the call of `note_refused`, `note_answered`, `note_turned_away`, `note_ended`, `happened` or `outcome`, the
//! decision that it is for is missed here.

use super::{PEER, audit, clean, lines, of, sign};
use crate::support::client::{code, line};
use crate::support::ctl::{ALICE, BOB};
use crate::support::daemon::Setup;
use crate::support::node::{modules, run};
use crate::support::{Client, Nsecd, ctl, event, not_root};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The lines of a kind with these members.
fn with(nsecd: &Nsecd, is: &str, members: Value) -> Vec<Value> {
    let wanted = members.as_object().unwrap();
    let fits = |line: &Value| line["is"] == is && wanted.iter().all(|(name, value)| line[name] == *value);
    lines(&nsecd.dir.join("state")).into_iter().filter(fits).collect()
}

/// The one line of a kind with these members.
#[track_caller]
fn one(nsecd: &Nsecd, is: &str, members: Value) -> Value {
    let mut found = with(nsecd, is, members.clone());
    assert_eq!(found.len(), 1, "{is} {members} among {:#?}", lines(&nsecd.dir.join("state")));
    found.remove(0)
}

fn refused(nsecd: &Nsecd, method: &str, rule: &str) -> Value {
    one(nsecd, "decided", json!({"method": method, "verdict": "refused", "rule": rule}))
}

#[test]
fn each_kind_of_decision_has_its_line_with_who_what_and_why() {
    const SECRET: &str = "the content that nobody else may read";
    let nsecd = Nsecd::start(
        "[key]\nceiling = \"3, 1/h\"\necdh_ceiling = \"1, 1/h\"\n[limits]\nsessions_per_minute = 4\n\
         [[socket]]\npath = \"/run/x.sock\"\nkinds = [1, 7]\ntokenless = [1]\nmethods = [\"sign_event\", \"nip44\"]\n\
         limits = { burst = 5, burst_window = \"10s\", per_minute = 100, per_hour = 100 }\ntotal = \"none\"\n",
    );
    let socket = nsecd.socket.to_str().unwrap().to_owned();
    let mut client = nsecd.connect();
    // A broker's start, in a file of its own.
    let file = one(&nsecd, "file", json!({"format": 1, "file": 1}));
    assert_eq!((&file["n"], &file["prev"], &file["keep"]), (&json!(1), &json!("0".repeat(64)), &json!(8)));
    let start = one(&nsecd, "start", json!({}));
    assert_eq!(start["records"][0], json!({"record": "default", "last": 0, "oldest": 1, "settled": true}));
    // A signature.
    let reply = client.ask("sign_event", json!({"kind": 1, "content": SECRET}));
    let intent = one(&nsecd, "intent", json!({"id": reply["event"]["id"]}));
    for (name, value) in [
        ("method", json!("sign_event")),
        ("socket", json!(socket)),
        ("uid", json!(nix::unistd::geteuid().as_raw())),
        ("account", json!("default")),
        ("record", json!("default")),
        ("kind", json!(1)),
        ("created_at", reply["event"]["created_at"].clone()),
    ] {
        assert_eq!(intent[name], value, "{intent}");
    }
    let outcome = one(&nsecd, "outcome", json!({"intent": intent["n"]}));
    assert_eq!((&outcome["status"], &outcome["verdict"]), (&json!(0), &json!("done")));
    // A session; what it may do, and may not.
    let token = client.session(json!({"scope": "1", "ttl": 3600}));
    let started = one(&nsecd, "session_started", json!({}));
    let label =
        event::hex(&sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), &token)))
            [..12]
            .to_owned();
    assert_eq!((&started["started"], &started["scope"]), (&json!(label), &json!([1])));
    sign_with(&mut client, 1, Some(&token));
    one(&nsecd, "intent", json!({"session": label}));
    assert_eq!(code(&sign_with(&mut client, 7, Some(&token))), "out_of_scope");
    let line = refused(&nsecd, "sign_event", "out_of_scope");
    assert_eq!((&line["session"], &line["kind"]), (&json!(label), &json!(7)));
    client.ask("session_revoke", json!({ "token": token }));
    one(&nsecd, "session_ended", json!({"session": label}));
    one(&nsecd, "decided", json!({"method": "session_revoke", "verdict": "done", "session": label}));
    assert_eq!(code(&sign_with(&mut client, 1, Some(&token))), "no_session");
    refused(&nsecd, "sign_event", "no_session");
    // The gate's ceiling.
    sign(&nsecd, "the third");
    assert_eq!(code(&sign_with(&mut client, 1, None)), "rate_limited");
    one(&nsecd, "outcome", json!({"status": 1, "verdict": "refused", "rule": "ceiling", "record": "default"}));
    // A window, starts of sessions, methods, what is no request.
    (0..3).for_each(|_| drop(client.session(json!({"scope": "1"}))));
    assert_eq!(code(&client.ask("session_start", json!({"scope": "1"}))), "rate_limited");
    refused(&nsecd, "session_start", "rate_limited");
    client.ask("nip04_encrypt", json!({"plaintext": SECRET, "recipientPubkey": PEER}));
    refused(&nsecd, "nip04_encrypt", "forbidden");
    let mut broken = nsecd.connect();
    broken.send("no JSON\n");
    broken.reply();
    refused(&nsecd, "request", "bad_request");
    // A key agreement.
    client.ask("nip44_encrypt", json!({"plaintext": SECRET, "peer_pubkey": PEER}));
    let intent = one(&nsecd, "intent", json!({"record": "default.ecdh"}));
    assert_eq!((&intent["id"], &intent["kind"], &intent["created_at"]), (&json!(PEER), &json!(1), &json!(0)));
    one(&nsecd, "outcome", json!({"intent": intent["n"], "status": 0}));
    // Reading decides nothing.
    let before = lines(&nsecd.dir.join("state")).len();
    client.public_key();
    client.ask("list_accounts", json!({}));
    client.ask("session_info", json!({ "token": token }));
    assert_eq!(lines(&nsecd.dir.join("state")).len(), before);
    // A broker after it.
    nsecd.kill("nsecd-broker");
    nsecd.serves();
    assert_eq!(with(&nsecd, "start", json!({})).len(), 2);
    let path = nsecd.dir.join("state/decisions.log");
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&token) && !text.contains(SECRET) && !text.contains("content that"), "{text}");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, nix::unistd::geteuid().as_raw()));
    let report = clean(&nsecd.dir.join("state"));
    assert_eq!((&of(&report, "default")["matched"], &of(&report, "default")["refused"]), (&json!(3), &json!(1)));
    // And for people.
    let (_, text) = audit(&nsecd.dir.join("state"), &["tail", "-n", "1000"]);
    assert_eq!(text.lines().count(), lines(&nsecd.dir.join("state")).len());
    assert!(text.contains("intent: sign_event kind 1") && text.contains("(out_of_scope)"), "{text}");
}

fn sign_with(client: &mut Client, kind: u32, token: Option<&str>) -> Value {
    client.sign(kind, token)
}

#[test]
fn a_token_in_foreign_hands_and_a_forged_message_have_their_lines() {
    if not_root("clients of two uids") {
        return;
    }
    let nsecd =
        Nsecd::start("[[socket]]\npath = \"/run/x.sock\"\nmode = \"0666\"\nkinds = [1]\npeer_uids = [23431, 23432]\n");
    let token = ctl::session(&nsecd, ALICE);
    assert_eq!(ctl::sign(&nsecd, ALICE, &token).0, 0);
    assert_eq!(ctl::sign(&nsecd, BOB, &token).0, 1);
    let line = refused(&nsecd, "sign_event", "foreign_session");
    assert_eq!(line["uid"], json!(BOB));
    assert_ne!(ctl::ctl(&nsecd, 0, &["pubkey"], "").0, 0);
    assert_eq!(refused(&nsecd, "connect", "forbidden")["uid"], json!(0));
    let Some(modules) = modules() else { return };
    let open = "[key]\nceiling = \"none\"\necdh_ceiling = \"none\"\n[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n\
                methods = [\"sign_event\", \"dm\"]\ndm = \"none\"\n";
    let nsecd = Nsecd::start(open);
    run(&modules, "messages.js", &nsecd.socket, &["forge"]);
    let forged = with(&nsecd, "decided", json!({"method": "unwrap_gift_wrap", "rule": "forged"}));
    assert!(!forged.is_empty());
    clean(&nsecd.dir.join("state"));
}

/// Checked: with a limit of lines taken out this fails.
#[test]
fn a_flood_of_refusals_costs_bounded_disk_and_is_counted_and_hides_no_signature() {
    let nsecd = Nsecd::start(super::OPEN);
    let mut client = nsecd.connect();
    let junk = line("sign_event", json!({"kind": 5, "content": "x".repeat(500)}));
    for _ in 0..50 {
        client.send(junk.repeat(100));
        (0..100).for_each(|_| assert_eq!(code(&client.reply()), "no_session"));
    }
    sign(&nsecd, "genuine");
    let state = nsecd.dir.join("state");
    let size = fs::metadata(state.join("decisions.log")).unwrap().len();
    assert!(size < 20_000, "{size}");
    assert_eq!(with(&nsecd, "decided", json!({"rule": "no_session"})).len(), 20);
    let exit = {
        nsecd.signal(Signal::SIGTERM);
        nsecd.wait()
    };
    // Those that were counted last are said at the end.
    let more: Vec<Value> = lines(&exit.dir.join("state")).into_iter().filter(|line| line["is"] == "more").collect();
    let count: u64 =
        more.iter().flat_map(|m| m["counts"].as_array().unwrap()).map(|c| c["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 4980, "{more:?}");
    assert_eq!(of(&clean(&exit.dir.join("state")), "default")["matched"], json!(1));
}

/// What an ordinary user runs is that user's.
#[test]
fn audit_reads_only_and_says_what_it_cannot_read() {
    let setup = Setup::new(super::OPEN);
    let nsecd = setup.start();
    sign(&nsecd, "one");
    let state = nsecd.dir.join("state");
    let before: Vec<_> = fs::read_dir(&state).unwrap().map(|e| e.unwrap().metadata().unwrap().mtime_nsec()).collect();
    clean(&state);
    let after: Vec<_> = fs::read_dir(&state).unwrap().map(|e| e.unwrap().metadata().unwrap().mtime_nsec()).collect();
    assert_eq!(before, after);
    for bad in [&["verify", "--nonsense"][..], &["what"], &["verify", "--head", "7"]] {
        assert_eq!(audit(&state, bad).0, 2, "{bad:?}");
    }
    let (_, json) = audit(&state, &["tail", "-n", "1", "--json"]);
    let last: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(last, *lines(&state).last().unwrap());
}
