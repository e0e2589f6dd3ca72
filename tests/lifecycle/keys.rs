//! Where a key may come from, and where it may not.

use crate::support::daemon::{OPEN, Setup};
use crate::support::{KEY_HEX, KEY_NSEC, PUBLIC_KEY, event, not_root, sys};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn every_form_of_a_key_is_read_from_a_credential() {
    let raw = event::unhex(KEY_HEX);
    for form in [KEY_NSEC.as_bytes(), KEY_HEX.as_bytes(), &raw] {
        for newline in [&b""[..], b"\n"] {
            let setup = Setup::new(OPEN);
            std::fs::remove_file(setup.dir.join("credentials/nsec")).unwrap();
            let nsecd = setup.credential(&[form, newline].concat()).start();
            event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
        }
    }
}

#[test]
fn a_key_comes_through_an_inherited_descriptor() {
    let mut setup = Setup::bare(None, OPEN);
    let (source, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{KEY_NSEC}").unwrap();
    drop(writer);
    sys::give_fds(&mut setup.command, vec![(source.into(), 9)]);
    setup.command.args(["--key", "fd:9"]);
    let nsecd = setup.start();
    event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
}

#[test]
fn an_ephemeral_key_is_new_each_time_and_leaves_nothing() {
    let keys: Vec<String> = (0..2)
        .map(|_| {
            let mut setup = Setup::bare(None, OPEN);
            setup.command.arg("--ephemeral");
            let nsecd = setup.start();
            let mut client = nsecd.connect();
            let key = client.public_key();
            event::signed(&client.sign(1, None), &key);
            key
        })
        .collect();
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn the_keyrings_descriptions_are_tried_in_order() {
    if not_root("a user keyring of its own") {
        return;
    }
    for (uid, description) in [(23_421, "nsec"), (23_422, "wn_nsec"), (23_423, "nostr-nsec")] {
        let mut setup = Setup::bare(Some(uid), OPEN);
        sys::give_keyring(&mut setup.command, description, KEY_NSEC.into());
        let nsecd = setup.start();
        let mut client = nsecd.connect();
        event::signed(&client.sign(1, None), PUBLIC_KEY);
    }
}

#[test]
fn an_account_beside_the_default_one_has_its_own_key_and_gate() {
    if not_root("a user keyring of its own") {
        return;
    }
    let config = "[key]\nsource = \"credential:nsec\"\n[[account]]\nname = \"shop\"\nsource = \"keyring:nostr:shop\"\n\
                  [[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\ntokenless = [1]\naccounts = [\"default\", \"shop\"]\n";
    let mut setup = Setup::of(Some(23_424), config);
    sys::give_keyring(&mut setup.command, "nostr:shop", crate::support::SCAN_KEY.into());
    let nsecd = setup.start();
    let mut client = nsecd.connect();
    let accounts = client.ask("list_accounts", serde_json::json!({}))["accounts"].clone();
    assert_eq!(accounts[0], serde_json::json!({"name": "default", "pubkey": PUBLIC_KEY, "default": true}));
    assert_eq!((&accounts[1]["name"], &accounts[1]["default"]), (&"shop".into(), &false.into()));
    let shop = accounts[1]["pubkey"].as_str().unwrap();
    assert_ne!(shop, PUBLIC_KEY);
    let sign = |client: &mut crate::support::Client, account: &str| {
        client.ask("sign_event", serde_json::json!({"kind": 1, "content": "x", "account": account}))
    };
    event::signed(&sign(&mut client, "shop"), shop);
    event::signed(&sign(&mut client, "default"), PUBLIC_KEY);
    event::signed(&sign(&mut client, ""), PUBLIC_KEY);
    assert!(sign(&mut client, "none")["error"].is_string());
}

#[test]
fn consume_removes_the_key_from_the_keyring_once_it_is_loaded() {
    if not_root("a user keyring of its own") {
        return;
    }
    for (uid, consume) in [(23_425, false), (23_426, true)] {
        // A user keyring lives as long as its user has a process.
        let mut keeper = Command::new("cat").uid(uid).gid(uid).stdin(Stdio::piped()).spawn().unwrap();
        let config = OPEN.replace("[key]", &format!("[key]\nsource = \"keyring:nsec\"\nconsume = {consume}"));
        let mut first = Setup::bare(Some(uid), &config);
        sys::give_keyring(&mut first.command, "nsec", KEY_NSEC.into());
        let first = first.start();
        first.connect().public_key();
        drop(first);
        let second = Setup::bare(Some(uid), &config);
        if consume {
            assert!(second.refused().stderr.contains("keyring"));
        } else {
            // Control: what was not consumed is still there.
            event::signed(&second.start().connect().sign(1, None), PUBLIC_KEY);
        }
        keeper.kill().unwrap();
        keeper.wait().unwrap();
    }
}

#[test]
fn a_private_key_in_the_arguments_or_the_environment_is_refused_and_never_echoed() {
    let arguments = [vec![KEY_NSEC], vec!["--key", KEY_NSEC], vec!["--key", KEY_HEX], vec!["--key=x", KEY_HEX]];
    for arguments in arguments {
        let mut setup = Setup::bare(None, OPEN);
        setup.command.args(&arguments);
        never_echoed(setup);
    }
    let variables =
        [("NSEC", KEY_NSEC), ("NOSTR_PRIVATE_KEY", KEY_HEX), ("ANYTHING", KEY_NSEC), ("NOSTR_SECRET_KEY", KEY_HEX)];
    for (name, value) in variables {
        let mut setup = Setup::new(OPEN);
        setup.command.env(name, value);
        never_echoed(setup);
    }
}

fn never_echoed(setup: Setup) {
    let exit = setup.refused();
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    assert!(exit.stderr.contains("private key"), "{}", exit.stderr);
    for part in [&KEY_NSEC[5..], &KEY_HEX[..40]] {
        assert!(!exit.stderr.contains(part), "{}", exit.stderr);
    }
}
