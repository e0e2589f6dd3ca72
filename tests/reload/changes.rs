//! Each kind of change, and that it holds for who is connected as well.

use super::{OPEN, another, ask, refused, reload, write};
use crate::support::client::{code, refusal};
use crate::support::{Client, Nsecd, not_root, until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn signs(client: &mut Client, kind: u32) -> bool {
    client.sign(kind, None).get("event").is_some()
}

#[test]
fn kinds_methods_and_limits_change_for_who_is_connected() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    assert!(signs(&mut client, 1) && signs(&mut client, 7) && !signs(&mut client, 1111));
    reload(&nsecd, &OPEN.replace("tokenless = [1, 7]", "tokenless = [1, 1111]"));
    assert!(signs(&mut client, 1) && !signs(&mut client, 7) && signs(&mut client, 1111));
    let limited = "limits = { burst = 1, burst_window = \"1h\" }";
    reload(&nsecd, &OPEN.replace("limits = \"none\"", limited));
    assert!(signs(&mut client, 1));
    assert_eq!(code(&client.sign(1, None)), "rate_limited");
    reload(&nsecd, &OPEN.replace("[[socket]]", "[[socket]]\nmax_request = \"4KiB\"\nmethods = [\"sign_event\"]"));
    assert!(signs(&mut client, 1));
    let large = client.ask("sign_event", json!({"kind": 1, "content": "x".repeat(5000)}));
    assert_eq!(code(&large), "too_large");
    let mut client = nsecd.connect();
    let rule = "[[socket.rule]]\nkind = 1\nforbid = [\"p\"]\n";
    reload(&nsecd, &format!("{OPEN}{rule}"));
    assert!(signs(&mut client, 1));
    let refused = client.ask("sign_event", json!({"kind": 1, "content": "x", "tags": [["p", "x"]]}));
    assert!(refusal(&refused).contains("forbid"), "{refused}");
}

#[test]
fn the_gates_own_ceiling_changes_too() {
    let narrow = OPEN.replace("kinds = [1, 7, 1111]\ntokenless = [1, 7]", "kinds = [1]\ntokenless = [1]");
    let nsecd = Nsecd::start(&narrow);
    let gate = nsecd.role("nsecd-gate");
    let mut client = nsecd.connect();
    assert!(!signs(&mut client, 7));
    reload(&nsecd, OPEN);
    assert_ne!(nsecd.role("nsecd-gate"), gate);
    assert!(signs(&mut client, 7));
    let gate = nsecd.role("nsecd-gate");
    reload(&nsecd, &OPEN.replace("tokenless = [1, 7]", "tokenless = [1]"));
    assert_eq!(nsecd.role("nsecd-gate"), gate, "nothing of it has changed");
    // A ceiling that is used up is not refilled by a gate that takes over.
    let few = |n: u32| OPEN.replace("ceiling = \"none\"", &format!("ceiling = \"{n}, 1/h\""));
    reload(&nsecd, &few(20));
    let made = (0..30).filter(|_| signs(&mut client, 1)).count();
    reload(&nsecd, &few(21));
    let more = (0..30).filter(|_| signs(&mut client, 1)).count();
    assert!(made < 20 && more <= 1, "{made} and {more}: what was signed before counts");
}

#[test]
fn sockets_come_and_go_and_come_back() {
    let nsecd = Nsecd::start(OPEN);
    let path = nsecd.dir.join("second.sock");
    let with = format!("{OPEN}{}", another("second"));
    assert!(!path.exists());
    let mut first = nsecd.connect();
    for _ in 0..2 {
        reload(&nsecd, &with);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut second = Client::connect(&path);
        assert!(signs(&mut second, 1) && !signs(&mut second, 7));
        assert!(nsecd.files_in_state("alerts-second").len() == 1);
        reload(&nsecd, OPEN);
        assert!(!path.exists() && !nsecd.dir.join("second.sock.lock").exists());
        assert_eq!(second.line(), None, "its connections end");
        assert!(signs(&mut first, 7));
    }
    // What the broker knows is known to the next one.
    reload(&nsecd, &with);
    nsecd.kill("nsecd-broker");
    until("a broker serves", || Client::try_connect(&path).is_ok_and(|mut c| signs(&mut c, 1)));
    nsecd.serves();
}

