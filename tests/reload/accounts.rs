//! Accounts that come and go.

use super::{OPEN, ask, refused, reload, write};
use crate::support::client::refusal;
use crate::support::{Client, Nsecd, PUBLIC_KEY, Setup, control, process};
use serde_json::json;

/// The secret 5.
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000005";
const OTHER_PUBLIC: &str = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";

/// The first socket with one account more.
fn with(name: &str) -> String {
    let account = format!("[[account]]\nname = \"{name}\"\nsource = \"credential:{name}\"\nceiling = \"none\"\n");
    let socket = format!("[[socket]]\naccounts = [\"default\", \"{name}\"]");
    OPEN.replace("[[socket]]", &format!("{account}{socket}"))
}

fn start() -> Nsecd {
    let setup = Setup::new(OPEN);
    setup.dir.file("credentials/biz", 0o400, None, OTHER.as_bytes());
    setup.dir.file("credentials/same", 0o400, None, crate::support::KEY_HEX.as_bytes());
    setup.dir.file("credentials/broken", 0o400, None, b"no key");
    setup.start()
}

fn sign(client: &mut Client, account: &str) -> serde_json::Value {
    client.ask("sign_event", json!({"kind": 1, "content": "x", "account": account}))
}

fn count(nsecd: &Nsecd, role: &str) -> usize {
    nsecd.processes().iter().filter(|(name, _)| name == role).count()
}

#[test]
fn a_new_account_signs_and_a_removed_ones_processes_are_gone() {
    let nsecd = start();
    let mut client = nsecd.connect();
    let holder = nsecd.role("nsecd-keyholder");
    assert!(refusal(&sign(&mut client, "biz")).contains("Unknown"));
    for round in 0..2 {
        reload(&nsecd, &with("biz"));
        assert_eq!(sign(&mut client, "biz")["event"]["pubkey"], OTHER_PUBLIC);
        assert_eq!(sign(&mut client, "default")["event"]["pubkey"], PUBLIC_KEY);
        assert_eq!((count(&nsecd, "nsecd-keyholder"), count(&nsecd, "nsecd-gate")), (2, 2));
        let session = client.session(json!({"scope": "1", "account": "biz"}));
        let new: Vec<i32> = process::descendants(nsecd.pid());
        reload(&nsecd, OPEN);
        assert_eq!((count(&nsecd, "nsecd-keyholder"), count(&nsecd, "nsecd-gate")), (1, 1), "of {new:?}");
        assert_eq!(nsecd.role("nsecd-keyholder"), holder, "the other one is not touched");
        assert!(refusal(&sign(&mut client, "biz")).contains("Unknown"));
        assert!(refusal(&client.sign(1, Some(&session))).contains("Invalid session token"));
        assert!(sign(&mut client, "default").get("event").is_some());
        let record = std::fs::metadata(nsecd.dir.join("state/biz.record")).unwrap().len();
        assert_eq!(record, 64 * (2 + round), "a header, and a row for each signature");
    }
}

#[test]
fn an_account_that_does_not_come_up_changes_nothing() {
    let nsecd = start();
    let before = nsecd.processes();
    for (name, why) in [
        ("none", "there is no credential none"),
        ("broken", "its source holds no valid key"),
        ("same", "hold the same key"),
    ] {
        let text = refused(&nsecd, &with(name));
        assert!(text.contains(why), "{name}: {text}");
        assert_eq!(nsecd.processes(), before);
        nsecd.serves();
    }
}

#[test]
fn a_freeze_of_all_holds_for_an_account_that_comes_and_one_that_was_frozen_comes_back_frozen() {
    let nsecd = start();
    reload(&nsecd, &with("biz"));
    let mut client = nsecd.connect();
    assert_eq!(control::freeze(&nsecd).len(), 2);
    assert_eq!(sign(&mut client, "biz")["code"], "frozen");
    reload(&nsecd, OPEN);
    assert_eq!(sign(&mut client, "default")["code"], "frozen", "a reload thaws nobody");
    write(&nsecd, &with("biz"));
    assert_eq!(ask(&nsecd), Ok(()));
    assert_eq!(sign(&mut client, "biz")["code"], "frozen");
    control::thaw(&nsecd);
    assert!(sign(&mut client, "biz").get("event").is_some());
}
