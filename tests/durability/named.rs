//! B30: what SIGNER_SESSION_FILE names is the journal only if it is ours or nothing.
//!
//! Checked: with every file there taken for a journal, the test about others' files fails; with the variable ignored, the
//! other one.

use super::{Strike, identity, struck};
use crate::support::daemon::Setup;
use crate::support::{Nsecd, PUBLIC_KEY, event, root};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const CONFIG: &str = "[[socket]]\npath = \"/run/x.sock\"\nkinds = [1]\n";

/// An nsecd whose SIGNER_SESSION_FILE is `name` in its directory.
fn naming(name: &str) -> (Setup, PathBuf) {
    let mut setup = Setup::new(CONFIG);
    let path = setup.dir.join(name);
    setup.command.env("SIGNER_SESSION_FILE", &path);
    (setup, path)
}

/// A session goes on over a restart.
fn remembers(nsecd: Nsecd) -> Nsecd {
    let token = nsecd.connect().session(json!({"scope": "1"}));
    let nsecd = struck(struck(nsecd, Strike::Broker), Strike::Kill);
    event::signed(&nsecd.connect().sign(1, Some(&token)), PUBLIC_KEY);
    nsecd
}

#[test]
fn a_session_file_that_is_named_and_new_is_the_journal() {
    for name in ["sessions.json", "made/for/it/sessions.json", "empty.json"] {
        let (setup, path) = naming(name);
        if name == "empty.json" {
            // As new as none.
            write(&path, 0o600, "");
        }
        let nsecd = remembers(setup.start());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(fs::read_to_string(path).unwrap().contains("\"open\""));
        assert!(!nsecd.dir.join("state/journal").exists());
    }
}

/// nsecd starts, says that it leaves `name` alone, and does; its journal is in the state directory.
fn is_left_alone(name: &str, plant: impl FnOnce(&Path)) {
    let (setup, path) = naming(name);
    plant(&path);
    if fs::symlink_metadata(&path).unwrap().is_file() {
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(SystemTime::now() - Duration::from_secs(9))
            .unwrap();
    }
    let before = (identity(&path), fs::read_link(&path).ok());
    let content = |path: &Path| fs::symlink_metadata(path).unwrap().is_file().then(|| fs::read(path).unwrap());
    let bytes = content(&path);
    let nsecd = setup.start();
    let warned = |nsecd: &Nsecd| {
        let said = nsecd.stderr();
        said.lines().any(|l| l.contains("is left alone") && l.contains(path.to_str().unwrap()))
    };
    assert!(warned(&nsecd), "{name}: {}", nsecd.stderr());
    let nsecd = remembers(nsecd);
    assert!(warned(&nsecd), "{name}: {}", nsecd.stderr());
    assert_eq!((identity(&path), fs::read_link(&path).ok()), before, "{name}");
    assert_eq!(content(&path), bytes, "{name}");
    assert!(fs::read_to_string(nsecd.dir.join("state/journal")).unwrap().contains("\"start\""), "{name}");
}

fn write(path: &Path, mode: u32, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_session_file_of_the_reference_daemons_or_anybody_elses_is_left_alone_and_that_is_said() {
    let reference = r#"{
  "a3c1": { "token": "a3c1", "allowedKinds": [1, 9734], "createdAt": 1775108259123, "expiresAt": 1775137059123, "signCount": 4 }
}"#;
    is_left_alone("sessions.json", |path| write(path, 0o644, reference));
    is_left_alone("empty-object.json", |path| write(path, 0o600, "{}"));
    is_left_alone("notes.txt", |path| write(path, 0o600, "what I want to remember\n"));
    is_left_alone("blank.txt", |path| write(path, 0o600, &("\n".repeat(100) + "and then something")));
    is_left_alone("everybodys", |path| write(path, 0o666, ""));
    is_left_alone("directory", |path| fs::create_dir(path).unwrap());
    is_left_alone("fifo", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap());
    is_left_alone("dangling", |path| symlink(path.with_extension("none"), path).unwrap());
    is_left_alone("link", |path| {
        write(&path.with_extension("target"), 0o600, "");
        symlink(path.with_extension("target"), path).unwrap();
    });
    is_left_alone("second-name", |path| {
        write(&path.with_extension("first"), 0o600, "");
        fs::hard_link(path.with_extension("first"), path).unwrap();
    });
    is_left_alone("open/sessions.json", |path| {
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
        write(path, 0o600, "");
    });
    if root() {
        is_left_alone("somebodys", |path| {
            write(path, 0o600, "");
            chown(path, Some(23_431), None).unwrap();
        });
    }
}

/// Checked: without the lock the second one starts, and takes the first one's rows for its own.
#[test]
fn two_nsecds_never_share_a_journal() {
    let (setup, path) = naming("sessions.json");
    let first = setup.start();
    let token = first.connect().session(json!({"scope": "1"}));
    let before = fs::read(&path).unwrap();
    let mut other = Setup::new(CONFIG);
    other.command.env("SIGNER_SESSION_FILE", &path);
    let exit = other.refused();
    assert!(exit.stderr.contains("another nsecd uses the journal"), "{}", exit.stderr);
    assert_eq!(fs::read(&path).unwrap(), before);
    event::signed(&first.connect().sign(1, Some(&token)), PUBLIC_KEY);
    // With the first one's end the lock is free, however it ended.
    let first = first.restarted(nix::sys::signal::Signal::SIGKILL);
    event::signed(&first.connect().sign(1, Some(&token)), PUBLIC_KEY);
}

/// A trial on a throw-away key must end no session of another's, and leave nothing behind. Checked: where it uses the
/// variable all the same, the file is there.
#[test]
fn a_throw_away_key_leaves_the_named_session_file_alone() {
    let (setup, path) = naming("sessions.json");
    let mut setup = setup;
    let state = setup.dir.join("state");
    let kept: Vec<_> =
        setup.command.get_args().filter(|a| **a != *state && *a != "--state-dir").map(Into::into).collect();
    let mut command = std::process::Command::new(setup.command.get_program());
    command.env_clear().current_dir("/").stdin(std::process::Stdio::null()).args::<Vec<std::ffi::OsString>, _>(kept);
    command.env("SIGNER_SESSION_FILE", &path).env("RUNTIME_DIRECTORY", setup.dir.path()).arg("--ephemeral");
    setup.command = command;
    let nsecd = setup.start();
    assert!(nsecd.stderr().contains("the key is thrown away"), "{}", nsecd.stderr());
    nsecd.connect().session(json!({"scope": "1"}));
    nsecd.signal(nix::sys::signal::Signal::SIGTERM);
    nsecd.wait();
    assert!(!path.exists());
}
