//! `nsecctl key`: keys put into the kernel's keyring and into credentials that the real systemd-creds encrypts, moved between them,
//! and imported from where they should not lie.
//!
//! Checked, taken out together, each turned its own test red: the prctl of `memory::conceal` (`a_key_being_typed_…`), the refusal in
//! `Place::free` (`nothing_is_overwritten_…`), ECHO switched off (`what_is_typed_…`), the comparison of what is read back
//! (`a_move_that_fails_…`), and that `move` removes only when asked (`a_key_moves_…`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "keys_at_rest/handed.rs"]
mod handed;
#[path = "keys_at_rest/imported.rs"]
mod imported;
#[path = "keys_at_rest/process.rs"]
mod process;
#[path = "keys_at_rest/stored.rs"]
mod stored;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use support::Dir;

/// The key of NIP-19's example, and its public key.
const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
const HEX: &str = support::SCAN_KEY;
const NPUB: &str = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
const PUBLIC: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

/// A place for credentials with a host's key of its own, and a description in the user keyring that no other test has.
struct Store {
    dir: Dir,
    keyring: String,
}

impl Store {
    fn new() -> Store {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Store { dir: Dir::new(None), keyring: format!("nsecd-test-{}-{count}", std::process::id()) }
    }

    /// A credential's file.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join("credstore").join(name)
    }

    /// `nsecctl key …`, ready to be changed.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nsecctl"));
        command.arg("key").args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("SYSTEMD_CREDENTIAL_SECRET", self.dir.join("host-key"));
        command.args(["--with-key=host", "--credstore"]).arg(self.dir.join("credstore"));
        command.current_dir(self.dir.path());
        command
    }

    /// Runs it: its exit code, what it said, and what it complained.
    fn run(&self, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
        finish(self.command(arguments), input)
    }

    /// What systemd-creds itself makes of a credential.
    fn decrypted(&self, name: &str) -> String {
        let mut command = Command::new("systemd-creds");
        command.args(["decrypt", &format!("--name={name}")]).arg(self.file(name)).arg("-");
        let output = command.env("SYSTEMD_CREDENTIAL_SECRET", self.dir.join("host-key")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What keyctl itself finds in the user keyring; empty: nothing.
    fn in_keyring(&self) -> String {
        let script = format!("keyctl link @u @s && keyctl pipe %user:{}", self.keyring);
        let output = Command::new("keyctl").args(["session", "-", "sh", "-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// `keyring:…`.
    fn ring(&self) -> String {
        format!("keyring:{}", self.keyring)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let script = format!("keyctl link @u @s && keyctl unlink %user:{} @u", self.keyring);
        let _ = Command::new("keyctl").args(["session", "-", "sh", "-c", &script]).output();
    }
}

/// Runs a command with this standard input.
fn finish(mut command: Command, input: &[u8]) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may refuse before it reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    for text in [&out, &err] {
        assert!(!text.contains(&NSEC[5..40]) && !text.contains(&HEX[..20]), "a key is repeated: {text}");
    }
    (output.status.code().unwrap(), out, err)
}

/// Whether these tests can run here.
fn cannot() -> bool {
    support::not_root("a host's key for systemd-creds")
        || support::missing("systemd-creds", "--version")
        || support::missing("keyctl", "--version")
}
