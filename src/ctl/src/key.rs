//! `nsecctl key`: the one place beside the holders where a key is touched, while no nsecd has it: put into the kernel's keyring or
//! a systemd credential, moved between them, taken out of where it should not lie.
//!
//! A key comes in by a terminal without echo, standard input or a file, never by an argument; it lies in locked memory that is
//! wiped (`memory`), of a process that makes no core and that no other process of its user can look into; it goes out to the
//! kernel or into a pipe, and is read back before anything is said to be done. Nothing is overwritten or removed unless asked.

mod add;
pub(crate) mod adopted;
mod copies;
mod import;
mod memory;
mod moved;
mod ncryptsec;
mod place;
mod prompt;
mod secret;
mod sought;

use crate::{complain, show};
use clap::Subcommand;
use secret::{Public, Secret};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) use add::Add;
pub(crate) use import::Import;
pub(crate) use moved::Move;
pub(crate) use place::{Means, WithKey};

/// `key`.
#[derive(Debug, PartialEq, Subcommand)]
pub(crate) enum Key {
    /// Put a key, typed or piped, into the keyring or a credential
    ///
    /// The key is an nsec1…, 64 hex digits, 32 raw bytes, or an ncryptsec1… (NIP-49): typed at a prompt without echo, or piped
    /// into standard input. It is never an argument.
    Add(Add),
    /// Move a key from the keyring to a credential, or back
    ///
    /// The key is read back from its new place and its public key compared; only then, and only with --remove-source, is the old
    /// one removed.
    Move(Move),
    /// Take a key from a file, an .env file, JSON or a variable into the keyring or a credential
    ///
    /// Says how to destroy the original, and what else has a copy, as far as that can be seen. Deletes nothing.
    Import(Import),
}

/// Why it was not done.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// What was given cannot be used.
    Usage(String),
    /// The system refuses, or the result is not what it should be.
    Failed(String),
}

impl Fault {
    fn failed(what: impl Into<String>) -> Fault {
        Fault::Failed(what.into())
    }

    fn usage(what: impl Into<String>) -> Fault {
        Fault::Usage(what.into())
    }
}

/// What was done.
struct Done {
    public: Public,
    /// In words, after the public key.
    lines: Vec<String>,
    /// The same for programs.
    more: Value,
}

/// Runs `nsecctl key`.
pub(crate) fn run(key: Key, json: bool) -> ExitCode {
    if let Err(e) = memory::conceal() {
        return complain(&format!("key: this process cannot be kept from leaving a core: {e}"), 3);
    }
    let done = match key {
        Key::Add(add) => add.run(),
        Key::Move(moved) => moved.run(),
        Key::Import(import) => import.run(),
    };
    match done {
        Ok(Done { public, lines, more }) if json => {
            let mut all = json!({"public_key": public.hex(), "npub": public.npub(), "said": lines});
            if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
                all.extend(more);
            }
            show(&all.to_string(), ExitCode::SUCCESS)
        }
        Ok(Done { public, lines, .. }) => {
            let head = format!("public key {}\n           {}", public.hex(), public.npub());
            show(&[vec![head], lines].concat().join("\n"), ExitCode::SUCCESS)
        }
        Err(Fault::Usage(what)) => complain(&format!("key: {what}"), 2),
        Err(Fault::Failed(what)) => complain(&format!("key: {what}"), 1),
    }
}

/// Refuses arguments that are a private key; said before anything else reads them.
///
/// # Errors
/// What to say, without the key.
pub(crate) fn refuse_in_arguments(args: &[OsString]) -> Result<(), String> {
    use std::os::unix::ffi::OsStrExt;
    let of_key = args.iter().any(|arg| arg == "key");
    let is_key = |arg: &OsString| {
        use nsecd_supervisor::config::secrets;
        secrets::holds_nsec(arg.as_bytes()) || of_key && secrets::is_hex_key(arg.as_bytes())
    };
    match args.iter().position(is_key) {
        None => Ok(()),
        Some(at) => Err(format!(
            "argument {} is a private key; it is not used. Every process on this machine can read a command line, and shells keep it \
             in their history: treat it as known. `nsecctl key add` asks for a key, or takes it from standard input",
            at + 1
        )),
    }
}

/// Puts `secret` into `place` and reads it back.
fn store(secret: &Secret, place: &place::Place, with: &place::Means) -> Result<(), Fault> {
    place.write(secret, with)?;
    let back = place.read(with)?;
    if !back.proves(&secret.public()) {
        return Err(Fault::failed(format!(
            "{} was written, but what is read back is another key: do not use it",
            place.show()
        )));
    }
    Ok(())
}
