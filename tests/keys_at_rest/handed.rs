//! A key that another user's nsecctl hands on, for `adopt`.

use crate::NSEC;
use crate::support::{Dir, not_root};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

/// Keyrings are the kernel's: a uid that no other test uses.
const UID: u32 = 23_444;

fn as_user(dir: &Dir, arguments: &[&str], input: &str, out: Stdio) -> Output {
    let mut command = Command::new(dir.join("nsecctl"));
    command.args(arguments).env_clear().uid(UID).gid(UID).current_dir("/");
    let mut child = command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_key_is_handed_on_through_a_pipe_only() {
    if not_root("a user of its own") {
        return;
    }
    let dir = Dir::new(Some(UID));
    dir.program(env!("CARGO_BIN_EXE_nsecctl").as_ref());
    let added = as_user(&dir, &["key", "add", "--to", "keyring:nsec"], NSEC, Stdio::null());
    assert!(added.status.success(), "{added:?}");
    let give = ["adopt", "--step=give:nsec"];
    let file = dir.join("out");
    let refused = as_user(&dir, &give, "", File::create(&file).unwrap().into());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("no pipe"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"", "a key in a file");
    // Control: it is there to be had.
    assert_eq!(as_user(&dir, &give, "", Stdio::piped()).stdout, NSEC.as_bytes());
    // Its public key is all that a list has.
    let listed = String::from_utf8(as_user(&dir, &["adopt", "--step=list"], "", Stdio::piped()).stdout).unwrap();
    assert_eq!(listed, "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e\tnsec\n");
    let removed = as_user(&dir, &["adopt", "--step=remove:nsec"], "", Stdio::piped());
    assert!(removed.status.success(), "{removed:?}");
    assert!(as_user(&dir, &["adopt", "--step=list"], "", Stdio::piped()).stdout.is_empty());
}
