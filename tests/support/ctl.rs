//! Agents of other users, by nsecctl: a uid is told by the kernel, so it takes a process of that user.

use super::Nsecd;
use serde_json::Value;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Two users that exist nowhere else.
pub const ALICE: u32 = 23_431;
/// The other one.
pub const BOB: u32 = 23_432;

/// nsecctl run by another user; `input` is its standard input. Its exit code and reply.
pub fn ctl(nsecd: &Nsecd, uid: u32, arguments: &[&str], input: &str) -> (i32, Value) {
    let copy = nsecd.dir.join("nsecctl");
    let program = if copy.exists() { copy } else { nsecd.dir.program(env!("CARGO_BIN_EXE_nsecctl").as_ref()) };
    let mut command = Command::new(program);
    command.arg("--socket").arg(&nsecd.socket).args(arguments).env_clear().uid(uid).gid(uid);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may not read its input at all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

/// Asks for a signature of kind 1 under `token`.
pub fn sign(nsecd: &Nsecd, uid: u32, token: &str) -> (i32, Value) {
    ctl(nsecd, uid, &["sign", "--kind", "1", "--token-file", "-"], token)
}

/// Starts a session for kind 1; its token.
pub fn session(nsecd: &Nsecd, uid: u32) -> String {
    let (code, reply) = ctl(nsecd, uid, &["session", "start", "--scope", "1"], "");
    assert_eq!(code, 0, "{reply}");
    reply["session"]["token"].as_str().unwrap().into()
}
