//! Where a key may come from, and where it may not.
//!
//! Checked, a test turns red: a file duplicated instead of opened again, or without the first one's position; a pipe copied before
//! it is closed; two throw-away keys instead of one (green again where the public keys are not compared); the key-holder consuming; exit code 1 for
//! want of a key.

use crate::support::daemon::{DM, OPEN, Setup};
use crate::support::{KEY_HEX, KEY_NSEC, PUBLIC_KEY, event, not_root, sys};
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
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

/// Passes `source` as descriptor 9, from which the key is to be read.
fn with_key_in(source: OwnedFd, config: &str) -> Setup {
    let mut setup = Setup::bare(None, config);
    sys::give_fds(&mut setup.command, vec![(source, 9)]);
    setup.command.args(["--key", "fd:9"]);
    setup
}

/// The key of the recorded cases, loaded by one holder or, with [`DM`], by both: each says its public key, which must be one.
#[test]
fn a_key_comes_through_an_inherited_descriptor() {
    for config in [OPEN, DM] {
        let (source, mut writer) = std::io::pipe().unwrap();
        writeln!(writer, "{KEY_NSEC}").unwrap();
        drop(writer);
        let nsecd = with_key_in(source.into(), config).start();
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);

        // Whoever asks somebody for a passphrase first writes late, and in parts.
        let (source, mut writer) = std::io::pipe().unwrap();
        let late = std::thread::spawn(move || {
            for part in [&KEY_NSEC[..20], &KEY_NSEC[20..], "\n"] {
                std::thread::sleep(std::time::Duration::from_millis(300));
                writer.write_all(part.as_bytes()).unwrap();
            }
        });
        let nsecd = with_key_in(source.into(), config).start();
        late.join().unwrap();
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);

        // A file that has no name any more, read from where its starter left off.
        let dir = crate::support::Dir::new(None);
        let path = dir.file("key", 0o600, None, format!("first line\n{KEY_HEX}\n").as_bytes());
        let mut file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.seek(std::io::SeekFrom::Start(11)).unwrap();
        let nsecd = with_key_in(file.into(), config).start();
        event::signed(&nsecd.connect().sign(1, None), PUBLIC_KEY);
    }
}

#[test]
fn a_source_that_two_processes_cannot_read_is_refused_with_advice() {
    let source = || {
        let (source, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
        writeln!(writer, "{KEY_NSEC}").unwrap();
        OwnedFd::from(source)
    };
    let exit = with_key_in(source(), DM).refused();
    for word in ["account default", "neither a file nor a pipe", "give it as a credential", "fd:7"] {
        assert!(exit.stderr.contains(word), "no `{word}` in: {}", exit.stderr);
    }
    // Control: one process can.
    event::signed(&with_key_in(source(), OPEN).start().connect().sign(1, None), PUBLIC_KEY);
}

#[test]
fn an_ephemeral_key_is_new_each_time_and_leaves_nothing() {
    let keys: std::collections::HashSet<String> =
        [(OPEN, false), (OPEN, false), (DM, false), (DM, false), (DM, true), (DM, true)]
            .into_iter()
            .map(|(config, without_splice)| {
                let mut setup = Setup::bare(None, config);
                setup.command.arg("--ephemeral");
                if without_splice {
                    sys::without_splice(&mut setup.command);
                }
                let nsecd = setup.start();
                let mut client = nsecd.connect();
                let key = client.public_key();
                event::signed(&client.sign(1, None), &key);
                key
            })
            .collect();
    assert_eq!(keys.len(), 6);
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
    for (uid, consume, config) in [(23_425, false, OPEN), (23_426, true, OPEN), (23_427, false, DM), (23_428, true, DM)]
    {
        // A user keyring lives as long as its user has a process.
        let mut keeper = Command::new("cat").uid(uid).gid(uid).stdin(Stdio::piped()).spawn().unwrap();
        let config = config.replace("[key]", &format!("[key]\nsource = \"keyring:nsec\"\nconsume = {consume}"));
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

/// Checked: with the key consumed as soon as the key-holder, which loads it first, has it, this fails.
#[test]
fn a_key_that_the_ecdh_holder_could_not_take_stays_in_the_keyring() {
    if not_root("a user keyring of its own") {
        return;
    }
    const USER: u32 = 23_429;
    let mut keeper = Command::new("cat").uid(USER).gid(USER).stdin(Stdio::piped()).spawn().unwrap();
    let config = DM.replace("[key]", "[key]\nsource = \"keyring:nsec\"\nconsume = true");
    let mut first = Setup::bare(Some(USER), &config);
    first.dir.file("state/default.ecdh.record.1", 0o600, Some(USER), &[b'x'; 200]);
    sys::give_keyring(&mut first.command, "nsec", KEY_NSEC.into());
    let exit = first.refused();
    assert!(
        exit.stderr.contains("default.ecdh.record in ") && exit.stderr.contains("cannot be continued"),
        "{}",
        exit.stderr
    );
    event::signed(&Setup::bare(Some(USER), &config).start().connect().sign(1, None), PUBLIC_KEY);
    keeper.kill().unwrap();
    keeper.wait().unwrap();
}

/// A service manager is told by the exit code not to try again and again: systemd/system/nsecd.service.
#[test]
fn a_start_for_want_of_a_key_has_an_exit_code_of_its_own() {
    for source in ["credential:nsec", "keyring:nsecd-test-none", "fd:9"] {
        let mut setup = Setup::bare(None, OPEN);
        setup.command.args(["--key", source]);
        let exit = setup.refused();
        assert_eq!(exit.code, Some(6), "{source}: {}", exit.stderr);
        assert_eq!(std::fs::read_dir(exit.dir.join("state")).unwrap().count(), 0, "{source}: something is left");
    }
    // What is no key is none.
    let setup = Setup::new(OPEN);
    std::fs::remove_file(setup.dir.join("credentials/nsec")).unwrap();
    let exit = setup.credential(b"no key").refused();
    assert!(exit.code == Some(6) && exit.stderr.contains("no valid key"), "{:?} {}", exit.code, exit.stderr);
    // Control: a key is not all that a start needs.
    let setup = Setup::new(OPEN);
    std::fs::write(setup.dir.join("admin"), "in the way").unwrap();
    assert_eq!(setup.refused().code, Some(1));
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