#[test]
fn a_sighup_reloads_as_nsecctl_does_and_says_so() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    write(&nsecd, &OPEN.replace("tokenless = [1, 7]", "tokenless = [1]"));
    nsecd.signal(Signal::SIGHUP);
    until("reloaded", || nsecd.stderr().contains("reloaded, asked by SIGHUP"));
    assert!(!signs(&mut client, 7));
    write(&nsecd, "nonsense");
    nsecd.signal(Signal::SIGHUP);
    until("refused", || nsecd.stderr().contains("not reloaded, asked by SIGHUP"));
    assert!(signs(&mut client, 1));
}

#[test]
fn owner_group_and_mode_of_a_socket_change_and_nobody_else_gets_in() {
    if not_root("giving a socket away") {
        return;
    }
    let access = |text: &str| OPEN.replace("[[socket]]", &format!("[[socket]]\n{text}"));
    let nsecd = Nsecd::start(OPEN);
    let seen = || {
        let m = fs::metadata(&nsecd.socket).unwrap();
        (m.uid(), m.gid(), m.mode() & 0o777)
    };
    assert_eq!(seen(), (0, 0, 0o600));
    for (text, wanted) in [
        ("owner = \"23431\"\nmode = \"0600\"", (23_431, 0, 0o600)),
        ("owner = \"23431\"\ngroup = \"23432\"\nmode = \"0660\"", (23_431, 23_432, 0o660)),
        ("owner = \"root\"\ngroup = \"root\"\nmode = \"0600\"", (0, 0, 0o600)),
    ] {
        reload(&nsecd, &access(text));
        assert_eq!(seen(), wanted);
    }
    let why = refused(&nsecd, &access("owner = \"nobody-of-this-name\""));
    assert!(why.contains("nobody-of-this-name"), "{why}");
    assert_eq!(seen(), (0, 0, 0o600));
}

#[test]
fn an_alert_log_moves() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    let moved = OPEN.replace("[[socket]]", "[[socket]]\nalert_log = \"@DIR@/state/moved.log\"");
    reload(&nsecd, &moved);
    client.sign(0, None);
    let moved = fs::read_to_string(nsecd.dir.join("state/moved.log")).unwrap();
    assert!(moved.contains("sign_event rejected"), "{moved}");
}

#[test]
fn the_same_once_more_changes_nothing() {
    let nsecd = Nsecd::start(OPEN);
    let before = nsecd.processes();
    let mut client = nsecd.connect();
    let token = client.session(json!({"scope": "1"}));
    assert_eq!(ask(&nsecd), Ok(()));
    assert_eq!(nsecd.processes(), before);
    assert!(client.sign(1, Some(&token)).get("event").is_some());
}

/// `auto` looks for a credential first, and then in the keyring. Where it found a running key matters no more.
///
/// Checked: with what `auto` finds by now compared, this fails.
#[test]
fn the_credential_that_auto_has_found_may_go_and_its_key_stays_in_use() {
    let nsecd = Nsecd::start(OPEN);
    let mut client = nsecd.connect();
    fs::remove_file(nsecd.dir.join("credentials/nsec")).unwrap();
    reload(&nsecd, &OPEN.replace("tokenless = [1, 7]", "tokenless = [1]"));
    assert!(signs(&mut client, 1) && !signs(&mut client, 7));
    reload(&nsecd, OPEN);
    assert!(signs(&mut client, 7));
    // To name a place is to change it, the same one too.
    let why = refused(&nsecd, &OPEN.replace("[key]", "[key]\nsource = \"credential:nsec\""));
    assert!(why.contains("needs a restart: account default: source"), "{why}");
}
