//! B25, B12: the admin directory, and what lies where the control socket goes.
//!
//! Checked: red with the directory's mode not looked at, and with agents' sockets let in.

use crate::support::control::freeze;
use crate::support::daemon::OPEN;
use crate::support::{Nsecd, Setup, root};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Puts something at a path.
type Plant = fn(&Path);

fn refused(setup: Setup, texts: &[&str]) -> crate::support::Exit {
    let exit = setup.refused();
    for text in texts {
        assert!(exit.stderr.contains(text), "{text}: {}", exit.stderr);
    }
    exit
}

#[test]
fn what_is_planted_at_the_control_sockets_path_survives_and_stops_the_start() {
    let plant: [(&str, Plant); 5] = [
        ("is a symbolic link", |path| symlink("/tmp/nowhere.sock", path).unwrap()),
        ("is a directory", |path| fs::create_dir(path).unwrap()),
        ("is a FIFO", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("is a regular file", |path| fs::write(path, "mine").unwrap()),
        ("is a socket of another program", |path| drop(UnixListener::bind(path).unwrap())),
    ];
    for (text, plant) in plant {
        let setup = Setup::new(OPEN);
        let path = setup.dir.subdir("admin", 0o700, None).join("control.sock");
        plant(&path);
        let before = fs::symlink_metadata(&path).unwrap().file_type();
        let exit = refused(setup, &["control.sock", text, "use another --admin-dir"]);
        assert_eq!(fs::symlink_metadata(exit.dir.join("admin/control.sock")).unwrap().file_type(), before);
    }
}

#[test]
fn an_admin_directory_that_others_reach_or_own_is_refused() {
    for mode in [0o701, 0o710, 0o755, 0o770, 0o777] {
        let setup = Setup::new(OPEN);
        setup.dir.subdir("admin", mode, None);
        refused(setup, &["admin", "chmod"]);
    }
    let setup = Setup::new(OPEN);
    setup.dir.subdir("elsewhere", 0o700, None);
    symlink(setup.dir.join("elsewhere"), setup.dir.join("admin")).unwrap();
    refused(setup, &["admin is a symbolic link"]);
    let setup = Setup::new(OPEN);
    setup.dir.file("admin", 0o600, None, b"");
    refused(setup, &["admin is a regular file"]);
    if root() {
        let setup = Setup::new(OPEN);
        setup.dir.subdir("admin", 0o700, Some(23_431));
        refused(setup, &["admin", "uid 23431"]);
        let setup = Setup::of(Some(23_431), OPEN);
        setup.dir.subdir("admin", 0o700, Some(0));
        refused(setup, &["admin", "uid 0"]);
    }
}

#[test]
fn no_agent_socket_lies_in_or_under_the_admin_directory() {
    for place in ["admin/s.sock", "admin/agents/s.sock", "admin/control.sock", "admin"] {
        let exit = refused(Setup::at(place, OPEN), &["the agent socket", "collides with the admin directory"]);
        assert_eq!(exit.code, Some(2));
        assert!(!exit.dir.join("admin").exists(), "nothing is made");
    }
    // Control: beside it.
    Setup::at("admin.d/s.sock", OPEN).start();
}

#[test]
fn the_admin_directory_is_the_flags_then_the_files() {
    let setup = Setup::new(&format!("{OPEN}[admin]\ndir = \"@DIR@/in-file\"\n"));
    let nsecd = setup.start();
    assert!(nsecd.dir.join("admin/control.sock").exists() && !nsecd.dir.join("in-file").exists());
}

#[test]
fn a_second_nsecd_in_the_same_admin_directory_refuses_and_the_first_keeps_it() {
    let nsecd = Nsecd::start(OPEN);
    let setup = Setup::new(OPEN);
    let (mut command, own) = (std::process::Command::new(setup.command.get_program()), setup.dir.join("admin"));
    command
        .args(setup.command.get_args().map(|a| if *a == *own { nsecd.dir.join("admin").into() } else { a.to_owned() }));
    command.env_clear().env("CREDENTIALS_DIRECTORY", setup.dir.join("credentials"));
    let exit =
        refused(Setup { command, ..setup }, &["another nsecd serves", "control.sock", "use another --admin-dir"]);
    drop(exit);
    freeze(&nsecd);
}

#[test]
fn what_a_killed_nsecd_left_is_replaced_and_at_exit_nothing_is_left() {
    use nix::sys::signal::Signal;
    let setup = Nsecd::start(OPEN).stopped(Signal::SIGKILL);
    assert!(setup.dir.join("admin/control.sock").exists(), "control");
    let nsecd = setup.start();
    freeze(&nsecd);
    assert_eq!(fs::metadata(nsecd.dir.join("admin")).unwrap().permissions().mode() & 0o777, 0o700);
    let setup = nsecd.stopped(Signal::SIGTERM);
    // Which of the two made it nobody knows.
    assert_eq!(fs::read_dir(setup.dir.join("admin")).unwrap().count(), 0);
}

/// Checked: with the directory left in place, and with one removed that was there before, this fails.
#[test]
fn an_admin_directory_that_nsecd_made_goes_with_it_and_one_that_was_there_stays() {
    use nix::sys::signal::Signal;
    let deep = |setup: &Setup| setup.dir.join("made/for/admin");
    let configured = || {
        let setup = Setup::new(OPEN);
        let admin = deep(&setup);
        setup.admin_in(&admin)
    };
    for kept in ["", "made", "made/for/admin"] {
        let setup = configured();
        if !kept.is_empty() {
            fs::create_dir_all(setup.dir.join(kept)).unwrap();
            fs::set_permissions(setup.dir.join(kept), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let nsecd = setup.start();
        assert!(nsecd.dir.join("made/for/admin/control.sock").exists());
        let setup = nsecd.stopped(Signal::SIGTERM);
        assert_eq!(deep(&setup).exists(), kept == "made/for/admin", "{kept}");
        assert_eq!(
            (setup.dir.join("made/for").exists(), setup.dir.join("made").exists()),
            (kept.len() > 4, !kept.is_empty())
        );
    }
    // Somebody else's file in it.
    let nsecd = configured().start();
    fs::write(nsecd.dir.join("made/for/admin/note"), "x").unwrap();
    assert!(deep(&nsecd.stopped(Signal::SIGTERM)).join("note").exists());
}
