//! A16, A18, B12: what already lies at the socket's path survives, and the socket is never wider than configured.
//!
//! Checked: with `Own::clear` removing whatever it finds, or not looking at whether it is a socket, or at whether it is ours, and with `Own::make` binding before the mode is closed,
//! tests of this file fail; without O_NOFOLLOW where there is no openat2(2), the one without that call.

use crate::support::daemon::{OPEN, Setup};
use crate::support::{Nsecd, missing, not_root};
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What must not change about a planted object.
fn identity(m: &Metadata) -> (u64, u32, u64, u64, u32) {
    (m.ino(), m.mode(), m.nlink(), m.len(), m.uid())
}

/// Plants something at the socket's path; nsecd must refuse, name the path and what lies there, and leave it as it was.
fn survives(what: &str, plant: impl Fn(&Path, &Path)) {
    let setup = Setup::new(OPEN);
    let (socket, victim) = (setup.socket.clone(), setup.dir.file("victim", 0o600, None, b"precious"));
    plant(&socket, &victim);
    let before = identity(&fs::symlink_metadata(&socket).unwrap());
    let exit = setup.refused();
    assert_ne!(exit.code, Some(0), "{what}");
    let text = format!("{} is {what}", socket.display());
    assert!(exit.stderr.contains(&text), "{text}: {}", exit.stderr);
    assert_eq!(identity(&fs::symlink_metadata(&socket).unwrap()), before, "{what}");
    assert_eq!(fs::read(&victim).unwrap(), b"precious", "{what}");
}

#[test]
fn whatever_is_planted_at_the_sockets_path_survives_and_nsecd_refuses() {
    survives("a regular file", |path, _| fs::write(path, "x").unwrap());
    survives("a symbolic link", |path, victim| symlink(victim, path).unwrap());
    survives("a symbolic link", |path, victim| symlink(victim.with_extension("none"), path).unwrap());
    survives("a regular file", |path, victim| fs::hard_link(victim, path).unwrap());
    survives("a directory", |path, _| fs::create_dir(path).unwrap());
    survives("a FIFO", |path, _| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap());
    // Nobody serves it any more: not even that makes it ours.
    survives("a socket of another program", |path, _| drop(UnixListener::bind(path).unwrap()));
}

#[test]
fn another_programs_live_socket_survives() {
    let setup = Setup::new(OPEN);
    let socket = setup.socket.clone();
    let listener = UnixListener::bind(&socket).unwrap();
    let before = identity(&fs::symlink_metadata(&socket).unwrap());
    let exit = setup.refused();
    assert_ne!(exit.code, Some(0));
    assert_eq!(identity(&fs::symlink_metadata(&socket).unwrap()), before);
    // Still the same listener's.
    let _client = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    listener.accept().unwrap();
}

#[test]
fn a_link_on_the_way_to_the_socket_is_not_followed() {
    let setup = Setup::at("way/s.sock", OPEN);
    let real = setup.dir.subdir("real", 0o755, None);
    symlink(&real, setup.dir.join("way")).unwrap();
    let exit = setup.refused();
    assert_ne!(exit.code, Some(0));
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0, "{}", exit.stderr);
}

/// systemd's RestrictSUIDSGID= takes openat2(2) away.
#[test]
fn without_openat2_it_starts_and_follows_no_link_either() {
    if not_root("tracing what is non-dumpable") || missing("strace", "--version") {
        return;
    }
    drop(Setup::new(OPEN).without_call("openat2").start());
    // On the way to the configuration, at its end, on the way to a file, at a file.
    let linked = |name: &str, to: &str| {
        let setup = Setup::new(OPEN).without_call("openat2");
        let (from, to) = (setup.dir.join(name), setup.dir.join(to));
        fs::rename(&from, &to).or_else(|_| fs::write(&to, "")).unwrap();
        symlink(&to, &from).unwrap();
        let exit = setup.refused();
        assert!(exit.code != Some(0) && exit.stderr.contains("symbolic link"), "{name}: {}", exit.stderr);
    };
    linked("nsecd.toml", "real.toml");
    linked("state", "real");
    linked("state/journal", "state/real");
}

