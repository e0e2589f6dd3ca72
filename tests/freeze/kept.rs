//! What a freeze outlives.
//!
//! Checked: red with nothing saved, with a new gate's page not the account's, and with a damaged file taken for none.

use crate::rows;
use crate::support::client::code;
use crate::support::control::{freeze, order, thaw};
use crate::support::daemon::{DM, OPEN};
use crate::support::{Nsecd, Setup, missing, not_root, process};
use nix::sys::signal::Signal;
use nsecd_policy::operator::{Command, Status};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Puts something at a path.
type Plant = fn(&std::path::Path);

fn frozen(nsecd: &Nsecd) {
    let mut client = nsecd.connect();
    assert_eq!(code(&client.sign(1, None)), "frozen");
}

fn since(nsecd: &Nsecd) -> Option<u64> {
    order(nsecd, Command::Status, "default")[0].frozen
}

#[test]
fn a_freeze_outlives_killed_brokers_and_gates_and_every_restart_until_it_is_thawed() {
    let nsecd = Nsecd::start(DM);
    assert!(nsecd.connect().sign(1, None)["event"].is_object(), "control");
    let wrap = |nsecd: &Nsecd| {
        let peer = "2f8bde4d1a07209355b4a7250a5c5128e88b84bddc619ab7cba8d569b240efe4";
        nsecd.connect().ask("wrap_dm", json!({"recipientPubkey": peer, "message": "x"}))
    };
    assert!(wrap(&nsecd)["events"].is_array(), "control");
    let at = freeze(&nsecd)[0].frozen.unwrap();
    let before = ["default", "default.ecdh"].map(|name| rows(&nsecd, name));
    for role in ["nsecd-gate", "nsecd-broker", "nsecd-gate"] {
        nsecd.kill(role);
        frozen(&nsecd);
    }
    let mut nsecd = nsecd;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        nsecd = nsecd.restarted(signal);
        frozen(&nsecd);
        let refused = wrap(&nsecd);
        assert_eq!(
            (code(&refused), refused["error"].as_str()),
            ("frozen", Some("Wrap failed: the account is frozen by its operator"))
        );
        assert_eq!(since(&nsecd), Some(at), "since when is kept");
        assert!(nsecd.stderr().contains("account default is frozen since 20"), "{}", nsecd.stderr());
    }
    assert_eq!(freeze(&nsecd)[0].frozen, Some(at), "frozen once more is frozen since then");
    assert_eq!(["default", "default.ecdh"].map(|name| rows(&nsecd, name)), before);
    thaw(&nsecd);
    assert!(nsecd.connect().sign(1, None)["event"].is_object() && wrap(&nsecd)["events"].is_array());
    let nsecd = nsecd.restarted(Signal::SIGKILL);
    assert!(nsecd.connect().sign(1, None)["event"].is_object());
    assert_eq!(since(&nsecd), None);
    assert_eq!(nsecd.files_in_state("default.frozen"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_freeze_is_on_disk_before_it_is_acknowledged_and_a_thaw_before_it_counts() {
    if not_root("reading what a non-dumpable process passes to the kernel") || missing("strace", "--version") {
        return;
    }
    let nsecd = Setup::new(OPEN).traced("fsync,rename,renameat,renameat2,unlinkat,sendto").start();
    freeze(&nsecd);
    thaw(&nsecd);
    let supervisor = process::descendants(nsecd.pid())[0];
    let trace: Vec<String> =
        nsecd.into_trace().into_iter().filter(|(pid, _)| *pid == supervisor).map(|(_, c)| c).collect();
    let from = trace.iter().position(|c| c.starts_with("fsync")).expect("something reaches the disk");
    let until = trace.iter().rposition(|c| c.starts_with("sendto") && !c.contains("NOTIFY")).unwrap();
    // Answers are long; what else is sent (sd_notify, syslog, to the broker) is not theirs.
    let answer = |c: &String| c.starts_with("sendto") && c.ends_with("= 80");
    let calls = trace[from..=until].iter().filter(|c| !c.starts_with("sendto") || answer(c));
    let names: Vec<&str> = calls.map(|c| c.split('(').next().unwrap()).take(7).collect();
    assert_eq!(names, ["fsync", "renameat", "fsync", "sendto", "unlinkat", "fsync", "sendto"], "{trace:?}");
}

#[test]
fn a_damaged_file_freezes_and_that_is_said() {
    for damage in [
        &b""[..],
        b"frozen since",
        b"frozen since 12x\n",
        b"\xff\xfe",
        b"frozen since 18446744073709551616\n",
        &[b'0'; 100_000],
    ] {
        let setup = Setup::new(OPEN);
        setup.dir.file("state/default.frozen", 0o600, None, damage);
        let nsecd = setup.start();
        frozen(&nsecd);
        assert_eq!(since(&nsecd), Some(0), "unknown");
        assert!(nsecd.stderr().contains("account default starts frozen"), "{}", nsecd.stderr());
        thaw(&nsecd);
        assert!(nsecd.connect().sign(1, None)["event"].is_object());
    }
}

#[test]
fn what_is_no_file_of_nsecds_at_its_place_stops_the_start() {
    let plant: [(&str, Plant); 4] = [
        ("is a symbolic link", |path| symlink("/dev/null", path).unwrap()),
        ("is a directory", |path| fs::create_dir(path).unwrap()),
        ("is a FIFO", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("can be written by others", |path| {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    for (text, plant) in plant {
        let setup = Setup::new(OPEN);
        plant(&setup.dir.join("state/default.frozen"));
        let exit = setup.refused();
        assert_eq!(exit.code, Some(1));
        assert!(exit.stderr.contains("default.frozen") && exit.stderr.contains(text), "{}", exit.stderr);
        assert!(fs::symlink_metadata(exit.dir.join("state/default.frozen")).is_ok());
    }
}

#[test]
fn a_freeze_that_cannot_be_saved_is_in_force_and_says_so_and_a_thaw_that_cannot_be_is_not() {
    let nsecd = Nsecd::start(OPEN);
    let state = nsecd.dir.join("state");
    fs::create_dir(state.join("default.frozen.next")).unwrap();
    for command in [Command::Freeze, Command::Freeze] {
        let reply = order(&nsecd, command, "").remove(0);
        assert_eq!((reply.status, reply.frozen.is_some(), reply.saved), (Status::NotSaved, true, false));
        frozen(&nsecd);
    }
    assert!(nsecd.stderr().contains("account default is frozen, but not saved"), "{}", nsecd.stderr());
    fs::remove_dir(state.join("default.frozen.next")).unwrap();
    assert!(order(&nsecd, Command::Freeze, "")[0].saved, "asked again");
    // A thaw whose file cannot be removed.
    fs::remove_file(state.join("default.frozen")).unwrap();
    fs::create_dir(state.join("default.frozen")).unwrap();
    let reply = order(&nsecd, Command::Thaw, "").remove(0);
    assert_eq!((reply.status, reply.frozen.is_some()), (Status::NotSaved, true));
    frozen(&nsecd);
    fs::remove_dir(state.join("default.frozen")).unwrap();
    thaw(&nsecd);
    assert!(nsecd.connect().sign(1, None)["event"].is_object());
}

#[test]
fn nsecctl_says_what_is_frozen_since_when_and_by_its_exit_code_whether_it_is() {
    let nsecd = Nsecd::start(OPEN);
    let ctl = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nsecctl"));
        let output =
            command.args(arguments).arg("--admin-dir").arg(nsecd.dir.join("admin")).env_clear().output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), json, String::from_utf8(output.stderr).unwrap())
    };
    let (code, reply, _) = ctl(&["freeze"]);
    assert_eq!(
        (code, &reply["accounts"][0]["account"], &reply["accounts"][0]["frozen"]),
        (0, &json!("default"), &json!(true))
    );
    let since = reply["accounts"][0]["since"].as_str().unwrap().to_owned();
    assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
    frozen(&nsecd);
    assert_eq!(ctl(&["freeze", "--account", "default"]).1["accounts"][0]["since"], json!(since));
    let (code, reply, text) = ctl(&["thaw", "--account", "nobody"]);
    assert_eq!((code, reply["accounts"].as_array().map(Vec::len)), (1, Some(0)));
    assert!(text.contains("no account nobody"), "{text}");
    frozen(&nsecd);
    assert_eq!(ctl(&["thaw"]).0, 0);
    assert!(nsecd.connect().sign(1, None)["event"].is_object());
    fs::create_dir(nsecd.dir.join("state/default.frozen.next")).unwrap();
    let (code, reply, text) = ctl(&["freeze"]);
    assert_eq!((code, &reply["accounts"][0]["saved"]), (4, &json!(false)));
    assert!(text.contains("a restart of nsecd would thaw it"), "{text}");
    frozen(&nsecd);
    let nowhere = std::process::Command::new(env!("CARGO_BIN_EXE_nsecctl"))
        .args(["freeze", "--admin-dir", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(3));
}
