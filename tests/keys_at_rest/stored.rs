//! Added and moved.

use crate::support::daemon::OPEN;
use crate::support::{Setup, event};
use crate::{HEX, NPUB, NSEC, PUBLIC, Store, cannot};
use std::os::unix::fs::PermissionsExt;

#[test]
fn every_form_of_a_key_becomes_a_credential_that_systemd_decrypts_and_nsecd_takes() {
    if cannot() {
        return;
    }
    let raw = event::unhex(HEX);
    for form in [NSEC.as_bytes(), HEX.as_bytes(), &raw, &[NSEC.as_bytes(), b"\n"].concat()] {
        let store = Store::new();
        let (code, said, why) = store.run(&["add", "--to", "credential:nsec"], form);
        assert_eq!(code, 0, "{why}");
        assert!(
            said.contains(NPUB) && said.contains(PUBLIC) && said.contains("LoadCredentialEncrypted=nsec:"),
            "{said}"
        );
        assert_eq!(store.decrypted("nsec"), NSEC);
        let meta = std::fs::metadata(store.file("nsec")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(store.dir.join("credstore")).unwrap().count(), 1, "something was left behind");
    }
    let store = Store::new();
    assert_eq!(store.run(&["add", "--to", "credential:nsec"], NSEC.as_bytes()).0, 0);
    let setup = Setup::new(OPEN);
    std::fs::remove_file(setup.dir.join("credentials/nsec")).unwrap();
    let nsecd = setup.credential(store.decrypted("nsec").as_bytes()).start();
    event::signed(&nsecd.connect().sign(1, None), PUBLIC);
}

#[test]
fn an_ncryptsec_is_opened_by_its_password_and_its_key_is_stored() {
    if cannot() {
        return;
    }
    // NIP-49's own example; its secret's public key was computed by nostr-tools.
    let sealed = "ncryptsec1qgg9947rlpvqu76pj5ecreduf9jxhselq2nae2kghhvd5g7dgjtcxfqtd67p9m0w57lspw8gsq6yphnm8623nsl8xn9j4jdzz84zm3frztj3z7s35vpzmqf6ksu8r89qk5z2zxfmu5gv8th8wclt0h4p\n";
    let store = Store::new();
    let right = store.dir.file("right", 0o600, None, b"nostr\n");
    let wrong = store.dir.file("wrong", 0o600, None, b"Nostr\n");
    let add = |password: &std::path::Path| {
        let password = format!("--password-file={}", password.display());
        store.run(&["add", "--to", &store.ring(), &password, "--json"], sealed.as_bytes())
    };
    let (code, _, why) = add(&wrong);
    assert!(code == 2 && why.contains("password is wrong") && store.in_keyring().is_empty(), "{code} {why}");
    let (code, said, why) = add(&right);
    assert_eq!(code, 0, "{why}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["stored"], store.ring());
    let nsec = store.in_keyring();
    assert!(nsec.starts_with("nsec1"), "not stored");
    // The same by the key itself: the public keys agree.
    let other = Store::new();
    let secret = "3501454135014541350145413501453fefb02227e449e57cf4d3a3ce05378683";
    let (_, plain, _) = other.run(&["add", "--to", &other.ring(), "--json"], secret.as_bytes());
    let plain: serde_json::Value = serde_json::from_str(&plain).unwrap();
    assert_eq!((&plain["public_key"], other.in_keyring()), (&said["public_key"], nsec));
}

#[test]
fn nothing_is_overwritten_unless_that_is_asked_for() {
    if cannot() {
        return;
    }
    let store = Store::new();
    let ring = store.ring();
    for place in ["credential:nsec", ring.as_str()] {
        let add = |more: &[&str], key: &[u8]| store.run(&[&["add", "--to", place], more].concat(), key);
        let stored = || if place == ring { store.in_keyring() } else { store.decrypted("nsec") };
        assert_eq!(add(&[], NSEC.as_bytes()).0, 0);
        let (code, _, why) = add(&[], &[1; 32]);
        assert!(code == 2 && why.contains("is there already") && why.contains("--replace"), "{code} {why}");
        assert_eq!(stored(), NSEC);
        assert_eq!(add(&["--replace"], &[1; 32]).0, 0);
        assert_ne!(stored(), NSEC);
    }
    for bad in ["", "nsec1", "npub1x", "hello"] {
        let (code, _, why) = store.run(&["add", "--to", "credential:other"], bad.as_bytes());
        assert!(code == 2 && why.contains("expected an nsec1"), "{code} {why}");
    }
    assert!(!store.file("other").exists());
}

#[test]
fn a_key_moves_there_and_back_and_its_source_goes_only_when_asked() {
    if cannot() {
        return;
    }
    let store = Store::new();
    let ring = store.ring();
    assert_eq!(store.run(&["add", "--to", &ring], NSEC.as_bytes()).0, 0);
    let (code, said, why) = store.run(&["move", &ring, "credential:bot"], b"");
    assert_eq!(code, 0, "{why}");
    assert!(said.contains(NPUB) && said.contains("is still there") && said.contains("keyctl purge user"), "{said}");
    assert_eq!((store.in_keyring(), store.decrypted("bot")), (NSEC.to_owned(), NSEC.to_owned()));
    // Not over what is there; nor is the source then removed.
    let (code, _, why) = store.run(&["move", "--remove-source", "credential:bot", &ring], b"");
    assert!(code == 2 && why.contains("--replace"), "{code} {why}");
    assert_eq!(store.decrypted("bot"), NSEC);
    let (code, said, why) = store.run(&["move", "--remove-source", "--replace", "credential:bot", &ring], b"");
    assert_eq!(code, 0, "{why}");
    assert!(said.contains("is removed") && !store.file("bot").exists(), "{said}");
    assert_eq!(store.in_keyring(), NSEC);
    assert_eq!(store.run(&["move", "--remove-source", &ring, "credential:bot"], b"").0, 0);
    assert_eq!((store.in_keyring().as_str(), store.decrypted("bot").as_str()), ("", NSEC));
}

#[test]
fn a_move_that_fails_half_way_leaves_the_source() {
    if cannot() {
        return;
    }
    let store = Store::new();
    let ring = store.ring();
    assert_eq!(store.run(&["add", "--to", &ring], NSEC.as_bytes()).0, 0);
    // A systemd-creds that encrypts another key: what is read back is not what was moved.
    let bin = store.dir.subdir("bin", 0o755, None);
    let script = "#!/bin/sh\nPATH=/usr/bin:/bin\ncase $1 in encrypt) cat >/dev/null; echo sealed;; *) head -c 32 /dev/zero | tr '\\000' '\\001';; esac\n";
    store.dir.file("bin/systemd-creds", 0o755, None, script.as_bytes());
    let mut command = store.command(&["move", "--remove-source", &ring, "credential:bot"]);
    command.env("PATH", &bin);
    let (code, _, why) = crate::finish(command, b"");
    assert!(code == 1 && why.contains("another key"), "{code} {why}");
    assert_eq!(store.in_keyring(), NSEC);
}
