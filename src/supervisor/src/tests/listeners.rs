use crate::names::Names;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::{Scratch, chmod, fifo, mode, root};
use crate::listeners::{Access, Listener};
use crate::securefs::parent_mode;

fn access(mode: u32) -> Access {
    Access { mode, owner: None, group: None }
}

fn refusal(path: &Path) -> String {
    Listener::bind(path, access(0o600)).unwrap_err().to_string()
}

#[test]
fn a_socket_listens_with_its_mode_and_is_gone_at_exit() {
    let scratch = Scratch::new();
    let path = scratch.join("agents/signer.sock");
    let listener = Listener::bind(&path, access(0o660)).unwrap();
    assert_eq!((mode(&path), mode(&scratch.join("agents"))), (0o660, parent_mode()));
    UnixStream::connect(&path).unwrap();
    let flags = nix::fcntl::fcntl(listener.fd.as_fd(), nix::fcntl::FcntlArg::F_GETFL).unwrap();
    assert!(flags & nix::libc::O_NONBLOCK != 0);
    drop(listener);
    assert_eq!(fs::read_dir(scratch.join("agents")).unwrap().count(), 0);
}

#[test]
fn planted_objects_survive_and_are_refused() {
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), "an operator's").unwrap();
    fs::write(scratch.join("target"), "").unwrap();
    symlink(scratch.join("target"), scratch.join("link")).unwrap();
    symlink(scratch.join("nowhere"), scratch.join("dangling")).unwrap();
    fifo(&scratch.join("fifo"));
    fs::create_dir(scratch.join("dir")).unwrap();
    let before = scratch.names();
    for (name, kind) in [
        ("file", "a regular file"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("fifo", "a FIFO"),
        ("dir", "a directory"),
    ] {
        let why = refusal(&scratch.join(name));
        assert!(why.contains(kind) && why.contains("--socket"), "{why}");
    }
    assert_eq!(scratch.names(), before);
    assert_eq!(fs::read_to_string(scratch.join("file")).unwrap(), "an operator's");
}

#[test]
fn a_planted_lock_file_is_refused_and_survives() {
    let scratch = Scratch::new();
    fs::write(scratch.join("precious"), "data").unwrap();
    symlink(scratch.join("precious"), scratch.join("a.sock.lock")).unwrap();
    fs::hard_link(scratch.join("precious"), scratch.join("b.sock.lock")).unwrap();
    fifo(&scratch.join("c.sock.lock"));
    let before = scratch.names();
    for name in ["a.sock", "b.sock", "c.sock"] {
        assert!(refusal(&scratch.join(name)).contains(".lock"));
    }
    assert_eq!(scratch.names(), before);
    assert_eq!(fs::read_to_string(scratch.join("precious")).unwrap(), "data");
}

#[test]
fn another_programs_socket_survives_live_and_stale() {
    let scratch = Scratch::new();
    let path = scratch.join("signer.sock");
    let theirs = UnixListener::bind(&path).unwrap();
    assert!(refusal(&path).contains("another program"));
    let mut client = UnixStream::connect(&path).unwrap();
    let (mut served, _) = theirs.accept().unwrap();
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0]).unwrap();
    drop(theirs);
    assert!(refusal(&path).contains("another program"));
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    assert_eq!(scratch.names(), ["signer.sock"]);
}

#[test]
fn a_second_nsecd_is_refused_and_disturbs_nothing() {
    let scratch = Scratch::new();
    let path = scratch.join("signer.sock");
    let first = Listener::bind(&path, access(0o600)).unwrap();
    let before = (scratch.names(), fs::symlink_metadata(&path).unwrap().ino());
    assert!(refusal(&path).contains("another nsecd serves"));
    assert_eq!((scratch.names(), fs::symlink_metadata(&path).unwrap().ino()), before);
    UnixStream::connect(&path).unwrap();
    drop(first);
}

/// Leaves a socket and its lock file as a killed nsecd would.
fn killed(path: &Path) {
    let listener = Listener::bind(path, access(0o600)).unwrap();
    let lock = path.with_extension("sock.lock");
    let record = fs::read(&lock).unwrap();
    let hidden = path.with_extension("hidden");
    fs::rename(path, &hidden).unwrap();
    drop(listener);
    fs::rename(&hidden, path).unwrap();
    fs::write(&lock, record).unwrap();
    chmod(&lock, 0o600);
}

#[test]
fn the_socket_of_a_killed_nsecd_is_replaced() {
    let scratch = Scratch::new();
    let path = scratch.join("signer.sock");
    killed(&path);
    assert!(UnixStream::connect(&path).is_err());
    let again = Listener::bind(&path, access(0o600)).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(again);
    assert!(scratch.names().is_empty());
}

#[test]
fn a_socket_that_only_stands_where_ours_stood_survives() {
    let scratch = Scratch::new();
    let path = scratch.join("signer.sock");
    killed(&path);
    // Both exist at once, so that the second has another inode.
    let theirs = UnixListener::bind(scratch.join("theirs")).unwrap();
    fs::rename(scratch.join("theirs"), &path).unwrap();
    assert!(refusal(&path).contains("another program"));
    UnixStream::connect(&path).unwrap();
    drop(theirs);
}

#[test]
fn what_replaced_our_socket_meanwhile_survives_our_exit() {
    let scratch = Scratch::new();
    let path = scratch.join("signer.sock");
    let listener = Listener::bind(&path, access(0o600)).unwrap();
    let theirs = UnixListener::bind(scratch.join("theirs")).unwrap();
    fs::rename(scratch.join("theirs"), &path).unwrap();
    drop(listener);
    UnixStream::connect(&path).unwrap();
    drop(theirs);
}

#[test]
fn a_socket_is_given_to_its_owner_and_group() {
    if !root("a foreign owner") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.join("signer.sock");
    let access = Access::resolve(0o600, Some("1000"), Some("1001"), Names::Files).unwrap();
    let listener = Listener::bind(&path, access).unwrap();
    let meta = fs::symlink_metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid(), mode(&path)), (1000, 1001, 0o600));
    drop(listener);
    assert!(scratch.names().is_empty());
}

#[test]
fn unknown_owners_and_long_paths_are_errors() {
    assert!(Access::resolve(0, Some("no such user"), None, Names::System).is_err());
    assert!(Access::resolve(0, None, Some("no such group"), Names::Files).is_err());
    let scratch = Scratch::new();
    assert!(refusal(&scratch.join(&"x".repeat(108))).contains("107 bytes"));
    assert!(scratch.names().is_empty());
}
