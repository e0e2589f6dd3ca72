//! For `adopt`: a key that lies in another user's keyring, which only that user's processes reach.
//!
//! A second nsecctl, started as that user, looks there and hands the key on through a pipe ([`Step`]); this one, of root's,
//! seals it. Neither prints it.

use super::memory::{Locked, conceal};
use super::place::{Means, Place};
use super::secret::Secret;
use super::{Fault, store};
use crate::child::{Bounded, Keeps};
use linux_keyutils::{KeyRing, KeyRingIdentifier, KeyType};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The default account's key, in the order in which the reference daemon looks.
pub(crate) const DEFAULT: [&str; 3] = ["nsec", "wn_nsec", "nostr-nsec"];
/// How long nsecctl may take as another user, who can stop it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Before another account's name.
pub(crate) const ACCOUNT: &str = "nostr:";

/// What nsecctl does as the user whose keyring it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Print each key's description and public key.
    List,
    /// Write the key of that description into the pipe that is standard output.
    Give(String),
    /// Remove it.
    Remove(String),
}

impl Step {
    /// As an argument: `list`, `give:DESCRIPTION`, `remove:DESCRIPTION`.
    pub fn parse(text: &str) -> Result<Step, String> {
        match text.split_once(':') {
            None if text == "list" => Ok(Step::List),
            Some(("give", description)) => Ok(Step::Give(description.into())),
            Some(("remove", description)) => Ok(Step::Remove(description.into())),
            _ => Err("expected a step of adopt".into()),
        }
    }

    /// The same, to be parsed.
    pub fn show(&self) -> String {
        match self {
            Step::List => "list".into(),
            Step::Give(description) => format!("give:{description}"),
            Step::Remove(description) => format!("remove:{description}"),
        }
    }

    /// Takes the step.
    ///
    /// # Errors
    /// What to say, without a key.
    pub fn run(self, with: &Means) -> Result<(), String> {
        conceal().map_err(|e| format!("this process cannot be kept from leaving a core: {e}"))?;
        let done = match self {
            Step::List => list(with),
            Step::Give(description) => give(&description, with),
            Step::Remove(description) => Place::Keyring(description).remove(with),
        };
        done.map_err(said)
    }
}

/// A fault's words.
fn said(fault: Fault) -> String {
    match fault {
        Fault::Usage(what) | Fault::Failed(what) => what,
    }
}

fn list(with: &Means) -> Result<(), Fault> {
    let user = KeyRing::from_special_id(KeyRingIdentifier::User, true)
        .map_err(|e| Fault::Failed(format!("opening the user keyring: {e:?}")))?;
    let links = user.get_links(512).map_err(|e| Fault::Failed(format!("listing the user keyring: {e:?}")))?;
    let mut out = io::stdout();
    for key in links.iter().filter_map(|link| link.as_key()) {
        // What is no key of a user's, or has just gone, is not ours.
        let Ok(about) = key.metadata() else { continue };
        let name = about.get_description().to_owned();
        if about.get_type() != KeyType::User || !(DEFAULT.contains(&name.as_str()) || name.starts_with(ACCOUNT)) {
            continue;
        }
        let public = Place::Keyring(name.clone()).read(with).map(|secret| secret.public().hex());
        // A line each; what cannot be a key has no public one.
        let _ = writeln!(out, "{}\t{}", public.unwrap_or_default(), name.replace(['\n', '\t'], "?"));
    }
    Ok(())
}

fn give(description: &str, with: &Means) -> Result<(), Fault> {
    use nix::sys::stat::{SFlag, fstat};
    let out = io::stdout();
    let is_pipe = fstat(&out).is_ok_and(|s| SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO);
    if !is_pipe {
        return Err(Fault::usage("standard output is no pipe: a key is not printed"));
    }
    let key = Place::Keyring(description.into()).read(with)?.nsec();
    let mut rest = key.bytes();
    // Not through stdout's buffer, which would keep a copy.
    while !rest.is_empty() {
        let count = nix::unistd::write(out.as_fd(), rest).map_err(|e| Fault::failed(format!("handing it on: {e}")))?;
        rest = &rest[count..];
    }
    Ok(())
}

/// A key on its way.
pub(crate) struct Carried(Secret);

impl Carried {
    /// From nsecctl's own process that runs [`Step::Give`], by `command`.
    ///
    /// # Errors
    /// There is none, or it is no key.
    pub fn taken(command: &mut Command) -> Result<Carried, String> {
        conceal().map_err(|e| format!("this process cannot be kept from leaving a core: {e}"))?;
        let mut key = Locked::empty();
        ended(started(command.stdout(Stdio::piped()))?, &mut key)?;
        Secret::of_text(key.bytes()).map(Carried).map_err(said)
    }

    /// One that a test has made up.
    #[cfg(test)]
    pub fn of_text(text: &str) -> Carried {
        Carried(Secret::of_text(text.as_bytes()).unwrap_or_else(|_| panic!("no key")))
    }

    /// Of the encrypted credential of that name; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be decrypted.
    pub fn sealed(name: &str, with: &Means) -> Result<Option<Carried>, String> {
        conceal().map_err(|e| format!("this process cannot be kept from leaving a core: {e}"))?;
        if !there(&with.credstore.join(name)) {
            return Ok(None);
        }
        Place::Credential(name.into()).read(with).map(|secret| Some(Carried(secret))).map_err(said)
    }

    /// Its public key.
    pub fn public(&self) -> String {
        self.0.public().hex()
    }

    /// Encrypts it as that credential, and reads it back from there.
    ///
    /// # Errors
    /// It is not there afterwards.
    pub fn seal(&self, name: &str, with: &Means) -> Result<(), String> {
        let place = Place::Credential(name.into());
        store(&self.0, &place, with).map_err(|fault| {
            // Nobody else has written what could not be read back; what was there before is not touched.
            if matches!(fault, Fault::Failed(_)) && !with.replace {
                let _ = place.remove(with);
            }
            said(fault)
        })
    }

    /// Hands it to `command`'s standard input, which is `nsecctl key add` of the user's.
    ///
    /// # Errors
    /// It was not taken.
    pub fn given_to(&self, command: &mut Command) -> Result<(), String> {
        let mut child = started(command.stdin(Stdio::piped()).stdout(Stdio::null()))?;
        if let Some(mut pipe) = child.child.stdin.take() {
            // Where it fails the child says why.
            let _ = pipe.write_all(self.0.nsec().bytes());
        }
        ended(child, &mut Vec::new())
    }
}

fn there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn started(command: &mut Command) -> Result<Bounded, String> {
    Bounded::start(command, PATIENCE).map_err(|e| format!("starting nsecctl as that user: {e}"))
}

fn ended(child: Bounded, out: &mut dyn Keeps) -> Result<(), String> {
    let (status, err) = child.finish(out).map_err(|e| format!("nsecctl as that user: {e}"))?;
    let why = String::from_utf8_lossy(&err).trim().trim_start_matches("nsecctl: ").to_owned();
    if status.success() { Ok(()) } else { Err(why) }
}
