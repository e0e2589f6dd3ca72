//! B25: who may ask at the admin socket, what lies where it goes, and that an agent's socket knows none of its methods.
//!
//! Checked: red with the uid not looked at by the broker.

use crate::support::admin::{connect, socket};
use crate::support::client::{code, refusal};
use crate::support::ctl::{ALICE, BOB};
use crate::support::daemon::OPEN;
use crate::support::{Nsecd, PUBLIC_KEY, Setup, missing, not_root, until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// What nsecctl run by this user gets when it asks for the public key: whether it got anything, and the reply.
fn ask_as(nsecd: &Nsecd, uid: u32) -> (bool, Value) {
    let copy = nsecd.dir.join("nsecctl");
    let program = if copy.exists() { copy } else { nsecd.dir.program(env!("CARGO_BIN_EXE_nsecctl").as_ref()) };
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
    let output = command.arg(program).arg("--socket").arg(socket(nsecd)).arg("pubkey").output().unwrap();
    (output.status.code() != Some(3), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

#[test]
fn the_admin_socket_is_roots_and_nsecds_own_users_whatever_its_mode_is() {
    if not_root("asking as other users") || missing("setpriv", "--version") {
        return;
    }
    // nsecd's own user is Alice here; then it is root.
    for (owner, strangers) in [(Some(ALICE), &[BOB, 65_534][..]), (None, &[ALICE, 65_534])] {
        let nsecd = Setup::of(owner, OPEN).start();
        let admin = nsecd.dir.join("admin");
        assert_eq!(fs::metadata(&admin).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(socket(&nsecd)).unwrap().permissions().mode() & 0o777, 0o600);
        for uid in strangers {
            assert!(!ask_as(&nsecd, *uid).0, "the directory is closed");
        }
        // Somebody has opened both.
        fs::set_permissions(&admin, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(socket(&nsecd), fs::Permissions::from_mode(0o666)).unwrap();
        for uid in strangers {
            // It may be refused, and the connection closed, before it has asked.
            let mut reply = Value::Null;
            until("a refusal that is read", || {
                reply = ask_as(&nsecd, *uid).1;
                !reply.is_null()
            });
            assert_eq!(code(&reply), "forbidden", "{reply}");
            assert!(refusal(&reply).contains("for root and the user that nsecd runs as"), "{reply}");
        }
        assert!(nsecd.stderr().contains("is refused at the admin socket"), "{}", nsecd.stderr());
        // Control: those who may.
        for uid in [owner.unwrap_or(0), 0] {
            assert_eq!(ask_as(&nsecd, uid).1["pubkey"], PUBLIC_KEY);
        }
    }
}

/// Puts something at a path.
type Plant = fn(&Path);

#[test]
fn what_is_planted_at_the_admin_sockets_path_survives_and_stops_the_start() {
    let plant: [(&str, Plant); 4] = [
        ("is a symbolic link", |path| symlink("/tmp/nowhere.sock", path).unwrap()),
        ("is a directory", |path| fs::create_dir(path).unwrap()),
        ("is a regular file", |path| fs::write(path, "mine").unwrap()),
        ("is a socket of another program", |path| drop(UnixListener::bind(path).unwrap())),
    ];
    for (text, plant) in plant {
        let setup = Setup::new(OPEN);
        let path = setup.dir.subdir("admin", 0o700, None).join("admin.sock");
        plant(&path);
        let before = fs::symlink_metadata(&path).unwrap().file_type();
        let exit = setup.refused();
        for text in ["admin.sock", text, "use another --admin-dir"] {
            assert!(exit.stderr.contains(text), "{text}: {}", exit.stderr);
        }
        assert_eq!(fs::symlink_metadata(exit.dir.join("admin/admin.sock")).unwrap().file_type(), before);
        // What the start had made is gone again.
        assert!(!exit.dir.join("admin/control.sock").exists());
    }
}

/// A1: what an agent sends is an agent's, whatever it says.
#[test]
fn an_agents_socket_knows_no_method_of_the_operators() {
    let nsecd = Nsecd::start(OPEN);
    let mut agent = nsecd.connect();
    for method in ["status", "session_list"] {
        let reply = agent.ask(method, json!({"socket": "s"}));
        assert_eq!((code(&reply), refusal(&reply)), ("bad_request", &*format!("Unknown method: {method}")));
    }
    // Those of the same name go by the agent's rules.
    let reply = agent.ask("sign_event", json!({"kind": 0, "content": "", "account": "default"}));
    assert_eq!(code(&reply), "no_session", "{reply}");
    let mut operator = connect(&nsecd);
    for (method, params, what) in [
        ("nip44_encrypt", json!({"plaintext": "x", "peer_pubkey": PUBLIC_KEY}), "Unknown method: nip44_encrypt"),
        (
            "sign_event",
            json!({"kind": 1, "content": "", "session_token": "x"}),
            "Unknown parameter of sign_event: session_token",
        ),
        ("list_accounts", json!({"acount": "x"}), "Unknown parameter of list_accounts: acount"),
    ] {
        let reply = operator.ask(method, params);
        assert_eq!((code(&reply), refusal(&reply)), ("bad_request", what));
    }
    // Control: the connection has survived all that.
    assert_eq!(operator.public_key(), PUBLIC_KEY);
}

#[test]
fn the_admin_socket_outlives_brokers_and_leaves_nothing_behind() {
    let nsecd = Nsecd::start(OPEN);
    let mut before = connect(&nsecd);
    assert_eq!(before.public_key(), PUBLIC_KEY);
    nsecd.kill("nsecd-broker");
    assert_eq!(before.line(), None, "it ends with its broker");
    assert_eq!(connect(&nsecd).public_key(), PUBLIC_KEY);
    let setup = nsecd.stopped(nix::sys::signal::Signal::SIGTERM);
    assert!(!setup.dir.join("admin").exists());
}
