use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::fcntl::OFlag;

use super::{Scratch, chmod, fifo, mode, root};
use crate::securefs::{Dir, Want, nobody_else, parent_mode, split};

fn append() -> Want {
    Want { flags: OFlag::O_WRONLY | OFlag::O_APPEND, mode: 0o640, owner: nobody_else }
}

/// Why the file `name` in `dir` is not opened.
fn refusal(dir: &Path, name: &str) -> String {
    match Dir::open(dir).and_then(|d| d.file(OsStr::new(name), &append())) {
        Ok(_) => String::new(),
        Err(why) => why.to_string(),
    }
}

#[test]
fn missing_directories_and_files_are_made_with_their_modes() {
    let scratch = Scratch::new();
    let path = scratch.join("a/b");
    let dir = Dir::open_or_create(&path, 0o700).unwrap();
    assert!(dir.is_new() && !Dir::open_or_create(&path, 0o700).unwrap().is_new());
    // Others need not pass where an ordinary user starts it.
    assert_eq!((mode(&scratch.join("a")), mode(&path)), (parent_mode(), 0o700));
    assert_eq!(parent_mode(), if nix::unistd::geteuid().is_root() { 0o755 } else { 0o700 });
    dir.file(OsStr::new("log"), &append()).unwrap();
    assert_eq!(mode(&path.join("log")), 0o640);
    assert!(dir.existing(OsStr::new("nothing"), &append()).unwrap().is_none());
}

#[test]
fn an_existing_file_is_appended_to() {
    let scratch = Scratch::new();
    fs::write(scratch.join("log"), "old ").unwrap();
    chmod(&scratch.join("log"), 0o644);
    let mut file = Dir::open(&scratch.0).unwrap().file(OsStr::new("log"), &append()).unwrap();
    std::io::Write::write_all(&mut file, b"new").unwrap();
    assert_eq!(fs::read_to_string(scratch.join("log")).unwrap(), "old new");
    assert_eq!(mode(&scratch.join("log")), 0o644);
}

#[test]
fn whatever_is_no_plain_file_of_ours_survives_and_is_refused() {
    let scratch = Scratch::new();
    fs::write(scratch.join("target"), "untouched").unwrap();
    chmod(&scratch.join("target"), 0o600);
    symlink(scratch.join("target"), scratch.join("link")).unwrap();
    symlink(scratch.join("nowhere"), scratch.join("dangling")).unwrap();
    fifo(&scratch.join("fifo"));
    fs::create_dir(scratch.join("dir")).unwrap();
    fs::write(scratch.join("hard"), "").unwrap();
    fs::hard_link(scratch.join("hard"), scratch.join("second name")).unwrap();
    fs::write(scratch.join("open"), "").unwrap();
    chmod(&scratch.join("open"), 0o666);
    let before = scratch.names();
    for (name, why) in [
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("fifo", "FIFO"),
        ("dir", "a directory"),
        ("hard", "hard links"),
        ("open", "chmod go-w"),
        ("../x", "plain file name"),
        ("..", "plain file name"),
    ] {
        assert!(refusal(&scratch.0, name).contains(why), "{name}: {}", refusal(&scratch.0, name));
    }
    assert_eq!(scratch.names(), before);
    assert_eq!(fs::read_to_string(scratch.join("target")).unwrap(), "untouched");
}

#[test]
fn a_path_through_a_symbolic_link_is_refused_with_the_real_one() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("real")).unwrap();
    symlink(scratch.join("real"), scratch.join("link")).unwrap();
    let why = Dir::open_or_create(&scratch.join("link/deeper"), 0o700).unwrap_err().to_string();
    assert!(why.contains("symbolic link") && why.contains(&scratch.join("real").display().to_string()), "{why}");
    assert!(!scratch.join("real/deeper").exists());
}

#[test]
fn a_parent_that_others_can_write_is_refused_unless_sticky_and_of_root() {
    let scratch = Scratch::new();
    let (parent, child) = (scratch.join("parent"), scratch.join("parent/child"));
    fs::create_dir_all(&child).unwrap();
    assert!(Dir::open(&child).is_ok());
    chmod(&parent, 0o777);
    assert!(Dir::open(&child).unwrap_err().to_string().contains("chmod go-w"));
    chmod(&parent, 0o1777);
    assert_eq!(Dir::open(&child).is_ok(), nix::unistd::geteuid().is_root());
    assert!(Dir::open(Path::new("/tmp")).is_ok());
}

#[test]
fn a_directory_or_file_of_another_user_is_refused() {
    if !root("a foreign owner") {
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("theirs")).unwrap();
    fs::write(scratch.join("file"), "").unwrap();
    chmod(&scratch.join("file"), 0o600);
    std::os::unix::fs::chown(scratch.join("theirs"), Some(1234), None).unwrap();
    std::os::unix::fs::chown(scratch.join("file"), Some(1234), None).unwrap();
    assert!(refusal(&scratch.join("theirs"), "log").contains("belongs to uid 1234"));
    assert!(refusal(&scratch.0, "file").contains("belongs to uid 1234"));
    let want = Want { owner: |uid| uid == 1234, ..append() };
    assert!(Dir::open(&scratch.0).unwrap().file(OsStr::new("file"), &want).is_ok());
}

#[test]
fn relative_paths_and_dots_are_refused() {
    for path in ["relative", "/tmp/../etc"] {
        assert!(Dir::open(Path::new(path)).is_err());
    }
    assert!(split(Path::new("name")).is_err() && split(Path::new("/")).is_err());
    assert_eq!(split(Path::new("/a/b")).unwrap(), (Path::new("/a"), OsStr::new("b")));
}
