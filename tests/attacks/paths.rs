//! A16, A18, B12: what already lies at the socket's path survives, and the socket is never wider than configured.

use crate::support::daemon::{OPEN, Setup};
use crate::support::{Nsecd, missing, process};
use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What must not change about a planted object.
fn identity(m: &Metadata) -> (u64, u32, u64, u64, u32) {
    (m.ino(), m.mode(), m.nlink(), m.len(), m.uid())
}

/// Plants something at the socket's path; nsecd must refuse, name the path, and leave it as it was.
fn survives(what: &str, plant: impl Fn(&Path, &Path)) {
    let setup = Setup::new(OPEN);
    let (socket, victim) = (setup.socket.clone(), setup.dir.file("victim", 0o600, None, b"precious"));
    plant(&socket, &victim);
    let before = identity(&fs::symlink_metadata(&socket).unwrap());
    let exit = setup.refused();
    assert_ne!(exit.code, Some(0), "{what}");
    assert!(exit.stderr.contains(socket.to_str().unwrap()), "{what}: {}", exit.stderr);
    assert_eq!(identity(&fs::symlink_metadata(&socket).unwrap()), before, "{what}");
    assert_eq!(fs::read(&victim).unwrap(), b"precious", "{what}");
}

#[test]
fn whatever_is_planted_at_the_sockets_path_survives_and_nsecd_refuses() {
    survives("regular file", |path, _| fs::write(path, "x").unwrap());
    survives("symbolic link", |path, victim| symlink(victim, path).unwrap());
    survives("dangling link", |path, victim| symlink(victim.with_extension("none"), path).unwrap());
    survives("hard link", |path, victim| fs::hard_link(victim, path).unwrap());
    survives("directory", |path, _| fs::create_dir(path).unwrap());
    survives("FIFO", |path, _| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap());
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
    let mut setup = Setup::new(OPEN);
    let real = setup.dir.subdir("real", 0o755, None);
    symlink(&real, setup.dir.join("way")).unwrap();
    let socket = setup.dir.join("way/s.sock");
    setup.command.arg("--socket").arg(&socket);
    // Whether the last --socket wins or two are an error, nothing may appear behind the link.
    let exit = setup.refused();
    assert_ne!(exit.code, Some(0));
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0, "{}", exit.stderr);
}

#[test]
fn a_second_instance_refuses_and_the_first_goes_on_serving() {
    let first = Nsecd::start(OPEN);
    let before = identity(&fs::symlink_metadata(&first.socket).unwrap());
    let mut client = first.connect();
    client.public_key();
    for _ in 0..3 {
        let mut second = Setup::new(&OPEN.replace("/run/nsecd-test.sock", first.socket.to_str().unwrap()));
        let arguments: Vec<_> = second.command.get_args().map(|a| a.to_os_string()).collect();
        let swapped = arguments.into_iter().map(|a| if a == *second.socket { first.socket.clone().into() } else { a });
        let mut command = Command::new(second.command.get_program());
        command.env_clear().env("CREDENTIALS_DIRECTORY", second.dir.join("credentials")).args(swapped);
        second.command = command;
        let exit = second.refused();
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
            thread::yield_now();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        });
    }
}

#[test]
fn the_trace_of_the_start_shows_umask_before_bind() {
    if missing("strace", "--version") {
        return;
    }
    let mut setup = Setup::new(OPEN);
    let trace = setup.dir.join("trace");
    let program = setup.command.get_program().to_os_string();
    let mut command = Command::new("strace");
    command.args(["--quiet=all", "--trace=umask,bind,chmod,fchmod,fchmodat,listen,unlink,unlinkat", "-o"]).arg(&trace);
    command.arg(program).args(setup.command.get_args()).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("CREDENTIALS_DIRECTORY", setup.dir.join("credentials"));
    setup.command = command;
    let nsecd = setup.start();
    let text = fs::read_to_string(&trace).unwrap();
    let at = |call: &str| text.lines().position(|l| l.starts_with(call)).unwrap_or_else(|| panic!("no {call}:\n{text}"));
    let umask = text.lines().filter(|l| l.starts_with("umask(")).next_back().unwrap_or_default();
    let bind = text.lines().position(|l| l.starts_with("bind(") && l.contains("s.sock")).expect("bind");
    assert!(at("umask(") < bind, "{text}");
    assert!(umask.starts_with("umask(0") , "{umask}");
    let before: Vec<_> = text.lines().take(bind).filter(|l| l.starts_with("umask(")).collect();
    let mask = before.last().and_then(|l| l.strip_prefix("umask(")).and_then(|l| l.split(')').next()).unwrap();
    assert_eq!(u32::from_str_radix(mask, 8).unwrap() & 0o077, 0o077, "{text}");
    // strace is the parent of nsecd here; its end takes nsecd along.
    let tracee = process::descendants(nsecd.pid())[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(tracee), nix::sys::signal::Signal::SIGTERM).unwrap();
    nsecd.wait();
}