#[test]
fn a_second_instance_refuses_and_the_first_goes_on_serving() {
    let first = Nsecd::start(OPEN);
    let before = identity(&fs::symlink_metadata(&first.socket).unwrap());
    let mut client = first.connect();
    client.public_key();
    for _ in 0..3 {
        let exit = Setup::at(first.socket.to_str().unwrap(), OPEN).refused();
        assert_ne!(exit.code, Some(0));
        assert!(exit.stderr.contains(first.socket.to_str().unwrap()), "{}", exit.stderr);
    }
    assert_eq!(identity(&fs::symlink_metadata(&first.socket).unwrap()), before);
    client.public_key();
    first.serves();
}

/// The widest permission bits that a path was ever seen with by a thread that does nothing but look.
fn widest_while(path: &Path, action: impl FnOnce()) -> u32 {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut widest = 0;
            while !over.load(Ordering::Relaxed) {
                if let Ok(m) = fs::symlink_metadata(path) {
                    widest |= m.mode() & 0o777;
                }
            }
            widest
        });
        action();
        over.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    })
}

#[test]
fn the_socket_is_never_wider_than_its_mode_not_even_at_birth() {
    for (mode, wanted) in [("0600", 0o600), ("0660", 0o660), ("0666", 0o666)] {
        for _ in 0..5 {
            let config = format!("[[socket]]\npath = \"/run/x.sock\"\nmode = \"{mode}\"\n");
            let setup = Setup::new(&config);
            let socket = setup.socket.clone();
            let mut running = None;
            let widest = widest_while(&socket, || running = Some(setup.start()));
            let meta = fs::symlink_metadata(&socket).unwrap();
            assert!(meta.file_type().is_socket());
            assert_eq!(meta.mode() & 0o777, wanted);
            assert_eq!(widest & !wanted, 0, "seen with {widest:o}");
        }
    }
}

#[test]
fn control_the_watcher_sees_a_socket_that_is_bound_wide_and_narrowed_later() {
    let dir = crate::support::Dir::new(None);
    let path = dir.join("wide.sock");
    let mut widest = 0;
    // Ends for certain: the mode is narrowed only after the watcher had its time to look.
    while widest & 0o077 == 0 {
        let _ = fs::remove_file(&path);
        widest = widest_while(&path, || {
            let _listener = UnixListener::bind(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        });
    }
}

#[test]
fn the_trace_of_the_start_shows_the_socket_closed_to_others_before_bind() {
    if not_root("reading what a non-dumpable process passes to the kernel") || missing("strace", "--version") {
        return;
    }
    let trace = Setup::new(OPEN).traced("umask,fchmod,bind").start().into_trace();
    let ours = |call: &str| call.starts_with("bind(") && call.contains("s.sock");
    let bind = trace.iter().position(|(_, call)| ours(call)).expect("bind");
    let (pid, call) = &trace[bind];
    let descriptor = call.trim_start_matches("bind(").split(',').next().unwrap();
    let before: Vec<_> = trace[..bind].iter().filter(|(p, _)| p == pid).map(|(_, call)| call.as_str()).collect();
    // bind takes the file's mode from the socket's own, less the umask: either closes it.
    let octal = |rest: &str| u32::from_str_radix(rest.split([')', ',']).next().unwrap().trim(), 8).unwrap();
    let mask = before.iter().filter_map(|c| c.strip_prefix("umask(")).map(octal).next_back().unwrap_or(0);
    let mode = format!("fchmod({descriptor}, ");
    let mode = before.iter().filter_map(|c| c.strip_prefix(mode.as_str())).map(octal).next_back().unwrap_or(0o777);
    assert_eq!(mode & !mask & 0o077, 0, "{before:?}");
}
